"""
All pages of a server that speak WebSocket.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from tristunnel.connect.websocket import SUBPROTOCOL
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.dialects.framed.session import HANDSHAKE_TIMEOUT
from tristunnel.dialects.relay.channels import (
    CLIENTS,
    VISITORS,
    RelayChannels,
    WebSocketListeners,
)
from tristunnel.dialects.zlayer.data_end import DATA_SUBPROTOCOL
from tristunnel.errors import TunnelError
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.forwarded import Forwarded
from tristunnel.server.websocket_dialects import TunnelPath, dialectsOf
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.websocket.connection import PING_INTERVAL
from tristunnel.websocket.end import RELAY_SUBPROTOCOL
from tristunnel.websocket.page import WebSocketPage

__all__ = ["parsePaths", "webSocketPages"]


_TAKEN = ("health", "rpc", "RPC2", "metrics", "dashboard", CLIENTS, VISITORS)


def parsePaths(paths: Sequence[str]) -> list[str]:
    """
    Check where clients connect by WebSocket.

    @raise TunnelError: C{bad-option}.
    """
    for path in paths:
        inner = path.strip("/")
        if not path.startswith("/") or "//" in path or not path.isprintable():
            raise TunnelError(
                "bad-option", f"--websocket-path {path!r}: write it as /tunnel"
            )
        if inner.partition("/")[0] in _TAKEN:
            raise TunnelError(
                "bad-option", f"--websocket-path {path!r} is another page's"
            )
    return list(paths)


def webSocketPages(
    reactor: IReactorTime,
    service: TunnelService,
    sessions: TunnelServerFactory,
    callers: HTTPCallers,
    paths: Sequence[str] = ("tunnel",),
    forwarded: Forwarded | None = None,
    timeout: float = HANDSHAKE_TIMEOUT,
    pingInterval: float = PING_INTERVAL,
) -> dict[bytes, IResource]:
    """
    Make the pages, and have the service offer raw WebSockets as tunnels' ends.

    @param paths: Where clients connect.
    @param timeout: Seconds that a client has to say who it is.
    @param pingInterval: Seconds between pings, 0 for none.
    """
    clients = TunnelPath(
        reactor, callers, dialectsOf(sessions), timeout, sessions.zlayer.receive
    )
    tunnels = WebSocketPage(
        reactor,
        clients,
        (SUBPROTOCOL, DATA_SUBPROTOCOL),
        pingInterval=pingInterval,
        forwarded=forwarded,
        group=sessions.webSockets,
    )
    meetings = RelayChannels(service, callers)
    callers.expect(sessions.zlayer.awaited)
    callers.expect(meetings.awaited)
    service.via["ws"] = meetings.via
    service.listeners.setdefault("ws", WebSocketListeners(meetings))
    pages: dict[bytes, IResource] = {
        path.strip("/").encode(): tunnels for path in paths
    }
    for name, receive, anyOrigin in (
        (CLIENTS, meetings.receiveClient, False),
        # As with a TCP port, a visitor may be anybody's program.
        (VISITORS, meetings.receiveVisitor, True),
    ):
        pages[name.encode()] = WebSocketPage(
            reactor,
            receive,
            (RELAY_SUBPROTOCOL,),
            anyOrigin,
            pingInterval,
            forwarded,
            sessions.webSockets,
        )
    return pages
