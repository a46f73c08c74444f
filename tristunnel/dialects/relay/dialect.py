"""
The relay of raw WebSockets, as the program asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zlib import crc32

from twisted.internet.defer import Deferred

from tristunnel.connect.address import ServerAddress
from tristunnel.dialects.base.client import openWebSocket
from tristunnel.dialects.base.dialect import (
    ClientOptions,
    Dialect,
    GaveUp,
    Route,
    WebSocketPath,
)
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.relay.channels import (
    CLIENTS,
    VISITORS,
    RelayChannels,
    WebSocketListeners,
)
from tristunnel.dialects.relay.client_service import RelayHostService
from tristunnel.errors import badOption
from tristunnel.http.callers import HTTPCallers
from tristunnel.model.observer import ClientObserver
from tristunnel.util.members import memberIn
from tristunnel.websocket.end import RELAY_SUBPROTOCOL, WebSocketEnd

__all__ = ["RelayDialect", "byWebSocket"]


def byWebSocket(server: ServerAddress) -> Route:
    """Give each visitor a raw WebSocket of its own."""

    async def connect() -> WebSocketEnd:
        end = WebSocketEnd()
        await openWebSocket(server, end, (RELAY_SUBPROTOCOL,))
        return end

    return lambda visitor: Deferred.fromCoroutine(connect())


class RelayDialect(Dialect):
    """Raw WebSockets, each for one visitor."""

    name = "relay"
    client = RelayHostService
    needsURL = True
    loginInHeaders = True
    visitsAlone = True
    pageNames = (CLIENTS, VISITORS)

    def checkForwards(self, options: ClientOptions) -> None:
        if len(options.forwards) > 1 - bool(options["listen"]):
            raise badOption(
                "--dialect relay has a single end: --forward =TARGET, or --listen"
                " ENDPOINT"
            )

    def makeRoute(
        self,
        reactor: Any,
        options: ClientOptions,
        observer: ClientObserver,
        gaveUp: GaveUp,
    ) -> tuple[Any, Route, str]:
        return None, byWebSocket(options.server), options.server.where

    def memberOf(self, path: str, members: int) -> int | None:
        page, _, name = path.strip("/").partition("/")
        if page not in self.pageNames:
            return None
        owner = memberIn(name, members)
        # A channel does not belong to a member, so all must look for it in the same
        # place.
        return crc32(name.encode()) % members if owner is None else owner

    def pages(
        self, sessions: ServerSessions, callers: HTTPCallers
    ) -> Mapping[str, WebSocketPath]:
        service = sessions.service
        channels = RelayChannels(service, callers)
        callers.expect(channels.awaited)
        service.via["ws"] = channels.via
        service.listeners.setdefault("ws", WebSocketListeners(channels))
        spoken = (RELAY_SUBPROTOCOL,)
        return {
            CLIENTS: WebSocketPath(channels.receiveClient, spoken),
            # As with a TCP port, a visitor may be any program.
            VISITORS: WebSocketPath(channels.receiveVisitor, spoken, True),
        }
