"""TLS between two ends in memory."""

from __future__ import annotations

from cryptography.x509 import Certificate
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test.iosim import FakeTransport, connect
from zope.interface import implementer

from tests.support.protocols import Hearing

__all__ = ["End", "Meeting"]


@implementer(IHandshakeListener)
class End(Hearing):
    """The application at one end."""

    agreed = False

    def handshakeCompleted(self) -> None:
        self.agreed = True


class Meeting:
    """A client and a server that met over TLS, as far as they got."""

    def __init__(
        self,
        server: IOpenSSLServerConnectionCreator | None,
        client: IOpenSSLClientConnectionCreator,
    ) -> None:
        clock = Clock()
        address = IPv4Address("TCP", "127.0.0.1", 0)
        self.client = End(b"credentials")
        self.server = End(b"welcome to a server without TLS")
        serverFactory: IProtocolFactory = Factory.forProtocol(lambda: self.server)
        clientFactory = TLSMemoryBIOFactory(
            client, True, Factory.forProtocol(lambda: self.client), clock=clock
        )
        top = clientFactory.buildProtocol(address)
        if server is not None:
            self.server.greeting = b"welcome"
            serverFactory = TLSMemoryBIOFactory(
                server, False, serverFactory, clock=clock
            )
        bottom = serverFactory.buildProtocol(address)
        pump = connect(
            bottom,
            FakeTransport(bottom, True),
            top,
            FakeTransport(top, False),
            clock=clock,
        )
        pump.flush()
        self.seen: Certificate | None = None
        self.chainLength = 0
        if self.client.agreed and self.client.lost is None:
            connection = top.getHandle()
            self.seen = connection.get_peer_certificate(as_cryptography=True)
            self.chainLength = len(
                connection.get_peer_cert_chain(as_cryptography=True) or ()
            )
