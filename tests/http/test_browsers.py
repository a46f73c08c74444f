"""Tests for L{tristunnel.http.browsers}."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Request
from twisted.web.test.requesthelper import DummyChannel, DummyRequest

from tristunnel.http.browsers import Guard, OriginRule
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.service.caller import Caller


def objection(
    headers: dict[str, str],
    hostnames: Collection[str] | None = None,
    secure: bool = False,
) -> str | None:
    request: Any = DummyRequest([])
    request.isSecure = lambda: secure
    for name, value in headers.items():
        request.requestHeaders.setRawHeaders(name, [value])
    return OriginRule(hostnames).objection(request)


class OriginRuleTests(SynchronousTestCase):
    def test_programs(self) -> None:
        """A program, which sends no Origin, may use any name for the server."""
        for host in ("server:9000", "127.0.0.1", "[::1]:9000", "a_b.example."):
            self.assertIsNone(objection({"Host": host}))
        self.assertIsNone(objection({}))

    def test_ownPages(self) -> None:
        """A page of the server itself may call it, by address or localhost."""
        for origin, host in (
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://[::1]:9000", "[::1]:9000"),
            ("http://localhost", "localhost"),
            ("http://localhost:80", "localhost"),
            ("https://10.1.2.3", "10.1.2.3:443"),
            ("HTTPS://LOCALHOST", "localhost."),
        ):
            self.assertIsNone(objection({"Host": host, "Origin": origin}))

    def test_foreignPages(self) -> None:
        """A page from elsewhere may not, whether by name, port or scheme."""
        for origin in (
            "http://evil.example",
            "http://localhost:3000",
            "https://localhost:9001",
            "null",
            "",
            "file://",
            "ftp://localhost:9000",
            "http://localhost:9000.evil.example",
            "http://evil@localhost:9000",
            "http://localhost:99999999",
        ):
            self.assertIsNotNone(
                objection({"Host": "localhost:9000", "Origin": origin}), origin
            )

    def test_scheme(self) -> None:
        """
        A page in clear text may not call over TLS, even from the same host and port;
        one over TLS may where a proxy has taken that off.
        """
        for origin, secure, good in (
            ("https://localhost:9000", True, True),
            ("http://localhost:9000", True, False),
            ("https://localhost:9000", False, True),
        ):
            headers = {"Host": "localhost:9000", "Origin": origin}
            self.assertEqual(objection(headers, secure=secure) is None, good, origin)

    def test_rebinding(self) -> None:
        """A page whose name was made to lead here may not call."""
        headers = {"Host": "evil.example:9000", "Origin": "http://evil.example:9000"}
        self.assertIsNotNone(objection(headers))
        self.assertIsNotNone(objection(headers, ["tunnel.example"]))
        self.assertIsNone(objection(headers, ["Evil.Example."]))

    def test_hostnames(self) -> None:
        """With names configured, everybody has to use one of them, or an address."""
        names = ["tunnel.example"]
        self.assertIsNone(objection({"Host": "tunnel.example:9000"}, names))
        self.assertIsNone(objection({"Host": "192.0.2.1"}, names))
        self.assertIsNone(objection({"Host": "localhost"}, names))
        self.assertIsNone(objection({}, names))
        self.assertIsNotNone(objection({"Host": "other.example"}, names))
        self.assertIsNotNone(objection({"Host": "localhost"} | {"Origin": "x"}, names))

    def test_oneForm(self) -> None:
        """A name is the same in whatever form it is written."""
        names = ["BÜCHER.test", "my_host", "[::1]"]
        for host in ("xn--bcher-kva.test", "My_Host.:9000", "[0:0::1]:9000"):
            self.assertIsNone(objection({"Host": host}, names), host)
        self.assertIsNotNone(objection({"Host": "xn--bcher.test"}, names))

    def test_fetchMetadata(self) -> None:
        """What the browser says of the page is believed."""
        for site in ("same-origin", "none"):
            self.assertIsNone(objection({"Host": "localhost", "Sec-Fetch-Site": site}))
        for site in ("cross-site", "same-site", "what"):
            self.assertIsNotNone(
                objection({"Host": "localhost", "Sec-Fetch-Site": site})
            )

    def test_referer(self) -> None:
        """Without Origin, Referer counts."""
        self.assertIsNone(
            objection({"Host": "localhost", "Referer": "http://localhost/a?b#c"})
        )
        self.assertIsNotNone(
            objection({"Host": "localhost", "Referer": "http://evil.example/localhost"})
        )

    def test_badHost(self) -> None:
        """A Host header that is no host is refused, and so are two."""
        for host in ("a b", "http://x", "localhost:port", "::1", "[::1"):
            self.assertIsNotNone(objection({"Host": host}), host)
        request: Any = DummyRequest([])
        request.requestHeaders.setRawHeaders("Host", ["localhost", "evil.example"])
        self.assertIsNotNone(OriginRule().objection(request))

    def test_originWithoutHost(self) -> None:
        """A browser always sends Host."""
        self.assertIsNotNone(objection({"Origin": "http://localhost"}))

    @given(st.text(), st.text())
    def test_garbage(self, host: str, origin: str) -> None:
        """Garbage gets an opinion, not an exception."""
        text = {"Host": host, "Origin": origin}
        objection({k: v.encode("utf-8", "replace").decode() for k, v in text.items()})


class GuardTests(SynchronousTestCase):
    """The cookie that belongs to a form."""

    def test_tunnelsOfTheSameSite(self) -> None:
        """
        Over TLS, the cookie is one that the page of a tunnel below our own name cannot
        set, and one that such a page could have set counts for nothing.
        """
        guard = Guard(True)
        for secure, name in (
            (True, "__Host-tristunnel_form"),
            (False, "tristunnel_form"),
        ):
            caller = Caller(ANONYMOUS_IDENTITY, "t.example", secure=secure)
            asked = Request(DummyChannel(), False)
            token = guard.formToken(asked, caller)
            (cookie,) = asked.cookies
            said, *attributes = cookie.decode("ascii").split("; ")
            self.assertEqual(said.partition("=")[0], name)
            self.assertIn("Path=/", attributes)
            self.assertEqual("Secure" in attributes, secure)
            self.assertNotIn("Domain", cookie.decode("ascii"))
            value = said.partition("=")[2].encode("ascii")
            for sent in ("__Host-tristunnel_form", "tristunnel_form"):
                posted = Request(DummyChannel(), False)
                posted.received_cookies[sent.encode("ascii")] = value
                self.assertEqual(
                    guard.isGoodToken(posted, caller, token), sent == name, sent
                )
