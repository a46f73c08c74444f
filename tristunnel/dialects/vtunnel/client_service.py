"""
A client of a vtunnel server.
"""

from __future__ import annotations

from typing import Any

from tristunnel.dialects.base.client import openWebSocket
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.vtunnel.client import VTunnelClientSession
from tristunnel.errors import TunnelError

__all__ = ["VTunnelClientService"]


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
