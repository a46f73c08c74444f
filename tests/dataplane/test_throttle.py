"""
Tests for L{tristunnel.dataplane.throttle}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.dataplane.join import join
from tristunnel.dataplane.memory import HELD
from tristunnel.dataplane.throttle import QUANTUM, Throttle
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed

BURST = 64 * 1024


class MemoryEnd:
    """
    An end of a stream or a flow, in memory.

    @ivar taken: What came, piece by piece.
    @ivar paused: How often it was paused, less how often resumed.
    """

    def __init__(self) -> None:
        self.received = 7
        self.dropped = 0
        self.taken: list[bytes] = []
        self.paused = 0
        self.ended: list[str] = []
        self.peer: MemoryEnd
        self.closed: Closed

    def join(self, peer: MemoryEnd, closed: Closed) -> None:
        self.peer, self.closed = peer, closed

    def passTo(self, peer: MemoryEnd) -> tuple[MemoryEnd, bool]:
        before, self.peer = self.peer, peer
        return before, self.paused > 0

    def whileWaiting(self, left: Closed) -> None:
        self.closed = left

    def write(self, data: bytes) -> None:
        self.taken.append(data)

    send = write

    def finish(self) -> None:
        self.ended.append("finish")

    def reset(self, reason: TunnelError) -> None:
        self.ended.append(reason.code.name)

    def pauseReading(self) -> None:
        self.paused += 1

    def resumeReading(self) -> None:
        self.paused -= 1


class ThrottleTests(SynchronousTestCase):
    """L{Throttle}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.throttle = Throttle(self.clock, 1000)

    def pair(self, datagrams: bool = False) -> tuple[MemoryEnd, MemoryEnd]:
        """Join two ends: a client's and a visitor's."""
        client, visitor = MemoryEnd(), MemoryEnd()
        self.over: list[TunnelError | None] = []
        one, other = self.throttle.between(client, visitor, datagrams)
        join(one, other, self.over.append)
        return client, visitor

    def test_passes(self) -> None:
        """Bytes, ends and breaks pass; the counts are the ends' own."""
        client, visitor = self.pair()
        client.peer.write(b"down")
        visitor.peer.write(b"up")
        visitor.peer.finish()
        client.peer.reset(TunnelError("reset"))
        self.assertEqual((visitor.taken, client.taken), ([b"down"], [b"up"]))
        self.assertEqual((visitor.ended, client.ended), (["reset"], ["finish"]))
        self.assertEqual(client.peer.received, 7)
        client.closed(None)
        self.assertEqual(self.over, [None])
        left: list[object] = []
        client.peer.whileWaiting(left.append)
        visitor.closed(None)
        self.assertEqual(left, [None])

    def test_waits(self) -> None:
        """
        Who sends too much has to wait until it is paid back, and nobody
        waits in the other direction.
        """
        client, visitor = self.pair()
        client.peer.write(bytes(BURST))
        self.assertEqual(client.paused, 0)
        client.peer.write(bytes(3000))
        self.assertEqual((client.paused, visitor.paused), (1, 0))
        self.clock.advance(2.9)
        self.assertEqual(client.paused, 1)
        self.clock.advance(0.2)
        self.assertEqual(client.paused, 0)

    def test_shared(self) -> None:
        """Streams share the rate."""
        client, _ = self.pair()
        other, _ = self.pair()
        client.peer.write(bytes(BURST))
        other.peer.write(bytes(BURST))
        self.assertEqual((client.paused, other.paused), (0, 1))
        client.peer.write(bytes(1000))
        self.clock.advance(BURST / 1000 + 0.1)
        self.assertEqual((client.paused, other.paused), (1, 0))
        self.clock.advance(1)
        self.assertEqual(client.paused, 0)

    def test_little(self) -> None:
        """
        Who says little need not wait behind those who say a lot, until it has
        said as much as they may.
        """
        greedy, _ = self.pair()
        modest, _ = self.pair()
        greedy.peer.write(bytes(BURST + 5000))
        modest.peer.write(b"key")
        self.assertEqual((greedy.paused, modest.paused), (1, 0))
        modest.peer.write(bytes(QUANTUM))
        self.assertEqual(modest.paused, 1)

    def test_bothReasons(self) -> None:
        """An end is read again when neither the rate nor its peer objects."""
        client, visitor = self.pair()
        client.peer.write(bytes(BURST + 1000))
        visitor.peer.pauseReading()
        visitor.peer.pauseReading()
        self.assertEqual(client.paused, 1)
        self.clock.advance(1.1)
        self.assertEqual(client.paused, 1)
        visitor.peer.resumeReading()
        visitor.peer.resumeReading()
        self.assertEqual(client.paused, 0)
        visitor.peer.pauseReading()
        client.peer.write(bytes(BURST + 1000))
        visitor.peer.resumeReading()
        self.assertEqual(client.paused, 1)
        self.clock.advance(100)
        self.assertEqual(client.paused, 0)

    def test_moreWhileWaiting(self) -> None:
        """What comes although it should wait makes the wait longer."""
        client, _ = self.pair()
        client.peer.write(bytes(BURST + 1000))
        client.peer.write(bytes(1000))
        self.clock.advance(1.5)
        self.assertEqual(client.paused, 1)
        self.clock.advance(0.6)
        self.assertEqual(client.paused, 0)

    def test_over(self) -> None:
        """Nothing is left of a stream that ends while it waits."""
        client, _ = self.pair()
        client.peer.write(bytes(BURST + 1000))
        client.closed(TunnelError("reset"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rate(self) -> None:
        """Over a long time it is the rate that passes."""
        throttle = Throttle(self.clock, 100_000)
        client, visitor = MemoryEnd(), MemoryEnd()
        join(*throttle.between(client, visitor), lambda reason: None)
        passed = 0
        for _ in range(1000):
            while not client.paused:
                client.peer.write(bytes(16384))
                passed += 16384
            self.clock.advance(0.1)
        self.assertTrue(0.98 < passed / (100_000 * 100 + BURST) < 1.02)

    def test_latecomer(self) -> None:
        """
        A stream that comes while the rate is overdrawn waits with its first
        piece, so that many short ones are limited as one long one is.
        """
        client, _ = self.pair()
        client.peer.write(bytes(BURST + 2000))
        late, visitor = self.pair()
        late.peer.write(b"first")
        late.peer.write(b"second")
        late.peer.finish()
        self.assertEqual((visitor.taken, visitor.ended), ([], []))
        self.assertEqual(HELD.of(late.peer), 11)
        self.clock.advance(1.9)
        self.assertEqual((visitor.taken, late.paused), ([], 1))
        self.clock.advance(0.2)
        self.assertEqual(visitor.taken, [b"first", b"second"])
        self.assertEqual((visitor.ended, late.paused), (["finish"], 0))
        self.assertEqual(HELD.of(late.peer), 0)

    def test_latecomerLeaves(self) -> None:
        """
        What it had said before it left goes on; of one that broke, nothing
        does.
        """
        client, _ = self.pair()
        client.peer.write(bytes(BURST + 2000))
        late, visitor = self.pair()
        late.peer.write(b"last")
        late.peer.finish()
        late.closed(None)
        self.assertEqual((visitor.taken, visitor.ended), ([b"last"], ["finish"]))
        broken, visitor = self.pair()
        broken.peer.write(b"lost")
        broken.peer.reset(TunnelError("reset"))
        broken.closed(TunnelError("reset"))
        self.assertEqual((visitor.taken, visitor.ended), ([], ["reset"]))
        self.assertEqual(HELD.of(broken.peer), 0)
        self.clock.advance(100)

    def test_shortStreams(self) -> None:
        """Short streams, one after the other, are not faster than the rate."""
        throttle = Throttle(self.clock, 100_000)
        visitors = []
        for _ in range(1000):
            client, visitor = MemoryEnd(), MemoryEnd()
            join(*throttle.between(client, visitor), lambda reason: None)
            client.peer.write(bytes(20_000))
            visitors.append(visitor)
            self.clock.advance(0.1)
        passed = sum(len(data) for visitor in visitors for data in visitor.taken)
        self.assertLess(passed, 1.1 * (100_000 * 100 + BURST))

    def test_changed(self) -> None:
        """A rate that changes lets go of who waits; so does none at all."""
        client, _ = self.pair()
        client.peer.write(bytes(BURST + 500_000))
        self.throttle.change(2000)
        self.assertEqual((client.paused, self.clock.getDelayedCalls()), (0, []))
        client.peer.write(bytes(QUANTUM + 2000))
        self.assertEqual(client.paused, 1)
        self.throttle.change(0)
        for _ in range(100):
            client.peer.write(bytes(BURST))
        self.assertEqual((client.paused, self.clock.getDelayedCalls()), (0, []))

    def test_newFlows(self) -> None:
        """
        A new flow for each datagram is not faster than the rate; a flow that
        says little gets through beside one that says a lot.
        """
        passed = 0
        for _ in range(1000):
            client, visitor = self.pair(True)
            client.peer.send(bytes(1000))
            passed += len(visitor.taken)
            self.clock.advance(0.1)
        self.assertLess(passed, 1.1 * (100 + BURST / 1000))
        self.throttle = Throttle(self.clock, 10_000)
        flood, _ = self.pair(True)
        modest, visitor = self.pair(True)
        for _ in range(80):
            flood.peer.send(bytes(1000))
        modest.peer.send(b"hello")
        self.assertEqual(visitor.taken, [b"hello"])

    def test_lateDatagrams(self) -> None:
        """A flow that has no limit gets one."""
        client, visitor = MemoryEnd(), MemoryEnd()
        join(client, visitor, lambda reason: None)
        self.throttle.onto(client, visitor, True)
        for _ in range(80):
            client.peer.send(bytes(1000))
        self.assertEqual((len(visitor.taken), visitor.dropped), (66, 14))
        self.throttle.change(0)
        client.peer.send(b"again")
        self.assertEqual(visitor.taken[-1], b"again")

    def test_datagrams(self) -> None:
        """Datagrams beyond the rate are dropped and counted."""
        client, visitor = self.pair(True)
        for _ in range(80):
            client.peer.send(bytes(1000))
        self.assertEqual(len(visitor.taken), 66)
        self.assertEqual(visitor.dropped, 14)
        self.assertEqual(client.peer.dropped, 14)
        self.clock.advance(1)
        client.peer.send(b"again")
        self.assertEqual(visitor.taken[-1], b"again")
