"""
vtunnel's dialect at the server: a client's session.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall

from tristunnel.dialects.vtunnel.session import (
    TextLink,
    VTunnelServerSide,
    VTunnelSession,
)
from tristunnel.errors import TunnelError
from tristunnel.util.hosts import addressText
from tristunnel.websocket.incoming import REQUEST_EFFORT
from tristunnel.wire.vtunnel import (
    LISTEN,
    LISTEN_ERR,
    LISTEN_OK,
    PING,
    PONG,
    Message,
)

if TYPE_CHECKING:
    from tristunnel.dialects.base.stream import SessionStream
    from tristunnel.dialects.base.unauthenticated import PendingLogin
    from tristunnel.dialects.framed.server import TunnelServerFactory
    from tristunnel.model.tunnel import Stream, Tunnel
    from tristunnel.service.caller import Caller
    from tristunnel.service.clients import ConnectedClient

__all__ = ["LISTENER", "VTunnelServerSession"]

LISTENER = "loopback"
"""The kind of listener that vtunnel's clients expect: on the loopback
interface unless the operator says otherwise."""

NOTHING_SERVED = 2.0
"""Seconds after a refusal before a session that serves nothing is closed: its
other requests may be under way."""


class VTunnelServerSession(VTunnelSession):
    """
    One vtunnel client's connection.

    @param sessions: The server's sessions, of which this is one.
    @param caller: Who it is, and how it reached this server.
    @param vouched: Whether that was checked.
    @param stranger: Told when it is known who it is.
    """

    multiplexer: VTunnelServerSide | None

    def __init__(
        self,
        sessions: TunnelServerFactory,
        caller: Caller,
        vouched: bool,
        stranger: PendingLogin | None = None,
    ) -> None:
        self._stranger = stranger
        super().__init__(sessions.reactor, sessions.limits)
        self._sessions = sessions
        self._service = sessions.service
        self._caller = replace(caller, clientSide=self)
        self._admitted = vouched
        self._admitting: Deferred[None] | None = None
        self._early: list[bytes] = []
        self._tunnels: dict[int, Tunnel | None] = {}
        self._opening: set[Deferred[None]] = set()
        self._leaving: TunnelError | None = None
        self._idle: IDelayedCall | None = None
        self._client: ConnectedClient | None = None
        self._kinds = {LISTEN: self._listen, PING: self._ping}

    def makeMultiplexer(self, link: TextLink) -> VTunnelServerSide:
        return VTunnelServerSide(
            link,
            self.reactor.seconds,
            self._openedByClient,
            self.limits,
            self.reactor.callLater,
        )

    # Coming in

    def textReceived(self, text: bytes) -> None:
        if self._admitted:
            super().textReceived(text)
            return
        self._early.append(text)
        if self._admitting is None:
            self.connection.pauseReading()
            self._admitting = Deferred.fromCoroutine(self._admit())

    async def _admit(self) -> None:
        peer = self.connection.peerAddress
        try:
            identity = await self._sessions.authenticator.authenticate({}, peer)
        except TunnelError as refusal:
            self._service.observer.authenticationFailed(peer, refusal)
            self.fail(refusal)
        except CancelledError:
            pass
        else:
            self._caller = replace(self._caller, identity=identity)
            self._admitted = True
            self._begin()
            self.connection.resumeReading()
            early, self._early = self._early, []
            for text in early:
                super().textReceived(text)

    def opened(self, connection: object) -> None:
        super().opened(connection)
        self._sessions.sessions.add(self)  # type: ignore[arg-type]
        if self._admitted:
            self._begin()

    def _begin(self) -> None:
        if self._stranger is not None:
            self._stranger.known()
        try:
            self._client = self._service.clients.enter(
                self._caller.identity,
                addressText(self.connection.peerAddress),
                "vtunnel",
                self.fail,
                self,
            )
        except TunnelError as refusal:
            self.fail(refusal)
            return
        self._service.observer.clientConnected(
            self.connection.peerAddress, self._caller.identity, "vtunnel"
        )

    # What the client asks for

    def _ping(self, message: Message) -> None:
        self._send(Message(PONG))

    def _send(self, message: Message) -> None:
        if self.connection is not None:
            TextLink(self.connection).sendMessage(message)

    def _listen(self, message: Message) -> None:
        port = message.port
        self.connection.effort += REQUEST_EFFORT
        if port in self._tunnels:
            if self._tunnels[port] is not None:
                self._send(Message(LISTEN_OK, port=port))
            return
        self._tunnels[port] = None
        opening = Deferred.fromCoroutine(self._open(port))
        self._opening.add(opening)
        opening.addBoth(self._openingOver, opening)

    def _openingOver(self, result: object, opening: Deferred[None]) -> None:
        self._opening.discard(opening)

    async def _open(self, port: int) -> None:
        options: dict[str, object] = {"port": port}
        if LISTENER in self._service.listeners:
            options["listener"] = LISTENER
        try:
            if not port:
                raise TunnelError("bad-option", "the request names no port")
            if self._leaving is not None:
                raise self._leaving
            self._service.rights.checkServices(len(self._tunnels) - 1)
            tunnel = await self._service.open(self._caller, options)
        except TunnelError as refusal:
            self._tunnels.pop(port, None)
            self._refused(port, refusal)
        except CancelledError:
            self._tunnels.pop(port, None)
        else:
            if self.lost is not None:
                self._service.discard([tunnel], self.lost)
                return
            self._tunnels[port] = tunnel
            self._send(Message(LISTEN_OK, port=port))

    def _refused(self, port: int, refusal: TunnelError) -> None:
        peer = addressText(self.connection.peerAddress)
        self._service.observer.requestNoted(
            self._caller.identity,
            f"at {peer} asked for port {port} and was refused: {refusal}",
            True,
        )
        self._send(Message(LISTEN_ERR, port=port, error=str(refusal)))
        if self._idle is None and self.lost is None:
            self._idle = self.reactor.callLater(
                NOTHING_SERVED, self._closeIfIdle, refusal
            )

    def _closeIfIdle(self, refusal: TunnelError) -> None:
        self._idle = None
        if not self._tunnels:
            self.fail(refusal)

    def _openedByClient(self, stream: SessionStream, info: dict[str, object]) -> None:
        """Never called: streams are the server's to open."""

    # IClientSide

    def serve(self, stream: Stream) -> None:
        listener = stream.tunnel.listener
        if (
            self.multiplexer is None
            or self._leaving is not None
            or self.lost is not None
            or listener is None
        ):
            stream.refuse(self._leaving or TunnelError("client-away"))
            return
        try:
            end = self.multiplexer.open({"port": listener.address[2]})
        except TunnelError as refusal:
            stream.refuse(refusal)
        else:
            stream.connect(end)

    def isThere(self) -> Deferred[bool]:
        probe: Deferred[bool] = self.connection.probe()
        return probe

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        for port, mine in list(self._tunnels.items()):
            if mine is tunnel:
                del self._tunnels[port]
        if not self._tunnels and self.lost is None:
            self.fail(reason)

    # Going

    def leave(self, reason: TunnelError) -> None:
        """Take no new visitors; those that are here may finish."""
        self._leaving = reason

    def sessionOver(self, reason: TunnelError) -> None:
        self._sessions.sessions.discard(self)
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        if self._admitting is not None:
            self._admitting.cancel()
        for opening in list(self._opening):
            opening.cancel()
        if self._client is not None:
            self._service.clients.leave(self._client)
        tunnels = [tunnel for tunnel in self._tunnels.values() if tunnel is not None]
        self._tunnels = {}
        self._service.discard(tunnels, reason)
        if self._client is not None:
            self._service.observer.clientGone(
                self.connection.peerAddress, self._caller.identity, reason
            )
