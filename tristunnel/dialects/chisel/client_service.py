"""
chisel's dialect at the client, as a service. Nothing of twisted.conch is imported
before it connects.
"""

from __future__ import annotations

from tristunnel.dialects.base.client import WebSocketClientService
from tristunnel.dialects.base.client_session import MessageClientSession
from tristunnel.wire.chisel import SUBPROTOCOL

__all__ = ["ChiselClientService"]


class ChiselClientService(WebSocketClientService[MessageClientSession]):
    """
    Stays connected to a chisel server.

    @ivar hostKey: The fingerprint of the server's key, as C{ssh-keygen -l} shows it;
        empty for any.
    """

    subprotocols = (SUBPROTOCOL,)
    hostKey = ""

    def makeSession(self) -> MessageClientSession:
        from tristunnel.dialects.chisel.client import ChiselClientSession
        from tristunnel.dialects.conch.client import Credentials

        told = self._credentials
        user, secret = str(told.get("id", "")), told.get("secret", told.get("password"))
        if secret is None and not user:
            # chisel has users, and no tokens; our own server takes one for a password.
            user, _, secret = str(told.get("token", "")).rpartition(":")
        return ChiselClientSession(
            self._reactor,
            Credentials(user, str(secret or "")),
            self._forwards,
            self.observer,
            self._server.host,
            self.hostKey,
        )
