"""
A dialect of one's own: a client that says one line, and is its tunnel.

The client connects and says C{ONE LISTENER PORT TOKEN}, in a line; the last word
may be missing. The server answers with the address of the tunnel, or C{NO} and the
reason, in a line. From then on the connection is the one visitor: what the visitor
says comes down, what the client says goes up, and when either leaves, it is over.

C{docs/extending.rst} goes through it. C{OneDoor} is one entry in the list of
doors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.auth.realm import Authenticator
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.preauth import PendingConnection
from tristunnel.service.tunnel_service import TunnelService


@implementer(IPushProducer)
class OneSession(Protocol):
    """
    A client's connection. It is the client side of its tunnel (C{serve},
    C{tunnelClosed}), and the client's L{End} of the one stream (C{join} and what
    follows).
    """

    LONGEST = 512
    transport: Any

    def __init__(
        self,
        tunnels: TunnelService,
        authenticator: Authenticator,
        stranger: PendingConnection,
    ) -> None:
        self.received = 0
        self._tunnels = tunnels
        self._authenticator = authenticator
        self._stranger = stranger
        self._tunnel: Tunnel | None = None
        self._stream: Stream | None = None
        self._peer: End | None = None
        self._closed: Closed | None = None
        self._began = b""
        self._asked = False
        self._paused = False
        self._over = False

    # The first line, and what is for the visitor.

    def dataReceived(self, data: bytes) -> None:
        """From the client."""
        if self._peer is not None:
            self.received += len(data)
            self._peer.write(data)
            return
        self._began += data
        if self._asked:
            return
        line, newline, rest = self._began.partition(b"\n")
        if newline:
            # Nothing more is read until there is a visitor.
            self._asked, self._began = True, rest
            self.transport.pauseProducing()
            words = line.decode("ascii", "replace").split()
            opening = Deferred.fromCoroutine(self._open(words))
            opening.addErrback(self._refused)
        elif len(line) > self.LONGEST:
            self.transport.abortConnection()

    async def _open(self, words: list[str]) -> None:
        """
        Log in and open the tunnel.
        """
        if len(words) not in (3, 4) or not words[2].isdecimal():
            raise TunnelError("bad-option", "say ONE LISTENER PORT TOKEN")
        fields = {"token": words[3]} if words[3:] else {}
        peer = self.transport.getPeer()
        identity = await self._authenticator.authenticate(fields, peer)
        self._stranger.known()
        here = self.transport.getHost()
        caller = Caller(identity, here.host, here.port, clientSide=self)
        options = {"listener": words[1], "port": int(words[2]), "visitors": 1}
        uri = await self._tunnels.openTunnel(caller, options)
        self._tunnel = await self._tunnels.registry.find(uri)
        if self._over:
            self._discard(TunnelError("session-lost"))
            return
        self.transport.write(self._tunnel.address.encode("ascii") + b"\n")

    def _refused(self, failure: Failure) -> None:
        """
        Say why there is no tunnel. What is not a refusal is our own fault.
        """
        failure.trap(TunnelError)
        self.transport.write(f"NO {failure.value}\n".encode())
        self.transport.loseConnection()

    # IClientSide: a visitor comes, or the tunnel goes.

    def serve(self, stream: Stream) -> None:
        """Be the client's end of the stream; there is but one."""
        if self._stream is not None or self._over:
            stream.refuse(TunnelError("limit-reached", "this client has its visitor"))
            return
        self._stream = stream
        stream.connect(self)
        self.transport.registerProducer(self, True)
        self.transport.resumeProducing()

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """There will be no visitor."""
        if self._stream is None:
            self.transport.loseConnection()

    # End: what the visitor's end asks of this one.

    def join(self, peer: End, closed: Closed) -> None:
        """Begin to pass bytes."""
        self._peer, self._closed = peer, closed
        began, self._began = self._began, b""
        if began:
            self.dataReceived(began)

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        """Something stands between the visitor and us from now on: a rule."""
        before, self._peer = self._peer, peer
        return before, self._paused

    def whileWaiting(self, left: Closed) -> None:
        """This end never waits: it is joined as soon as it is connected."""

    def write(self, data: bytes) -> None:
        """To the client."""
        self.transport.write(data)

    def finish(self) -> None:
        """The visitor has said its last, and so have we."""
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def reset(self, reason: TunnelError) -> None:
        """Break off."""
        self.transport.abortConnection()

    def pauseReading(self) -> None:
        """The visitor reads slowly."""
        self._paused = True
        self.transport.pauseProducing()

    def resumeReading(self) -> None:
        """The visitor reads again."""
        self._paused = False
        self.transport.resumeProducing()

    # IPushProducer: the client reads slowly, so the visitor has to wait.

    def pauseProducing(self) -> None:
        """Read no more from the visitor."""
        if self._peer is not None:
            self._peer.pauseReading()

    def resumeProducing(self) -> None:
        """Read from the visitor again."""
        if self._peer is not None:
            self._peer.resumeReading()

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} follows."""

    # IProtocol.

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take the visitor and the tunnel along."""
        self._over = True
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.finish()
        if self._closed is not None:
            self._closed(None)
        self._discard(TunnelError("session-lost", "the client has left"))

    def _discard(self, reason: TunnelError) -> None:
        """
        End the tunnel.
        """
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None and (self._stream is None or self._over):
            self._tunnels.discard([tunnel], reason)


class OneDoor:
    """
    A L{PortProtocol<tristunnel.server.detector.PortProtocol>}: what its connections
    begin with, and
    who serves them.
    """

    beginnings: Sequence[bytes] = (b"ONE ",)

    def __init__(
        self, tunnels: TunnelService, authenticator: Authenticator | None = None
    ) -> None:
        self._tunnels = tunnels
        self._authenticator = authenticator or Authenticator()

    def open(
        self, address: IAddress | None, remaining: float, stranger: PendingConnection
    ) -> OneSession:
        """Make the protocol for one connection."""
        return OneSession(self._tunnels, self._authenticator, stranger)
