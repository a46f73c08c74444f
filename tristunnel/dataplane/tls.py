"""
TLS over endpoints: on the socket itself if that is ours, and in Twisted's memory
buffers everywhere else.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tristunnel.dataplane.transport import SocketTransport
from tristunnel.tls.server_context import serverTLS

__all__ = ["serverTLSFactory", "tlsOverClientEndpoint", "tlsOverEndpoint"]


class _Beginning(Protocol):
    """
    Puts TLS over a connection as soon as it is made, and is not called after that.

    @ivar inner: The protocol above TLS.
    """

    def __init__(self, factory: _Factory, inner: IProtocol) -> None:
        self.inner: Any = inner
        self.factory: Any = factory

    def makeConnection(self, transport: Any) -> None:
        if isinstance(transport, SocketTransport):
            transport.factory = self.factory
            tls = self.factory.onSocket(transport)
            transport.startTLS(tls, self.inner)
        else:
            below: Any = self.factory.inMemory(transport, self.inner)
            self.dataReceived = below.dataReceived  # type: ignore[method-assign] # saves a call
            self.connectionLost = below.connectionLost  # type: ignore[method-assign] # likewise
            below.makeConnection(transport)


class _Factory(Factory[Protocol]):
    """
    Makes connections with TLS.

    @param creator: Makes TLS.
    @param isClient: Whether this side begins the handshake.
    @param wrappedFactory: Makes the protocols above TLS.
    """

    noisy = False

    def __init__(
        self, creator: Any, isClient: bool, wrappedFactory: IProtocolFactory
    ) -> None:
        self.wrappedFactory: Any = wrappedFactory
        self._creator = creator
        self._isClient = isClient

    def doStart(self) -> None:
        self.wrappedFactory.doStart()

    def doStop(self) -> None:
        self.wrappedFactory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make the protocol, unless the connection is to be closed at once."""
        inner: Any = self.wrappedFactory.buildProtocol(addr)
        if inner is None or getattr(inner, "isRejection", False):
            return inner
        return _Beginning(self, inner)

    def inMemory(self, transport: Any, inner: IProtocol) -> Any:
        """Make TLS over any other transport, with that one's reactor."""
        clock = getattr(transport, "reactor", None)
        arguments = (self._creator, self._isClient, self.wrappedFactory, clock)
        factory = TLSMemoryBIOFactory(*arguments)
        return factory.protocol(factory, inner)

    def onSocket(self, transport: SocketTransport) -> SSL.Connection:
        """Make TLS on a socket."""
        if not self._isClient:
            return serverTLS(self._creator, transport.connection, transport)
        made: SSL.Connection = self._creator.clientConnectionForTLS(transport)
        return made


def serverTLSFactory(
    creator: IOpenSSLServerConnectionCreator, factory: IProtocolFactory
) -> Factory[Protocol]:
    """
    Put TLS over a factory's connections, of any transport.

    @param creator: Makes the TLS connections.
    @param factory: Speaks in clear text.
    """
    return _Factory(creator, False, factory)


@implementer(IStreamServerEndpoint)
class _TLSServerEndpoint:
    """An endpoint with TLS over it."""

    def __init__(
        self, creator: IOpenSSLServerConnectionCreator, below: IStreamServerEndpoint
    ) -> None:
        self._creator = creator
        self._below = below

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        made: Deferred[IListeningPort] = self._below.listen(
            serverTLSFactory(self._creator, protocolFactory)
        )
        return made


@implementer(IStreamClientEndpoint)
class _TLSClientEndpoint:
    """An endpoint with TLS over it."""

    def __init__(
        self, creator: IOpenSSLClientConnectionCreator, below: IStreamClientEndpoint
    ) -> None:
        self._creator = creator
        self._below = below

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect.

        @return: Fires when the connection is there and TLS has begun. An
            C{IHandshakeListener} is told when the handshake is complete.
        """
        connecting: Deferred[Any] = self._below.connect(
            _Factory(self._creator, True, protocolFactory)
        )
        return connecting.addCallback(lambda beginning: beginning.inner)


def tlsOverEndpoint(
    creator: IOpenSSLServerConnectionCreator, endpoint: IStreamServerEndpoint
) -> IStreamServerEndpoint:
    """
    Put TLS over an endpoint: TCP, UNIX socket, systemd, or PROXY protocol.

    With C{haproxy:}, the header is expected before TLS, unencrypted, as balancers
    send it.

    @param creator: Makes the TLS connections, for example a
        L{ReloadingCertificate
        <tristunnel.tls.server_context.ReloadingCertificate>}.
    @param endpoint: Where to listen.
    @return: An endpoint whose factories see the decrypted bytes.
    """
    return _TLSServerEndpoint(creator, endpoint)


def tlsOverClientEndpoint(
    creator: IOpenSSLClientConnectionCreator, endpoint: IStreamClientEndpoint
) -> IStreamClientEndpoint:
    """
    Put TLS over a client's endpoint.

    @param creator: Makes the TLS connection. One of ours,
        L{ServerVerification<tristunnel.tls.client_context.ServerVerification>},
        may have TLS on the socket; any other has it in memory.
    @param endpoint: What to connect to.
    """
    if not getattr(creator, "onSockets", False):
        return wrapClientTLS(creator, endpoint)
    return _TLSClientEndpoint(creator, endpoint)
