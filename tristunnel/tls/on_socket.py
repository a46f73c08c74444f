"""TLS directly on a socket, without Twisted's memory buffer in between."""

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

    @param creator: Makes connections for Twisted's TLS; its context is used.
    @param connection: The socket, which does not block.
    @param protocol: Stands for the connection before C{creator} and the choice by ALPN:
        its C{factory} may have a C{wrappedFactory} that negotiates.
    @return: TLS before the handshake.
    """
    context = creator.serverConnectionForTLS(protocol).get_context()
    made = SSL.Connection(context, connection)
    made.set_app_data(protocol)
    made.set_accept_state()
    return made
