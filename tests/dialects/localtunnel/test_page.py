"""
localtunnel's dialect over the loopback interface, with a client in the test's process.
"""

from __future__ import annotations

import json
from typing import Any

from tests.support.loopback import LoopbackTestCase, Talk
from tests.support.polling import until
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.dialects.localtunnel import tunnels
from tristunnel.dialects.localtunnel.dialect import LocaltunnelDialect
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import Health, HTTPPortProtocol, rootOf
from tristunnel.listeners.names import NameListeners
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.quota import TunnelQuota
from tristunnel.names.public import PublicNames
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.service.tunnel_service import TunnelService


class LocaltunnelTestCase(LoopbackTestCase):
    """A server where anybody may connect."""

    named = False

    async def begin(self) -> None:
        listeners: dict[str, Any] = {"tcp": TCPListeners(self.reactor, "127.0.0.1")}
        if self.named:
            names = PublicNames()
            names.offered = frozenset(("http",))
            names.opened("http", 80)
            listeners["http"] = NameListeners("http", names, "http")
        self.tunnels = TunnelService(
            self.reactor, MemoryBook(self.reactor), listeners, self.notes, "127.0.0.1"
        )
        self.tunnels.hosts.change(["example.com"], "")
        self.sessions = TunnelServerFactory(self.reactor, self.tunnels)
        callers = HTTPCallers(self.sessions.authenticator)
        other = LocaltunnelDialect().otherPage(self.sessions, callers)
        root = rootOf({b"health": Health()}, [other])
        site = LimitedSite(root, reactor=self.reactor, admit=callers.admit)
        factory = ProtocolDetectorFactory(
            self.reactor, [HTTPPortProtocol(site)], self.notes
        )
        self.startListening(factory)

    async def get(
        self, path: str, header: str = "Accept: application/json, text/plain, */*"
    ) -> tuple[int, Any]:
        """Ask for a page; the status, and what JSON it has."""
        talk = await self.visit(self.serverPort)
        talk.say(f"GET {path} HTTP/1.0\r\nHost: x\r\n{header}\r\n\r\n".encode())
        await talk.ended()
        head, _, body = bytes(talk.data).partition(b"\r\n\r\n")
        isJSON = b"application/json" in head
        return int(head.split()[1]), json.loads(body) if isJSON else None


class LocaltunnelTests(LocaltunnelTestCase):
    """Without names."""

    async def test_visitors(self) -> None:
        """
        Each of a client's connections is for one visitor; a visitor that there is no
        connection for waits for one.
        """
        await self.begin()
        status, told = await self.get("/?new")
        self.assertEqual((200, 10), (status, told["max_conn_count"]))
        port = int(told["url"].rpartition(":")[2])
        visitors = []
        for number in range(3):
            visitor = await self.visit(port)
            visitor.say(b"%d" % number)
            visitors.append(visitor)
        served: list[Talk] = [await self.visit(told["port"]) for _ in range(3)]
        for talk in served:
            await talk.has(1)
            talk.say(b"answer " + bytes(talk.data))
        for number, visitor in enumerate(visitors):
            await visitor.has(8)
            self.assertEqual(b"answer %d" % number, bytes(visitor.data))

    async def test_others(self) -> None:
        """What is another page's, or not localtunnel's, is left alone."""
        await self.begin()
        self.assertEqual((200, None), await self.get("/health"))
        self.assertEqual((404, None), await self.get("/shop", "Accept: text/html"))
        self.assertEqual((404, None), await self.get("/Sh_op"))
        evil = "Accept: application/json\r\nOrigin: http://evil.example"
        self.assertEqual((403, None), await self.get("/?new", evil))
        self.assertEqual([], self.tunnels.tunnels)

    async def test_refused(self) -> None:
        """A refusal is of a kind whose text the client shows."""
        await self.begin()
        self.tunnels.limit(TunnelQuota(1, 1))
        await self.get("/?new")
        status, told = await self.get("/?new")
        self.assertEqual(202, status)
        self.assertIn("limit-reached", told["message"])

    async def test_leaves(self) -> None:
        """A tunnel whose client has no connection is over after a while."""
        self.patch(tunnels, "ABSENT", 0.05)
        await self.begin()
        _, told = await self.get("/?new")
        talk = await self.visit(told["port"])
        await until(lambda: self.tunnels.tunnels[0].clientSide.served())
        talk.abort()
        await until(lambda: not self.tunnels.tunnels)


class NamedLocaltunnelTests(LocaltunnelTestCase):
    """With names."""

    named = True

    async def test_name(self) -> None:
        """
        A name is had by who asks first, and again when its client has left; others
        get another one.
        """
        await self.begin()
        _, told = await self.get("/shop")
        self.assertEqual("http://shop.example.com", told["url"])
        self.assertEqual("shop", told["id"])
        talk = await self.visit(told["port"])
        side: Any = self.tunnels.tunnels[0].clientSide
        await until(side.served)
        _, other = await self.get("/shop")
        self.assertNotEqual("shop", other["id"])
        talk.abort()
        await until(lambda: not side.served())
        _, told = await self.get("/shop")
        self.assertEqual("shop", told["id"])
