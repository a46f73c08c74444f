"""
The framed protocol at the server, where nothing else is spoken.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory

from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.framed.server_connection import ServerConnection

__all__ = ["TunnelServerFactory"]


class TunnelServerFactory(ServerSessions, ServerFactory[ServerConnection]):
    """
    The sessions of a server whose connections all speak the framed protocol: for a
    program of one's own. See L{ServerSessions
    <tristunnel.dialects.base.server.ServerSessions>} for the parameters.
    """

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> ServerConnection:
        return ServerConnection(self, self.handshakeTimeout)
