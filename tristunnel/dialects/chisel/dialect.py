"""
chisel's dialect, as the program asks for it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256

from tristunnel.dialects.base.dialect import Dialect
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.conch.hostkey import HostKey
from tristunnel.websocket.connection import Receiver
from tristunnel.wire.chisel import VERSION
from tristunnel.wire.ssh import BEGINNING

__all__ = ["ChiselDialect"]


class ChiselDialect(Dialect):
    """chisel's SSH in binary messages."""

    name = "chisel"
    hasClient = False
    atRoot = True

    def takesFirst(self, message: bytes, isBinary: bool) -> bool:
        return message.startswith(BEGINNING + VERSION + b"-")

    def receiver(self, sessions: ServerSessions, arrival: Arrival) -> Receiver:
        from tristunnel.dialects.chisel.server import openSession

        return openSession(sessions, arrival)

    def notices(self, sessions: ServerSessions) -> Sequence[str]:
        blob = sessions.kept(HostKey.inDirectory).blob
        shown = b64encode(sha256(blob).digest()).decode()
        return [f"For chisel's clients the key's fingerprint is {shown}"]
