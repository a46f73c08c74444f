"""Tests for L{tristunnel.dataplane.tls}, over real sockets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.support.protocols import Hearing
from tristunnel.dataplane.tls import tlsOverEndpoint
from tristunnel.tls.certificates import parseFingerprint, selfSigned
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.explanation import explainTLSFailure
from tristunnel.tls.server_context import ReloadingCertificate

_TIMEOUT = 10


class Telling(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        peer = self.transport.getPeer()
        host = getattr(peer, "host", "nobody").encode("ascii")
        self.transport.write(host + b" says " + data)
        self.transport.loseConnection()


class _Announced(ProtocolWrapper):
    """Sends a PROXY header in front of everything, as a balancer does."""

    def makeConnection(self, transport: Any) -> None:
        transport.write(b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n")
        super().makeConnection(transport)


@implementer(IStreamClientEndpoint)
class _Balancer:
    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        wrapping = WrappingFactory(protocolFactory)
        wrapping.protocol = _Announced
        return self._endpoint.connect(wrapping)


class TLSOverEndpointTests(TestCase):
    """Tests for L{tlsOverEndpoint}."""

    timeout = _TIMEOUT

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.directory = Path(self.mktemp())
        self.server = ReloadingCertificate(selfSigned(self.directory, ["localhost"]))
        self.client = ServerVerification(
            "localhost", pins=[parseFingerprint(self.server.fingerprint)]
        )

    async def ask(
        self,
        serverEndpoint: IStreamServerEndpoint,
        connector: Callable[[int], IStreamClientEndpoint],
        client: ServerVerification | None = None,
    ) -> Hearing:
        """Say something to a server, and wait for the end."""
        port = await serverEndpoint.listen(Factory.forProtocol(Telling))
        try:
            endpoint = wrapClientTLS(
                self.client if client is None else client,
                connector(getattr(port.getHost(), "port", 0)),
            )
            asking = Hearing(b"hello")
            await connectProtocol(endpoint, asking)
            return await asking.gone()
        finally:
            await maybeDeferred(port.stopListening)

    def tcp(self, port: int) -> IStreamClientEndpoint:
        return TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)

    def listening(self) -> IStreamServerEndpoint:
        """Listen on TCP. @return: The endpoint."""
        return TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")

    async def test_tcp(self) -> None:
        """TLS works over TCP."""
        asked = await self.ask(tlsOverEndpoint(self.server, self.listening()), self.tcp)
        self.assertEqual(asked.data, b"127.0.0.1 says hello", asked.lost)

    async def test_unix(self) -> None:
        """TLS works over UNIX sockets."""
        path = str(self.directory / "s")
        asked = await self.ask(
            tlsOverEndpoint(self.server, UNIXServerEndpoint(self.reactor, path)),
            lambda port: UNIXClientEndpoint(self.reactor, path),
        )
        self.assertEqual(asked.data, b"nobody says hello", asked.lost)

    async def test_proxy(self) -> None:
        """A PROXY header in front of TLS gives the client's address."""
        asked = await self.ask(
            tlsOverEndpoint(self.server, proxyEndpoint(self.listening())),
            lambda port: _Balancer(self.tcp(port)),
        )
        self.assertEqual(asked.data, b"192.0.2.7 says hello", asked.lost)

    async def explained(
        self, serverEndpoint: IStreamServerEndpoint, client: ServerVerification
    ) -> str:
        asked = await self.ask(serverEndpoint, self.tcp, client)
        self.assertEqual(asked.data, b"")
        assert asked.lost is not None
        return str(explainTLSFailure(asked.lost, "localhost", client))

    async def test_explained(self) -> None:
        """Over real sockets failures have their explanations, too."""
        listening = tlsOverEndpoint(self.server, self.listening())
        wrong = ServerVerification("localhost", pins=[bytes(32)])
        text = await self.explained(listening, wrong)
        self.assertIn(bytes(32).hex(), text)
        self.assertIn(self.server.fingerprint, text)
        text = await self.explained(listening, ServerVerification("localhost"))
        self.assertIn(f"--pin {self.server.fingerprint}", text)

    async def test_noTLS(self) -> None:
        """A server that speaks no TLS is recognized."""
        text = await self.explained(self.listening(), self.client)
        self.assertIn("tcp:localhost:PORT", text)

    async def test_clientCertificate(self) -> None:
        """A server that requires a certificate of the client says so."""
        own = self.directory / "server.pem"
        server = ReloadingCertificate(own, clientCA=own)
        text = await self.explained(
            tlsOverEndpoint(server, self.listening()), self.client
        )
        self.assertIn("--certificate FILE", text)
