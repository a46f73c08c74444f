"""
vtunnel's dialect, as the program asks for it.
"""

from __future__ import annotations

from typing import Any

from tristunnel.dialects.base.dialect import ClientOptions, Dialect, GaveUp
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.vtunnel.client_service import VTunnelClientService
from tristunnel.dialects.vtunnel.server import VTunnelServerSession
from tristunnel.errors import TunnelError
from tristunnel.model.observer import ClientObserver

__all__ = ["VTunnelDialect"]


class VTunnelDialect(Dialect):
    """vtunnel's JSON in text messages."""

    name = "vtunnel"
    needsURL = True
    loginInHeaders = True

    def checkForwards(self, options: ClientOptions) -> None:
        if not all(forward.port for forward in options.forwards):
            raise TunnelError(
                "bad-option",
                "vtunnel's ports are chosen: --forward PORT=TARGET, for example"
                " 9000=localhost:3000",
            )

    def makeClient(
        self,
        reactor: Any,
        options: ClientOptions,
        observer: ClientObserver,
        gaveUp: GaveUp,
    ) -> VTunnelClientService:
        return VTunnelClientService(
            reactor,
            options.server,
            options.forwards,
            observer=observer,
            grace=options["grace"],
            gaveUp=gaveUp,
        )

    def takesFirst(self, message: bytes, isBinary: bool) -> bool:
        return not isBinary

    def receiver(
        self, sessions: ServerSessions, arrival: Arrival
    ) -> VTunnelServerSession:
        return VTunnelServerSession(sessions, arrival)
