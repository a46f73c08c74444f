"""
Visitors over TCP, L{tristunnel.listeners.tcp}.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from struct import pack
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.polling import until
from tests.support.stock import StockReactor
from tests.support.waiting import reserved
from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase
from tests.tls.handshake import Meeting
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import UNPRIVILEGED, PortRange
from tristunnel.service.preauth import PATIENCE, PreauthLimiter
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.server_context import ReloadingCertificate


class _Reactor(MemoryReactorClock):
    """
    Fails to listen where a test wants it.

    @ivar failing: The error by port, and by interface.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[object, int] = {}

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        number = self.failing.get(port, self.failing.get(interface))
        if number is not None:
            raise CannotListenError(interface, port, OSError(number, "no"))
        return super().listenTCP(port, factory, backlog, interface)


class TCPListenersTests(SynchronousTestCase):
    """Which port is given."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.arrived: list[tuple[End, str]] = []
        self.onV6: list[int] = []
        self.failingV6: dict[int, int] = {}

    def bind(self, interface: str, port: int) -> socket.socket:
        """Pretend to listen on IPv6, or fail."""
        self.assertEqual(interface, "::")
        number = self.failingV6.pop(port, None)
        if number is not None:
            raise OSError(number, "no")
        self.onV6.append(port)
        return socket.socket(socket.AF_INET6, socket.SOCK_STREAM)

    def open(
        self,
        port: int = 0,
        prefer: int = 0,
        interface: str = "",
        ports: PortRange = UNPRIVILEGED,
    ) -> Any:
        listeners = TCPListeners(self.reactor, interface, ports)
        self.patch(listeners, "bind", self.bind)
        opened = listeners.open(
            TunnelOptions(port=port, prefer=prefer),
            lambda end, address: self.arrived.append((end, address)),
            reserved,
        )
        if isinstance(opened.result, Failure):
            # One that the test expects.
            self.failureResultOf(opened).raiseException()
        return self.successResultOf(opened)

    def refused(self, code: str, *words: str, **options: Any) -> None:
        error = self.assertRaises(TunnelError, self.open, **options)
        self.assertEqual(error.code.name, code)
        self.assertNotIn("\n", error.message)
        for word in words:
            self.assertIn(word, error.message)

    def listened(self) -> list[tuple[int, str]]:
        return [(server[0], server[3]) for server in self.reactor.tcpServers]

    def test_asked(self) -> None:
        """A port that is asked for, on IPv6 and IPv4 at once."""
        self.open(8080)
        self.assertEqual(self.listened(), [(8080, "0.0.0.0")])
        self.assertEqual(self.onV6, [8080])

    def test_withoutIPv6(self) -> None:
        """A machine without IPv6 listens on IPv4."""
        self.failingV6[8080] = errno.EAFNOSUPPORT
        self.open(8080)
        self.assertEqual(self.listened(), [(8080, "0.0.0.0")])
        self.assertEqual(self.onV6, [])

    def test_takenOnIPv6(self) -> None:
        """
        A port that only IPv4 has free is refused if it was asked for, and not
        chosen if any will do.
        """
        self.failingV6[8080] = errno.EADDRINUSE
        self.refused("port-taken", "in use", port=8080)
        self.failingV6[0] = errno.EADDRINUSE
        self.open(0)
        self.assertEqual(self.listened()[-2:], [(0, "0.0.0.0"), (0, "0.0.0.0")])
        self.assertEqual(len(self.onV6), 1)

    def test_interface(self) -> None:
        """One interface only."""
        listener = self.open(8080, interface="127.0.0.1")
        self.assertEqual(self.listened(), [(8080, "127.0.0.1")])
        self.assertEqual(listener.address[:2], ("tcp", "127.0.0.1"))

    def test_taken(self) -> None:
        """Ports that cannot be had, and why."""
        for number, code, words in (
            (errno.EADDRINUSE, "port-taken", ("8080", "in use", "0 for any")),
            (errno.EACCES, "port-not-permitted", ("CAP_NET_BIND_SERVICE",)),
            (errno.EMFILE, "limit-reached", ("descriptor",)),
        ):
            self.reactor.failing[8080] = number
            self.refused(code, *words, port=8080, interface="127.0.0.1")

    def test_privileged(self) -> None:
        """Privileged ports are given out only if the operator says so."""
        self.refused("port-not-permitted", "--ports", port=80)
        self.open(80, ports=PortRange(((1, 1023),)))
        self.assertEqual(self.listened(), [(80, "0.0.0.0")])

    def test_outside(self) -> None:
        """
        Ports outside the range are not given out, whether asked for or
        preferred.
        """
        ports = PortRange(((4000, 4001),))
        self.refused("port-not-permitted", "4000-4001", port=8080, ports=ports)
        self.open(prefer=8080, ports=ports)
        self.assertIn(self.listened()[0][0], ports)

    def test_preferred(self) -> None:
        """What a client had before, if it is free."""
        self.open(prefer=4321)
        self.reactor.failing[4322] = errno.EADDRINUSE
        self.open(prefer=4322)
        self.assertEqual(self.listened(), [(4321, "0.0.0.0"), (0, "0.0.0.0")])

    def test_range(self) -> None:
        """Any free port of a range; when none is, that is said."""
        ports = PortRange(((4000, 4003),))
        for taken in (4000, 4001, 4003):
            self.reactor.failing[taken] = errno.EADDRINUSE
        self.open(ports=ports)
        self.assertEqual(self.listened(), [(4002, "0.0.0.0")])
        self.reactor.failing[4002] = errno.EADDRINUSE
        self.refused("ports-exhausted", "all 4 ports", ports=ports)

    def test_visitor(self) -> None:
        """A visitor is shown with its address."""
        self.open(8080)
        address = IPv6Address("TCP", "::ffff:192.0.2.1", 777)
        protocol: Any = self.reactor.tcpServers[0][1].buildProtocol(address)
        protocol.makeConnection(StringTransport())
        self.assertEqual([text for _, text in self.arrived], ["192.0.2.1:777"])


class VisitorsOverTLSTests(FileTestCase):
    """Visitors whose port has a certificate."""

    def test_scheme(self) -> None:
        """The address says so, and who does not begin with TLS is nobody."""
        authority = makeAuthority()
        creator = ReloadingCertificate(
            self.write("cert.pem", *authority.issue(["server.example"]))
        )
        reactor = MemoryReactorClock()
        arrived: list[object] = []
        listener = self.successResultOf(
            TCPListeners(reactor, creator=creator).open(
                TunnelOptions(port=8080),
                lambda end, address: arrived.append(end),
                reserved,
            )
        )
        self.assertEqual(listener.address[0], "tls")
        protocol: Any = reactor.tcpServers[0][1].buildProtocol(
            IPv4Address("TCP", "192.0.2.1", 777)
        )
        transport = FakeTransport(protocol, True)
        protocol.makeConnection(transport)
        self.assertEqual(arrived, [])
        reactor.advance(11)
        self.assertTrue(transport.disconnecting)
        # And the certificate is a good one.
        trust = authority.write(self.directory / "ca.pem")
        meeting = Meeting(
            creator, ServerVerification("server.example", trustRoots=trust)
        )
        self.assertTrue(meeting.client.agreed)


class HandshakeTests(FileTestCase):
    """Visitors whose TLS is not up yet are counted."""

    def setUp(self) -> None:
        """Have a port with a certificate, for two such visitors."""
        super().setUp()
        self.authority = makeAuthority()
        self.creator = ReloadingCertificate(
            self.write("cert.pem", *self.authority.issue(["server.example"]))
        )
        self.reactor = MemoryReactorClock()
        self.arrived: list[End] = []
        listeners = TCPListeners(self.reactor, creator=self.creator)
        listeners.handshakes = self.limiter = PreauthLimiter(self.reactor.seconds, 2, 3)
        opening = listeners.open(
            TunnelOptions(port=8080),
            lambda end, address: self.arrived.append(end),
            reserved,
        )
        self.successResultOf(opening)
        self.factory: Any = self.reactor.tcpServers[0][1]

    def come(self, host: str = "192.0.2.1") -> FakeTransport:
        protocol = self.factory.buildProtocol(IPv4Address("TCP", host, 777))
        transport = FakeTransport(protocol, True)
        protocol.makeConnection(transport)
        return transport

    def test_bounds(self) -> None:
        """
        There is room for so many of an address, and for so many in all; who
        leaves makes room.
        """
        first = self.come()
        self.come()
        self.assertTrue(self.come().disconnecting)
        self.come("192.0.2.2")
        self.assertTrue(self.come("192.0.2.3").disconnecting)
        self.assertEqual(self.limiter.unauthenticated, 3)
        first.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.limiter.unauthenticated, 2)
        self.assertFalse(self.come("192.0.2.3").disconnecting)

    def test_makesRoom(self) -> None:
        """Who has waited for long has to go when somebody new comes."""
        first = self.come()
        self.come("192.0.2.2")
        self.reactor.advance(PATIENCE)
        self.come("192.0.2.3")
        self.assertFalse(self.come("192.0.2.4").disconnecting)
        self.assertTrue(first.disconnecting)

    def test_known(self) -> None:
        """Whose TLS is up is a visitor, and not counted here."""
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 777))
        client = ServerVerification(
            "server.example", trustRoots=self.authority.write(self.directory / "ca.pem")
        )
        wrapped = TLSMemoryBIOFactory(client, True, Factory.forProtocol(Protocol))
        self.assertEqual(self.limiter.unauthenticated, 1)
        pump = connect(
            protocol,
            FakeTransport(protocol, True),
            peer := wrapped.buildProtocol(None),
            FakeTransport(peer, False),
        )
        pump.flush()
        self.assertEqual(len(self.arrived), 1)
        self.assertEqual(self.limiter.unauthenticated, 0)


class RealPortTests(TestCase):
    """A real port."""

    timeout = 60
    stock = False

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = StockReactor(reactor) if self.stock else reactor

    async def test_closed(self) -> None:
        """It is free again when it is closed."""
        listeners = TCPListeners(self.reactor, "127.0.0.1")
        first = await listeners.open(
            TunnelOptions(), lambda end, address: None, reserved
        )
        port = first.address[2]
        wanted = TunnelOptions(port=port)
        again = listeners.open(wanted, lambda end, address: None, reserved)
        error: Any = await self.assertFailure(again, TunnelError)
        self.assertEqual(error.code.name, "port-taken")
        await Deferred.fromCoroutine(self.close(first))
        second = await listeners.open(wanted, lambda end, address: None, reserved)
        await self.close(second)

    async def test_bothFamilies(self) -> None:
        """Visitors come over IPv4 and IPv6, and each by its own address."""
        came: list[str] = []

        def arrived(end: End, who: str) -> None:
            came.append(who)
            end.reset(TunnelError("reset"))

        listeners = TCPListeners(self.reactor)
        listener = await listeners.open(TunnelOptions(), arrived, reserved)
        port = listener.address[2]
        for host in ("127.0.0.1", "::1"):
            try:
                visitor = socket.create_connection((host, port))
            except OSError:
                if host != "::1":
                    raise
                continue
            mine = visitor.getsockname()[1]
            await until(lambda: came)
            text = f"[{host}]:{mine}" if ":" in host else f"{host}:{mine}"
            self.assertEqual(came.pop(), text)
            visitor.close()
        await self.close(listener)

    async def close(self, listener: Any) -> None:
        await listener.close()


class RealHandshakeTests(TestCase):
    """Visitors of a real port whose TLS is not up yet are counted."""

    timeout = 60

    async def test_counted(self) -> None:
        """Whoever says nothing, half a hello or nonsense is counted while it is there,
        and so is nobody whose TLS cannot be begun."""
        reactor = ourReactor()
        path = Path(self.mktemp())
        path.write_bytes(b"".join(makeAuthority().issue(["server.example"])))
        creator: Any = ReloadingCertificate(str(path))
        limiter = PreauthLimiter(reactor.seconds)
        listeners = TCPListeners(reactor, "127.0.0.1", creator=creator)
        listeners.handshakes = limiter
        listener = await listeners.open(
            TunnelOptions(), lambda end, address: None, reserved
        )
        self.addCleanup(listener.close)
        where = ("127.0.0.1", listener.address[2])
        for words in (b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"):
            for leave in (socket.socket.close, self.reset):
                visitor = socket.create_connection(where)
                await until(lambda: limiter.unauthenticated)
                visitor.sendall(words)
                leave(visitor)
                await until(lambda: not limiter.unauthenticated)

        def fail(protocol: object) -> None:
            raise RuntimeError("no TLS")

        self.patch(creator, "serverConnectionForTLS", fail)
        visitor = socket.create_connection(where)
        self.addCleanup(visitor.close)
        await until(lambda: self.flushLoggedErrors(RuntimeError))
        self.assertEqual(limiter.unauthenticated, 0)

    @staticmethod
    def reset(visitor: socket.socket) -> None:
        visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        visitor.close()


class RealStockPortTests(RealPortTests):
    """A real port of Twisted's."""

    stock = True
