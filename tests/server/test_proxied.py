"""
Ports behind a balancer, L{tristunnel.server.proxied}.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock, StringTransport

from tests.support.protocols import Hearing
from tests.tls.files import FileTestCase
from tristunnel.server.proxied import behindProxy

_V1 = b"PROXY TCP4 192.0.2.9 198.51.100.1 777 9000\r\n"
_V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
    + socket.inet_aton("192.0.2.9")
    + socket.inet_aton("198.51.100.1")
    + (777).to_bytes(2, "big")
    + (9000).to_bytes(2, "big")
)
_V2_LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
_V1_UNKNOWN = b"PROXY UNKNOWN\r\n"


class _Listening(Hearing):
    """Keeps from whom it hears, too."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: set[str] = set()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.peers.add(self.transport.getPeer().host)


class ProxiedTests(FileTestCase):
    """Headers, and what is none."""

    def setUp(self) -> None:
        super().setUp()
        reactor = MemoryReactorClock()
        self.made: list[_Listening] = []

        def make() -> _Listening:
            self.made.append(_Listening())
            return self.made[-1]

        self.trusted = {"192.168.1.1"}
        endpoint = behindProxy(
            TCP4ServerEndpoint(reactor, 9000), lambda host: host in self.trusted
        )
        self.successResultOf(endpoint.listen(Factory.forProtocol(make)))
        self._factory = reactor.tcpServers[0][1]

    def connect(self, *pieces: bytes) -> tuple[StringTransport, _Listening]:
        transport = StringTransport()
        protocol: Any = self._factory.buildProtocol(transport.getPeer())
        protocol.makeConnection(transport)
        for piece in pieces:
            if not transport.disconnected:
                protocol.dataReceived(piece)
        return transport, self.made[-1]

    def test_peer(self) -> None:
        """The peer is who the header says, in both versions."""
        for header in (_V1, _V2):
            _, inner = self.connect(header + b"hello")
            self.assertEqual((inner.data, inner.peers), (b"hello", {"192.0.2.9"}))

    def test_believed(self) -> None:
        """Who could be anybody is turned away before it has said a byte; this machine's
        own are believed, and whoever is trusted now."""
        for peer, believed in (
            (IPv4Address("TCP", "127.0.0.1", 1), True),
            (IPv4Address("TCP", "127.9.9.9", 1), True),
            (IPv6Address("TCP", "::1", 1), True),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 1), True),
            (UNIXAddress(b"/run/x"), True),
            (UNIXAddress(None), True),
            (IPv4Address("TCP", "192.168.1.1", 1), True),
            (IPv4Address("TCP", "192.168.1.2", 1), False),
            (IPv6Address("TCP", "::ffff:192.168.1.2", 1), False),
            (IPv6Address("TCP", "fe80::1%eth0", 1), False),
        ):
            with self.problems() as lines:
                made = self._factory.buildProtocol(peer)
            self.assertEqual((made is not None, len(lines)), (believed, not believed))
        self.assertIn("--trusted-proxy", lines[0])
        self.trusted.clear()
        self.assertIsNone(
            self._factory.buildProtocol(IPv4Address("TCP", "192.168.1.1", 1))
        )

    def test_log(self) -> None:
        """A thousand that are turned away write no thousand lines."""
        with self.problems() as lines:
            for number in range(1000):
                address = IPv4Address("TCP", f"10.0.{number % 9}.1", number)
                self._factory.buildProtocol(address)
                self.connect(b"GET / HTTP/1.1\r\n")
        self.assertEqual(len(lines), 40)

    def test_pieces(self) -> None:
        """The header may come in pieces of any size."""
        for header in (_V1, _V2):
            for size in (1, 2, 7, 11, 15):
                whole = header + b"hello"
                pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
                transport, inner = self.connect(*pieces)
                self.assertFalse(transport.disconnecting)
                self.assertEqual((inner.data, inner.peers), (b"hello", {"192.0.2.9"}))

    def test_nobody(self) -> None:
        """The balancer speaks for itself: the peer is the balancer."""
        for header in (_V2_LOCAL, _V1_UNKNOWN):
            transport, inner = self.connect(header + b"hello")
            self.assertEqual(inner.data, b"hello")
            self.assertEqual(inner.peers, {transport.getPeer().host})

    def test_wrong(self) -> None:
        """Anything else closes the connection with one line."""
        for wrong in (
            b"W3PTUNL\0\0\0\x02{}",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x00\xc8",
            b"PROXY TCP4 192.0.2.9 198.51.100.1 seven 9000\r\nhello",
            b"PROXY TCP4 192.0.2.9\r\nhello",
            b"PROXY TCP9 a b c d\r\nhello",
            b"PROXY TCP4 " + b"1" * 200,
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + b"x" * 100,
            b"\r\n\r\n\x00\r\nQUIT\n\x91\x11\x00\x0c" + b"x" * 12,
        ):
            with self.problems() as lines:
                transport, inner = self.connect(wrong)
            self.assertTrue(transport.disconnecting, wrong)
            self.assertEqual(inner.data, b"", wrong)
            (line,) = lines
            self.assertIn("PROXY header", line)
