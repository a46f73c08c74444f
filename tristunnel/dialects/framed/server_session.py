"""
The framed protocol at the server: a client's session, plain W3P or extended.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from tristunnel.dialects.base.multiplexer import Multiplexer
from tristunnel.dialects.base.plain import PlainServerSide
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.base.server_session import ServerSession
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.clients import ClientFacts

if TYPE_CHECKING:
    from tristunnel.dialects.base.stream import SessionStream

__all__ = ["FramedSession", "PlainSession"]

MOST_EARLY = 1024
"""Visitors that may wait until a session is established."""


class FramedSession(ServerSession):
    """
    One client's session.

    @param message: Its handshake, without the extension's part: what says who it is.

    @cvar extended: Whether the client speaks the extension.
    @ivar multiplexer: Its streams, once it is established.
    """

    extended: ClassVar[bool] = False

    __slots__ = ("_message", "_waiting", "multiplexer")

    def __init__(
        self, sessions: ServerSessions, arrival: Arrival, message: dict[str, object]
    ) -> None:
        super().__init__(sessions, arrival)
        self.multiplexer: Multiplexer | None = None
        self._message = message
        self._waiting: list[Stream] = []

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        self.admit(self._identify(), lambda message: None)

    @property
    def about(self) -> object:
        """What the client says of itself, beside its name."""
        return None

    async def _identify(self) -> Identity:
        message, self._message = self._message, {}
        identity = await self.identify(message)
        claimed = message.get("id") if identity.anonymous else ""
        self.facts = ClientFacts.said(self.about, claimed)
        return identity

    async def identify(self, message: dict[str, object]) -> Identity:
        """
        Find out who the client is.

        @raise TunnelError: If it is nobody who may come in.
        """
        return await self.authenticate(message)

    def turnAway(self, refusal: TunnelError) -> None:
        self.connection.refuse(refusal, self.extended)

    def establish(self, multiplexer: Multiplexer) -> None:
        """Let streams pass, and serve those who wait."""
        self.multiplexer = multiplexer
        self.connection.establish(multiplexer)
        waiting, self._waiting = self._waiting, []
        for stream in waiting:
            if not stream.over:
                self.serve(stream)

    # IClientSide

    @property
    def takesVisitors(self) -> bool:
        """Whether another visitor would be served: not while either side leaves."""
        return self.multiplexer is not None and not (self._leaving or self._ended)

    def serve(self, stream: Stream) -> None:
        if self._leaving is not None or self._ended:
            stream.refuse(self._leaving or TunnelError("client-away"))
        elif self.multiplexer is None:
            self._keepWaiting(stream)
        else:
            try:
                self.begin(stream)
            except TunnelError as refusal:
                stream.refuse(refusal)

    @abstractmethod
    def begin(self, stream: Stream) -> None:
        """
        Find a client end for a visitor.

        @raise TunnelError: If there is none.
        """

    def _keepWaiting(self, stream: Stream) -> None:
        """
        Serve a visitor once the session is established. Its tunnel may have come from
        another process, where visitors were waiting for it.
        """

        def left(reason: TunnelError | None) -> None:
            stream.refuse(reason or TunnelError("reset"))

        if len(self._waiting) >= MOST_EARLY:
            stream.refuse(TunnelError("client-away"))
        else:
            stream.visitor.whileWaiting(left)
            self._waiting.append(stream)

    def streams(self) -> int:
        return 0 if self.multiplexer is None else len(self.multiplexer.streams)

    # Going

    def peerLeaves(self, reason: TunnelError) -> None:
        """The client is about to go, and takes no new visitors."""
        if self._leaving is None:
            self._leaving = TunnelError("client-away", "the client is about to stop")

    def leave(self, reason: TunnelError) -> None:
        super().leave(reason)
        self.connection.goAway(reason)

    def sessionOver(self, reason: TunnelError) -> None:
        for stream in self._waiting:
            stream.refuse(TunnelError("client-away"))
        super().sessionOver(reason)


class PlainSession(FramedSession):
    """The session of a plain W3P client, which has one tunnel."""

    dialect = "framed-plain"

    def admitted(self) -> None:
        self.whileUp(self._openTunnel(), self.fail)

    async def _openTunnel(self) -> None:
        try:
            tunnel = await self._service.open(self._caller, {})
        except TunnelError as refusal:
            self.fail(refusal)
            return
        if self.lost is not None:
            self._service.discard([tunnel], self.lost)
            return
        self.tunnels[tunnel.id] = tunnel
        listener = tunnel.listener
        port = 0 if listener is None else listener.address[2]
        self.connection.sendHandshake({"port": port})
        self.establish(
            PlainServerSide(
                self.connection.transport,
                self._sessions.reactor.seconds,
                self._openedByClient,
                self._sessions.limits,
                self._sessions.reactor.callLater,
            )
        )
        self.connection.resumeReading()

    def _openedByClient(self, stream: SessionStream, info: dict[str, object]) -> None:
        """Never called: only the server opens streams."""

    def begin(self, stream: Stream) -> None:
        if self.multiplexer is None or stream.tunnel.protocol == "udp":
            raise TunnelError("not-permitted", "a W3P client does not support UDP")
        stream.connect(self.multiplexer.open(stream.info))

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        if self._leaving is None:
            super().tunnelClosed(tunnel, reason)
