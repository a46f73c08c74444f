"""
zlayer's dialect, as the program asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from tristunnel.dialects.base.dialect import ClientOptions, Dialect, WebSocketPath
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.zlayer.client_service import ZLayerClientService, tokenOf
from tristunnel.dialects.zlayer.data import (
    PORTS,
    ZLayerSessions,
    connectionOf,
    memberOfConnection,
)
from tristunnel.dialects.zlayer.data_end import DATA_SUBPROTOCOL
from tristunnel.dialects.zlayer.server import ZLayerServerSession
from tristunnel.http.callers import HTTPCallers
from tristunnel.model.ports import PortRange
from tristunnel.websocket.connection import Receiver
from tristunnel.wire.zlayer import MESSAGES

__all__ = ["ZLayerDialect"]


class ZLayerDialect(Dialect):
    """zlayer's binary messages, and a WebSocket for each visitor."""

    name = "zlayer"
    client = ZLayerClientService
    needsURL = True
    loginInHeaders = True
    carriesDatagrams = True
    tellsVisitors = True
    subprotocols = (DATA_SUBPROTOCOL,)

    def checkForwards(self, options: ClientOptions) -> None:
        tokenOf(options["credentials"])

    def takesFirst(self, message: bytes, isBinary: bool) -> bool:
        return isBinary and bool(message) and message[0] in MESSAGES

    def receiver(
        self, sessions: ServerSessions, arrival: Arrival
    ) -> ZLayerServerSession:
        return ZLayerServerSession(sessions, arrival)

    def receiverBelow(self, sessions: ServerSessions, path: str) -> Receiver | None:
        connection = connectionOf(path)
        if connection is None:
            return None
        return sessions.shared(ZLayerSessions).receive(connection)

    def memberOf(self, path: str, members: int) -> int | None:
        connection = connectionOf(path)
        return None if connection is None else memberOfConnection(connection, members)

    def isMember(self, sessions: ServerSessions, member: int) -> None:
        sessions.shared(ZLayerSessions).member = member

    def pages(
        self, sessions: ServerSessions, callers: HTTPCallers
    ) -> Mapping[str, WebSocketPath]:
        callers.expect(sessions.shared(ZLayerSessions).awaited)
        return {}

    def portsGiven(self, sessions: ServerSessions, ports: PortRange | None) -> None:
        # What zlayer's own server gives out, unless somebody says otherwise.
        sessions.shared(ZLayerSessions).ports = PORTS if ports is None else None
