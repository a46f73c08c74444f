"""
Tests of L{tristunnel.server.embedding}: somebody else's site, and a
factory without one.
"""

from __future__ import annotations

import hashlib
from types import MappingProxyType
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from tests.dialects.vtunnel.test_vtunnel import startVTunnel
from tests.server.test_websocket_dialects import FramedTestCase, basic
from tests.support.loopback import Service
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.errors import TunnelError
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.server.embedding import TunnelWebSocketFactory, tunnelResource
from tristunnel.service.tunnel_service import TunnelService


class EmbeddingTests(FramedTestCase):
    """As in the documentation."""

    users = MappingProxyType({"laptop": "secret"})
    path = "/own/tunnels"

    async def startServer(self, *args: Any, **kwargs: Any) -> Any:
        self.addCleanup(self._settle)
        listeners = {"tcp": TCPListeners(self.reactor, "127.0.0.1")}
        self.tunnels = TunnelService(
            self.reactor, MemoryBook(self.reactor), listeners, self.notes
        )
        checker = InMemoryUsernamePasswordDatabaseDontUse(laptop=b"secret")
        self.sessions = TunnelServerFactory(
            self.reactor, self.tunnels, Authenticator(portalFor([checker]))
        )
        port = self.reactor.listenTCP(0, self.makeFactory(), interface="127.0.0.1")
        self.serverPort = port.getHost().port
        self.addCleanup(self._stopAll, port)

    async def _stopAll(self, port: Any) -> None:
        await port.stopListening()
        self.sessions.close(TunnelError("shutting-down"))
        await self.tunnels.close(TunnelError("shutting-down"))

    def makeFactory(self) -> Any:
        root, own = Resource(), Resource()
        root.putChild(b"", Data(b"mine", "text/plain"))
        root.putChild(b"own", own)
        own.putChild(b"tunnels", tunnelResource(self.reactor, self.sessions))
        return Site(root, parsePOSTFormSubmission=False)

    async def test_framed(self) -> None:
        """Our clients, by header or by handshake."""
        await self.startServer()
        service = Service()
        port = self.offer(service)
        header = {"Authorization": basic("laptop", "secret")}
        await self.startFramed(self.server(self.path, header), f"0=127.0.0.1:{port}")
        await self.exchange(self.lastPort(), service)
        await self.startFramed(
            self.server(self.path),
            f"0=127.0.0.1:{port}",
            credentials={"id": "laptop", "secret": "secret"},
        )
        await self.exchange(self.lastPort(), service)

    async def test_vtunnel(self) -> None:
        """vtunnel's clients."""
        await self.startServer()
        header = {"Authorization": basic("laptop", "secret")}
        server = self.server(self.path, header)
        self.patch(self, "server", lambda path: server)
        service = Service()
        port = await startVTunnel(self, service)
        visitor, at = await self.pair(port, service)
        visitor.say(b"x" * 100_000)
        await at.has(100_000)
        self.assertEqual(
            hashlib.sha256(b"x" * 100_000).digest(), hashlib.sha256(at.data).digest()
        )

    async def test_refused(self) -> None:
        """Wrong credentials open nothing."""
        await self.startServer()
        peer = await self.raw(self.path, Authorization=basic("laptop", "no"))
        self.assertIn("401", peer.head)


class FactoryTests(EmbeddingTests):
    """The same with a WebSocket factory, at any path."""

    path = "/any/path"

    def makeFactory(self) -> Any:
        return TunnelWebSocketFactory(self.reactor, self.sessions)

    async def test_slow(self) -> None:
        """A request that does not come to its end is given up."""
        await self.startServer()
        self.sessions.handshakeTimeout = 0.05
        talk = await self.visit(self.serverPort)
        talk.say(b"GET / HTTP/1.1\r\n")
        await talk.gone()

    async def test_long(self) -> None:
        """So is one that has no end."""
        await self.startServer()
        talk = await self.visit(self.serverPort)
        talk.say(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
        await talk.gone()
