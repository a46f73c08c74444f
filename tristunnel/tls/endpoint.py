"""TLS over any server endpoint."""

from __future__ import annotations

from twisted.internet.endpoints import wrapServerTLS
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IReactorTime,
    IStreamServerEndpoint,
)

__all__ = ["tlsOverEndpoint"]


def tlsOverEndpoint(
    creator: IOpenSSLServerConnectionCreator,
    endpoint: IStreamServerEndpoint,
    reactor: IReactorTime | None = None,
) -> IStreamServerEndpoint:
    """
    Put TLS over an endpoint: TCP, UNIX socket, systemd, or PROXY protocol.

    With C{haproxy:} the header is expected in front of TLS, in clear text,
    which is what balancers send.

    @param creator: Makes the TLS connections, for example a
        L{ReloadingCertificate
        <tristunnel.tls.server_context.ReloadingCertificate>}.
    @param endpoint: Where to listen.
    @param reactor: Schedules the flushing of small writes; the global reactor
        when C{None}.
    @return: An endpoint whose factories speak in clear text.
    """
    return wrapServerTLS(creator, endpoint, reactor)
