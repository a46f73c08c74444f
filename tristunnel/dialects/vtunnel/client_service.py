"""
A client of a vtunnel server.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from tristunnel.connect.address import ServerAddress
from tristunnel.connect.websocket import WebSocketEndpoint
from tristunnel.dialects.base.client_service import TunnelClientService
from tristunnel.dialects.vtunnel.client import VTunnelClientSession
from tristunnel.errors import TunnelError
from tristunnel.websocket.connection import Receiver
from tristunnel.websocket.roles import ClientConnection

__all__ = ["VTunnelClientService", "openWebSocket"]


async def openWebSocket(
    server: ServerAddress, receiver: Receiver, subprotocols: tuple[str, ...] = ()
) -> ClientConnection:
    """
    Open a WebSocket to a server.

    @raise TunnelError: With why there is none.
    """
    endpoint = server.endpoint
    if not isinstance(endpoint, WebSocketEndpoint):
        raise TunnelError("bad-option", f"{server.where} is no WebSocket URL")
    try:
        return await endpoint.open(receiver, subprotocols)
    except (CancelledError, TunnelError):
        raise
    except Exception as error:
        failure = Failure()
        raise server.notReached(failure) from error


class VTunnelClientService(TunnelClientService):
    """Stays connected to a vtunnel server, as C{TunnelClientService} does to ours."""

    _mute = False

    async def _oneSession(self) -> tuple[TunnelError, bool]:
        endpoint: Any = self._server.endpoint
        session = VTunnelClientSession(
            self._reactor,
            self._forwards,
            self.observer,
            self._server.host,
            getattr(endpoint, "pingInterval", 0.0),
        )
        session.maybeMute = self._mute
        try:
            await openWebSocket(self._server, session)
        except TunnelError as refusal:
            return refusal, True
        self.session = session  # type: ignore[assignment]
        try:
            return await session.whenOver(), False
        finally:
            self.session = None
            self._mute = self._mute or session.mute
