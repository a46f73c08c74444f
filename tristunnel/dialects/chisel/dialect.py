"""
chisel's dialect, as the program asks for it.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Any

from tristunnel.dialects.base.dialect import ClientOptions, Dialect, GaveUp
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.chisel.client_service import ChiselClientService
from tristunnel.dialects.conch.hostkey import HostKey, parseFingerprint
from tristunnel.errors import badOption
from tristunnel.model.observer import ClientObserver
from tristunnel.websocket.connection import Receiver
from tristunnel.wire.chisel import VERSION
from tristunnel.wire.ssh import BEGINNING

__all__ = ["ChiselDialect"]


class ChiselDialect(Dialect):
    """chisel's SSH in binary messages."""

    name = "chisel"
    client = ChiselClientService
    needsURL = True
    carriesDatagrams = True
    atRoot = True

    def checkForwards(self, options: ClientOptions) -> None:
        for forward in options.forwards:
            if not forward.port:
                raise badOption(
                    "chisel needs a port: --forward PORT=TARGET, for example"
                    " 9000=localhost:3000 or udp/5353=localhost:53"
                )
        parseFingerprint(options["host-key"])

    def makeClient(
        self,
        reactor: Any,
        options: ClientOptions,
        observer: ClientObserver,
        gaveUp: GaveUp,
    ) -> Any:
        client = super().makeClient(reactor, options, observer, gaveUp)
        client.hostKey = parseFingerprint(options["host-key"])
        return client

    def takesFirst(self, message: bytes, isBinary: bool) -> bool:
        return message.startswith(BEGINNING + VERSION + b"-")

    def receiver(self, sessions: ServerSessions, arrival: Arrival) -> Receiver:
        from tristunnel.dialects.chisel.server import openSession

        return openSession(sessions, arrival)

    def keyShown(self, sessions: ServerSessions) -> str:
        blob = sessions.kept(HostKey.inDirectory).blob
        return b64encode(sha256(blob).digest()).decode()
