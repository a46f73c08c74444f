"""
Servers and clients in memory: real protocols, no sockets, a clock for time.

A connection is the two transports of C{twisted.test.iosim}, with TLS between
them if a test asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from zope.interface import implementer

from tests.support.notes import ClientNotes, ServerNotes
from tests.support.protocols import Hearing
from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase
from tristunnel.auth.checkers import ConnectionFilter, checkingCallable
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import Reserve
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.server_context import ReloadingCertificate
from tristunnel.wire.framed import Frame, FrameDecoder, HandshakeDecoder, encodeFrame

__all__ = [
    "MemoryListener",
    "MemoryListeners",
    "MemoryServer",
    "MemoryService",
    "NetworkTestCase",
    "RawPeer",
    "ServiceNetworkTestCase",
    "Talker",
    "Wire",
]

SERVER = IPv4Address("TCP", "198.51.100.1", 9000)
CLIENT = IPv4Address("TCP", "203.0.113.5", 40000)


class Talker:
    """
    An L{End} whose remote is the test: a visitor.

    @ivar taken: Bytes that came.
    @ivar finished: Whether the end came.
    @ivar broken: Why it was reset, or C{None}.
    @ivar paused: Whether it may not send.
    """

    def __init__(self) -> None:
        self.received = 0
        self.taken = b""
        self.finished = False
        self.broken: TunnelError | None = None
        self.paused = False
        self._peer: End | None = None
        self._closed: Closed | None = None
        self._ended = False
        self._early: list[Callable[[], None]] = []

    # What the test does

    def say(self, data: bytes) -> None:
        self.received += len(data)
        self._toPeer(lambda peer: peer.write(data))

    def end(self) -> None:
        self._ended = True
        self._toPeer(lambda peer: peer.finish())
        self._checkOver()

    def crash(self) -> None:
        reason = TunnelError("reset")
        self._toPeer(lambda peer: peer.reset(reason))
        self._over(reason)

    def stall(self) -> None:
        self._toPeer(lambda peer: peer.pauseReading())

    def relent(self) -> None:
        self._toPeer(lambda peer: peer.resumeReading())

    def _toPeer(self, act: Callable[[End], None]) -> None:
        """Do something to the peer, once there is one."""
        if self._peer is None:
            self._early.append(lambda: act(self._peer))  # type: ignore[arg-type] # there is one by then
        else:
            act(self._peer)

    # End

    def join(self, peer: End, closed: Closed) -> None:
        self._peer, self._closed = peer, closed
        early, self._early = self._early, []
        for act in early:
            act()

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        before, self._peer = self._peer, peer
        return before, self.paused

    def whileWaiting(self, left: Closed) -> None:
        """Nobody leaves early here."""

    def write(self, data: bytes) -> None:
        assert not self.finished and self.broken is None
        self.taken += data

    def finish(self) -> None:
        self.finished = True
        self._checkOver()

    def reset(self, reason: TunnelError) -> None:
        self.broken = reason
        self._over(reason)

    def pauseReading(self) -> None:
        self.paused = True

    def resumeReading(self) -> None:
        self.paused = False

    def _checkOver(self) -> None:
        if self.finished and self._ended:
            self._over(None)

    def _over(self, reason: TunnelError | None) -> None:
        if self._closed is not None:
            closed, self._closed = self._closed, None
            closed(reason)


class MemoryListener:
    """
    A port for visitors, in memory.

    @ivar closed: Whether it was closed.
    """

    def __init__(
        self, listeners: MemoryListeners, port: int, arrived: Callable[[End, str], None]
    ) -> None:
        self.closed = False
        self._listeners = listeners
        self._port = port
        self._arrived = arrived

    @property
    def address(self) -> tuple[str, str, int]:
        return ("tcp", "", self._port)

    def visit(self, address: str = "192.0.2.7:50000") -> Talker:
        assert not self.closed
        visitor = Talker()
        self._arrived(visitor, address)
        return visitor

    def close(self) -> Deferred[None]:
        self.closed = True
        self._listeners.open_.pop(self._port, None)
        return succeed(None)


class MemoryListeners:
    """
    Opens ports in memory.

    @ivar open_: The listeners by port.
    @ivar taken: Ports that somebody else has.
    @ivar forbidden: Ports that are not given out.
    @ivar exhausted: Whether no port can be had.
    """

    def __init__(self, kind: str = "tcp") -> None:
        self.open_: dict[int, MemoryListener] = {}
        self._kind = kind
        self.taken: set[int] = set()
        self.forbidden: set[int] = set()
        self.exhausted = False
        self._next = 41000

    async def open(
        self,
        options: TunnelOptions,
        arrived: Callable[[End, str], None],
        reserve: Reserve,
    ) -> MemoryListener:
        port = options.port
        if self.exhausted:
            raise TunnelError("ports-exhausted")
        if port in self.forbidden:
            raise TunnelError("port-not-permitted")
        if port in self.taken or port in self.open_:
            raise TunnelError("port-taken")
        if not port:
            port = options.prefer
        if not port or port in self.taken or port in self.open_:
            self._next += 1
            port = self._next
        await reserve(self._kind, port)
        self.open_[port] = MemoryListener(self, port, arrived)
        return self.open_[port]

    def only(self) -> MemoryListener:
        (listener,) = self.open_.values()
        return listener


class _Only(Factory):
    """Has one protocol, which keeps the factory it was made by."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._protocol


class Wire:
    """
    A connection between two protocols.

    @param pump: What carries the bytes.
    """

    def __init__(self, pump: IOPump) -> None:
        self.pump = pump
        self._cut = False

    def settle(self) -> None:
        """Carry bytes until no more come. Time does not pass."""
        if not self._cut:
            self.pump.flush()

    def cut(self, failure: Failure | None = None) -> None:
        """Lose the connection, as seen by both sides."""
        self._cut = True
        failure = failure or Failure(ConnectionLost())
        for end in (self.pump.clientIO, self.pump.serverIO):
            if not end.disconnected:
                end.disconnected = True
                end.protocol.connectionLost(failure)


@implementer(IStreamClientEndpoint)
class MemoryService:
    """
    A service in memory, as a client endpoint.

    @ivar visits: The service's protocols, oldest first.
    @ivar refusing: Whether nothing listens.
    @ivar silent: Whether connections are never answered.
    """

    def __init__(self, greeting: bytes = b"") -> None:
        self.visits: list[Hearing] = []
        self.pumps: list[IOPump] = []
        self.refusing = False
        self.silent = False
        self.cancelled = 0
        self._greeting = greeting

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        if self.refusing:
            return fail(Failure(ConnectionRefusedError()))
        if self.silent:
            return Deferred(self._cancel)
        service = Hearing(self._greeting)
        self.visits.append(service)
        client = protocolFactory.buildProtocol(SERVER)
        assert client is not None
        pump = connect(
            service, FakeTransport(service, True), client, FakeTransport(client, False)
        )
        self.pumps.append(pump)
        return succeed(client)

    def _cancel(self, connecting: Deferred[Any]) -> None:
        self.cancelled += 1

    def settle(self) -> None:
        for pump in self.pumps:
            pump.flush()


class RawPeer(Hearing):
    """The far side of a connection, played by the test byte by byte."""

    def __init__(self, greeting: bytes = b"") -> None:
        super().__init__(greeting)
        self._handshake: dict[str, Any] | None = None
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    def say(self, *messages: Mapping[str, object] | Frame | bytes) -> None:
        """Send handshakes (mappings), frames and bytes."""
        for message in messages:
            if isinstance(message, bytes):
                self.transport.write(message)
            elif isinstance(message, tuple):
                self.transport.write(encodeFrame(*message))
            else:
                body = json.dumps(message).encode()
                self.transport.write(b"W3PTUNL" + len(body).to_bytes(4, "big") + body)

    @property
    def handshake(self) -> dict[str, Any]:
        self._decode()
        assert self._handshake is not None, "no handshake came"
        return self._handshake

    def frames(self) -> list[Frame]:
        """The frames that came since this was asked last."""
        self._decode()
        frames, self._frames = self._frames, []
        return frames

    def _decode(self) -> None:
        data, self.data = bytes(self.data), bytearray()
        if self._handshake is None and data:
            whole = HandshakeDecoder().feed(data)
            if whole is None:
                self.data += data
                return
            self._handshake, data = whole
        self._frames += self._decoder.feed(data)


@implementer(IStreamClientEndpoint)
class MemoryServer:
    """
    A server in memory, as a client endpoint.

    @param connect: Connects a client's factory.

    @ivar attempts: How often somebody wanted to connect.
    @ivar away: Whether nobody answers.
    @ivar refusal: What somebody on the way says instead.
    """

    def __init__(self, connect: Callable[[IProtocolFactory], Any]) -> None:
        self.attempts = 0
        self.away = False
        self.refusal: TunnelError | None = None
        self._connect = connect

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        self.attempts += 1
        if self.away:
            return fail(Failure(ConnectionRefusedError()))
        if self.refusal is not None:
            return fail(Failure(self.refusal))
        return succeed(self._connect(protocolFactory))


class NetworkTestCase(FileTestCase):
    """
    A test with a server in memory, reached over TCP or TLS.

    @cvar tls: Whether there is TLS below the connections.
    @ivar clock: Everybody's time.
    @ivar listeners: The server's ports for visitors.
    @ivar notes: What the server tells.
    """

    tls = False

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.notes = ServerNotes()
        self._context: Any = None
        self._verification: Any = None
        self.wires: list[Wire] = []
        self.makeServer()

    def makeServer(
        self,
        connectionFilter: ConnectionFilter | None = None,
        leaseTime: float = 120.0,
        book: MemoryBook | None = None,
    ) -> None:
        """Make a new server, in place of the old one."""
        self.listeners = MemoryListeners()
        self.book = book or MemoryBook(self.clock)
        self.service = TunnelService(
            self.clock,
            self.book,
            {"tcp": self.listeners},
            self.notes,
            leaseTime=leaseTime,
        )
        authenticator = None
        if connectionFilter is not None:
            authenticator = Authenticator(
                portalFor([checkingCallable(connectionFilter)])
            )
        self.sessions = TunnelServerFactory(self.clock, self.service, authenticator)

    def contexts(self) -> tuple[Any, Any]:
        if self._context is None:
            authority = makeAuthority()
            certificate, key = authority.issue(["server.example"])
            path = self.write("server.pem", certificate, key)
            ca = authority.write(self.directory / "ca.pem")
            self._context = ReloadingCertificate(path)
            self._verification = ServerVerification("server.example", trustRoots=ca)
        return self._context, self._verification

    def join(self, server: Any, client: Protocol) -> Wire:
        """Connect a client's protocol to a server's factory, or to a protocol."""
        factory: IProtocolFactory = server
        if isinstance(server, Protocol):
            factory = _Only(server)
        clientFactory: IProtocolFactory = _Only(client)
        if self.tls:
            context, verification = self.contexts()
            factory = TLSMemoryBIOFactory(context, False, factory, self.clock)
            clientFactory = TLSMemoryBIOFactory(
                verification, True, clientFactory, self.clock
            )
        bottom = factory.buildProtocol(CLIENT)
        top: Any = clientFactory.buildProtocol(SERVER)
        pump = connect(
            bottom,
            FakeTransport(bottom, True, SERVER, CLIENT),
            top,
            FakeTransport(top, False, CLIENT, SERVER),
            clock=self.clock,
        )
        wire = Wire(pump)
        wire.settle()
        self.wires.append(wire)
        return wire

    def joinUnevenly(self, server: Any, client: Protocol) -> Wire:
        """Connect a client without TLS to a server that has it."""
        context, _ = self.contexts()
        over = TLSMemoryBIOFactory(context, False, server, self.clock)
        self.tls = False
        try:
            return self.join(over, client)
        finally:
            self.tls = True

    def endpoint(self) -> MemoryServer:
        def connect(factory: IProtocolFactory) -> object:
            client: Any = factory.buildProtocol(SERVER)
            self.join(self.sessions, client)
            return client

        return MemoryServer(connect)

    def dial(self, *messages: Mapping[str, object] | Frame | bytes) -> RawPeer:
        """
        Connect to the server as a peer that the test plays.

        @param messages: What to say at once.
        """
        peer = RawPeer()
        self.join(self.sessions, peer)
        peer.say(*messages)
        self.settle()
        return peer

    def settle(self) -> None:
        for _ in range(3):
            for wire in self.wires:
                wire.settle()

    def advance(self, seconds: float, step: float = 1.0) -> None:
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            self.settle()


class ServiceNetworkTestCase(NetworkTestCase):
    """
    The same with a client, which offers a service in memory.

    @ivar web: The service.
    @ivar seen: What the client tells.
    """

    def setUp(self) -> None:
        super().setUp()
        self.web = MemoryService()
        self.seen = ClientNotes()

    def settle(self) -> None:
        for _ in range(3):
            super().settle()
            self.web.settle()
