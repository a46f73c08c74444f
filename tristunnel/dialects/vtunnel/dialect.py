"""
vtunnel's dialect, as the program asks for it: both of its wires.
"""

from __future__ import annotations

from tristunnel.dialects.base.dialect import ClientOptions, Dialect
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.vtunnel.client import VTunnelClientService
from tristunnel.dialects.vtunnel.server import VTunnelServerSession
from tristunnel.errors import badOption
from tristunnel.websocket.connection import Receiver
from tristunnel.wire.ssh import BEGINNING
from tristunnel.wire.vtunnel_ssh import parsePrivateKey

__all__ = ["VTunnelDialect"]


class VTunnelDialect(Dialect):
    """vtunnel's JSON in text messages, and its SSH in binary ones."""

    name = "vtunnel"
    client = VTunnelClientService
    labels = {"vtunnel-ssh": "vtunnel"}  # noqa: RUF012
    atRoot = True
    needsURL = True
    loginInHeaders = True

    def checkForwards(self, options: ClientOptions) -> None:
        if not all(forward.port for forward in options.forwards):
            raise badOption(
                "vtunnel needs a port: --forward PORT=TARGET, for example"
                " 9000=localhost:3000"
            )
        if key := options["credentials"].get("key"):
            parsePrivateKey(str(key))

    def takesFirst(self, message: bytes, isBinary: bool) -> bool:
        return not isBinary or message.startswith(BEGINNING)

    def receiver(self, sessions: ServerSessions, arrival: Arrival) -> Receiver:
        if arrival.first.startswith(BEGINNING):
            from tristunnel.dialects.vtunnel.ssh_server import openSession

            return openSession(sessions, arrival)
        return VTunnelServerSession(sessions, arrival)
