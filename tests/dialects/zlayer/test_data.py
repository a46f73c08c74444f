"""
Data connections' ends, in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.memory import RecordingEnd
from tests.dialects.zlayer.rig import FakeConnection
from tristunnel.dataplane.join import LINGER
from tristunnel.dialects.zlayer.data_end import (
    DATA_SUBPROTOCOL,
    HELD_BYTES,
    DataEnd,
    DataFlow,
)
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import MAX_DATAGRAM


class Connection(FakeConnection):
    """A connection with a clock."""

    def __init__(self, chosen: str = "") -> None:
        super().__init__()
        self.chosen = chosen
        self.reactor = Clock()

    def unregisterProducer(self) -> None:
        """Nothing to do."""


class DataEndTests(SynchronousTestCase):
    """Bytes."""

    def make(
        self, chosen: str = "", patient: bool = False
    ) -> tuple[DataEnd, Connection, RecordingEnd]:
        end, connection, peer = DataEnd(patient=patient), Connection(chosen), None
        end.opened(connection)  # type: ignore[arg-type] # a fake
        peer = RecordingEnd()
        end.join(peer, lambda reason: None)
        return end, connection, peer

    def test_directionsEndApart(self) -> None:
        """Between our own ends an empty message ends one direction, and the WebSocket
        closes after both."""
        end, connection, peer = self.make(DATA_SUBPROTOCOL)
        end.finish()
        end.finish()
        self.assertEqual(connection.written, [b""])
        self.assertFalse(connection.closed)
        end.bytesReceived(b"answer")
        end.bytesReceived(b"")
        self.assertEqual(bytes(peer.taken), b"answer")
        self.assertTrue(peer.finishes)
        self.assertTrue(connection.closed)

    def test_readsOn(self) -> None:
        """After the last byte the close is still read."""
        end, connection, _ = self.make(DATA_SUBPROTOCOL)
        end.pauseReading()
        self.assertTrue(connection.paused)
        end.bytesReceived(b"")
        self.assertFalse(connection.paused)

    def test_others(self) -> None:
        """For others an empty message says nothing, and our end closes."""
        end, connection, peer = self.make()
        end.bytesReceived(b"")
        self.assertFalse(peer.finishes)
        end.finish()
        self.assertEqual(connection.written, [])
        self.assertTrue(connection.closed)

    def test_patience(self) -> None:
        """Where a close would cut off the answer, it waits for that."""
        end, connection, peer = self.make(patient=True)
        end.write(b"question")
        end.finish()
        for piece in (b"answer", b"more"):
            connection.reactor.advance(LINGER - 1)
            end.bytesReceived(piece)
        connection.reactor.advance(LINGER - 1)
        self.assertFalse(connection.closed)
        connection.reactor.advance(1)
        self.assertTrue(connection.closed)
        self.assertEqual(bytes(peer.taken), b"answermore")

    def test_patienceOver(self) -> None:
        """A break ends the waiting."""
        end, connection, _ = self.make(patient=True)
        end.finish()
        end.reset(TunnelError("reset"))
        self.assertEqual(connection.reactor.getDelayedCalls(), [])

    def test_breakOff(self) -> None:
        """Both ends hear of it."""
        end, connection, peer = self.make()
        end.breakOff(TunnelError("shutting-down"))
        self.assertIsNotNone(connection.failed)
        self.assertIsNotNone(peer.broken)


class Sink:
    """A L{DatagramEnd<tristunnel.interfaces.DatagramEnd>} that keeps what it gets."""

    received = dropped = 0

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.over: list[Any] = []

    def send(self, datagram: bytes) -> None:
        self.sent.append(datagram)

    def finish(self) -> None:
        self.over.append(None)

    def reset(self, reason: TunnelError) -> None:
        self.over.append(reason.code.name)


class DataFlowTests(SynchronousTestCase):
    """Datagrams."""

    def setUp(self) -> None:
        self.flow = DataFlow(lambda flow: None)
        self.connection = Connection()
        self.flow.opened(self.connection)  # type: ignore[arg-type] # a fake
        self.sink = Sink()
        self.flow.join(self.sink, lambda reason: None)  # type: ignore[arg-type] # a fake

    def test_whole(self) -> None:
        """Messages come whole, up to the largest datagram."""
        self.assertEqual(self.connection.wholeUpTo, MAX_DATAGRAM)
        self.flow.bytesReceived(b"a")
        self.flow.bytesReceived(b"")
        self.assertEqual(self.sink.sent, [b"a", b""])

    def test_congestion(self) -> None:
        """What the way does not take waits, and is dropped when that is too much."""
        self.flow.pauseProducing()
        many = HELD_BYTES // 1024 + 5
        for _ in range(many):
            self.flow.send(bytes(1024))
        self.assertEqual(self.connection.written, [])
        self.assertEqual(self.flow.dropped, 5)
        self.flow.resumeProducing()
        self.assertEqual(len(self.connection.written), many - 5)
        self.flow.send(b"next")
        self.assertEqual(self.connection.written[-1], b"next")

    def test_end(self) -> None:
        """The end of either side is the other's; what waited counts as dropped."""
        self.flow.pauseProducing()
        self.flow.send(b"x")
        self.flow.closeReceived(None)
        self.assertEqual(self.sink.over, [None])
        self.assertEqual(self.flow.dropped, 1)
        self.flow.send(b"x")
        self.assertEqual(self.flow.dropped, 2)
        self.assertTrue(self.connection.closed)

    def test_text(self) -> None:
        """Text is no datagram."""
        self.flow.textReceived(b"x")
        self.assertEqual(self.sink.over, ["protocol-error"])
