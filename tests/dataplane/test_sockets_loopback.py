"""
Tests for L{tristunnel.dataplane.sockets} on real sockets of this machine: what no
transport in memory does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
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
        """Be ready."""
        self.ready.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Keep bytes."""
        self.taken += data

    def readConnectionLost(self) -> None:
        """Their end; after ours the connection is over."""
        self.eof = True
        if self.done:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Ours."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keep why."""
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
        """Bytes of L{offer} that were not sent yet."""
        return self._offer

    def pauseProducing(self) -> None:
        """Send no more for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Send more."""
        self._paused = False
        while self._offer and not self._paused:
            size = min(self._offer, 16 * 1024)
            self._offer -= size
            self.transport.write(bytes(size))
        if not self._offer:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._offer = 0


class Watching(ServerObserver):
    """Keeps the streams that are over."""

    def __init__(self) -> None:
        self.gone: list[Stream] = []

    def visitorGone(self, stream: Stream) -> None:
        """Keep a stream."""
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
        """Make both connections."""
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
        """
        Listen with ends of ours.

        @return: Where to connect.
        """
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
        """Let the reactor turn a few times."""
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
        """
        Wait until everything has ended.

        @return: The stream.
        """
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

    timeout = 30
    stock = False

    async def meet(self, visitor: str = "tcp", service: str = "tcp") -> Meeting:
        """Have a visitor and a service joined."""
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


class OrdersMixin:
    """Every order of closing, for one pair of transports."""

    visitorKind: ClassVar[str]
    serviceKind: ClassVar[str]

    async def _first(self, visitorFirst: bool, answer: bytes) -> None:
        """One side says all and ends; the other one then does the same."""
        case: Any = self
        meeting = await case.meet(self.visitorKind, self.serviceKind)
        first, second = meeting.visitor, meeting.service
        firstKind = self.visitorKind
        if not visitorFirst:
            first, second = second, first
            firstKind = self.serviceKind
        question = message(0)
        first.transport.write(question)
        meeting.end(first)
        await until(lambda: second.ended)
        case.assertEqual(bytes(second.taken), question)
        if firstKind != "tls" and second.lost is None:
            second.transport.write(answer)
        meeting.end(second)
        stream = await meeting.over()
        if firstKind != "tls" and (visitorFirst, self.serviceKind) != (False, "tls"):
            secondKind = self.serviceKind if visitorFirst else self.visitorKind
            if secondKind != "tls":
                case.assertEqual(bytes(first.taken), answer)
        case.assertIsNone(stream.reason)
        case.assertTrue(first.orderly)
        case.assertTrue(second.orderly)
        sizes = (stream.bytesIn, stream.bytesOut)
        if not visitorFirst:
            sizes = sizes[::-1]
        case.assertEqual(sizes, (len(question), len(first.taken)))

    async def test_visitorFirst(self) -> None:
        """The visitor ends first, and still gets a long answer."""
        await self._first(True, message(1 << 20))

    async def test_serviceFirst(self) -> None:
        """The service ends first, and still takes a long upload."""
        await self._first(False, message(1 << 20))

    async def test_noAnswer(self) -> None:
        """Neither has anything more to say."""
        await self._first(True, b"")

    async def test_together(self) -> None:
        """Both say all and end at once."""
        case: Any = self
        meeting = await case.meet(self.visitorKind, self.serviceKind)
        if "tls" in meeting.kinds:
            # A TLS program that has closed takes nothing any more, so that
            # only one that is told first can have everything.
            meeting.visitor.transport.write(b"question")
            await until(lambda: bool(meeting.service.taken))
            meeting.service.transport.write(message(0))
            meeting.end(meeting.service)
            await until(lambda: len(meeting.visitor.taken) == SIZE)
        else:
            for far in (meeting.visitor, meeting.service):
                far.transport.write(message(0))
                meeting.end(far)
            await meeting.over()
            case.assertEqual(bytes(meeting.service.taken), message(0))
        case.assertEqual(bytes(meeting.visitor.taken), message(0))
        meeting.end(meeting.visitor)
        stream = await meeting.over()
        case.assertIsNone(stream.reason)

    async def test_early(self) -> None:
        """What both said, and ended, before they were joined is not lost."""
        case: Any = self
        meeting = case.make(self.visitorKind, self.serviceKind)
        meeting.joining = False
        await meeting.connect()
        visitorSays = message(0)
        meeting.visitor.transport.write(visitorSays)
        meeting.end(meeting.visitor)
        await meeting.turns()
        end = meeting.visitorEnd
        assert end is not None
        case.assertGreater(end.received, 0)
        case.assertLessEqual(end.received, 4 * 64 * 1024)
        meeting.join()
        await until(lambda: meeting.service.ended)
        case.assertEqual(bytes(meeting.service.taken), visitorSays)
        meeting.end(meeting.service)
        stream = await meeting.over()
        case.assertIsNone(stream.reason)

    async def test_shortEarly(self) -> None:
        """
        The same with so little that the end itself comes before the join,
        from the service.
        """
        case: Any = self
        meeting = case.make(self.visitorKind, self.serviceKind)
        meeting.joining = False
        await meeting.connect()
        meeting.service.transport.write(b"220 hello\r\n")
        meeting.end(meeting.service)
        await meeting.turns()
        meeting.join()
        await until(lambda: meeting.visitor.ended)
        case.assertEqual(bytes(meeting.visitor.taken), b"220 hello\r\n")
        meeting.end(meeting.visitor)
        stream = await meeting.over()
        case.assertIsNone(stream.reason)

    async def test_backpressure(self) -> None:
        """
        A service that reads nothing holds the visitor: only so much is taken
        as the connections' buffers hold. Then it reads, and all of it comes.
        """
        case: Any = self
        meeting = await case.meet(self.visitorKind, self.serviceKind)
        service, visitor = meeting.service, meeting.visitor
        service.transport.pauseProducing()
        end = meeting.visitorEnd
        assert end is not None
        offered = 32 * 1024 * 1024
        visitor.offer(offered)
        before = -1
        while end.received != before:
            before = end.received
            await meeting.turns()
        case.assertGreater(visitor.offered, offered // 4)
        case.assertLess(before, offered // 2)
        service.transport.resumeProducing()
        await until(lambda: len(service.taken) == offered)
        meeting.end(visitor)
        await until(lambda: service.ended)
        meeting.end(service)
        stream = await meeting.over()
        case.assertEqual(len(service.taken), offered)
        case.assertEqual(stream.bytesIn, offered)


class TCPToTCPTests(OrdersMixin, LoopbackCase):
    """TCP on both sides."""

    visitorKind = "tcp"
    serviceKind = "tcp"


class TCPToUNIXTests(OrdersMixin, LoopbackCase):
    """A visitor over TCP and a service on a UNIX socket."""

    visitorKind = "tcp"
    serviceKind = "unix"


class UNIXToTCPTests(OrdersMixin, LoopbackCase):
    """The other way round."""

    visitorKind = "unix"
    serviceKind = "tcp"


class TLSToTCPTests(OrdersMixin, LoopbackCase):
    """A visitor over TLS and a service over TCP."""

    visitorKind = "tls"
    serviceKind = "tcp"


class TCPToTLSTests(OrdersMixin, LoopbackCase):
    """The other way round."""

    visitorKind = "tcp"
    serviceKind = "tls"


class TLSToTLSTests(OrdersMixin, LoopbackCase):
    """TLS on both sides."""

    visitorKind = "tls"
    serviceKind = "tls"


class StockTCPToTCPTests(TCPToTCPTests):
    """TCP over Twisted's transports."""

    stock = True


class StockTCPToUNIXTests(TCPToUNIXTests):
    """UNIX sockets, too."""

    stock = True


class StockTLSToTCPTests(TLSToTCPTests):
    """TLS in Twisted's memory."""

    stock = True


class StockTCPToTLSTests(TCPToTLSTests):
    """The other way round."""

    stock = True


class BreakTests(LoopbackCase):
    """Tests of connections that break."""

    async def test_resets(self) -> None:
        """
        A connection that is reset resets the one at the other end, both ways
        and over TLS as well.
        """
        for kinds in (("tcp", "tcp"), ("tls", "tcp"), ("tcp", "tls")):
            for visitorBreaks in (True, False):
                meeting = await self.meet(*kinds)
                breaking, other = meeting.visitor, meeting.service
                if not visitorBreaks:
                    breaking, other = other, breaking
                breaking.transport.write(b"x")
                await until(partial(bool, other.taken))
                breaking.transport.abortConnection()
                stream = await meeting.over()
                self.assertFalse(other.orderly)
                assert stream.reason is not None
                self.assertEqual(stream.reason.code.name, "reset")

    async def test_errno(self) -> None:
        """The other end's system reports ECONNRESET, as without a tunnel."""
        meeting = self.make()
        endpoint = await meeting.listen("tcp", meeting._visitorArrived)
        assert isinstance(endpoint, TCP4ClientEndpoint)
        raw = socket.create_connection(("127.0.0.1", endpoint._port))
        self.addCleanup(raw.close)
        raw.setblocking(False)
        endpoint = await meeting.listen("tcp", meeting._serviceArrived)
        await connectProtocol(endpoint, meeting.service)
        await until(lambda: bool(meeting.tunnel.served))
        meeting.service.transport.abortConnection()
        await until(lambda: bool(meeting.observer.gone))
        with self.assertRaises(ConnectionResetError):
            while True:
                try:
                    raw.recv(1)
                except BlockingIOError:
                    await meeting.turns(1)
                else:
                    self.fail("an orderly end came instead")

    async def test_resetAfterEnd(self) -> None:
        """A reset is passed on where one direction had ended before."""
        meeting = await self.meet()
        meeting.visitor.transport.write(b"question")
        meeting.end(meeting.visitor)
        await until(lambda: meeting.service.eof)
        meeting.service.transport.abortConnection()
        stream = await meeting.over()
        self.assertFalse(meeting.visitor.orderly)
        assert stream.reason is not None
        self.assertEqual(stream.reason.code.name, "reset")

    async def test_truncated(self) -> None:
        """
        A TLS connection that ends without saying so was cut, which is a
        reset at the other end and no orderly end.
        """
        meeting = await self.meet("tls", "tcp")
        meeting.visitor.transport.write(b"half of a messa")
        await until(lambda: bool(meeting.service.taken))
        # The TCP connection below the TLS.
        meeting.visitor.transport.transport.loseConnection()
        stream = await meeting.over()
        self.assertFalse(meeting.service.orderly)
        self.assertIsNotNone(stream.reason)

    async def test_lateBytes(self) -> None:
        """
        Bytes for a visitor that has gone altogether break the service's
        connection instead of being kept.
        """
        meeting = await self.meet("tls", "tcp")
        meeting.visitor.transport.loseConnection()
        await until(lambda: meeting.service.eof)
        if not self.stock:
            # On the socket, TLS's goodbye is the end of one direction only.
            self.assertIsNone(meeting.visitor.lost)
            meeting.visitor.transport.abortConnection()
        await until(lambda: meeting.visitor.lost is not None)
        meeting.service.transport.write(message(0))
        await meeting.over()
        self.assertFalse(meeting.service.orderly)

    async def test_goneBeforeJoin(self) -> None:
        """
        A visitor that breaks its connection before it was joined is noticed,
        and the service's connection broken.
        """
        meeting = self.make()
        meeting.joining = False
        await meeting.connect()
        meeting.visitor.transport.abortConnection()
        end = meeting.visitorEnd
        assert end is not None
        await until(lambda: end._over)
        meeting.join()
        stream = await meeting.over()
        self.assertFalse(meeting.service.orderly)
        assert stream.reason is not None
        self.assertEqual(stream.reason.code.name, "reset")


class StockBreakTests(BreakTests):
    """The same over Twisted's transports."""

    stock = True
