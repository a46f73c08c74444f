"""
Our programs against W3P's own.

Each pairing of programs is a mixin that opens a tunnel; the cases are the same
for all. The pairing of W3P's client with W3P's server is here too: it shows
what the real programs do with each other, and so whether a failure is ours.

C{TRISTUNNEL_BODY} is the size of the large bodies, in bytes; 64 MiB if unset.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    connectProtocol,
    quoteStringArgument,
)
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, readBody
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data, File

from tests.interop.certificates import Certificate, makeCertificate
from tests.interop.peers import Program, freePort, missingW3P, startTristunnel, startW3P
from tests.interop.services import (
    ClosableFactory,
    Conversation,
    ConversationFactory,
    Digest,
    DigestReader,
    Gathering,
    writeBody,
)
from tests.support.listening import listenHere

if TYPE_CHECKING:
    _Case = TestCase
else:
    _Case = object

_MIB = 1 << 20
_BODY = int(os.environ.get("TRISTUNNEL_BODY", 64 * _MIB))
_VISITORS = 100
_GREETING = b"220 a service that speaks first\r\n"


def _pattern(size: int) -> bytes:
    """
    Make bytes in which a lost or doubled piece shows.

    @param size: how many.
    """
    return (bytes(range(251)) * (1 + size // 251))[:size]


class PairingMixin(_Case):
    """
    What every pairing of a server and a client has.

    @cvar tls: whether the client reaches the server over TLS.
    @cvar replySize: how long a reply may be, in bytes, that the service follows
        with its end at once: W3P's server drops what it has not yet written.
    @ivar server: the server program.
    @ivar client: the client program.
    """

    tls = False
    replySize = 5
    skip = missingW3P()
    #: Seconds; generous, because a test that works never waits for it.
    timeout = 60 + _BODY // _MIB

    reactor: Any
    directory: Path
    certificate: Certificate
    server: Program
    client: Program

    def setUp(self) -> None:
        """Make a place for the programs' files, and the certificate."""
        from twisted.internet import reactor

        self.reactor = reactor
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        if self.tls:
            self.certificate = makeCertificate(self.directory)

    async def openTunnel(self, servicePort: int) -> int:
        """
        Start both programs.

        @param servicePort: the port of the service on 127.0.0.1.
        @return: the port for visitors on 127.0.0.1.
        """
        raise NotImplementedError

    async def reopenTunnel(self) -> int:
        """
        Cut the connection between the programs and wait for it to come back.

        @return: the port for visitors, which may be a new one.
        """
        raise NotImplementedError

    def started(self, program: Program) -> Program:
        """Have a program stopped when the test is over."""
        self.addCleanup(program.stop)
        return program

    def offer(self, factory: Any) -> int:
        """
        Run a service in this process.

        @return: its port on 127.0.0.1.
        """
        closable = ClosableFactory(factory)
        self.addCleanup(closable.abortAll)
        return listenHere(self, self.reactor, closable)

    def offerSite(self, **pages: Resource) -> int:
        """
        Run an HTTP service in this process.

        @param pages: the resources by name.
        @return: its port on 127.0.0.1.
        """
        root = Resource()
        for name, page in pages.items():
            root.putChild(name.encode("ascii"), page)
        return self.offer(Site(root))

    def agent(self) -> Agent:
        """
        Make a browser that keeps its connections.

        The end of a body is then the visitor's to see, not a closed connection:
        W3P's server drops unwritten bytes when the service closes.
        """
        pool = HTTPConnectionPool(self.reactor, persistent=True)
        pool.maxPersistentPerHost = _VISITORS
        self.addCleanup(pool.closeCachedConnections)
        return Agent(self.reactor, pool=pool)

    async def get(self, port: int, page: str) -> bytes:
        uri = f"http://127.0.0.1:{port}/{page}".encode("ascii")
        response = await self.agent().request(b"GET", uri)
        self.assertEqual(response.code, 200)
        body: bytes = await readBody(response)
        return body

    async def visit(self, port: int) -> Conversation:
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
        visitor: Conversation = await connectProtocol(endpoint, Conversation())
        self.addCleanup(self._leave, visitor)
        return visitor

    def _leave(self, visitor: Conversation) -> object:
        """Cut a visitor off, if it is still there, and wait for its end."""
        if visitor.ended.called:
            return None
        visitor.abort()
        return visitor.ended

    async def closed(self, port: int) -> None:
        """Wait until nobody listens on a port any more."""
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
        while True:
            try:
                visitor = await connectProtocol(endpoint, Conversation())
            except ConnectionRefusedError:
                return
            visitor.abort()
            await visitor.ended


class W3PServerMixin(PairingMixin):
    """W3P's own server."""

    async def startServer(self) -> int:
        """
        Start the server.

        @return: the port for clients.
        """
        settings: dict[str, object] = {"port": 0}
        if self.tls:
            settings["key"] = str(self.certificate.key)
            settings["cert"] = str(self.certificate.cert)
        self.server = self.started(startW3P(self.reactor, "server", settings))
        port: int = (await self.server.waitForEvent("main-server-start"))["port"]
        return port


class OurServerMixin(PairingMixin):
    """Our own server."""

    async def startServer(self) -> int:
        """
        Start the server.

        @return: the port for clients.
        """
        port = freePort()
        listen = f"tcp:{port}:interface=127.0.0.1"
        if self.tls:
            key = quoteStringArgument(str(self.certificate.key))
            cert = quoteStringArgument(str(self.certificate.cert))
            listen = f"ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={cert}"
        options = ["--port", listen]
        options += ["--interface", "127.0.0.1", "--hostname", "127.0.0.1"]
        options += ["--state-dir", str(self.directory / "server")]
        self.server = self.started(
            startTristunnel(self.reactor, "tunnel", options, self.directory)
        )
        # The server names the port in its log once it listens.
        await self.server.waitFor(re.compile(rf"\b{port}\b").search)
        return port


class W3PClientMixin(PairingMixin):
    """W3P's own client, with whichever server."""

    async def startServer(self) -> int:
        """
        Start the server.

        @return: the port for clients.
        """
        raise NotImplementedError

    async def openTunnel(self, servicePort: int) -> int:
        settings: dict[str, object] = {
            "host": "localhost",
            "port": await self.startServer(),
            "service": servicePort,
            "credentials": {"id": "a-client"},
        }
        if self.tls:
            settings["ca"] = str(self.certificate.cert)
        self.client = self.started(startW3P(self.reactor, "client", settings))
        return await self._acknowledged(since=0)

    async def reopenTunnel(self) -> int:
        """Have the client cut its connection; it comes back by itself."""
        since = len(self.client.lines)
        self.client.order("drop")
        return await self._acknowledged(since)

    async def _acknowledged(self, since: int) -> int:
        event = await self.client.waitForEvent("authentication-acknowledged", since)
        port: int = event["port"]
        return port


class OurClientMixin(W3PServerMixin):
    """Our own client with W3P's server."""

    async def openTunnel(self, servicePort: int) -> int:
        """Start the server, then the client, which prints the address."""
        serverPort = await self.startServer()
        connect = f"tcp:127.0.0.1:{serverPort}"
        if self.tls:
            trust = quoteStringArgument(str(self.certificate.trust))
            connect = f"tls:localhost:{serverPort}:trustRoots={trust}"
        options = ["--connect", connect, "--forward", f"0=127.0.0.1:{servicePort}"]
        options += ["--state-dir", str(self.directory / "client")]
        self.client = self.started(
            startTristunnel(self.reactor, "tunnel-client", options, self.directory)
        )
        created = await self.server.waitForEvent("tunnel-created")
        port: int = created["port"]
        host = "(localhost|127\\.0\\.0\\.1)"
        await self.client.waitFor(re.compile(rf"\btcp://{host}:{port}\b").search)
        return port

    async def reopenTunnel(self) -> int:
        """Have the server cut the connection; our client comes back by itself."""
        since = len(self.server.lines)
        self.server.order("drop")
        port: int = (await self.server.waitForEvent("tunnel-created", since))["port"]
        return port


class TunnelTestsMixin(PairingMixin):
    """What must work in every pairing."""

    async def test_httpGet(self) -> None:
        """A page of a local HTTP service is fetched through the tunnel."""
        page = b"x" * 1024
        port = await self.openTunnel(self.offerSite(page=Data(page, "text/plain")))
        self.assertEqual(await self.get(port, "page"), page)

    async def test_manyVisitors(self) -> None:
        """A hundred visitors are served at the same time, each its own answer."""
        port = await self.openTunnel(self.offerSite(all=Gathering(_VISITORS)))
        pages = [f"all/{number}" for number in range(_VISITORS)]
        agent = self.agent()
        responses = await gatherResults(
            [
                agent.request(b"GET", f"http://127.0.0.1:{port}/{page}".encode("ascii"))
                for page in pages
            ]
        )
        bodies = await gatherResults([readBody(each) for each in responses])
        self.assertEqual(bodies, [f"/{page}".encode("ascii") for page in pages])

    async def test_largeDownload(self) -> None:
        """A large body reaches the visitor whole."""
        path = self.directory / "body"
        expected = writeBody(path, _BODY)
        port = await self.openTunnel(self.offerSite(body=File(str(path))))
        response = await self.agent().request(
            b"GET", f"http://127.0.0.1:{port}/body".encode("ascii")
        )
        reader = DigestReader()
        response.deliverBody(reader)
        self.assertEqual(await reader.finished, (expected, _BODY))

    async def test_largeUpload(self) -> None:
        """A large body reaches the service whole."""
        path = self.directory / "body"
        expected = writeBody(path, _BODY)
        port = await self.openTunnel(self.offerSite(digest=Digest()))
        response = await self.agent().request(
            b"POST",
            f"http://127.0.0.1:{port}/digest".encode("ascii"),
            bodyProducer=FileBodyProducer(path.open("rb")),
        )
        self.assertEqual(await readBody(response), expected.encode("ascii"))

    async def test_visitorLeaves(self) -> None:
        """The service sees the end of a visitor who leaves."""
        factory = ConversationFactory()
        visitor = await self.visit(await self.openTunnel(self.offer(factory)))
        visitor.write(b"hello")
        service = await factory.arrivals.get()
        await service.whenReceived(5)
        visitor.close()
        self.assertEqual(await service.ended, b"hello")

    async def test_visitorVanishes(self) -> None:
        """A reset by the visitor ends the service's connection too."""
        factory = ConversationFactory()
        visitor = await self.visit(await self.openTunnel(self.offer(factory)))
        visitor.write(b"hello")
        service = await factory.arrivals.get()
        await service.whenReceived(5)
        visitor.abort()
        self.assertEqual(await service.ended, b"hello")

    async def test_serviceEnds(self) -> None:
        """The visitor gets all the service said, and then sees its end."""
        factory = ConversationFactory()
        visitor = await self.visit(await self.openTunnel(self.offer(factory)))
        visitor.write(b"?")
        service = await factory.arrivals.get()
        await service.whenReceived(1)
        said = _pattern(self.replySize)
        service.write(said)
        service.close()
        self.assertEqual(await visitor.ended, said)

    async def test_serviceAbsent(self) -> None:
        """A visitor for whom there is no service is sent away."""
        visitor = await self.visit(await self.openTunnel(freePort()))
        visitor.write(b"?")
        self.assertEqual(await visitor.ended, b"")

    async def test_clientStops(self) -> None:
        """When the client ends, its visitors are cut and its port closes."""
        factory = ConversationFactory()
        port = await self.openTunnel(self.offer(factory))
        visitor = await self.visit(port)
        visitor.write(b"?")
        await (await factory.arrivals.get()).whenReceived(1)
        await self.client.stop()
        await visitor.ended
        await self.closed(port)

    async def test_reconnect(self) -> None:
        """After a lost connection the client comes back, and all works again."""
        page = Data(b"still here", "text/plain")
        port = await self.openTunnel(self.offerSite(page=page))
        self.assertEqual(await self.get(port, "page"), b"still here")
        port = await self.reopenTunnel()
        self.assertEqual(await self.get(port, "page"), b"still here")


class W3PClientTestsMixin(W3PClientMixin):
    """What matters to W3P's client alone."""

    async def test_closeIsNotAnswered(self) -> None:
        """
        A stream that the client has closed is not closed again by the server.

        W3P's client takes any frame of a stream it does not know for a new
        stream, even a close: it connects to the service, closes, and reports
        that, so two ends that answered each other would never come to rest.
        """
        factory = ConversationFactory()
        port = await self.openTunnel(self.offer(factory))
        first = await self.visit(port)
        first.write(b"?")
        service = await factory.arrivals.get()
        await service.whenReceived(1)
        service.close()
        await first.ended

        # Frames keep their order, so an answer would arrive before this.
        second = await self.visit(port)
        second.write(b"!")
        service = await factory.arrivals.get()
        await service.whenReceived(1)
        service.write(b"!")
        await second.whenReceived(1)
        since = len(self.client.lines)
        second.close()
        await self.client.waitForEvent("service-disconnected", since)
        self.assertEqual(self.client.count("service-connected"), 2)
        self.assertEqual(self.client.count("service-disconnected"), 2)


class W3PClientTests(OurServerMixin, W3PClientTestsMixin, TunnelTestsMixin, TestCase):
    """W3P's client with our server, over TCP."""

    # W3P's client writes all it has read before it reports the end.
    replySize = 4 * _MIB

    async def test_serviceSpeaksFirst(self) -> None:
        """
        A service that speaks first is heard by a visitor who says nothing.

        With W3P's own server it is not: a stream begins with its first data.
        """
        factory = ConversationFactory(greeting=_GREETING)
        visitor = await self.visit(await self.openTunnel(self.offer(factory)))
        self.assertEqual(await visitor.whenReceived(len(_GREETING)), _GREETING)


class W3PClientTLSTests(W3PClientTests):
    """W3P's client with our server, over TLS."""

    tls = True


class W3PServerTests(OurClientMixin, TunnelTestsMixin, TestCase):
    """Our client with W3P's server, over TCP."""

    async def test_visitorHurries(self) -> None:
        """
        All that a visitor said reaches the service, even if it left at once.

        W3P's client drops what it has not yet written when the close comes.
        """
        factory = ConversationFactory()
        visitor = await self.visit(await self.openTunnel(self.offer(factory)))
        said = _pattern(4 * _MIB)
        visitor.write(said)
        visitor.close()
        service = await factory.arrivals.get()
        self.assertEqual(await service.ended, said)


class W3PServerTLSTests(W3PServerTests):
    """Our client with W3P's server, over TLS."""

    tls = True


class W3PAloneTests(W3PServerMixin, W3PClientTestsMixin, TunnelTestsMixin, TestCase):
    """W3P's client with W3P's server, over TCP."""


class W3PAloneTLSTests(W3PAloneTests):
    """W3P's client with W3P's server, over TLS."""

    tls = True
