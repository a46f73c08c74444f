"""
Raw WebSockets: channels, tunnels whose ends they are, and the relay's two sides
as commands.
"""

from __future__ import annotations

import hashlib
import os
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater

from tests.server.test_websocket_dialects import basic
from tests.support.loopback import Service
from tests.support.polling import until
from tests.websocket.frames import CLOSE, TEXT, closePayload, frame
from tests.websocket.rig import WebSocketTestCase
from tristunnel.client.visitor import LocalPort
from tristunnel.dialects.relay.client_service import RelayHostService, visitorsURL
from tristunnel.dialects.relay.dialect import byWebSocket
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.service.caller import Caller
from tristunnel.websocket.end import RELAY_SUBPROTOCOL

DATA = os.urandom(2_000_000)


class RoomTests(WebSocketTestCase):
    """C{/host} and C{/client}, and channels below."""

    async def test_pair(self) -> None:
        """One of each is joined, whoever comes first, byte for byte, and a close of
        either is one of the other."""
        await self.startServer()
        for first, second in (("/host", "/client"), ("/client", "/host")):
            one = await self.open(first)
            one.connection.sendBytes(b"early")
            other = await self.open(second)
            other.connection.sendBytes(DATA)
            await other.until(lambda it: it.data == b"early")
            await one.until(lambda it: len(it.data) == len(DATA))
            self.assertTrue(bytes(one.data) == DATA)
            one.connection.close()
            await gatherResults([one.gone(), other.gone()])
            self.assertEqual(["", ""], [one.reason, other.reason])
        await until(lambda: not list(self.tunnels.here))

    async def test_inOrder(self) -> None:
        """Several visitors meet as many host connections, in order; one more waits for
        the next."""
        await self.startServer()
        hosts = [await self.open("/host") for _ in range(3)]
        visitors = [await self.open("/client") for _ in range(4)]
        for number, visiting in enumerate(visitors):
            visiting.connection.sendBytes(b"%d" % number)
        hosts.append(await self.open("/host"))
        for number, host in enumerate(hosts):
            await host.until(lambda it: it.data)
            self.assertEqual(b"%d" % number, bytes(host.data))

    async def test_crowd(self) -> None:
        """Visitors of a channel that has a host are awaited, however many come at once
        from one address."""
        self.unauthenticated = (2, 1000)
        await self.startServer()
        host = await self.open("/host")
        visitors = await gatherResults(
            [Deferred.fromCoroutine(self.open("/client")) for _ in range(50)]
        )
        visitors[0].connection.sendBytes(b"x")
        self.assertEqual(self.limiter.unauthenticated, 0)
        for each in visitors[1:]:
            each.connection.abort()
        await host.until(lambda it: it.data == b"x")

    async def test_channels(self) -> None:
        """Channels are apart."""
        await self.startServer()
        a, b = await self.open("/host/a"), await self.open("/host/b")
        visiting = await self.open("/client/b")
        visiting.connection.sendBytes(b"for b")
        await b.until(lambda it: it.data == b"for b")
        self.assertEqual(b"", bytes(a.data))

    async def test_badName(self) -> None:
        """A channel's name is short and plain."""
        await self.startServer()
        for name in ("a" * 65, "a%20b", "a/b"):
            peer = await self.raw(f"/host/{name}")
            self.assertIn("404", peer.head)

    async def test_leavesEarly(self) -> None:
        """A host that leaves before its visitor came is not met."""
        await self.startServer()
        gone = await self.open("/host")
        gone.connection.close()
        await gone.gone()
        host, visiting = await self.open("/host"), await self.open("/client")
        visiting.connection.sendBytes(b"hello")
        await host.until(lambda it: it.data == b"hello")

    async def test_cut(self) -> None:
        """When one side is cut off, the other learns that it was no orderly end."""
        await self.startServer()
        host, visiting = await self.open("/host"), await self.open("/client")
        visiting.connection.sendBytes(b"x")
        await host.until(lambda it: it.data)
        visiting.connection.abort()
        await host.gone()
        self.assertEqual("reset", host.reason)

    async def test_text(self) -> None:
        """Text is refused with a reason, and the other side hears of it."""
        await self.startServer()
        host = await self.open("/host")
        peer = await self.raw("/client")
        peer.say(frame(TEXT, b"hello"))
        await peer.hasFrames(1)
        self.assertEqual(CLOSE, peer.frames[0].opcode)
        self.assertEqual(closePayload(1003), peer.frames[0].payload[:2])
        await host.gone()
        self.assertEqual("protocol-error", host.reason)

    async def test_announced(self) -> None:
        """Who asks for it is told by an empty message that it was joined."""
        await self.startServer()
        knows = await self.open("/host", subprotocols=[RELAY_SUBPROTOCOL])
        self.assertEqual(RELAY_SUBPROTOCOL, knows.connection.chosen)
        doesNot = await self.open("/client")
        await knows.until(lambda it: it.messages == [b""])
        doesNot.connection.sendBytes(b"x")
        await knows.until(lambda it: it.messages == [b"", b"x"])
        self.assertEqual([], doesNot.messages)

    async def test_stop(self) -> None:
        """A server that stops says so to those who wait, and does not leave before it
        was heard."""
        server = await self.startServer()
        host = await self.open("/host")
        await server.stopService()
        self.assertIsNotNone(host.lost)
        self.assertEqual("shutting-down", host.reason)


class OwnerTests(WebSocketTestCase):
    """Where clients must log in."""

    users = MappingProxyType({"one": "1", "two": "2"})

    async def test_hosts(self) -> None:
        """A channel is its first host's; others may visit it and not host it."""
        await self.startServer()
        one = {"Authorization": basic("one", "1")}
        two = {"Authorization": basic("two", "2")}
        host = await self.open("/host/room", one)
        peer = await self.raw("/host/room", **two)
        self.assertIn("403", peer.head)
        await self.open("/host/other", two)
        visiting = await self.open("/client/room", two)
        visiting.connection.sendBytes(b"hello")
        await host.until(lambda it: it.data == b"hello")

    async def test_visitingFirst(self) -> None:
        """A visitor who comes first does not own the channel."""
        await self.startServer()
        two = {"Authorization": basic("two", "2")}
        one = {"Authorization": basic("one", "1")}
        visiting = await self.open("/client/room", two)
        host = await self.open("/host/room", one)
        host.connection.sendBytes(b"hello")
        await visiting.until(lambda it: it.data == b"hello")
        (tunnel,) = list(self.tunnels.here)
        self.assertEqual("one", tunnel.owner.name)

    async def test_tunnelsURI(self) -> None:
        """A tunnel's URI and address are all that is needed to meet there, so that a
        browser can, which sends no such header."""
        await self.startServer()
        caller = Caller(ANONYMOUS_IDENTITY, "localhost", self.serverPort)
        uri = await self.tunnels.openTunnel(caller, {"via": "ws", "listener": "ws"})
        address = await self.tunnels.getTunnelAddress(caller, uri)
        host, visiting = await self.open(uri), await self.open(address)
        visiting.connection.sendBytes(b"hello")
        await host.until(lambda it: it.data == b"hello")


class MixedTests(WebSocketTestCase):
    """C{openTunnel} with C{via} and C{listener} C{ws}."""

    async def openTunnel(self, **options: object) -> tuple[str, str]:
        """Open a tunnel; its URI and its address."""
        caller = Caller(ANONYMOUS_IDENTITY, "localhost", self.serverPort)
        uri = await self.tunnels.openTunnel(caller, options)
        return uri, await self.tunnels.getTunnelAddress(caller, uri)

    async def test_tcpService(self) -> None:
        """A WebSocket visitor, as a browser has, of a raw TCP client."""
        await self.startServer()
        uri, address = await self.openTunnel(via="tcp", listener="ws")
        self.assertTrue(address.startswith(f"ws://localhost:{self.serverPort}/client/"))
        client = await self.visit(int(uri.rpartition(":")[2]))
        client.say(b"banner")
        visiting = await self.open(address)
        await visiting.until(lambda it: it.data == b"banner")
        visiting.connection.sendBytes(DATA)
        await client.has(len(DATA))
        visiting.connection.close()
        await client.ended()
        self.assertTrue(bytes(client.data) == DATA)

    async def test_tcpVisitor(self) -> None:
        """A TCP visitor of a raw WebSocket client."""
        await self.startServer()
        uri, address = await self.openTunnel(via="ws")
        self.assertTrue(uri.startswith(f"ws://localhost:{self.serverPort}/host/"))
        host = await self.open(uri)
        visitor = await self.visit(int(address.rpartition(":")[2]))
        visitor.say(DATA)
        await host.until(lambda it: len(it.data) == len(DATA))
        host.connection.sendBytes(DATA)
        host.connection.close()
        await visitor.ended()
        self.assertTrue(bytes(visitor.data) == DATA)
        visitor.close()
        await until(lambda: not list(self.tunnels.here))

    async def test_halfClose(self) -> None:
        """A TCP end that sends no more closes the WebSocket at the other end; what that
        had sent before it learned of it still arrives."""
        await self.startServer()
        uri, address = await self.openTunnel(via="ws")
        host = await self.open(uri)
        visitor = await self.visit(int(address.rpartition(":")[2]))
        visitor.say(b"question")
        visitor.finish()
        host.connection.sendBytes(b"answer")
        await visitor.ended()
        self.assertEqual(b"answer", bytes(visitor.data))
        await host.gone()
        self.assertEqual(b"question", bytes(host.data))

    async def test_afterTheEnd(self) -> None:
        """A tunnel that is over has no pages any more."""
        await self.startServer()
        uri, address = await self.openTunnel(via="ws", listener="ws", visitors=2)
        caller = Caller(ANONYMOUS_IDENTITY, "localhost", self.serverPort)
        host = await self.open(uri)
        await self.tunnels.closeTunnel(caller, uri)
        await host.gone()
        self.assertEqual("closed", host.reason)
        self.serverPort = int(uri.split(":")[2].partition("/")[0])
        # The names are channels now, where nobody is.
        await self.open(address)
        self.assertEqual(1, len(list(self.tunnels.here)))

    async def test_port(self) -> None:
        """A path has no port."""
        await self.startServer()
        caller = Caller(ANONYMOUS_IDENTITY, "localhost", self.serverPort)
        opening = self.tunnels.openTunnel(
            caller, {"via": "ws", "listener": "ws", "port": 80}
        )
        error: Any = await self.assertFailure(opening, TunnelError)
        self.assertEqual("bad-option", error.code.name)
        self.assertEqual([], list(self.tunnels.here))

    async def test_slowReader(self) -> None:
        """A visitor that stops reading holds the sender, not our memory."""
        await self.startServer()
        uri, address = await self.openTunnel(via="ws", listener="ws")
        host, visiting = await self.open(uri), await self.open(address)
        visiting.connection.pauseReading()
        flood = _Flood(host.connection, 200_000_000)
        host.connection.registerProducer(flood)
        flood.resumeProducing()
        sent = -1
        while flood.sent != sent:
            sent = flood.sent
            await deferLater(self.reactor, 0.2)
        # What the kernel takes on two loopback connections, and a little more.
        self.assertLess(flood.sent, 40_000_000)
        visiting.connection.resumeReading()
        await visiting.until(lambda it: len(it.data) > 50_000_000)
        host.connection.unregisterProducer()
        flood.stopProducing()


class _Flood:
    """A producer that sends all it may."""

    def __init__(self, connection: Any, size: int) -> None:
        self.sent = 0
        self._connection = connection
        self._size = size
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while not self._paused and self.sent < self._size:
            self.sent += 65536
            self._connection.sendBytes(bytes(65536))

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True


class AdapterTestCase(WebSocketTestCase):
    """A test with our own adapters."""

    async def host(self, service: Service, path: str = "/host") -> RelayHostService:
        ready: Deferred[None] = Deferred()

        def told(event: tuple[Any, ...]) -> None:
            if event[0] == "tunnelReady" and not ready.called:
                ready.callback(None)

        self.seen.listeners.append(told)
        host = RelayHostService(
            self.reactor,
            self.server(path),
            [parseForward(self.reactor, f"=127.0.0.1:{self.offer(service)}")],
            observer=self.seen,
            grace=0.0,
            delay=lambda failures, hint: 0.05,
        )
        host.startService()
        self.addCleanup(self._stop, host)
        await ready
        return host

    def listen(self, path: str = "/client") -> int:
        """Start the visitors' side; its port."""
        endpoint = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        route = byWebSocket(self.server(path))
        port = LocalPort(self.reactor, endpoint, "tcp:0", route, "relay", 0.0)
        port.startService()
        self.addCleanup(self._stop, port)
        at: Any = port.listening
        number: int = at.getHost().port
        return number


class AdapterTests(AdapterTestCase):
    """Both sides of a relay as our client has them."""

    async def test_both(self) -> None:
        """One visitor after another, and several at a time, reach the service; it is
        connected to when a visitor is there, not before."""
        await self.startServer()
        service = Service(b"banner")
        await self.host(service, "/host/game")
        self.assertEqual(
            [(self.url("/client/game"),)],
            [event[:1] for event in self.seen.named("tunnelReady")],
        )
        self.assertEqual([], service.talks)
        port = self.listen("/client/game")
        pairs = [await self.pair(port, service) for _ in range(3)]
        for visitor, at in pairs:
            await visitor.has(6)
            visitor.say(DATA)
            await at.has(len(DATA))
            self.assertEqual(
                hashlib.sha256(DATA).digest(), hashlib.sha256(at.data).digest()
            )
            at.close()
            await visitor.ended()

    async def test_noService(self) -> None:
        """A service that is not there is told to the visitor by a reset, and the host
        goes on waiting."""
        await self.startServer()
        service = Service()
        host = await self.host(service)
        host._forwards = [parseForward(self.reactor, "=127.0.0.1:1")]
        port = self.listen()
        for _ in range(2):
            visitor = await self.visit(port)
            await visitor.gone()

    async def test_noHost(self) -> None:
        """A visitor who leaves while no host is there leaves nothing behind."""
        await self.startServer()
        visitor = await self.visit(self.listen())
        await until(lambda: list(self.tunnels.here))
        visitor.abort()
        await until(lambda: not list(self.tunnels.here))

    def test_visitorsURL(self) -> None:
        """Where visitors go is told by where the host is."""
        for host, visitors in (
            ("ws://h:1/host", "ws://h:1/client"),
            ("wss://h/x/host/room", "wss://h/x/client/room"),
            ("ws://h/elsewhere", "ws://h/elsewhere"),
        ):
            self.assertEqual(visitors, visitorsURL(host))
