"""A visitor and a service whose sockets are joined, over the loopback interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.support.polling import until
from tests.support.short import shortDirectory
from tests.support.stock import StockReactor
from tests.tls.authority import Authority, makeAuthority
from tristunnel.dataplane.reactor import polledReactor
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.tls import tlsOverEndpoint
from tristunnel.dataplane.transport_end import EndFactory, TransportEnd
from tristunnel.errors import TunnelError
from tristunnel.model.observer import ServerObserver
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.tls.server_context import ReloadingCertificate

AnyEnd = SocketEnd | TransportEnd


reactor: Any = _reactor


SIZE = 700_000
"""Bytes of a long message: more than all buffers on the way hold at once."""


def message(first: int, size: int = SIZE) -> bytes:
    """A message of which no two parts are the same."""
    return b"".join(
        number.to_bytes(4, "big") for number in range(first, first + size // 4)
    )


@implementer(IHalfCloseableProtocol, IPushProducer)
class Far(Protocol):
    """
    The program at the far end of a connection.

    @ivar taken: Bytes that came.
    @ivar eof: Whether their end came.
    @ivar done: Whether it has said everything.
    @ivar lost: Why the connection was over, or C{None}.
    """

    transport: Any

    def __init__(self) -> None:
        self.taken = bytearray()
        self.eof = False
        self.done = False
        self.lost: Failure | None = None
        self.ready: Deferred[None] = Deferred()
        self._offer = 0

    def connectionMade(self) -> None:
        self.ready.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.taken += data

    def readConnectionLost(self) -> None:
        """Their end; after ours the connection is over."""
        self.eof = True
        if self.done:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Ours."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason

    @property
    def orderly(self) -> bool:
        """Whether the connection ended, and not by a break."""
        return self.lost is not None and bool(self.lost.check(ConnectionDone))

    @property
    def ended(self) -> bool:
        """Whether the other side's bytes have ended, in whatever way."""
        return self.eof or self.lost is not None

    def offer(self, size: int) -> None:
        """Send C{size} bytes, as fast as they are taken."""
        self._offer = size
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    @property
    def offered(self) -> int:
        return self._offer

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._offer and not self._paused:
            size = min(self._offer, 16 * 1024)
            self._offer -= size
            self.transport.write(bytes(size))
        if not self._offer:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        self._offer = 0


class Watching(ServerObserver):
    """Keeps the streams that are over."""

    def __init__(self) -> None:
        self.gone: list[Stream] = []

    def visitorGone(self, stream: Stream) -> None:
        self.gone.append(stream)


class Meeting:
    """
    Connections to our ends, one visitor's and one service's, that a
    tunnel joins.

    @ivar kinds: C{"tcp"}, C{"unix"} or C{"tls"} for the visitor and for the
        service.
    """

    authority: ClassVar[Authority | None] = None

    def __init__(
        self, case: TestCase, visitor: str, service: str, reactor: Any
    ) -> None:
        self._reactor = reactor
        self.kinds = (visitor, service)
        self.visitor, self.service = Far(), Far()
        self.visitorEnd: AnyEnd | None = None
        self.serviceEnd: AnyEnd | None = None
        self.observer = Watching()
        self.tunnel = Tunnel(
            "id", Identity("ann"), self, self.observer, reactor.seconds
        )
        self.stream: Stream | None = None
        self.joining = True
        self._case = case

    # IClientSide

    def serve(self, stream: Stream) -> None:
        """Keep the visitor's stream until the service is there."""
        self.stream = stream
        self._join()

    def tunnelClosed(self, tunnel: Tunnel, reason: Exception) -> None:
        """Not used here."""

    def _visitorArrived(self, end: AnyEnd) -> None:
        self.visitorEnd = end
        self.tunnel.visitorArrived(end, "visitor")

    def _serviceArrived(self, end: AnyEnd) -> None:
        self.serviceEnd = end
        self._join()

    def _join(self) -> None:
        if self.joining and self.stream is not None and self.serviceEnd is not None:
            self.stream.connect(self.serviceEnd)

    def join(self) -> None:
        """Join the two now, where L{joining} held that back."""
        self.joining = True
        self._join()

    async def connect(self) -> None:
        for kind, far, arrived in (
            (self.kinds[0], self.visitor, self._visitorArrived),
            (self.kinds[1], self.service, self._serviceArrived),
        ):
            endpoint = await self.listen(kind, arrived)
            await connectProtocol(endpoint, far)
        await until(lambda: self.stream is not None and self.serviceEnd is not None)

    async def listen(
        self, kind: str, arrived: Callable[[AnyEnd], None]
    ) -> IStreamClientEndpoint:
        """Listen with ends of ours; where to connect."""
        factory: Any = EndFactory(self._reactor, arrived)
        server: IStreamServerEndpoint = TCP4ServerEndpoint(
            self._reactor, 0, interface="127.0.0.1"
        )
        path = ""
        if kind == "unix":
            path = str(shortDirectory(self._case) / "s")
            server = UNIXServerEndpoint(self._reactor, path)
        elif kind == "tls":
            if Meeting.authority is None:
                Meeting.authority = makeAuthority()
            pem = shortDirectory(self._case) / "server.pem"
            pem.write_bytes(b"".join(Meeting.authority.issue(["localhost"])))
            server = tlsOverEndpoint(ReloadingCertificate(pem), server)
        port = await server.listen(factory)
        self._case.addCleanup(port.stopListening)
        if kind == "unix":
            return UNIXClientEndpoint(reactor, path)
        host: Any = port.getHost()
        client = TCP4ClientEndpoint(reactor, "127.0.0.1", host.port)
        if kind != "tls":
            return client
        assert Meeting.authority is not None
        trusted = Certificate.loadPEM(Meeting.authority.pem)
        return wrapClientTLS(
            optionsForClientTLS("localhost", trustRoot=trusted), client
        )

    async def turns(self, count: int = 100) -> None:
        for _ in range(count):
            await deferLater(reactor, 0)

    def end(self, far: Far) -> None:
        """Have a far program send no more: half-close, or what TLS has for it."""
        if far.lost is not None:
            return
        far.done = True
        if far.eof or self.kinds[far is self.service] == "tls":
            far.transport.loseConnection()
        else:
            far.transport.loseWriteConnection()

    async def over(self) -> Stream:
        """Wait until everything has ended; the stream."""
        await until(
            lambda: (
                self.visitor.lost is not None
                and self.service.lost is not None
                and bool(self.observer.gone)
            )
        )
        (stream,) = self.observer.gone
        return stream


class LoopbackCase(TestCase):
    """
    Common to tests with two connections.

    @cvar stock: Whether the ends are on transports of Twisted's.
    """

    timeout = 60
    stock = False

    async def meet(self, visitor: str = "tcp", service: str = "tcp") -> Meeting:
        meeting = self.make(visitor, service)
        await meeting.connect()
        return meeting

    def make(self, visitor: str = "tcp", service: str = "tcp") -> Meeting:
        """Make a meeting whose connections are closed at the end in any case."""
        below: Any = StockReactor(reactor) if self.stock else polledReactor(reactor)
        meeting = Meeting(self, visitor, service, below)
        self.addCleanup(self._clean, meeting)
        return meeting

    def _clean(self, meeting: Meeting) -> Deferred[None]:
        """Break what is still connected, and wait for it."""

        async def clean() -> None:
            for far in (meeting.visitor, meeting.service):
                if far.connected and far.lost is None:
                    far.transport.abortConnection()
            for end in (meeting.visitorEnd, meeting.serviceEnd):
                if end is not None:
                    end.reset(TunnelError("reset"))
            await meeting.turns(5)

        return Deferred.fromCoroutine(clean())
