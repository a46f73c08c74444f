"""
The certificate that is shown now, where it may be another one later.
"""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

__all__ = ["CreatorInForce"]


@implementer(IOpenSSLServerConnectionCreator)
class CreatorInForce:
    """
    Makes TLS connections as another creator does, which may be replaced while
    ports are open. Connections that exist keep what they began with.

    @param creator: The one that makes them now.

    @ivar creator: The same.
    """

    def __init__(self, creator: IOpenSSLServerConnectionCreator) -> None:
        self.creator = creator

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        return self.creator.serverConnectionForTLS(tlsProtocol)
