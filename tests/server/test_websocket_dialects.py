"""
Clients by WebSocket, at a whole server.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater

from tests.support.loopback import Service, Talk
from tests.support.polling import until
from tests.websocket.frames import BINARY, CLOSE, TEXT, closePayload, frame
from tests.websocket.rig import RawPeer, WebSocketTestCase
from tristunnel.connect.address import ServerAddress, Trust, parseConnect
from tristunnel.connect.route import ConnectOptions
from tristunnel.dataplane.stock import bytesTaken
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.moves import Carrier
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.websocket.page import PreparedFactory

DATA = os.urandom(3_000_000)


def basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


class FramedTestCase(WebSocketTestCase):
    """A test with a client of the framed protocol."""

    async def startFramed(
        self,
        server: ServerAddress,
        *forwards: str,
        credentials: dict[str, object] | None = None,
        carrier: Carrier | None = None,
    ) -> TunnelClientService:
        done: Deferred[None] = Deferred()
        wanted = len(self.seen.named("tunnelReady")) + len(forwards)

        def told(event: tuple[Any, ...]) -> None:
            ready = len(self.seen.named("tunnelReady")) == wanted
            if (ready or event[0] == "gaveUp") and not done.called:
                done.callback(None)

        self.seen.listeners.append(told)
        client = TunnelClientService(
            self.reactor,
            server,
            [parseForward(self.reactor, spec) for spec in forwards],
            credentials or {},
            self.seen,
            None,
            0.0,
            delay=lambda failures, hint: 0.05,
            carrier=carrier,
        )
        client.startService()
        self.addCleanup(self._stop, client)
        if forwards:
            await done
            # Not within the client's own call.
            await deferLater(self.reactor, 0)
        return client

    def lastPort(self) -> int:
        address: str = self.seen.named("tunnelReady")[-1][0]
        return int(address.rpartition(":")[2])

    async def exchange(self, port: int, service: Service) -> None:
        visitor, at = await self.pair(port, service)
        visitor.say(DATA)
        visitor.finish()
        at.say(DATA[::-1])
        await gatherResults([at.ended(), visitor.has(len(DATA))])
        self.assertEqual(
            hashlib.sha256(DATA).digest(), hashlib.sha256(at.data).digest()
        )
        at.finish()
        await visitor.ended()
        self.assertTrue(DATA[::-1] == bytes(visitor.data))


class FramedTests(FramedTestCase):
    """The framed protocol over C{ws:}."""

    async def test_bothWays(self) -> None:
        """Everything passes, half-close included, and big writes both ways do not stand
        in each other's way."""
        await self.startServer()
        service = Service()
        await self.startFramed(
            self.server("/tunnel"), f"0=127.0.0.1:{self.offer(service)}"
        )
        for _ in range(3):
            await self.exchange(self.lastPort(), service)

    async def test_hundred(self) -> None:
        """A hundred visitors at once."""
        await self.startServer()
        service = Service(b"hello ")
        await self.startFramed(
            self.server("/tunnel"), f"0=127.0.0.1:{self.offer(service)}"
        )
        visitors = [await self.visit(self.lastPort()) for _ in range(100)]
        await gatherResults([visitor.has(6) for visitor in visitors])
        for number, visitor in enumerate(visitors):
            visitor.say(b"%d" % number)
            visitor.finish()
        await gatherResults([talk.ended() for talk in service.talks])
        said = sorted(int(talk.data) for talk in service.talks)
        self.assertEqual(list(range(100)), said)

    async def test_comesBack(self) -> None:
        """When the WebSocket breaks, the client comes back, and its port too."""
        await self.startServer()
        service = Service()
        client = await self.startFramed(
            self.server("/tunnel"), f"0=127.0.0.1:{self.offer(service)}"
        )
        port = self.lastPort()
        session = client.session
        assert session is not None
        session.transport.abortConnection()
        await until(
            lambda: (
                client.session is not session
                and len(self.seen.named("tunnelReady")) >= 2
            )
        )
        self.assertEqual(port, self.lastPort())
        await self.exchange(port, service)

    async def test_otherPaths(self) -> None:
        """Clients connect at any path that is configured, the root too."""
        await self.startServer(paths=("/", "/deep/down", "/tunnel"))
        service = Service()
        port = self.offer(service)
        for path in ("/", "/deep/down", "/tunnel?x=y"):
            await self.startFramed(self.server(path), f"0=127.0.0.1:{port}")
            await self.exchange(self.lastPort(), service)

    async def test_wrongPath(self) -> None:
        """Elsewhere there is nothing, and the client says so."""
        await self.startServer()
        error = await self.assertFailure(self.open("/nothing"), TunnelError)
        self.assertIn("404", error.message)
        self.assertIn("check the path", error.message)

    async def test_noWebSocket(self) -> None:
        """A server of something else is told from ours."""
        service = Service(b"220 mail.example ESMTP\r\n\r\n")
        url = f"ws://127.0.0.1:{self.offer(service)}/"
        self.trust = Trust()
        error = await self.assertFailure(self.open(url), TunnelError)
        self.assertIn("does not speak WebSocket", error.message)

    def assertFailure(self, awaitable: Any, *kinds: Any) -> Any:
        return super().assertFailure(Deferred.fromCoroutine(awaitable), *kinds)


class SecureTests(FramedTests):
    """The same over C{wss:}."""

    tls = True

    async def test_notTrusted(self) -> None:
        """A server that cannot show who it is gets no request, and no headers."""
        await self.startServer()
        route = ConnectOptions(None, {"Authorization": "Bearer secret"}, 0.0)
        server = parseConnect(self.reactor, self.url("/tunnel"), Trust(), route)
        client = TunnelClientService(
            self.reactor, server, [], None, self.seen, delay=lambda f, h: 60.0
        )
        client.startService()
        self.addCleanup(self._stop, client)
        await until(lambda: self.seen.named("disconnected"))
        ((_, message),) = self.seen.named("disconnected")
        self.assertIn("certificate", message)


class CredentialTests(FramedTestCase):
    """Who may connect."""

    users = MappingProxyType({"laptop": "secret"})

    async def test_inHandshake(self) -> None:
        """The framed handshake's credentials do, as over TCP."""
        await self.startServer()
        service = Service()
        await self.startFramed(
            self.server("/tunnel"),
            f"0=127.0.0.1:{self.offer(service)}",
            credentials={"id": "laptop", "secret": "secret"},
        )
        await self.exchange(self.lastPort(), service)

    async def test_inHeader(self) -> None:
        """So does the request's header, alone."""
        await self.startServer()
        service = Service()
        server = self.server("/tunnel", {"Authorization": basic("laptop", "secret")})
        await self.startFramed(server, f"0=127.0.0.1:{self.offer(service)}")
        await self.exchange(self.lastPort(), service)

    async def test_inURL(self) -> None:
        """So does the URL, which no message repeats."""
        await self.startServer()
        service = Service()
        server = self.server(f"ws://laptop:secret@localhost:{self.serverPort}/tunnel")
        self.assertNotIn("secret", server.where)
        await self.startFramed(server, f"0=127.0.0.1:{self.offer(service)}")
        await self.exchange(self.lastPort(), service)

    async def test_wrong(self) -> None:
        """Wrong credentials end the client, wherever they are."""
        await self.startServer()
        for server, credentials in (
            (self.server("/tunnel"), {"id": "laptop", "secret": "no"}),
            (self.server("/tunnel"), {}),
            (self.server("/tunnel", {"Authorization": basic("laptop", "no")}), {}),
        ):
            before = len(self.seen.named("gaveUp"))
            await self.startFramed(
                server, "0=127.0.0.1:1", credentials=dict(credentials)
            )
            self.assertEqual(
                [("auth-refused",)],
                self.seen.named("gaveUp")[before:],
                self.seen.events,
            )

    async def test_vtunnelWithout(self) -> None:
        """A vtunnel client without credentials is told so at its first message."""
        await self.startServer()
        peer = await self.raw()
        peer.say(frame(TEXT, b'{"type":"listen","port":9000}'))
        await peer.hasFrames(1)
        self.assertEqual(CLOSE, peer.frames[0].opcode)
        self.assertEqual(closePayload(1008), peer.frames[0].payload[:2])
        self.assertIn(b"[auth-refused]", peer.frames[0].payload)

    async def test_answer(self) -> None:
        """Whoever shows wrong credentials gets no WebSocket, but an answer that says
        what is wanted; so does a relay's peer without any."""
        await self.startServer()
        for path, headers in (
            ("/tunnel", {"Authorization": basic("laptop", "no")}),
            ("/host", {}),
            ("/client", {}),
            ("/client/room", {}),
        ):
            peer = await self.raw(path, **headers)
            self.assertIn("401", peer.head)
            self.assertIn('Bearer realm="tristunnel"', peer.head)


class OpeningTests(WebSocketTestCase):
    """How WebSockets are opened, and not."""

    async def test_notAnUpgrade(self) -> None:
        """A browser that just looks is told what to do."""
        await self.startServer()
        peer = await self.raw(Upgrade="h2c")
        self.assertIn("426", peer.head)
        await peer.until(lambda it: b"ws:" in it.data)

    async def test_foreignPage(self) -> None:
        """A page from elsewhere may not open tunnels in its reader's name; but visit it
        may, as it may any public port."""
        await self.startServer()
        for path, status in (("/tunnel", "403"), ("/host", "403"), ("/client", "101")):
            peer = await self.raw(path, Origin="https://elsewhere.example")
            self.assertIn(status, peer.head)

    async def test_slow(self) -> None:
        """A request that does not come to its end is given up."""
        await self.startServer()
        self.site.requestTime = 0.05
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.serverPort)
        peer: RawPeer = await connectProtocol(endpoint, RawPeer())
        self._talks.append(peer)
        peer.say(b"GET /tunnel HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
        await peer.until(lambda it: b"\r\n\r\n" in it.data)
        self.assertIn("408", peer.head)

    async def test_silent(self) -> None:
        """Who opens a WebSocket and says nothing is sent away."""
        await self.startServer(timeout=0.05)
        peer = await self.raw()
        await peer.hasFrames(1)
        self.assertEqual(CLOSE, peer.frames[0].opcode)
        self.assertIn(b"[handshake-timeout]", peer.frames[0].payload)

    async def test_wrongFirstMessage(self) -> None:
        """Garbage of either kind is answered with a reason, and others go on."""
        await self.startServer()
        for kind, data, code, words in (
            (TEXT, b"hello", 1007, b"not JSON"),
            (TEXT, b'{"type":7}', 1007, b"not a string"),
            (TEXT, b"[1]", 1007, b"not an object"),
        ):
            peer = await self.raw()
            peer.say(frame(kind, data))
            await peer.hasFrames(1)
            self.assertEqual(closePayload(code), peer.frames[0].payload[:2])
            self.assertIn(words, peer.frames[0].payload)
        peer = await self.raw()
        peer.say(frame(BINARY, b"GET / HTTP/1.1\r\n\r\n"))
        await peer.hasFrames(1)
        self.assertEqual(CLOSE, peer.frames[0].opcode)
        self.assertEqual(1, len(self.notes.named("peerRefused")))

    async def test_textAfterBinary(self) -> None:
        """Text where the framed protocol's bytes are due."""
        await self.startServer()
        peer = await self.raw()
        hello = json.dumps({"id": "x", "tristunnel": {}}).encode()
        peer.say(frame(BINARY, b"W3PTUNL" + len(hello).to_bytes(4, "big")))
        peer.say(frame(TEXT, hello))
        await peer.hasFrames(1)
        self.assertEqual(closePayload(1003), peer.frames[-1].payload[:2])

    async def test_binaryAfterText(self) -> None:
        """Bytes where vtunnel's text is due."""
        await self.startServer()
        peer = await self.raw()
        peer.say(frame(TEXT, b'{"type":"ping"}') + frame(BINARY, b"x"))
        await peer.hasFrames(2)
        self.assertEqual([TEXT, CLOSE], [each.opcode for each in peer.frames])
        self.assertEqual(closePayload(1003), peer.frames[1].payload[:2])


class SiteTests(WebSocketTestCase):
    """Under a C{twisted.web} site, whose HTTP channel is still the transport's producer
    when autobahn takes over."""

    async def test_twoBusyPeers(self) -> None:
        """A peer that sends much before it reads is read from all the same: with the
        HTTP channel as its producer, a transport with a full send buffer would not
        read, and two busy peers wait for each other for ever."""
        await self.startServer()
        host = await self.open("/host")
        guest = await self.open("/client")
        size = 30_000_000
        chunk = b"x" * 250_000
        host.connection.pauseReading()
        guest.connection.pauseReading()
        for each in (host, guest):
            for _ in range(size // len(chunk)):
                each.connection.sendBytes(chunk)
        await deferLater(self.reactor, 0.3)
        host.connection.resumeReading()
        guest.connection.resumeReading()
        await gatherResults(
            [each.until(lambda it: len(it.data) == size) for each in (host, guest)]
        )

    async def test_producerSlot(self) -> None:
        """Our producer is the transport's, and hands on what it is told; and the kernel
        says what the peer has taken."""
        server = await self.startServer()
        peer = await self.raw()
        peer.say(frame(TEXT, b'{"type":"ping"}'))
        await peer.hasFrames(1)
        (session,) = self.sessions.sessions
        vtunnel: Any = session
        transport = vtunnel.connection.transport
        answers = vtunnel.connection.answers
        self.assertIs(answers, transport.producer)
        answers.pauseProducing()
        self.assertTrue(vtunnel.multiplexer._paused)
        answers.resumeProducing()
        self.assertFalse(vtunnel.multiplexer._paused)
        if sys.platform == "linux":
            self.assertGreater(bytesTaken(transport) or 0, 100)
        self.assertTrue(server.running)

    def test_nullOrigin(self) -> None:
        """Setting autobahn's options does not forbid pages without an origin."""
        self.assertTrue(PreparedFactory(self.reactor).allowNullOrigin)


class OnePortTests(FramedTestCase):
    """Everything on one port at the same moment."""

    async def test_allAtOnce(self) -> None:
        """A framed TCP client, a framed WebSocket client, a vtunnel client, a relay
        pair and an RPC call, each with traffic."""
        await self.startServer()
        byTCP, byWS, byV = Service(), Service(), Service()
        address = parseConnect(
            self.reactor, f"tcp:127.0.0.1:{self.serverPort}", self.trust
        )
        await self.startFramed(address, f"0=127.0.0.1:{self.offer(byTCP)}")
        tcpPort = self.lastPort()
        await self.startFramed(
            self.server("/tunnel"), f"0=127.0.0.1:{self.offer(byWS)}"
        )
        wsPort = self.lastPort()
        from tests.dialects.vtunnel.test_vtunnel import startVTunnel

        vPort = await startVTunnel(self, byV)
        host, guest = await self.open("/host"), await self.open("/client")

        async def relay() -> None:
            host.connection.sendBytes(DATA)
            guest.connection.sendBytes(DATA[::-1])
            await guest.until(lambda it: len(it.data) == len(DATA))
            await host.until(lambda it: len(it.data) == len(DATA))

        async def call() -> None:
            for _ in range(20):
                endpoint = TCP4ClientEndpoint(
                    self.reactor, "127.0.0.1", self.serverPort
                )
                talk: Talk = await connectProtocol(endpoint, Talk())
                self._talks.append(talk)
                body = b'{"jsonrpc":"2.0","id":1,"method":"listTunnels"}'
                talk.say(
                    b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
                await talk.ended()
                answer = json.loads(bytes(talk.data).partition(b"\r\n\r\n")[2])
                self.assertEqual(4, len(answer["result"]))

        work = [
            self.exchange(tcpPort, byTCP),
            self.exchange(wsPort, byWS),
            self.exchangeUntilClose(vPort, byV),
            relay(),
            call(),
        ]
        await gatherResults([Deferred.fromCoroutine(each) for each in work])

    async def exchangeUntilClose(self, port: int, service: Service) -> None:
        visitor, at = await self.pair(port, service)
        visitor.say(DATA)
        at.say(DATA[::-1])
        await gatherResults([at.has(len(DATA)), visitor.has(len(DATA))])
        self.assertTrue(bytes(at.data) == DATA and DATA[::-1] == bytes(visitor.data))
        at.close()
        await visitor.ended()
