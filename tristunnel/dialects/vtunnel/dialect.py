"""
vtunnel's dialect, as the program asks for it.
"""

from __future__ import annotations

from tristunnel.dialects.base.dialect import ClientOptions, Dialect
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.vtunnel.client import VTunnelClientService
from tristunnel.dialects.vtunnel.server import VTunnelServerSession
from tristunnel.errors import badOption

__all__ = ["VTunnelDialect"]


class VTunnelDialect(Dialect):
    """vtunnel's JSON in text messages."""

    name = "vtunnel"
    client = VTunnelClientService
    needsURL = True
    loginInHeaders = True

    def checkForwards(self, options: ClientOptions) -> None:
        if not all(forward.port for forward in options.forwards):
            raise badOption(
                "vtunnel needs a port: --forward PORT=TARGET, for example"
                " 9000=localhost:3000"
            )

    def takesFirst(self, message: bytes, isBinary: bool) -> bool:
        return not isBinary

    def receiver(
        self, sessions: ServerSessions, arrival: Arrival
    ) -> VTunnelServerSession:
        return VTunnelServerSession(sessions, arrival)
