"""
Tunnels in somebody else's program: as a page of its web site, or as a
WebSocket factory of its own.
"""

from __future__ import annotations

from typing import Any

from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.errors import TunnelError
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.forwarded import Forwarded
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.server.websocket_pages import (
    FirstMessage,
    clientsPath,
    makePage,
    receiverBelow,
)
from tristunnel.service.caller import Caller
from tristunnel.util.repeating import stopTimer
from tristunnel.websocket.connection import PING_INTERVAL
from tristunnel.websocket.page import PreparedFactory, WebSocketPage
from tristunnel.websocket.roles import MAX_HEAD, ServerConnection

__all__ = ["TunnelWebSocketFactory", "tunnelResource"]


def tunnelResource(
    reactor: IReactorTime,
    sessions: ServerSessions,
    forwarded: Forwarded | None = None,
    pingInterval: float = PING_INTERVAL,
) -> WebSocketPage:
    """
    Make a resource for a C{twisted.web} site, where clients connect by
    WebSocket: with the framed protocol, or as vtunnel's do.

    @param sessions: Makes their sessions, and knows who may connect.
    @param forwarded: The reverse proxies before the site.
    @param pingInterval: Seconds between pings, 0 for none.
    """
    callers = HTTPCallers(sessions.authenticator, forwarded)
    return makePage(sessions, clientsPath(sessions, callers), forwarded, pingInterval)


class TunnelWebSocketFactory(PreparedFactory):
    """
    Clients' WebSockets on a port of their own, whatever the path.

    @param reactor: Tells time.
    @param sessions: Makes their sessions, and knows who may connect.
    @param pingInterval: Seconds between pings, 0 for none.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        sessions: ServerSessions,
        pingInterval: float = PING_INTERVAL,
    ) -> None:
        super().__init__(reactor)
        self.sessions = sessions
        self.callers = HTTPCallers(sessions.authenticator)
        self._clock = reactor
        self._pingInterval = pingInterval

    def buildProtocol(self, addr: Any) -> ServerConnection:
        # It is not known yet who it is: the request tells, or the first message.
        arrival = Arrival(Caller(ANONYMOUS_IDENTITY, "localhost"), False)
        connection = _Standing(arrival, self)
        connection.factory = self
        connection.group = self.sessions.webSockets
        connection.subprotocols = clientsPath(self.sessions, self.callers).subprotocols
        receiver = FirstMessage(self.sessions, arrival)
        connection.configure(self._clock, receiver, self._pingInterval)
        return connection


class _Standing(ServerConnection):
    """A connection without a site, which has to take care of the opening itself."""

    data: bytes

    def __init__(self, arrival: Arrival, parent: TunnelWebSocketFactory) -> None:
        super().__init__()
        self._arrival = arrival
        self._embedded = parent
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._deadline = self.reactor.callLater(
            self._embedded.sessions.handshakeTimeout, self.abort
        )
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if not self._isOpen and len(self.data) > MAX_HEAD:
            self.abort()

    def onConnect(self, request: Any) -> Any:
        return Deferred.fromCoroutine(self._agree(request))

    async def _agree(self, request: Any) -> str | None:
        try:
            belongs = receiverBelow(self._embedded.sessions, str(request.path))
        except TunnelError as refusal:
            raise ConnectionDeny(404, refusal.message) from None
        if belongs is not None:
            self.receiver = belongs
            return super().onConnect(request)
        header = request.headers.get("authorization")
        identity = ANONYMOUS_IDENTITY
        if header is not None:
            try:
                identity = await self._embedded.callers.identify(
                    header.encode("latin-1", "replace"), self.peerAddress
                )
            except TunnelError as refusal:
                raise ConnectionDeny(401, refusal.message) from None
            self._arrival.vouched = True
        here = self.transport.getHost()
        host = str(request.host).rpartition(":")[0] or str(request.host)
        self._arrival.caller = Caller(
            identity, host or "localhost", int(getattr(here, "port", 0))
        )
        return super().onConnect(request)

    def _onOpen(self) -> None:
        stopTimer(self._deadline)
        super()._onOpen()

    def connectionLost(self, reason: Any = None) -> None:
        stopTimer(self._deadline)
        super().connectionLost(reason or Failure(TunnelError("reset")))
