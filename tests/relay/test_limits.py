"""
Tests for L{tristunnel.relay.limits}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed
from tristunnel.relay.join import join
from tristunnel.relay.limits import Throttle

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
        """Keep both."""
        self.peer, self.closed = peer, closed

    def whileWaiting(self, left: Closed) -> None:
        """Keep it."""
        self.closed = left

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.taken.append(data)

    send = write

    def finish(self) -> None:
        """Keep that."""
        self.ended.append("finish")

    def reset(self, reason: TunnelError) -> None:
        """Keep why."""
        self.ended.append(reason.code.name)

    def pauseReading(self) -> None:
        """Count."""
        self.paused += 1

    def resumeReading(self) -> None:
        """Count."""
        self.paused -= 1


class ThrottleTests(SynchronousTestCase):
    """
    L{Throttle}.
    """

    def setUp(self) -> None:
        """
        Have a slow one.
        """
        self.clock = Clock()
        self.throttle = Throttle(self.clock, 1000)

    def pair(self, datagrams: bool = False) -> tuple[MemoryEnd, MemoryEnd]:
        """
        Join two ends: a client's and a visitor's.
        """
        client, visitor = MemoryEnd(), MemoryEnd()
        self.over: list[TunnelError | None] = []
        one, other = self.throttle.between(client, visitor, datagrams)
        join(one, other, self.over.append)
        return client, visitor

    def test_passes(self) -> None:
        """
        Bytes, ends and breaks pass; the counts are the ends' own.
        """
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
        """
        Streams share the rate.
        """
        client, _ = self.pair()
        other, _ = self.pair()
        client.peer.write(bytes(BURST))
        other.peer.write(bytes(1000))
        self.assertEqual((client.paused, other.paused), (0, 1))
        client.peer.write(bytes(1000))
        self.clock.advance(1.1)
        self.assertEqual((client.paused, other.paused), (1, 0))
        self.clock.advance(1)
        self.assertEqual(client.paused, 0)

    def test_bothReasons(self) -> None:
        """
        An end is read again when neither the rate nor its peer objects.
        """
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
        """
        What comes although it should wait makes the wait longer.
        """
        client, _ = self.pair()
        client.peer.write(bytes(BURST + 1000))
        client.peer.write(bytes(1000))
        self.clock.advance(1.5)
        self.assertEqual(client.paused, 1)
        self.clock.advance(0.6)
        self.assertEqual(client.paused, 0)

    def test_over(self) -> None:
        """
        Nothing is left of a stream that ends while it waits.
        """
        client, _ = self.pair()
        client.peer.write(bytes(BURST + 1000))
        client.closed(TunnelError("reset"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rate(self) -> None:
        """
        Over a long time it is the rate that passes.
        """
        throttle = Throttle(self.clock, 100_000)
        client, visitor = MemoryEnd(), MemoryEnd()
        join(*throttle.between(client, visitor), [].append)
        passed = 0
        for _ in range(1000):
            while not client.paused:
                client.peer.write(bytes(16384))
                passed += 16384
            self.clock.advance(0.1)
        self.assertTrue(0.98 < passed / (100_000 * 100 + BURST) < 1.02)

    def test_datagrams(self) -> None:
        """
        Datagrams beyond the rate are dropped and counted.
        """
        client, visitor = self.pair(True)
        for _ in range(80):
            client.peer.send(bytes(1000))
        self.assertEqual(len(visitor.taken), 66)
        self.assertEqual(visitor.dropped, 14)
        self.assertEqual(client.peer.dropped, 14)
        self.clock.advance(1)
        client.peer.send(b"again")
        self.assertEqual(visitor.taken[-1], b"again")
