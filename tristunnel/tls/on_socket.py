"""
TLS on a socket itself, where Twisted puts a memory buffer in between.
"""

from __future__ import annotations

from socket import socket
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator

__all__ = ["serverTLS"]


def serverTLS(
    creator: IOpenSSLServerConnectionCreator, connection: socket, protocol: Any
) -> SSL.Connection:
    """
    Begin a server's TLS.

    @param creator: What would make a connection for Twisted's TLS; its context is
        what counts.
    @param connection: The socket, which does not block.
    @param protocol: As what C{creator} and the choice by ALPN see the connection:
        its C{factory} may have a C{wrappedFactory} that negotiates.
    @return: TLS before the handshake.
    """
    context = creator.serverConnectionForTLS(protocol).get_context()
    made = SSL.Connection(context, connection)
    made.set_app_data(protocol)
    made.set_accept_state()
    return made
