"""
vtunnel's dialect, at both ends.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.memory import RecordingEnd
from tests.support.loopback import Service, Talk
from tests.support.notes import ClientNotes
from tests.support.polling import until
from tests.support.processes import freePort
from tests.vectors import readVectors
from tests.websocket.frames import CLOSE, TEXT, RecordingConnection, closePayload, frame
from tests.websocket.rig import RawPeer, WebSocketTestCase
from tristunnel.connect.address import ServerAddress
from tristunnel.dataplane.join import LINGER
from tristunnel.dialects.base import client as baseClient
from tristunnel.dialects.base.plain import HOLD, STALL
from tristunnel.dialects.vtunnel import client as vtunnelClient
from tristunnel.dialects.vtunnel.client import (
    ANSWER_TIME,
    VTunnelClientService,
    VTunnelClientSession,
)
from tristunnel.dialects.vtunnel.session import TextLink, VTunnelServerSide
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward, parseForward
from tristunnel.wire.vtunnel import MAX_DATA, decodeMessage


async def startVTunnel(test: Any, *services: Service) -> int:
    """Start our own vtunnel client; the last service's port at the server."""
    done: Deferred[None] = Deferred()
    seen = ClientNotes()

    def told(event: tuple[Any, ...]) -> None:
        if len(seen.named("tunnelReady")) == len(services) and not done.called:
            done.callback(None)

    seen.listeners.append(told)
    port = 0
    forwards = []
    for service in services:
        port = freePort()
        spec = f"{port}=127.0.0.1:{test.offer(service)}"
        forwards.append(parseForward(test.reactor, spec))
    # Our server never speaks first.
    test.patch(vtunnelClient, "WIRE_TIME", 0.0)
    client = VTunnelClientService(
        test.reactor, test.server("/tunnel"), forwards, observer=seen, grace=0.0
    )
    client.startService()
    test.addCleanup(test._stop, client)
    await done
    test.vtunnelPorts = [forward.port for forward in forwards]
    test.vtunnelClient = client
    return port


class FakeConnection(RecordingConnection):
    """One whose messages are vtunnel's."""

    decode = staticmethod(decodeMessage)


class ServerSideTests(SynchronousTestCase):
    """The server's streams, in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.connection = FakeConnection()
        self.side = VTunnelServerSide(
            TextLink(self.connection),
            self.clock.seconds,
            lambda stream, info: None,
            None,
            self.clock.callLater,
        )

    def open(self, port: int = 9000) -> RecordingEnd:
        end = RecordingEnd()
        end.meet(self.side.open({"port": port}))
        return end

    def come(self, **fields: object) -> None:
        self.side.messageArrived(decodeMessage(json.dumps(fields).encode()))

    def test_numbers(self) -> None:
        """Streams count up from 1, and say their port."""
        self.open(9000)
        self.open(9001)
        self.assertEqual(
            [("connect", 9000, 1), ("connect", 9001, 2)],
            [m[:3] for m in self.connection.messages()],
        )

    def test_pieces(self) -> None:
        """Data goes in pieces as vtunnel's programs send it."""
        end = self.open()
        self.connection.messages()
        assert end.stream is not None
        end.stream.write(b"x" * (MAX_DATA * 2))
        sizes = [len(m.data) for m in self.connection.messages()]
        self.assertEqual(MAX_DATA * 2, sum(sizes))
        self.assertLessEqual(max(sizes), MAX_DATA)

    def test_halfClosedVisitor(self) -> None:
        """A visitor that sends no more but awaits an answer gets it: there is only one
        close, and it ends both directions."""
        end = self.open()
        assert end.stream is not None
        end.stream.write(b"question")
        end.stream.finish()
        kinds = [m.kind for m in self.connection.messages()]
        self.assertNotIn("close", kinds)
        self.come(type="data", stream_id=1, data="YW5zd2Vy")
        self.assertEqual(b"answer", bytes(end.taken))
        self.clock.advance(LINGER)
        self.assertEqual(["close"], [m.kind for m in self.connection.messages()])

    def test_noCredit(self) -> None:
        """A visitor that does not read holds the session, not our memory; while others
        wait, it is broken off after a while."""
        slow, other = self.open(), self.open()
        assert slow.stream is not None
        slow.stream.pauseReading()
        piece = "eHh4" * 10_000
        sent = 0
        while not self.connection.paused:
            self.come(type="data", stream_id=1, data=piece)
            sent += 30_000
        self.assertLess(sent, HOLD + 60_000)
        self.clock.advance(STALL)
        self.side.tick()
        self.assertFalse(self.connection.paused)
        assert slow.broken is not None
        self.assertEqual("stalled", slow.broken.code.name)
        self.come(type="data", stream_id=2, data="YQ==")
        self.assertEqual(b"a", bytes(other.taken))

    def test_unknownStream(self) -> None:
        """What comes for a stream that is over is counted, and no more."""
        self.come(type="data", stream_id=7, data="YQ==")
        self.come(type="close", stream_id=7)
        self.come(type="close")
        self.assertEqual(3, self.side.lateFrames)


class ClientSideTests(SynchronousTestCase):
    """The client's session, in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.seen = ClientNotes()
        self.connection = FakeConnection()
        nowhere: Any = _NowhereEndpoint()
        forwards = [
            Forward(f"{port}=service", port, "", f"service{port}", nowhere)
            for port in (9000, 9001)
        ]
        self.session = VTunnelClientSession(self.reactor, forwards, self.seen, "server")
        self.session.opened(self.connection)

    def tearDown(self) -> None:
        self.session.connectionLost(None, Failure(TunnelError("reset")))
        self.assertEqual([], self.reactor.getDelayedCalls())

    def come(self, **fields: object) -> None:
        self.session.textReceived(json.dumps(fields).encode())

    def test_asks(self) -> None:
        """It asks for its ports, and says that it is alive now and then."""
        self.reactor.advance(30)
        self.assertEqual(
            [("listen", 9000), ("listen", 9001), ("ping", 0)],
            [m[:2] for m in self.connection.messages()],
        )

    def test_mute(self) -> None:
        """A server that says nothing for two pings is dead, unless it was so the last
        time, too: an early one answers none."""
        self.session.maybeMute = True
        self.reactor.pump([1.0] * 300)
        self.assertIsNone(self.session.lost)
        self.session.maybeMute = False
        self.reactor.pump([1.0] * 60)
        assert self.session.lost is not None
        self.assertTrue(self.session.mute)
        self.assertIn("sent nothing for 60 s", self.session.lost.message)

    def test_speaksWithoutPong(self) -> None:
        """One that says anything else is not asked for what it may not know."""
        self.come(type="listen_ok", port=9000)
        self.reactor.pump([1.0] * 300)
        self.assertIsNone(self.session.lost)

    def test_pongs(self) -> None:
        """One that has answered a ping is dead when it answers no more."""
        for _ in range(5):
            self.come(type="pong")
            self.reactor.pump([1.0] * 59)
            self.assertIsNone(self.session.lost)
        self.come(type="data", stream_id=7, data="")
        self.reactor.pump([1.0] * 59)
        self.assertIsNone(self.session.lost)
        self.reactor.advance(1)
        self.assertIsNotNone(self.session.lost)
        self.assertFalse(self.session.mute)

    def test_earlyServer(self) -> None:
        """From a server that does not answer, silence is consent."""
        self.assertEqual([], self.seen.named("tunnelReady"))
        self.reactor.advance(ANSWER_TIME)
        self.assertEqual(
            [
                ("tcp://server:9000", "service9000"),
                ("tcp://server:9001", "service9001"),
            ],
            self.seen.named("tunnelReady"),
        )

    def test_laterServer(self) -> None:
        """A refused port is told, and asked for again."""
        self.come(type="listen_ok", port=9000)
        self.come(type="listen_err", port=9001, error="address in use\n")
        self.reactor.advance(ANSWER_TIME)
        self.assertEqual(1, len(self.seen.named("tunnelReady")))
        ((wanted, reason),) = self.seen.named("tunnelFailed")
        self.assertEqual(("port 9001", "port-taken"), (wanted, reason))
        self.connection.messages()
        self.reactor.advance(15)
        self.assertEqual(
            [("listen", 9001)], [m[:2] for m in self.connection.messages()]
        )

    def test_mistakes(self) -> None:
        """A server that counts wrong is left; data for nobody is not."""
        self.come(type="data", stream_id=9, data="YQ==")
        self.come(type="something_new", port=1)
        self.assertIsNone(self.connection.failed)
        self.come(type="connect", port=9000)
        assert self.connection.failed is not None
        self.assertEqual("protocol-error", self.connection.failed.code.name)

    def test_unknownPort(self) -> None:
        """A visitor of a port that nobody asked for is turned away."""
        self.connection.messages()
        self.come(type="connect", port=1, stream_id=1)
        self.assertEqual([("close", 0, 1)], [m[:3] for m in self.connection.messages()])


class _NowhereEndpoint:
    """An endpoint that never connects."""

    def connect(self, factory: object) -> Deferred[Any]:
        return Deferred()


class MuteTests(SynchronousTestCase):
    """The client as a service, at a server that says nothing."""

    def test_once(self) -> None:
        """It is taken for dead once, and then for one that answers no pings."""
        clock = MemoryReactorClock()
        seen = ClientNotes()

        async def openWebSocket(server: object, session: Any) -> None:
            session.opened(FakeConnection())

        self.patch(baseClient, "openWebSocket", openWebSocket)
        endpoint: Any = _NowhereEndpoint()
        endpoint.pingInterval = 30.0
        client = VTunnelClientService(
            clock,
            ServerAddress("ws://server/", "server", endpoint),
            [Forward("9000=service", 9000, "", "service", endpoint)],
            observer=seen,
            grace=0.0,
            delay=lambda failures, hint: 1.0,
        )
        client.startService()
        clock.pump([1.0] * 600)
        self.assertEqual(len(seen.named("disconnected")), 1)
        client.stopService()
        clock.pump([1.0] * 30)


class RecordedTests(WebSocketTestCase):
    """The recorded exchange, with us in either role."""

    def setUp(self) -> None:
        super().setUp()
        self.said: dict[str, list[bytes]] = {"client": [], "server": []}
        for line in readVectors("vtunnel-http-get"):
            if "text" in line:
                self.said[line["from"]].append(line["text"].encode())
        port = freePort()
        for side, texts in self.said.items():
            self.said[side] = [text.replace(b"9510", b"%d" % port) for text in texts]
        self.port = port
        self.request = decodeMessage(self.said["server"][1]).data
        self.answer = decodeMessage(self.said["client"][1]).data

    def other(self, text: bytes) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(text)
        return fields

    async def test_server(self) -> None:
        """We are the server: what we say is what the real one said, except the answer
        to C{listen}, which the early client skips."""
        await self.startServer(paths=("/",))
        peer = await self.raw("/")
        listen, data, close = self.said["client"]
        peer.say(frame(TEXT, listen))
        await peer.hasFrames(1)
        self.assertEqual(
            {"type": "listen_ok", "port": self.port}, self.other(peer.frames[0].payload)
        )
        visitor = await self.visit(self.port)
        visitor.say(self.request)
        await peer.hasFrames(3)
        peer.say(frame(TEXT, data))
        await visitor.has(len(self.answer))
        self.assertEqual(self.answer, bytes(visitor.data))
        visitor.close()
        await peer.hasFrames(4)
        peer.say(frame(TEXT, close))
        self.assertEqual(
            self.said["server"], [each.payload for each in peer.frames[1:]]
        )
        peer.abort()
        await peer.gone()
        await until(lambda: self.notes.named("tunnelDestroyed"))

    async def test_client(self) -> None:
        """We are the client: what we say is what the real one said."""
        service = Service()
        forward = parseForward(
            self.reactor, f"{self.port}=127.0.0.1:{self.offer(service)}"
        )
        server = Service()
        address = self.server(f"ws://127.0.0.1:{self.offer(server)}/")
        client = VTunnelClientService(
            self.reactor, address, [forward], observer=self.seen, grace=0.0
        )
        client.startService()
        self.addCleanup(self._stop, client)
        talk = await server.arrivals.get()
        await talk.until(lambda it: b"\r\n\r\n" in it.data)
        peer = _Upgraded(talk)
        connect, data, close = self.said["server"]
        await peer.has(1)
        talk.say(frame(TEXT, connect, mask=False) + frame(TEXT, data, mask=False))
        at = await service.arrivals.get()
        await at.has(len(self.request))
        self.assertEqual(self.request, bytes(at.data))
        at.say(self.answer)
        await peer.has(2)
        talk.say(frame(TEXT, close, mask=False))
        await peer.has(3)
        await at.ended()
        self.assertEqual(self.said["client"], peer.texts)


class _Upgraded:
    """The server's side of an upgraded conversation, by hand."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        head = bytes(talk.data).decode("latin-1")
        key = head.lower().partition("sec-websocket-key: ")[0]
        key = head[len(key) :].partition(": ")[2].partition("\r\n")[0]
        import base64

        accept = base64.b64encode(
            hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        ).decode()
        talk.say(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )

    @property
    def texts(self) -> list[bytes]:
        from tests.websocket.frames import readFrames

        frames = readFrames(bytes(self._talk.data).partition(b"\r\n\r\n")[2])
        return [each.payload for each in frames if each.opcode == TEXT]

    def has(self, count: int) -> Deferred[Talk]:
        return self._talk.until(lambda talk: len(self.texts) >= count)


class BothTests(WebSocketTestCase):
    """Our client at our server."""

    vtunnelPorts: list[int]
    vtunnelClient: VTunnelClientService

    async def test_four(self) -> None:
        """Four listeners at once, each with its own service."""
        await self.startServer()
        services = [Service(b"%d" % n) for n in range(4)]
        await startVTunnel(self, *services)
        for number, port in enumerate(self.vtunnelPorts):
            visitor = await self.visit(port)
            await visitor.has(1)
            self.assertEqual(b"%d" % number, bytes(visitor.data))

    async def test_hundred(self) -> None:
        """A hundred visitors at once; each gets its own answer."""
        await self.startServer()
        service = Service()
        port = await startVTunnel(self, service)
        pairs = [await self.pair(port, service) for _ in range(100)]
        for number, (visitor, _) in enumerate(pairs):
            visitor.say(b"question %03d" % number)
        await gatherResults([at.has(12) for _, at in pairs])
        for _, at in pairs:
            at.say(bytes(at.data).replace(b"question", b"answer"))
            at.close()
        await gatherResults([visitor.ended() for visitor, _ in pairs])
        for visitor, at in pairs:
            self.assertEqual(
                bytes(at.data).replace(b"question", b"answer"), bytes(visitor.data)
            )

    async def test_closes(self) -> None:
        """Closing in every order loses nothing, and leaves nothing behind."""
        await self.startServer()
        service = Service()
        port = await startVTunnel(self, service)
        data = os.urandom(500_000)
        for order in ("visitor", "service", "both", "visitor aborts", "service aborts"):
            visitor, at = await self.pair(port, service)
            visitor.say(data)
            await at.has(len(data))
            at.say(data)
            await visitor.has(len(data))
            if order in ("visitor", "both"):
                visitor.close()
            if order in ("service", "both"):
                at.close()
            if order == "visitor aborts":
                visitor.abort()
            if order == "service aborts":
                at.abort()
            await gatherResults([visitor.until(_over), at.until(_over)])
            self.assertTrue(data == bytes(at.data) == bytes(visitor.data), order)
            for talk in (visitor, at):
                if talk.lost is None:
                    talk.close()
        await until(
            lambda: not any(tunnel.streams for tunnel in list(self.tunnels.here))
        )
        session: Any = self.vtunnelClient.session
        self.assertEqual({}, session.multiplexer.streams)

    async def test_lastBytes(self) -> None:
        """A service that answers and closes at once is heard to the end."""
        await self.startServer()
        service = Service()
        port = await startVTunnel(self, service)
        data = os.urandom(2_000_000)
        visitor, at = await self.pair(port, service)
        at.say(data)
        at.close()
        await visitor.ended()
        self.assertTrue(data == bytes(visitor.data))

    async def test_taken(self) -> None:
        """A port that is taken is refused: in the log, in the answer of later programs,
        and when nothing else is served, by a close."""
        await self.startServer()
        port = self.offer(Service())
        peer = await self.raw()
        peer.say(frame(TEXT, b'{"type":"listen","port":%d}' % port))
        peer.say(frame(TEXT, b'{"type":"listen"}'))
        peer.say(frame(TEXT, b'{"type":"listen","port":22}'))
        await peer.hasFrames(4)
        *answers, close = peer.frames
        kinds = [json.loads(each.payload) for each in answers]
        self.assertEqual(["listen_err"] * 3, [each["type"] for each in kinds])
        self.assertIn("port-taken", kinds[0]["error"])
        self.assertEqual(CLOSE, close.opcode)

    async def test_takenBeside(self) -> None:
        """A session that serves something else goes on."""
        await self.startServer()
        taken, free = self.offer(Service()), freePort()
        peer = await self.raw()
        for port in (taken, free):
            peer.say(frame(TEXT, b'{"type":"listen","port":%d}' % port))
        await peer.hasFrames(2)
        visitor = await self.visit(free)
        await peer.hasFrames(3)
        self.assertEqual("connect", json.loads(peer.frames[2].payload)["type"])
        visitor.abort()
        # The two connections are read in any order.
        await peer.hasFrames(4)
        peer.say(frame(TEXT, b'{"type":"listen","port":%d}' % free))
        await peer.hasFrames(5)
        # The visitor's end comes by another connection, earlier or later.
        answers = [json.loads(each.payload) for each in peer.frames[3:]]
        self.assertIn({"type": "listen_ok", "port": free}, answers)

    async def test_garbageLater(self) -> None:
        """Garbage within a session ends it with a reason, and the session's ports with
        it; another client's are as they were."""
        await self.startServer()
        service = Service(b"hello")
        other = await startVTunnel(self, service)
        for bad, code in (
            (b'{"type":"data","stream_id":1,"data":"*"}', 1007),
            (b'{"type":"data","stream_id":-1}', 1007),
            (b"not json", 1007),
        ):
            port = freePort()
            peer = await self.raw()
            peer.say(frame(TEXT, b'{"type":"listen","port":%d}' % port))
            await peer.hasFrames(1)
            peer.say(frame(TEXT, bad))
            await peer.hasFrames(2)
            self.assertEqual(closePayload(code), peer.frames[1].payload[:2])
            await peer.ended()
            await until(lambda: len(list(self.tunnels.here)) <= 1)
        visitor = await self.visit(other)
        await visitor.has(5)

    async def test_rpcCloses(self) -> None:
        """When the last tunnel of a session is closed by a call, so is the session: the
        dialect cannot say it otherwise."""
        await self.startServer()
        peer = await self.raw()
        peer.say(frame(TEXT, b'{"type":"listen","port":%d}' % freePort()))
        await peer.hasFrames(1)
        (tunnel,) = list(self.tunnels.here)
        await self.tunnels.destroy(tunnel, TunnelError("closed", "by a call"))
        await peer.hasFrames(2)
        self.assertIn(b"by a call", peer.frames[1].payload)


def _over(talk: Talk | RawPeer) -> bool:
    return talk.eof or talk.lost is not None
