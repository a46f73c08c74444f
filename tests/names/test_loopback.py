"""Names over real sockets, with a client and a web server behind it."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tests.support.loopback import LoopbackTestCase, Talk
from tristunnel.listeners.names import NameListeners
from tristunnel.names.public import PublicNames
from tristunnel.names.site import NameSite
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.names import NamesPortProtocol

BODY = bytes(range(256)) * 8192


class _Pages(Resource):
    """Answers with what it was sent, or for what it was asked."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        host = request.getRequestHostname()
        body: bytes = b"%b at %b" % (request.uri, host)
        return body

    def render_POST(self, request: Request) -> bytes:
        assert request.content is not None
        return request.content.read()


class NamesLoopbackCase(LoopbackTestCase):
    """A server with names below C{example}."""

    async def serve(self, *forwards: str) -> int:
        await self.startServer()
        names = PublicNames()
        self.tunnels.listeners["http"] = NameListeners("http", names)
        self.tunnels.hosts.change(["example"], "")
        site = NamesPortProtocol(NameSite(self.reactor, names), False)
        factory = ProtocolDetectorFactory(self.reactor, [site], self.notes)
        endpoint = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        names.opened("http", number)
        pages: Any = Site(_Pages(), timeout=None)
        web = f"127.0.0.1:{self.offer(pages)}"
        await self.startClient(*(each.format(web) for each in forwards))
        return number

    async def ask(self, talk: Talk, data: bytes, ends: bytes) -> bytes:
        before = len(talk.data)
        talk.say(data)
        await talk.until(lambda talk: bytes(talk.data[before:]).endswith(ends))
        return bytes(talk.data[before:])


class NamesLoopbackTests(NamesLoopbackCase):
    """Requests over our own sockets."""

    async def test_requests(self) -> None:
        """Requests for two names on one connection, and a body both ways."""
        port = await self.serve("http/a={}", "http/b={}")
        talk = await self.visit(port)
        for name in (b"a", b"b", b"b", b"a"):
            head = b"GET /%b HTTP/1.1\r\nHost: %b.example\r\n\r\n" % (name, name)
            answer = await self.ask(talk, head, b"/%b at %b.example" % (name, name))
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"))
        head = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n"
        talk.say(head % len(BODY) + BODY)
        await talk.until(lambda talk: len(talk.data) > len(BODY))
        await talk.until(lambda talk: bytes(talk.data[-len(BODY) :]) == BODY)
        talk.close()
        await talk.gone()

    async def test_raw(self) -> None:
        """Behind the first head, a raw tunnel's bytes pass as they are."""
        port = await self.serve("http/a={}", "http/raw={},raw")
        tunnel = next(each for each in self.tunnels.tunnels if "raw" in each.address)
        self.assertTrue(tunnel.address.startswith("http://raw.example:"))
        talk = await self.visit(port)
        length = b"Content-Length: %d\r\n\r\n" % len(BODY)
        talk.say(b"POST / HTTP/1.1\r\nHost: raw.example\r\n" + length + BODY)
        await talk.until(lambda talk: len(talk.data) > len(BODY))
        got = bytes(talk.data[-len(BODY) :])
        self.assertEqual(sha256(got).digest(), sha256(BODY).digest())
        talk.close()
        await talk.gone()

    async def test_clientAway(self) -> None:
        """While a client is away its name is answered for."""
        port = await self.serve("http/a={}", "http/raw={},raw")
        await self.client.stopService()
        for name in (b"a", b"raw"):
            self.assertIn(await self.page(port, name), (404, 503))

    async def test_serviceDown(self) -> None:
        """So it is while its service does not answer, before anything came of it."""
        port = await self.serve("http/a=127.0.0.1:1", "http/raw=127.0.0.1:1,raw")
        for name in (b"a", b"raw"):
            self.assertEqual(await self.page(port, name), 502)

    async def page(self, port: int, name: bytes) -> int:
        talk = await self.visit(port)
        talk.say(
            b"GET / HTTP/1.1\r\nHost: %b.example\r\nAccept: text/html\r\n\r\n" % name
        )
        await talk.ended()
        talk.close()
        await talk.gone()
        self.assertIn(b"</html>", talk.data)
        return int(talk.data.split()[1])


class StockNamesLoopbackTests(NamesLoopbackTests):
    """The same over Twisted's own transports."""

    stock = True
