"""
A server and a client in the test's own process, over the loopback interface.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.support.listening import listenHere
from tests.support.notes import ClientNotes, ServerNotes
from tests.support.polling import untilClosed
from tests.support.protocols import Hearing
from tests.support.short import shortDirectory
from tests.support.stock import StockReactor
from tests.tls.authority import makeAuthority
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.connect.route import ConnectOptions
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.dialect import FramedPortProtocol
from tristunnel.dialects.framed.moves import Carrier
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.forwards.forward import Forward, parseForward
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.observer import ClientObserver
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.ports import ServerPort, TLSFiles, parsePort
from tristunnel.server.service import TunnelServerService
from tristunnel.service.tunnel_service import TunnelService

__all__ = [
    "LoopbackTestCase",
    "Service",
    "Talk",
    "comeTo",
    "comeWhenOpen",
    "untilOpen",
]


@implementer(IHalfCloseableProtocol)
class Talk(Hearing):
    """
    One end of a conversation whose directions end apart.

    @ivar eof: Whether the other side has said its last.
    """

    def __init__(self, greeting: bytes = b"") -> None:
        super().__init__(greeting)
        self.eof = False
        self._finished = False

    def ended(self) -> Deferred[Talk]:
        """Wait for the other side's last word."""
        return self.until(lambda talk: talk.eof or talk.lost)

    def readConnectionLost(self) -> None:
        self.eof = True
        self._look()
        if self._finished:
            # Twisted does not do so by itself.
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our last word is said."""

    def finish(self) -> None:
        self._finished = True
        if self.eof:
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()


async def comeTo(reactor: Any, port: int, host: str = "127.0.0.1") -> Talk:
    """
    Connect to a port of this machine.

    @return: The conversation; its connection is lost already if it was accepted and
        reset before anybody has looked.
    """
    talk = Talk()
    try:
        await connectProtocol(TCP4ClientEndpoint(reactor, host, port), talk)
    except ConnectError as error:
        if error.osError != errno.ECONNRESET:
            raise
        talk.connectionLost(Failure(error))
    return talk


async def comeWhenOpen(reactor: Any, port: int, host: str = "127.0.0.1") -> Talk:
    """Connect, as L{comeTo} does, to a port that somebody is about to open."""
    while True:
        try:
            return await comeTo(reactor, port, host)
        except ConnectionRefusedError:
            await deferLater(reactor, 0.01)


async def untilOpen(reactor: Any, port: int) -> None:
    """Wait until somebody listens at a port of this machine, without saying so."""
    talk = await comeWhenOpen(reactor, port)
    talk.abort()
    await talk.gone()


class Service(Factory):
    """
    A service that shows each of its conversations to the test.

    @ivar arrivals: The conversations, in the order they came.
    @ivar talks: All of them.
    """

    noisy = False

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.arrivals: DeferredQueue[Talk] = DeferredQueue()
        self.talks: list[Talk] = []

    def buildProtocol(self, addr: object) -> Talk:
        service = self

        class Arrival(Talk):
            """Shows itself when it is connected."""

            def connectionMade(self) -> None:
                super().connectionMade()
                service.talks.append(self)
                service.arrivals.put(self)

        return Arrival(self.greeting)


class LoopbackTestCase(TestCase):
    """
    A test with a server, and clients as it likes.

    @cvar tls: Whether clients reach the server over TLS.
    @cvar carrier: How streams travel.
    @cvar route: How clients get through to the server.
    @cvar stock: Whether server and client run over Twisted's own transports, as
        where there is no epoll.
    @ivar outside: The reactor of visitors and services, whose sockets are
        Twisted's.
    @ivar notes: What the server tells.
    @ivar seen: What the clients tell.
    @ivar tunnels: The server's tunnel service.
    """

    tls = False
    carrier = Carrier()
    route: ConnectOptions | None = None
    stock = False
    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        # The last of all: what was told to close may take its time.
        self.addCleanup(untilClosed)
        self.outside: Any = reactor
        self.reactor: Any = StockReactor(reactor) if self.stock else ourReactor()
        self.directory = shortDirectory(self)
        self.notes = ServerNotes()
        self.seen = ClientNotes()
        self.files = TLSFiles()
        self.trust = Trust()
        self._talks: list[Talk] = []
        if self.tls:
            authority = makeAuthority()
            certificate, key = authority.issue(["localhost"])
            path = self.directory / "server.pem"
            path.write_bytes(certificate + key)
            ca = authority.write(self.directory / "ca.pem")
            self.files = TLSFiles(str(path))
            self.trust = Trust(ca=str(ca))
        self.addCleanup(self._leaveAll)

    async def _leaveAll(self) -> None:
        """End every conversation that a test has left."""
        for talk in self._talks:
            if talk.lost is None:
                talk.abort()
                await talk.gone()

    async def startServer(
        self,
        port: str = "tcp:0:interface=127.0.0.1",
        grace: float = 0.2,
        listeners: Any = None,
    ) -> TunnelServerService:
        """
        Start a server.

        @param port: Its port, as on the command line.
        @param listeners: What opens visitors' ports.
        @return: It, listening.
        """
        self.tunnels = TunnelService(
            self.reactor,
            MemoryBook(self.reactor),
            {"tcp": listeners or TCPListeners(self.reactor, "127.0.0.1")},
            self.notes,
            "127.0.0.1",
        )
        self.sessions = TunnelServerFactory(self.reactor, self.tunnels)
        detector = ProtocolDetectorFactory(
            self.reactor, [FramedPortProtocol(self.sessions)], self.notes
        )
        return self.startListening(detector, self.portAt(port), grace)

    def portAt(self, port: str = "tcp:0:interface=127.0.0.1") -> ServerPort:
        """What a server's port becomes, with this test's certificate."""
        return parsePort(self.reactor, port, self.files, self.directory, ["localhost"])

    def startListening(
        self, factory: Any, where: ServerPort | None = None, grace: float = 0.2
    ) -> TunnelServerService:
        """
        Start a server of C{self.sessions} and C{self.tunnels}.

        @param factory: What serves at its port.
        @param where: Its port; any, if none is given.
        @return: It, listening.
        """
        port = where or self.portAt()
        server = TunnelServerService(
            self.reactor, [(port, factory)], self.sessions, self.tunnels, grace
        )
        server.startService()
        at: Any = server.listening[0].getHost()
        self.serverPort: int = getattr(at, "port", 0)
        self.addCleanup(self._stop, server)
        return server

    def _stop(self, service: Any) -> object:
        """Stop a service that a test has not stopped."""
        return service.stopService() if service.running else None

    def arranged(self, forwards: Iterable[Forward]) -> list[Forward]:
        """What a client makes of its forwards."""
        return list(forwards)

    def observer(self) -> ClientObserver:
        """Who is told of a client."""
        return self.seen

    def beginClient(
        self,
        *forwards: str,
        lease: ClientLease | None = None,
        grace: float = 0.0,
        connect: str = "",
    ) -> None:
        """
        Start a client.

        @param forwards: As on the command line.
        @param connect: So, too.
        """
        if not connect:
            connect = f"{'tls' if self.tls else 'tcp'}:localhost:{self.serverPort}"
        self.client = TunnelClientService(
            self.reactor,
            parseConnect(self.reactor, connect, self.trust, self.route),
            self.arranged(
                each
                for spec in forwards
                for own in [parseForward(self.reactor, spec)]
                for each in (own, own.beside)
                if each is not None
            ),
            {"id": "test"},
            self.observer(),
            lease,
            grace,
            delay=lambda failures, hint: 0.05,
            carrier=self.carrier,
        )
        self.client.startService()
        self.addCleanup(self._stop, self.client)

    async def startClient(
        self,
        *forwards: str,
        lease: ClientLease | None = None,
        grace: float = 0.0,
        connect: str = "",
    ) -> list[int]:
        """
        Start a client and wait for its tunnels.

        @param forwards: As on the command line.
        @return: The visitors' ports; 0 for what has none.
        """
        ready: Deferred[None] = Deferred()
        seen = self.seen
        wanted = len(seen.named("tunnelReady")) + len(forwards)

        def told(event: tuple[Any, ...]) -> None:
            if len(seen.named("tunnelReady")) == wanted and not ready.called:
                ready.callback(None)

        seen.listeners.append(told)
        self.beginClient(*forwards, lease=lease, grace=grace, connect=connect)
        await ready
        ends = [
            address.rpartition(":")[2]
            for address, _ in seen.named("tunnelReady")[-len(forwards) :]
        ]
        return [int(end) if end.isdecimal() else 0 for end in ends]

    def offer(self, service: Factory) -> int:
        """
        Run a service.

        @return: Its port.
        """
        port = listenHere(self, self.outside, service)
        self.addCleanup(self._endAll, service)
        return port

    async def _endAll(self, service: Any) -> None:
        for talk in getattr(service, "talks", []):
            if talk.lost is None:
                talk.abort()
                await talk.gone()

    async def tunnel(self, service: Factory) -> int:
        """
        Start a server and a client for one service.

        @return: The visitors' port.
        """
        await self.startServer()
        (port,) = await self.startClient(f"0=127.0.0.1:{self.offer(service)}")
        return port

    async def visit(self, port: int) -> Talk:
        """Come as a visitor."""
        talk = await comeTo(self.outside, port)
        self._talks.append(talk)
        return talk

    async def pair(self, port: int, service: Service) -> tuple[Talk, Talk]:
        """Come as a visitor, and be seen by the service."""
        visitor = await self.visit(port)
        return visitor, await service.arrivals.get()
