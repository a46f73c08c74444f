"""Tests of L{tristunnel.http.forwarded}."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from tristunnel.errors import TunnelError
from tristunnel.http.forwarded import Forwarded


def request(peer: Any, said: str = "", proto: str = "") -> Any:
    made: Any = DummyRequest([b""])
    made.isSecure = lambda: False
    made.client = UNIXAddress("") if peer is None else IPv4Address("TCP", peer, 4321)
    if said:
        made.requestHeaders.setRawHeaders(b"x-forwarded-for", said.split("|"))
    if proto:
        made.requestHeaders.setRawHeaders(b"x-forwarded-proto", [proto])
    return made


class ForwardedTests(SynchronousTestCase):
    """Whom to believe."""

    def test_nobody(self) -> None:
        """Nobody is believed unless named."""
        said = request("10.0.0.1", "1.2.3.4", "https")
        self.assertEqual("10.0.0.1", Forwarded().peer(said).host)
        self.assertFalse(Forwarded().isSecure(said))
        other = Forwarded(["10.0.0.2"])
        self.assertEqual("10.0.0.1", other.peer(said).host)
        self.assertFalse(other.isSecure(said))

    def test_named(self) -> None:
        """A proxy is believed, up to the first address that is no proxy's."""
        trusting = Forwarded(["10.0.0.0/8"])
        for said, host in (
            ("1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4, 10.9.9.9", "1.2.3.4"),
            ("6.6.6.6|1.2.3.4", "1.2.3.4"),
            ("1.2.3.4:5678", "1.2.3.4"),
            ("[2001:db8::1]:5678", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("10.1.1.1", "10.1.1.1"),
            ("", "10.0.0.1"),
            ("unknown", "10.0.0.1"),
            ("1.2.3.4, <script>", "10.0.0.1"),
        ):
            peer = trusting.peer(request("10.0.0.1", said))
            self.assertEqual(host, peer.host, said)

    def test_proto(self) -> None:
        """So is what it says of TLS."""
        trusting = Forwarded(["10.0.0.1", "::1"])
        self.assertTrue(trusting.isSecure(request("10.0.0.1", "", "https")))
        self.assertTrue(trusting.isSecure(request("10.0.0.1", "", "wss")))
        self.assertFalse(trusting.isSecure(request("10.0.0.1", "", "http")))
        self.assertFalse(trusting.isSecure(request("10.0.0.1")))

    def test_mapped(self) -> None:
        """An IPv4 proxy on a dual-stack socket is the same one."""
        trusting = Forwarded(["127.0.0.1"])
        peer = trusting.peer(request("::ffff:127.0.0.1", "1.2.3.4"))
        self.assertEqual("1.2.3.4", peer.host)

    def test_unix(self) -> None:
        """A proxy at a UNIX socket has a name of its own."""
        said = request(None, "1.2.3.4")
        self.assertEqual("1.2.3.4", Forwarded(["unix"]).peer(said).host)
        self.assertIsInstance(Forwarded(["127.0.0.1"]).peer(said), UNIXAddress)

    def test_wrong(self) -> None:
        """What is no address is refused with an example."""
        error = self.assertRaises(TunnelError, Forwarded, ["proxy.example"])
        self.assertIn("10.0.0.0/8", error.message)
