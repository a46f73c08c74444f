"""Tests for L{tristunnel.gate.knocking}: what the page of a link does and says."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import succeed
from twisted.internet.testing import StringTransport

from tests.gate.rig import ANNA, PIN
from tests.jsonrpc.loopback import parsed
from tests.service.test_policies import HouseTestCase
from tristunnel.auth.realm import Authenticator
from tristunnel.gate.attempts import Attempts
from tristunnel.gate.knocking import KnockPage
from tristunnel.gate.pages import GatePages
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.forwarded import Forwarded
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import rootOf
from tristunnel.names.public import PublicNames
from tristunnel.service.knocks import KNOCK_PATH
from tristunnel.service.preauth import PreauthLimiter

HTML = "Accept: text/html\r\n"


class PageTests(HouseTestCase):
    """The page, with a proxy at 10.0.0.1 that is believed."""

    def setUp(self) -> None:
        super().setUp()
        self.service.clientPort = (9000, False)
        self.addresses: list[str] = []
        self.limiter = PreauthLimiter(self.clock.seconds)
        forwarded = Forwarded(["10.0.0.1"])
        callers = HTTPCallers(Authenticator(), forwarded, self.limiter)
        attempts = Attempts(
            self.clock, PreauthLimiter(self.clock.seconds), lambda call: succeed(call())
        )
        page = KnockPage(
            self.service.knocks,
            callers,
            forwarded,
            attempts,
            GatePages(PublicNames()),
            lambda host: succeed(self.addresses),
        )
        self.site = LimitedSite(
            rootOf({KNOCK_PATH: page}), reactor=self.clock, admit=callers.admit
        )
        self.tunnel = self.tunnelWith(knock=3600)

    def ask(
        self,
        method: str = "POST",
        link: str = "",
        host: str = "192.0.2.7",
        lines: str = "",
        ours: str = "203.0.113.9",
        **fields: str,
    ) -> tuple[int, str]:
        kind: Any = IPv6Address if ":" in host else IPv4Address
        channel: Any = self.site.buildProtocol(None)
        transport = StringTransport(
            hostAddress=kind("TCP", ours, 9000), peerAddress=kind("TCP", host, 1)
        )
        channel.makeConnection(transport)
        body = urlencode(fields)
        path = (link or self.tunnel.knockLink).partition(":9000")[2]
        channel.dataReceived(
            f"{method} {path} HTTP/1.1\r\nHost: server:9000\r\n{lines}"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode("utf-8", "replace")
        )
        status, _, answer = parsed(transport.value())
        channel.connectionLost()
        return status, str(answer)

    def isIn(self, host: str = "192.0.2.7") -> bool:
        visitor, _ = self.come(self.tunnel, f"[{host}]:5" if ":" in host else host)
        return not visitor.refused

    def test_preview(self) -> None:
        """Whatever looks at a link lets nobody in; the button does."""
        for method in ("GET", "HEAD", "PUT", "OPTIONS"):
            for lines in ("", HTML, "Purpose: prefetch\r\n" + HTML):
                self.ask(method, lines=lines)
                self.assertFalse(self.isIn())
        status, answer = self.ask("GET", lines=HTML)
        self.assertEqual(status, 200)
        self.assertIn('<form method="post">', answer)
        self.assertIn("192.0.2.7", answer)
        status, answer = self.ask(lines="Origin: http://server:9000\r\n")
        self.assertEqual(status, 200)
        self.assertIn("Connections from 192.0.2.7 are let in to", answer)
        self.assertTrue(self.isIn())
        self.assertFalse(self.isIn("192.0.2.8"))

    def test_elsewhere(self) -> None:
        """No page of another site presses the button."""
        for lines in (
            "Origin: http://evil.example\r\n",
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
        ):
            self.assertEqual(self.ask(lines=lines)[0], 403)
        self.assertFalse(self.isIn())

    def test_addresses(self) -> None:
        """The address is the one that a believed proxy names, and nobody else; the page
        says what to do about the other kind."""
        told = "X-Forwarded-For: 198.51.100.1\r\n"
        self.ask(lines=told)
        self.assertFalse(self.isIn("198.51.100.1"))
        self.ask(lines=told, host="10.0.0.1")
        self.assertTrue(self.isIn("198.51.100.1"))
        self.assertFalse(self.isIn("10.0.0.1"))
        _, answer = self.ask(lines=HTML, host="2001:db8::7", ours="2606:4700::1")
        self.assertTrue(self.isIn("2001:db8::8"))
        self.assertIn("2001:db8::/64", answer)
        self.assertIn("connects over IPv4", answer)
        self.assertIn(f"[2606:4700::1]:{self.tunnel.address[-4:]}", answer)
        self.assertNotIn("have it connect", self.ask(lines=HTML, ours="10.0.0.9")[1])

    def test_otherAddress(self) -> None:
        """A page that knows the server's other address leads there."""
        self.addresses = ["10.0.0.9", "8.8.8.8", "2606:4700::1"]
        _, path = self.tunnel.knockLink.split(":9000")
        port = self.tunnel.address[-4:]
        for host, ours, connect, link in (
            ("192.0.2.7", "10.0.0.9", f"8.8.8.8:{port}", "http://[2606:4700::1]:9000"),
            ("2001:db8::7", "fd00::1", f"[2606:4700::1]:{port}", "http://8.8.8.8:9000"),
        ):
            _, answer = self.ask(lines=HTML, host=host, ours=ours)
            self.assertIn(f"have it connect to {connect}.", answer)
            self.assertIn(f'<a href="{link}{path}">', answer)
        told = HTML + "X-Forwarded-For: 198.51.100.1\r\n"
        self.assertNotIn("<a ", self.ask(lines=told, host="10.0.0.1")[1])
        self.assertNotIn("<a ", self.ask()[1])

    def test_guesses(self) -> None:
        """Who guesses links has to wait, also with the right one then."""
        link = f"{self.tunnel.knockLink[:-1]}x"
        for _ in range(4):
            self.assertEqual(self.ask("GET", link)[0], 404)
        self.assertEqual(self.ask()[0], 429)
        self.assertEqual(self.ask(host="192.0.2.8")[0], 200)
        self.clock.advance(30)
        self.assertEqual(self.ask()[0], 200)

    def test_asked(self) -> None:
        """A PIN or a password is asked of who knocks; who guesses has to wait."""
        self.tunnel = self.tunnelWith(knock=3600, pin=PIN, login=[ANNA])
        page = self.ask("GET", lines=HTML)[1]
        self.assertIn('name="pin"', page)
        self.assertIn('name="password"', page)
        self.assertEqual(self.ask()[0], 401)
        self.assertEqual(self.ask(pin="1111")[0], 401)
        self.assertEqual(self.ask(user="ben", password="a secret")[0], 401)
        self.assertFalse(self.isIn())
        self.assertEqual(self.ask(pin="2580")[0], 200)
        self.assertTrue(self.isIn())
        other = "192.0.2.9"
        self.assertEqual(self.ask(host=other, user="anna", password="a secret")[0], 200)
        for _ in range(4):
            self.ask(host=other, pin="1111")
        self.assertEqual(self.ask(host=other, pin="2580")[0], 429)

    def test_changed(self) -> None:
        """When something else is asked, who is in is out."""
        self.ask()
        here, _ = self.come(self.tunnel)
        self.assertFalse(here.refused)
        for options in ({"knock": 3600, "pin": PIN}, {"knock": 3600}, {}):
            self.tunnel.gate = type(self.tunnel.gate)(**options)
            self.service.policies.refresh(self.tunnel)
            self.assertEqual(self.isIn(), not options)
        self.assertEqual(here.refused, "expired")
        self.assertEqual(self.ask()[0], 404)

    @given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40))
    @settings(max_examples=30)
    def test_anything(self, text: str) -> None:
        """No other link is good, whatever it is."""
        self.clock.advance(600)
        status, _ = self.ask(link=f"http://server:9000/knock/{text.replace('#', '')}")
        self.assertIn(status, (400, 404))
