"""
Tests for L{tristunnel.dataplane.pace}, and for the transport that keeps it.
"""

from __future__ import annotations

from math import isfinite
from socket import SOL_SOCKET, create_connection, create_server
from struct import pack, unpack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.dataplane.kernel import FakeKernel, FakeReactor, FakeSocket
from tristunnel.dataplane.pace import FREE, GAP, LEAST, NEVER_LESS, SLOW, WAIT, Pace
from tristunnel.dataplane.poller import Poller
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.dataplane.tuning import paceAt, roundTrips

TEN_MEGABITS = 1.25e6
ROUND_TRIP = 0.04
TURN = 0.01
ROOM = 0.1
"""Seconds' worth of bytes that the router has room for."""


class Line:
    """
    A line behind a router's queue, that is sent as much as may be.

    @ivar rate: Bytes per second that it carries.
    @ivar others: Seconds for which bytes wait there whatever we do.
    @ivar pace: The sender's.
    @ivar now: Seconds.
    @ivar taken: Bytes that have arrived.
    @ivar queues: How long the queue was, each turn.
    @ivar rates: What the sender was allowed, each turn.
    """

    def __init__(self, rate: float = TEN_MEGABITS, others: float = 0.0) -> None:
        self.rate = rate
        self.others = others
        self.pace = Pace()
        self.now = self.taken = 0.0
        self._waiting = 0.0
        self.queues: list[float] = []
        self.rates: list[float] = []

    def rest(self, seconds: float) -> None:
        """Send nothing for so long."""
        self.now += seconds
        self._waiting = 0.0

    def run(self, seconds: float) -> None:
        """Send for so long."""
        self.queues, self.rates = [], []
        pace = self.pace
        for _ in range(int(seconds / TURN)):
            self.now += TURN
            sent = (pace.rate or 2 * self.rate) * TURN
            carried = min(self._waiting + sent, self.rate * TURN)
            self.taken += carried
            self._waiting += sent - carried
            self._waiting = min(self._waiting, ROOM * self.rate)
            queue = self._waiting / self.rate
            if pace.due(self.now):
                trip = ROUND_TRIP + queue + self.others
                pace.look(self.now, int(self.taken), trip, ROUND_TRIP)
            self.queues.append(queue)
            self.rates.append(pace.rate)


class PaceTests(SynchronousTestCase):
    """What a line is given follows the time that its answers take."""

    def test_queue(self) -> None:
        """A sender's own queue goes, and stays away, and the line is used."""
        line = Line()
        line.run(2)
        self.assertGreater(max(line.queues), 0.9 * ROOM)
        before = line.taken
        line.run(10)
        self.assertLess(sorted(line.queues)[len(line.queues) * 99 // 100], 3 * WAIT)
        self.assertGreater(line.taken - before, 0.93 * 10 * line.rate)

    def test_others(self) -> None:
        """
        A queue that does not go is somebody else's: for nearly all of the time, nothing
        is held back, and in the rest not much.
        """
        for others in (0.03, 0.3):
            line = Line(others=others)
            line.run(5 * FREE)
            free = sum(rate == 0 for rate in line.rates) / len(line.rates)
            self.assertGreater(free, 0.8)
            least = min(rate for rate in line.rates if rate)
            self.assertGreaterEqual(least, 0.9 * NEVER_LESS * line.rate)

    def test_fast(self) -> None:
        """A line that is not slow is left alone, whatever stands before it."""
        line = Line(rate=2.0 * SLOW)
        line.run(2)
        line.run(5)
        self.assertEqual({0.0}, set(line.rates))

    def test_faster(self) -> None:
        """What a line carries more is soon used."""
        line = Line()
        line.run(5)
        line.rate *= 4
        line.run(3)
        before = line.taken
        line.run(5)
        self.assertGreater(line.taken - before, 0.9 * 5 * line.rate)

    def test_pause(self) -> None:
        """A time in which there was nothing to send says nothing of the line."""
        line = Line()
        line.run(5)
        before = line.pace.rate
        late = line.now + 2 * GAP
        self.assertFalse(line.pace.look(late, int(line.taken), 1.0, ROUND_TRIP))
        self.assertEqual(before, line.pace.rate)

    def test_anew(self) -> None:
        """
        After such a time a queue that was there before is not taken for one that stays,
        nor the time for one without a queue.
        """
        for seconds in (0.5, 5):
            for slower in (1, 2):
                line = Line()
                line.run(seconds)
                line.rest(10 * GAP)
                line.rate /= slower
                line.run(5)
                self.assertNotIn(0.0, line.rates)
                late = line.queues[len(line.queues) // 5 :]
                self.assertLess(max(late), 3 * WAIT)

    @given(
        st.lists(
            st.tuples(
                st.floats(0, 3),
                st.integers(0, 1 << 30),
                st.floats(0, 5000),
                st.floats(0, 5000),
            )
        )
    )
    def test_always(self, steps: list[tuple[float, int, float, float]]) -> None:
        """Whatever is told, a line is never starved, and a change is one."""
        pace, now, taken = Pace(), 0.0, 0
        for passed, more, trip, least in steps:
            now, taken, before = now + passed, taken + more, pace.rate
            changed = pace.look(now, taken, trip, least)
            self.assertEqual(changed, pace.rate != before)
            self.assertTrue(pace.rate == 0 or pace.rate >= LEAST)
            self.assertTrue(isfinite(pace.rate))


class SlowSocket(FakeSocket):
    """
    One whose kernel is always full, and whose answers take long.

    @ivar info: What the kernel tells of it.
    @ivar options: What it was told.
    """

    info = b""
    options: list[tuple[int, Any]]

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        self.options.append((name, value))

    def getsockopt(self, level: int, name: int, size: int = 0) -> Any:
        return self.info

    def send(self, data: bytes | memoryview) -> int:
        raise BlockingIOError


class TransportTests(SynchronousTestCase):
    """A transport tells the kernel."""

    def fill(self, infos: list[bytes]) -> list[int]:
        """
        Have the kernel be full, one time after the other.

        @param infos: What it tells then.
        @return: The paces that it was told.
        """
        kernel, reactor = FakeKernel(), FakeReactor()
        socket: Any = SlowSocket(kernel, 3)
        socket.options = []
        kernel.sockets[3] = socket
        poller = Poller(reactor, kernel)
        transport = SocketTransport(
            poller,
            socket,
            Protocol(),
            None,
            object(),  # type: ignore[arg-type] # nobody asks
        )
        transport.begin()
        transport.followLine()
        for info in infos:
            socket.info = info
            reactor.advance(0.2)
            transport.filled()
        return [unpack("I", value)[0] for name, value in socket.options if name == 47]

    def info(self, taken: int, trip: int, least: int) -> bytes:
        """As in Linux's C{tcp_info}; microseconds."""
        return pack("68xI48xQ20xI4x", trip, taken, least)[:152]

    def test_slow(self) -> None:
        """It sends less than the line carries while a queue stands."""
        infos = [self.info(number * 250_000, 140_000, 40_000) for number in range(3)]
        paces = self.fill(infos)
        self.assertEqual(1, len(set(paces)))
        self.assertTrue(0.6 * TEN_MEGABITS < paces[0] < 0.9 * TEN_MEGABITS)

    def test_anyRate(self) -> None:
        """Where nothing is to be held back any more, the kernel is told so."""
        infos = [self.info(number * 250_000, 140_000, 40_000) for number in range(20)]
        self.assertEqual(0xFFFFFFFF, self.fill(infos)[-1])

    def test_kernel(self) -> None:
        """Linux itself understands what it is told, and tells what is asked."""
        with (
            create_server(("127.0.0.1", 0)) as port,
            create_connection(port.getsockname()) as connection,
        ):
            trips = roundTrips(connection)
            if trips is None:
                raise SkipTest("this system does not tell")
            for rate, told in ((1e6, 1_000_000), (0.0, -1)):
                paceAt(connection, rate)
                self.assertEqual(told, connection.getsockopt(SOL_SOCKET, 47))
        taken, trip, least = trips
        self.assertLess(taken, 2)
        self.assertTrue(0 < least <= trip < 5)

    def test_unknown(self) -> None:
        """Where the kernel does not tell that much, nothing is held back."""
        self.assertEqual([], self.fill([b"", bytes(148)] * 3))
