"""
Tests for services behind TLS, C{--forward PORT=tls:HOST:PORT}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ServerEndpoint, wrapServerTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.trial.unittest import TestCase

from tests.dialects.framed.memory import RecordingEnd
from tests.support.polling import until
from tests.support.protocols import Answering
from tests.support.short import shortDirectory
from tests.support.stock import StockReactor
from tests.tls.authority import certificateOf, makeAuthority
from tristunnel.dataplane.reactor import polledReactor
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.forwards.service_connector import ServiceConnector
from tristunnel.model.observer import ClientObserver
from tristunnel.tls.certificates import fingerprint

reactor: Any = _reactor


class Talk(Answering):
    """The service."""

    def __init__(self) -> None:
        super().__init__(b"hello ")


class Closing(Talk):
    """One that closes at once."""

    def connectionMade(self) -> None:
        self.transport.loseConnection()


class Visitor(RecordingEnd):
    """The visitor's stream within a session."""

    over = False
    met: Any = None

    def join(self, peer: Any, closed: Any) -> None:
        self.met = peer
        super().join(peer, closed)

    def abandon(self) -> None:
        """It stays."""

    def whileWaiting(self, left: Any) -> None:
        """It waits."""


class TLSServiceTests(TestCase):
    """Visitors of such a service."""

    timeout = 60
    below: Any = reactor
    # Where there is no epoll, Twisted's sockets are used.
    own = polledReactor(reactor) is not reactor

    def setUp(self) -> None:
        self.authority = makeAuthority()
        self.directory = shortDirectory(self)
        self.trusted = self.directory / "authority.pem"
        self.trusted.write_bytes(self.authority.pem)
        self.refusals: list[TunnelError] = []
        self.accepted: list[object] = []
        self.visitor = Visitor()

    async def visit(
        self,
        kind: Callable[[], Protocol] = Talk,
        name: str = "localhost",
        tls: bool = True,
        pin: str = "",
    ) -> None:
        """Have a visitor come to a service, and wait for how that goes."""
        endpoint: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        if tls:
            certificate, key = self.authority.issue([name])
            own = PrivateCertificate.loadPEM(certificate + key)
            endpoint = wrapServerTLS(own.options(), endpoint)
        port = await endpoint.listen(Factory.forProtocol(kind))
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        trusted = f"trustRoots={self.trusted}"
        if pin:
            trusted = (
                f"pin={pin.replace('its', fingerprint(certificateOf(certificate)))}"
            )
        target = f"tls:localhost:{number}:{trusted}"
        endpoint = parseForward(self.below, f"0={target}").endpoint
        connector = ServiceConnector(self.below, ClientObserver())
        visitor: Any = self.visitor
        connector.connect(
            visitor, "it", endpoint, self.accepted.append, self.refusals.append
        )
        await until(lambda: self.accepted or self.refusals)

    async def test_bytes(self) -> None:
        """Bytes pass both ways, and the end of the visitor's ends the connection."""
        await self.visit()
        end: Any = self.visitor.met
        self.assertEqual(self.own, isinstance(end, SocketEnd))
        end.write(b"x" * 300_000)
        await until(lambda: len(self.visitor.taken) >= 300_006)
        self.assertEqual(b"hello " + b"x" * 300_000, bytes(self.visitor.taken))
        end.finish()
        await until(lambda: end.over)

    async def test_wrongName(self) -> None:
        """A certificate for another name is refused, and nothing is sent."""
        await self.visit(name="example.com")
        (refusal,) = self.refusals
        self.assertEqual("service-unreachable", refusal.code.name)
        self.assertIn("it was not reached over TLS", refusal.message)

    async def test_pinned(self) -> None:
        """A certificate that is pinned is right, whatever name it is for."""
        await self.visit(name="example.com", pin="its")
        self.assertEqual(self.refusals, [])
        end: Any = self.visitor.met
        end.finish()
        await until(lambda: end.over)

    async def test_anotherPinned(self) -> None:
        """No other one is, and the cure is one for services."""
        await self.visit(pin="00" * 32)
        self.assertIn("add to its target :pin=", self.refusals[0].message)
        self.assertNotIn("--pin", self.refusals[0].message)

    async def test_noTLS(self) -> None:
        """So is a service without TLS, also if it speaks first."""
        await self.visit(tls=False)
        self.assertEqual("service-unreachable", self.refusals[0].code.name)

    async def test_closes(self) -> None:
        """And one that closes at once."""
        await self.visit(Closing, tls=False)
        self.assertEqual("service-unreachable", self.refusals[0].code.name)


class StockTLSServiceTests(TLSServiceTests):
    """The same over Twisted's TLS, where there is no epoll."""

    below = StockReactor(reactor)
    own = False
