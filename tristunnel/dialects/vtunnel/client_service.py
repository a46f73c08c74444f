"""
A client of a vtunnel server.
"""

from __future__ import annotations

from typing import Any

from tristunnel.dialects.base.client import WebSocketClientService
from tristunnel.dialects.vtunnel.client import VTunnelClientSession
from tristunnel.errors import TunnelError

__all__ = ["VTunnelClientService"]


class VTunnelClientService(WebSocketClientService[VTunnelClientSession]):
    """Stays connected to a vtunnel server."""

    _mute = False

    def makeSession(self) -> VTunnelClientSession:
        endpoint: Any = self._server.endpoint
        session = VTunnelClientSession(
            self._reactor,
            self._forwards,
            self.observer,
            self._server.host,
            getattr(endpoint, "pingInterval", 0.0),
        )
        session.maybeMute = self._mute
        self._last = session
        return session

    async def _oneSession(self) -> tuple[TunnelError, bool]:
        ended = await super()._oneSession()
        self._mute = self._mute or self._last.mute
        return ended
