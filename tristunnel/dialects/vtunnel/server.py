"""
vtunnel's dialect at the server: a client's session.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall

from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.base.server_session import ServerSession
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.vtunnel.session import (
    TextLink,
    VTunnelServerSide,
    VTunnelSession,
)
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.tunnel import Stream
from tristunnel.util.repeating import stopTimer
from tristunnel.websocket.incoming import REQUEST_EFFORT
from tristunnel.wire.vtunnel import LISTEN, LISTEN_ERR, LISTEN_OK, PING, PONG, Message

__all__ = ["LISTENER", "VTunnelServerSession"]

LISTENER = "loopback"
"""The kind of listener that vtunnel's clients expect: on the loopback
interface unless the operator says otherwise."""

NOTHING_SERVED = 2.0
"""Seconds after a refusal before a session that serves nothing is closed: its
other requests may be under way."""


class VTunnelServerSession(VTunnelSession, ServerSession):
    """
    One vtunnel client's connection.

    @ivar tunnels: The client's tunnels, by their ports.
    """

    dialect = "vtunnel"
    multiplexer: VTunnelServerSide | None

    def __init__(self, sessions: ServerSessions, arrival: Arrival) -> None:
        super().__init__(sessions, arrival)
        self.reactor, self.limits = sessions.reactor, sessions.limits
        self._asked: set[int] = set()
        self._closing: IDelayedCall | None = None
        self._kinds = {
            LISTEN: self._listen,
            # It is a sign of life, and vtunnel's client expects one in return.
            PING: lambda message: self.send(Message(PONG)),
        }

    def makeMultiplexer(self, link: TextLink) -> VTunnelServerSide:
        return VTunnelServerSide(
            link,
            self.reactor.seconds,
            self._openedByClient,
            self.limits,
            self.reactor.callLater,
        )

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        # A client may have no credentials; here it shows whether that will do.
        self.admit(self.authenticate({}), super().textReceived)

    def textReceived(self, text: bytes) -> None:
        if self._client is None:
            self._early.append(text)
        else:
            super().textReceived(text)

    # What the client asks for

    def _listen(self, message: Message) -> None:
        port = message.port
        self.connection.effort += REQUEST_EFFORT
        if port in self.tunnels:
            self.send(Message(LISTEN_OK, port=port))
        elif port not in self._asked:
            self._asked.add(port)
            self.whileUp(self._listenAt(port), self.fail)

    @property
    def idle(self) -> bool:
        return not (self.tunnels or self._asked)

    async def _listenAt(self, port: int) -> None:
        options: dict[str, object] = {"port": port}
        if LISTENER in self._service.listeners:
            options["listener"] = LISTENER
        try:
            if not port:
                raise badOption("the request names no port")
            await self.openFor(port, options, f"port {port}")
        except (TunnelError, CancelledError) as refusal:
            self._asked.discard(port)
            if isinstance(refusal, TunnelError) and self.lost is None:
                self._refused(port, refusal)
        else:
            self._asked.discard(port)
            self.send(Message(LISTEN_OK, port=port))

    def _refused(self, port: int, refusal: TunnelError) -> None:
        # The early program cannot be told, so it is logged.
        self.noteRefusal(f"asked for port {port}", refusal)
        self.send(Message(LISTEN_ERR, port=port, error=str(refusal)))
        if self._closing is None and self.lost is None:
            self._closing = self.reactor.callLater(
                NOTHING_SERVED, self._closeIfIdle, refusal
            )

    def _closeIfIdle(self, refusal: TunnelError) -> None:
        self._closing = None
        if self.idle:
            self.fail(refusal)

    def _openedByClient(self, stream: SessionStream, info: dict[str, object]) -> None:
        """Never called: only the server opens streams."""

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

    def sessionOver(self, reason: TunnelError) -> None:
        stopTimer(self._closing)
        super().sessionOver(reason)
