"""
Visitors who come in by a link, L{tristunnel.gate.links}.
"""

from __future__ import annotations

from tests.gate.rig import HTML, PIN, GateTestCase, cookieOf
from tristunnel.model.permissions import Identity
from tristunnel.service.access import Access


class LinkTests(GateTestCase):
    """A link of C{grantAccess} to C{a.example}."""

    def setUp(self) -> None:
        super().setUp()
        self.asks(link=True)
        self.asks("b.example", link=True)

    def link(
        self, service: str = "http:a.example", ttl: float = 600.0, uses: int = 0
    ) -> tuple[Access, dict[str, str]]:
        issuing = self.access.issue(Identity("anna"), service, ttl, uses=uses)
        access, secret = self.successResultOf(issuing)
        return access, {"id": access.id, "secret": secret}

    def enter(self, fields: dict[str, str], host: str = "a.example") -> str:
        return self.post("/.tristunnel/link", HTML, host=host, **fields)

    def test_in(self) -> None:
        """A button lets in; opening the link alone does not, and logs no secret."""
        _, fields = self.link(uses=1)
        query = "&".join(f"{name}={value}" for name, value in fields.items())
        page = self.get(f"/.tristunnel/link?{query}", HTML)
        self.assertIn("HTTP/1.1 200 ", page)
        self.assertIn("<title>Visit a.example</title>", page)
        self.assertNotIn("Set-Cookie", page)
        self.assertIn(f'name="secret" value="{fields["secret"]}"', page)
        answer = self.enter(fields)
        self.assertIn("HTTP/1.1 303 ", answer)
        self.assertIn("Max-Age=600;", answer)
        self.get(lines=cookieOf(answer))
        self.assertNotIn("X-Forwarded-User", self.told())
        # It was good once.
        self.assertIn("HTTP/1.1 403 ", self.enter(fields))

    def test_over(self) -> None:
        """When it is revoked, or its time is over, who came in by it is out."""
        for end in (
            lambda access: self.access.revoke(access),
            lambda access: self.clock.advance(601),
        ):
            access, fields = self.link()
            cookie = cookieOf(self.enter(fields))
            self.get(lines=cookie)
            self.assertIn("GET / ", self.told())
            end(access)
            self.assertIn("HTTP/1.1 401 ", self.get(lines=cookie))
            self.assertIn("HTTP/1.1 403 ", self.enter(fields))
            self.clock.advance(100)

    def test_wrong(self) -> None:
        """Links for something else, and made up ones, let nobody in."""
        _, other = self.link("http:b.example")
        _, private = self.link("a.example")
        _, fields = self.link()
        for wrong in (
            other,
            private,
            {**fields, "secret": "x"},
            {"id": fields["id"]},
            {},
        ):
            self.assertIn("HTTP/1.1 403 ", self.enter(wrong))
            self.clock.advance(100)
        self.asks(pin=PIN)
        self.assertIn("HTTP/1.1 401 ", self.enter(fields))

    def test_foreignForm(self) -> None:
        """No other page has somebody come in by its own link."""
        _, fields = self.link()
        origin = "Origin: http://b.example\r\n"
        answer = self.post("/.tristunnel/link", origin, **fields)
        self.assertIn("HTTP/1.1 403 ", answer)

    def test_asked(self) -> None:
        """Who has none is told that a link is needed."""
        self.assertIn("asks visitors for a link", self.get())
        self.assertIn("Open the link that you were given", self.get(lines=HTML))
        for _ in range(5):
            self.enter({"id": "x", "secret": "y"})
        self.assertIn("HTTP/1.1 429 ", self.enter(self.link()[1]))
