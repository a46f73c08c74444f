"""
A dialect of one's own: a client that says one line, and is its tunnel.

The client connects and says C{ONE LISTENER PORT TOKEN}, in a line; the last word
may be missing. The server answers with the address of the tunnel, or C{NO} and the
reason, in a line. From then on the connection is the one visitor: what the visitor
says comes down, what the client says goes up, and when either leaves, it is over.

C{docs/extending.rst} goes through it. C{OneDialect} is one line in the table of
dialects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dialects.base.client import ClientService
from tristunnel.dialects.base.dialect import ClientOptions, Dialect, PortProtocol
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.errors import TunnelError
from tristunnel.forwards.service_connector import ServiceConnector
from tristunnel.interfaces import Closed, End
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.preauth import PendingConnection


@implementer(IPushProducer)
class OneEnd(ABC, Protocol):
    """A connection: first the other side's line, then an L{End} of the one stream."""

    LONGEST = 512
    transport: Any

    def __init__(self) -> None:
        self.received = 0
        self.over = False
        self._peer: End | None = None
        self._closed: Closed | None = None
        self._began = b""
        self._told = False
        self._paused = False

    @abstractmethod
    def lineReceived(self, line: str) -> None:
        """The other side has said its line."""

    def dataReceived(self, data: bytes) -> None:
        if self._peer is not None:
            self.received += len(data)
            self._peer.write(data)
            return
        self._began += data
        if self._told:
            return
        line, newline, rest = self._began.partition(b"\n")
        if newline:
            # Nothing more is read until there is somebody to read it.
            self._told, self._began = True, rest
            self.transport.pauseProducing()
            self.lineReceived(line.decode("ascii", "replace").strip())
        elif len(line) > self.LONGEST:
            self.transport.abortConnection()

    # End: what the end at the other side of the stream asks of this one.

    def join(self, peer: End, closed: Closed) -> None:
        self._peer, self._closed = peer, closed
        self.transport.registerProducer(self, True)
        began, self._began = self._began, b""
        if began:
            self.dataReceived(began)
        self.transport.resumeProducing()

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        # Something stands between us and the peer from now on: a rate limit.
        before, self._peer = self._peer, peer
        return before, self._paused

    def whileWaiting(self, left: Closed) -> None:
        if self._peer is None:
            self._closed = left

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def finish(self) -> None:
        # The peer has said its last, and with it so have we.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def reset(self, reason: TunnelError) -> None:
        self.transport.abortConnection()

    def pauseReading(self) -> None:
        self._paused = True
        self.transport.pauseProducing()

    def resumeReading(self) -> None:
        self._paused = False
        self.transport.resumeProducing()

    # IPushProducer: the transport is full, so the peer has to wait.

    def pauseProducing(self) -> None:
        if self._peer is not None:
            self._peer.pauseReading()

    def resumeProducing(self) -> None:
        if self._peer is not None:
            self._peer.resumeReading()

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} follows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over = True
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.finish()
        if self._closed is not None:
            self._closed(None)


# The server


class OneSession(OneEnd):
    """
    A client's connection. It is the client side of its tunnel (C{serve},
    C{tunnelClosed}), and the client's end of the stream.
    """

    def __init__(self, sessions: ServerSessions, pending: PendingConnection) -> None:
        super().__init__()
        self._sessions = sessions
        self._pending = pending
        self._tunnel: Tunnel | None = None
        self._stream: Stream | None = None

    def connectionMade(self) -> None:
        self._sessions.add(self)

    def lineReceived(self, line: str) -> None:
        opening = Deferred.fromCoroutine(self._open(line.split()))
        opening.addErrback(self._refused)

    async def _open(self, words: list[str]) -> None:
        """Log in and open the tunnel."""
        if len(words) not in (3, 4) or not words[2].isdecimal():
            raise TunnelError("bad-option", "say ONE LISTENER PORT TOKEN")
        fields = {"token": words[3]} if words[3:] else {}
        peer = self.transport.getPeer()
        identity = await self._sessions.authenticator.authenticate(fields, peer)
        self._pending.known()
        here = self.transport.getHost()
        caller = Caller(identity, here.host, here.port, clientSide=self)
        options = {"listener": words[1], "port": int(words[2]), "visitors": 1}
        tunnels = self._sessions.service
        uri = await tunnels.openTunnel(caller, options)
        self._tunnel = await tunnels.find(uri)
        if self.over:
            self._discard(TunnelError("session-lost"))
            return
        self.transport.write(self._tunnel.address.encode("ascii") + b"\n")

    def _refused(self, failure: Failure) -> None:
        """Say why there is no tunnel. What is not a refusal is our own fault."""
        failure.trap(TunnelError)
        self.transport.write(f"NO {failure.value}\n".encode())
        self.transport.loseConnection()

    # IClientSide: a visitor comes, or the tunnel goes.

    def serve(self, stream: Stream) -> None:
        """Be the client's end of the stream; there is but one."""
        if self._stream is not None or self.over:
            stream.refuse(TunnelError("limit-reached", "this client has its visitor"))
            return
        self._stream = stream
        stream.connect(self)

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """There will be no visitor."""
        if self._stream is None:
            self.transport.loseConnection()

    # What the server asks of all its sessions.

    def streams(self) -> int:
        return int(self._peer is not None)

    def leave(self, reason: TunnelError) -> None:
        """Who has a visitor may finish with it."""
        if self._stream is None:
            self.transport.loseConnection()

    def fail(self, reason: TunnelError) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._sessions.sessions.discard(self)
        self._discard(TunnelError("session-lost", "the client has left"))

    def _discard(self, reason: TunnelError) -> None:
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            self._sessions.service.discard([tunnel], reason)


class OnePort:
    """What its connections begin with, and who serves them."""

    beginnings: Sequence[bytes] = (b"ONE ",)

    def __init__(self, sessions: ServerSessions) -> None:
        self._sessions = sessions

    def open(
        self, address: IAddress | None, remaining: float, pending: PendingConnection
    ) -> OneSession:
        return OneSession(self._sessions, pending)


# The client


class OneClient(OneEnd):
    """
    The connection to the server, and the visitor's end of the stream.

    @ivar answer: Fires with the server's line.
    @ivar gone: Fires when the connection is lost.
    """

    def __init__(self, line: str) -> None:
        super().__init__()
        self._line = line
        self.answer: Deferred[str] = Deferred()
        self.gone: Deferred[TunnelError] = Deferred()
        self.multiplexer = self

    def connectionMade(self) -> None:
        self.transport.write(self._line.encode("ascii") + b"\n")

    def lineReceived(self, line: str) -> None:
        self.answer.callback(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if not self.answer.called:
            self.answer.callback("NO answer")
        self.gone.callback(TunnelError("session-lost", reason.getErrorMessage()))

    # What the service asks when it stops.

    def goAway(self, reason: TunnelError) -> None:
        """The dialect has no word for it."""

    def streams(self) -> int:
        return int(self.received > 0 and not self.over)

    def close(self) -> None:
        self.transport.loseConnection()


class OneClientService(ClientService[OneClient]):
    """Comes back for the next visitor when one has left."""

    async def _oneSession(self) -> tuple[TunnelError, bool]:
        (forward,) = self._forwards
        token = self._credentials.get("token", "")
        client = OneClient(f"ONE tcp {forward.port} {token}")
        factory = Factory.forProtocol(lambda: client)
        factory.noisy = False
        try:
            await self._server.endpoint.connect(factory)
        except Exception:
            return self._server.notReached(Failure()), True
        address = await client.answer
        if address.startswith("NO "):
            return TunnelError("not-permitted", f"the server says: {address}"), True
        self.session = client
        self.observer.acknowledged("one")
        self.observer.tunnelReady(address, forward.target)
        connector = ServiceConnector(self._reactor, self.observer)
        visitor, service = client, forward.endpoint
        connector.connect(visitor, forward.target, service, lambda end: None)
        try:
            return await client.gone, False
        finally:
            self.session = None

    async def _stop(self) -> None:
        await super()._stop()
        self.observer.stopped()


class OneDialect(Dialect):
    """What the program asks; this is the line in the table."""

    name = "one"
    client = OneClientService

    def checkForwards(self, options: ClientOptions) -> None:
        if len(options.forwards) != 1:
            raise TunnelError("bad-option", "--dialect one has one --forward")

    def portProtocols(self, sessions: ServerSessions) -> Sequence[PortProtocol]:
        return [OnePort(sessions)]
