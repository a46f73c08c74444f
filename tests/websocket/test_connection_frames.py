"""Answers to a WebSocket's handshake, small frames, and who produces bytes for it."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.websocket.connection_rig import ConnectionTestCase, _Transport
from tests.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUE,
    PING,
    PONG,
    TEXT,
    closePayload,
    frame,
    upgrade,
)
from tests.websocket.rig import Recorder
from tristunnel.dataplane.answers import (
    LOOK,
    MOST_WAITING,
    OVERHEAD,
    TAKE_TIME,
    UNWATCHED,
)
from tristunnel.errors import TunnelError
from tristunnel.websocket.incoming import FEW, REQUEST_EFFORT
from tristunnel.websocket.page import PreparedFactory
from tristunnel.websocket.roles import ServerConnection


class AnswerTests(ConnectionTestCase):
    """A peer that asks and takes no answers."""

    def test_latestPing(self) -> None:
        """Of the pings that came while nothing was taken, the latest is answered, and
        what the others would have cost is not kept."""
        self.transport.producer.pauseProducing()
        self.come(*[frame(PING, b"%d" % number) for number in range(50)])
        self.assertEqual([], self.sent())
        self.transport.producer.resumeProducing()
        self.assertEqual([(PONG, b"49")], [f[:2] for f in self.sent()])
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_takesNothing(self) -> None:
        """Who takes no answer for as long as that may last is cut off, and whoever has
        to do with it learns why."""
        self.transport.producer.pauseProducing()
        self.come(frame(PING, b"1"))
        self.clock.pump([LOOK] * int(TAKE_TIME / LOOK))
        self.assertTrue(self.transport.aborted)
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual("stalled", self.receiver.reason)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_takesSlowly(self) -> None:
        """Who takes some is not: its link may be slow."""
        self.transport.bytesTaken = lambda: min(int(self.clock.seconds()), 60)
        self.transport.producer.pauseProducing()
        self.come(frame(PING, b"1"))
        self.clock.pump([1] * int(60 + TAKE_TIME - 1))
        self.assertFalse(self.transport.aborted)
        self.clock.pump([1] * int(LOOK + 1))
        self.assertTrue(self.transport.aborted)

    def test_kernelTakes(self) -> None:
        """A peer that takes nothing of what the kernel has room for is cut off, too;
        one that has taken everything is watched no more."""
        self.transport.bytesTaken = lambda: 7
        for unsent in (0, 1):
            self.transport.unsent = unsent
            for number in range(UNWATCHED // OVERHEAD + 1):
                self.come(frame(PING, b"%d" % number))
            self.clock.pump([LOOK] * int(TAKE_TIME / LOOK + 1))
            self.assertEqual(bool(unsent), self.transport.aborted)
            self.assertEqual([], self.clock.getDelayedCalls())

    def test_messages(self) -> None:
        """A peer for which many answers wait is read no further until it has taken
        them, whatever else has reading paused."""
        self.transport.producer.pauseProducing()
        for _ in range(MOST_WAITING // 100):
            self.connection.sendText(b"x" * 40)
        self.assertEqual("paused", self.transport.producerState)
        self.connection.pauseReading()
        self.transport.producer.resumeProducing()
        self.assertEqual("paused", self.transport.producerState)
        self.connection.resumeReading()
        self.assertEqual("producing", self.transport.producerState)

    def test_closing(self) -> None:
        """A connection that is closed has no producer, with which its transport would
        never be."""
        for close in (
            lambda: self.connection.close(),
            lambda: self.connection.fail(TunnelError("closed")),
            lambda: self.come(frame(CLOSE, closePayload(1000))),
        ):
            self.setUp()
            self.transport.producer.pauseProducing()
            self.come(frame(PING, b"1"))
            close()
            self.assertIsNone(self.transport.producer)
            self.connection.abort()
            self.connection.connectionLost(Failure(ConnectionDone()))
            self.assertEqual([], self.clock.getDelayedCalls())


class SmallFrameTests(ConnectionTestCase):
    """A peer whose frames cost more to read than they carry."""

    def test_rationed(self) -> None:
        """So many are read at once, and the rest in time; all of them in order."""
        for kind in (
            frame(BINARY),
            frame(PONG),
            frame(PING),
            frame(BINARY, b"x"),
            frame(TEXT, b"{}"),
        ):
            self.setUp()
            for _ in range(4):
                self.connection.dataReceived(kind * 3000)
                self.clock.advance(0)
            self.connection.dataReceived(frame(BINARY, b"the end"))
            self.assertEqual("paused", self.transport.producerState)
            self.assertNotIn(b"the end", self.receiver.messages)
            self.clock.pump([0.1] * 30)
            self.assertEqual(b"the end", self.receiver.messages[-1])
            self.assertEqual("producing", self.transport.producerState)
            self.assertEqual([], self.clock.getDelayedCalls())

    def test_turns(self) -> None:
        """What is left of one read waits until others had their turn; what a message
        costs its receiver counts."""
        self.come(frame(BINARY) * 101)
        self.come(frame(BINARY) * 2000)
        self.assertEqual(101 + FEW // 6, len(self.receiver.messages))
        for _ in range(4):
            self.clock.advance(0)
        self.assertEqual(2101, len(self.receiver.messages))
        self.clock.advance(10)

        def costly(data: bytes) -> None:
            self.connection.effort += REQUEST_EFFORT
            self.receiver.messages.append(data)

        self.patch(self.receiver, "bytesReceived", costly)
        self.come(*[frame(BINARY)] * 200)
        self.assertEqual("paused", self.transport.producerState)
        self.assertEqual(2101 + 99, len(self.receiver.messages))

    def test_fragments(self) -> None:
        """Empty fragments are not kept."""
        self.come(frame(TEXT, b"a", fin=False))
        self.come(frame(CONTINUE, fin=False) * 4000, frame(CONTINUE, b"b"))
        self.assertEqual([b"ab"], self.receiver.texts)
        self.assertEqual(0, len(self.connection._gathered))

    def test_largeOnes(self) -> None:
        """What carries more is not rationed."""
        self.come(*[frame(BINARY, b"x" * 64)] * 10000)
        self.assertEqual(640000, len(self.receiver.data))


class ProducerTests(ConnectionTestCase):
    """The transport's producer."""

    def test_sites(self) -> None:
        """The producer that a web site leaves behind makes room for ours."""
        connection = ServerConnection()
        connection.configure(self.clock, Recorder(), 0)
        connection.factory = PreparedFactory(self.clock)
        transport: Any = _Transport()
        transport.registerProducer(object(), True)
        connection.makeConnection(transport)
        connection.dataReceived(upgrade())
        self.assertIs(connection.answers, transport.producer)

    def test_handedOn(self) -> None:
        """Whoever sends more than answers is told when the transport holds enough, also
        if that was before it came."""
        told: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                told.append("pause")

            def resumeProducing(self) -> None:
                told.append("resume")

        self.transport.producer.pauseProducing()
        self.connection.registerProducer(Producer())
        self.transport.producer.resumeProducing()
        self.assertEqual(["pause", "resume"], told)
        self.connection.unregisterProducer()
        self.transport.producer.pauseProducing()
        self.assertEqual(["pause", "resume"], told)

    def test_subprotocol(self) -> None:
        """The client's first choice of what we speak is chosen."""
        connection = ServerConnection()
        connection.configure(self.clock, Recorder(), 0)
        connection.subprotocols = ("b", "c")
        connection.factory = PreparedFactory(self.clock)
        transport: Any = _Transport()
        connection.makeConnection(transport)
        connection.dataReceived(upgrade(Sec_WebSocket_Protocol="a, c, b"))
        self.assertIn(b"Sec-WebSocket-Protocol: c\r\n", transport.value())
        self.assertEqual("c", connection.chosen)
        self.assertNotIn(b"Sec-WebSocket-Extensions", transport.value())
