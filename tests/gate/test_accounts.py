"""
Signing in at an OpenID provider, L{tristunnel.gate.accounts} and
L{tristunnel.gate.provider}.
"""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.gate.provider import ISSUER, FakeProvider
from tests.gate.rig import HTML, GateTestCase, cookieOf
from tests.names.rig import request
from tristunnel.gate.provider import Provider

_ASKED = {"issuer": ISSUER, "clientID": "blog", "clientSecret": "s"}


class AccountTests(GateTestCase):
    """The whole way, with a provider in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.provider = FakeProvider()
        made = Provider(ISSUER, self.provider, self.clock.seconds)  # type: ignore[arg-type] # it fetches as well
        self.patch(self.providers, "find", lambda issuer: made)
        self.oidc()

    def oidc(self, **more: Any) -> None:
        self.asks(oidc={**_ASKED, **more})

    def begin(self, target: str = "/x?y=1") -> tuple[str, str]:
        """
        @return: The provider's URL, and the header with the cookie of the sign-in.
        """
        answer = self.get(target, HTML)
        self.assertIn("HTTP/1.1 303 ", answer)
        found = re.search(r"Location: (\S+)", answer)
        assert found
        return found[1], cookieOf(answer)

    def back(self, lines: str = "") -> str:
        url, cookie = self.begin()
        return self.get(self.provider.authorize(url)[0], lines or cookie + HTML)

    def refused(self, status: int, words: str) -> None:
        answer = self.back()
        self.assertTrue(answer.startswith(f"HTTP/1.1 {status} "), answer)
        self.assertIn(words, answer)
        self.assertNotIn("Set-Cookie", answer)
        self.clock.advance(100)

    def test_in(self) -> None:
        """Whom the provider vouches for comes in, and its service knows who it is."""
        self.provider.claims = {
            "email": "anna@example.org",
            "email_verified": True,
            "groups": ["staff", "a,b\r\n"],
        }
        url, _ = self.begin()
        asked = parse_qs(urlsplit(url).query)
        self.assertEqual(asked["redirect_uri"], ["http://a.example/.tristunnel/oidc"])
        self.assertEqual(asked["scope"], ["openid email profile"])
        answer = self.back()
        self.assertIn("\r\nLocation: /x?y=1\r\n", answer)
        self.assertIn("Max-Age=3600;", answer)
        self.get(lines=cookieOf(answer))
        told = self.told()
        self.assertIn("X-Forwarded-User: anna@example.org\r\n", told)
        self.assertIn("X-Forwarded-Email: anna@example.org\r\n", told)
        self.assertIn("X-Forwarded-Groups: staff,a%2Cb%0D%0A\r\n", told)

    def test_unverified(self) -> None:
        """An address that the provider has not verified says nothing."""
        self.provider.claims = {"email": "boss@example.org"}
        self.get(lines=cookieOf(self.back()))
        told = self.told()
        self.assertIn("X-Forwarded-User: u1\r\n", told)
        self.assertNotIn("boss", told)
        self.oidc(emails=["boss@example.org"])
        self.refused(403, "u1 may not visit a.example")

    def test_rules(self) -> None:
        """Addresses, domains and groups; who has lost a group is out."""
        self.provider.claims = {
            "email": "Anna@Example.org",
            "email_verified": True,
            "groups": ["staff"],
        }
        for rules, isIn in (
            ({"emails": ["anna@example.org"]}, True),
            ({"domains": ["example.org"]}, True),
            ({"domains": ["ample.org"]}, False),
            ({"emails": ["ben@example.org"], "domains": ["EXAMPLE.org"]}, True),
            ({"domains": ["example.org"], "groups": ["admins"]}, False),
            ({"groups": ["admins", "staff"]}, True),
            ({"groups": ["admins"], "groupsClaim": "roles"}, False),
        ):
            self.oidc(**rules)
            if isIn:
                cookie = cookieOf(self.back())
                self.get(lines=cookie)
                self.assertIn("X-Forwarded-Groups: staff", self.told())
            else:
                self.refused(403, "may not visit")
        # Once other groups are wanted, cookies are good no more.
        self.oidc(groups=["admins"])
        self.assertIn("HTTP/1.1 401 ", self.get(lines=cookie))
        # The provider has taken it away, which the next sign-in tells.
        self.oidc(groups=["staff"])
        cookie = cookieOf(self.back())
        self.provider.claims["groups"] = []
        self.clock.advance(3601)
        self.assertIn("HTTP/1.1 401 ", self.get(lines=cookie))
        self.refused(403, "may not visit")

    def test_forged(self) -> None:
        """What the provider has not signed for this sign-in and now is nothing."""
        words = "cannot sign you in now"
        for claims in (
            {"nonce": "another"},
            {"nonce": None},
            {"aud": "shop"},
            {"aud": ["blog", "shop"], "azp": "shop"},
            {"iss": "https://other.example"},
            {"exp": 1},
            {"sub": None},
            {"iat": 99_999_999_999},
        ):
            self.provider.claims = claims
            self.refused(502, words)
        self.provider.claims = {}
        for algorithm in ("none", "HS256"):
            self.provider.head["alg"] = algorithm
            self.refused(502, words)
        self.provider.head["alg"] = "ES256"
        deep = base64.urlsafe_b64encode(b"[" * 60_000).decode()
        for token in ("", "x", "a.b.c", "e30.e30.", "." * 100_000, f"{deep}.e30.x"):
            self.provider.token = token or None
            if token:
                self.refused(502, words)
        self.provider.token = None
        keys = self.provider.keys
        self.provider.rotate("one")
        self.provider.keys = keys
        self.refused(502, words)

    def test_rotation(self) -> None:
        """Another key of the provider's is looked for, but not all the time."""
        cookieOf(self.back())
        self.clock.advance(100)
        self.provider.rotate("two")
        cookieOf(self.back())
        looks = self.provider.asked.count(f"{ISSUER}/keys")
        self.assertEqual(looks, 2)
        self.provider.head["kid"] = "three"
        for _ in range(3):
            self.back()
        self.assertEqual(self.provider.asked.count(f"{ISSUER}/keys"), looks)

    def test_foreign(self) -> None:
        """Nobody is signed in by what was begun elsewhere."""
        url, cookie = self.begin()
        where, state = self.provider.authorize(url)
        for lines in ("", cookie.replace("=", "=x", 1), "Cookie: tristunnel-flow=\r\n"):
            answer = self.get(where, lines + HTML)
            self.assertIn("HTTP/1.1 400 ", answer)
        other = self.get(where.replace(state, "x" * 43), cookie + HTML)
        self.assertIn("HTTP/1.1 400 ", other)
        _, another = self.begin()
        self.assertIn("HTTP/1.1 400 ", self.get(where, another + HTML))
        self.clock.advance(601)
        self.assertIn("HTTP/1.1 400 ", self.get(where, cookie + HTML))

    def test_codes(self) -> None:
        """A code is good once, and whoever makes them up has to wait."""
        url, cookie = self.begin()
        where, state = self.provider.authorize(url)
        self.assertIn("Set-Cookie", self.get(where, cookie))
        statuses = set()
        for number in range(6):
            made = f"/.tristunnel/oidc?state={state}&code=x{number}"
            statuses.add(self.get(made, cookie)[9:12])
        self.assertEqual(statuses, {"502", "429"})
        self.assertIn(
            "did not sign you in: access_denied",
            self.get(f"/.tristunnel/oidc?state={state}&error=access_denied", cookie),
        )

    def test_down(self) -> None:
        """One page tells of a provider that does not answer; it is not asked often."""
        self.provider.trouble = "it did not answer"
        for _ in range(3):
            answer = self.get("/", HTML)
            self.assertIn("HTTP/1.1 502 ", answer)
            self.assertIn("accounts.example cannot sign you in now", answer)
        self.assertEqual(len(self.provider.asked), 1)
        self.provider.trouble = ""
        self.clock.advance(11)
        self.begin()

    def test_odd(self) -> None:
        """What a provider says of itself has to make sense."""
        about = self.provider.about
        for change in (
            {"issuer": "https://other.example"},
            {"token_endpoint": None},
            {"jwks_uri": "file:///etc/passwd"},
            {"authorization_endpoint": "https://["},
            {"authorization_endpoint": "https://a.example/\r\nSet-Cookie: a=b"},
        ):
            self.provider.about = {**about, **change}
            self.assertIn("HTTP/1.1 502 ", self.get("/", HTML))
            self.clock.advance(20)

    def test_left(self) -> None:
        """A visitor who leaves before the provider has answered does no harm."""
        self.provider.silent = True
        visitor = self.connect()
        visitor.dataReceived(request(lines=HTML))
        self.lose(visitor)
        self.provider.silent = False
        self.begin()

    def test_manyFields(self) -> None:
        """A query of too much says nothing."""
        query = "&".join(f"f{number}=x" for number in range(50))
        self.assertIn("HTTP/1.1 400 ", self.get(f"/.tristunnel/oidc?{query}", HTML))
        self.assertIn("HTTP/1.1 303 ", self.get(f"/.tristunnel/begin?{query}", HTML))

    def test_crowd(self) -> None:
        """While a provider is slow, so many wait and no more."""
        self.provider.silent = True
        statuses = [self.get("/", HTML)[9:12] for _ in range(60)]
        self.assertEqual(statuses.count(""), 51)
        self.assertEqual(statuses.count("502"), 9)
