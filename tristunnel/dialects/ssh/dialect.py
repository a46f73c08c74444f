"""
SSH, as the program asks for it. Nothing of twisted.conch is imported before the first
client comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from twisted.internet.interfaces import IAddress, IProtocol

from tristunnel.dialects.base.dialect import Dialect, PortProtocol
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.conch.hostkey import HostKey
from tristunnel.errors import TunnelError
from tristunnel.service.preauth import PendingConnection
from tristunnel.wire.ssh import BEGINNING

__all__ = ["SSHDialect"]


class SSHPortProtocol:
    """
    What begins as SSH does.

    @param sessions: The server's sessions.
    """

    beginnings: Sequence[bytes] = (BEGINNING,)

    def __init__(self, sessions: ServerSessions) -> None:
        self._sessions = sessions

    def open(
        self, address: IAddress | None, remaining: float, pending: PendingConnection
    ) -> IProtocol | None:
        """Make what serves a client; nothing without a host key, as the log said."""
        from tristunnel.dialects.ssh.server import openSession

        try:
            return cast("IProtocol", openSession(self._sessions, remaining, pending))
        except TunnelError:
            pending.known()
            return None


class SSHDialect(Dialect):
    """OpenSSH's own client, for which nothing has to be installed."""

    name = "ssh"
    hasClient = False
    encrypts = True
    showsCertificate = False

    def portProtocols(self, sessions: ServerSessions) -> Sequence[PortProtocol]:
        return [SSHPortProtocol(sessions)]

    def keyShown(self, sessions: ServerSessions) -> str:
        return f"{sessions.kept(HostKey.inDirectory).fingerprint} (ED25519)"
