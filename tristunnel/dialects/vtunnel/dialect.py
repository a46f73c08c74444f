"""
vtunnel's dialect, as the program asks for it: both of its wires.
"""

from __future__ import annotations

from dataclasses import replace

from tristunnel.dialects.base.dialect import ClientOptions, Dialect
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.vtunnel.client import VTunnelClientService
from tristunnel.dialects.vtunnel.server import VTunnelServerSession
from tristunnel.errors import badOption
from tristunnel.forwards.forward import Forward
from tristunnel.forwards.options import ForwardOptions
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
        if not all(each.port or each.hasHost for each in options.forwards):
            raise badOption(
                "vtunnel needs a port, or a domain: --forward PORT=TARGET, for example"
                " 9000=localhost:3000, or --forward http/DOMAIN=TARGET"
            )
        if key := options["credentials"].get("key"):
            parsePrivateKey(str(key))

    def checkForward(self, forward: Forward) -> None:
        if forward.hasHost and forward.name and not forward.path:
            # What the server is asked for is in the options; domains need SSH.
            own = forward.options
            bare = replace(own, request=(), verify="")
            if bare != ForwardOptions() or any(
                each.startswith("-") for each in own.request
            ):
                raise badOption(
                    f"--dialect {self.name} has no options for a domain but"
                    " request=NAME: VALUE"
                )
            return
        super().checkForward(forward)

    def takesFirst(self, message: bytes, isBinary: bool) -> bool:
        return not isBinary or message.startswith(BEGINNING)

    def receiver(self, sessions: ServerSessions, arrival: Arrival) -> Receiver:
        if arrival.first.startswith(BEGINNING):
            from tristunnel.dialects.vtunnel.ssh_server import openSession

            return openSession(sessions, arrival)
        return VTunnelServerSession(sessions, arrival)
