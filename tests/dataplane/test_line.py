"""
Tests for L{tristunnel.dataplane.line}, and for the transport that follows it.
"""

from __future__ import annotations

from struct import pack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from tests.dataplane.kernel import FakeKernel, FakeReactor, FakeSocket
from tristunnel.dataplane.line import GAP, LEAST, MOST, UNKNOWN, LineRate
from tristunnel.dataplane.poller import IN, OUT, Poller
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.dataplane.tuning import TCP_NOTSENT_LOWAT

SEGMENT = 64 * 1024
"""What the kernel takes before it looks at its bound."""


class LineRateTests(SynchronousTestCase):
    """What may wait follows the rate."""

    def measure(self, rate: float, seconds: float = 1.0) -> LineRate:
        """What is known of a line that was full every five milliseconds."""
        line = LineRate()
        for step in range(int(seconds / 0.005)):
            line.full(step * 0.005, int(step * 0.005 * rate))
        return line

    def test_bounds(self) -> None:
        """Ten milliseconds' worth, but neither too little nor too much."""
        for rate, most in ((1e5, LEAST), (4e6, 40_000), (1e9, MOST)):
            line = self.measure(rate)
            self.assertAlmostEqual(line.most / most, 1, delta=0.01)

    def test_unknown(self) -> None:
        """A moment says nothing of the rate."""
        self.assertEqual(UNKNOWN, self.measure(1e5, 0.015).most)

    def test_idle(self) -> None:
        """A time in which nobody had anything to send does not count."""
        line = self.measure(4e6)
        before = line.most
        line.full(1 + 2 * GAP, 4_000_000 + 1)
        line.full(1 + 2 * GAP + 0.025, 4_000_000 + 1 + 100_000)
        self.assertAlmostEqual(line.most / before, 1, delta=0.3)

    @given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 1 << 30))))
    def test_always(self, steps: list[tuple[float, int]]) -> None:
        """Whatever is measured, the bound is one, and a change is told."""
        line, now, taken = LineRate(), 0.0, 0
        for passed, more in steps:
            now, taken, before = now + passed, taken + more, line.most
            self.assertEqual(line.full(now, taken), line.most != before)
            self.assertTrue(LEAST <= line.most <= MOST)


class SlowSocket(FakeSocket):
    """
    One whose line takes so many bytes a second, and whose kernel fills a segment
    before it looks at the bound.

    @ivar bound: The bound.
    @ivar notSent: Bytes that wait in the kernel.
    @ivar bounds: How often the bound was set.
    """

    bound = 1 << 30
    notSent = 0.0
    bounds = 0

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        if name == TCP_NOTSENT_LOWAT:
            self.bound = value
            self.bounds += 1

    def getsockopt(self, level: int, name: int, size: int = 0) -> Any:
        """As Linux tells of a connection: what it has not sent, behind the rest."""
        return bytes(144) + pack("I", int(self.notSent))

    def send(self, data: bytes | memoryview) -> int:
        if self.notSent >= max(self.bound, SEGMENT):
            raise BlockingIOError
        self.notSent += len(data)
        return len(data)

    def events(self) -> int:
        return OUT if self.notSent * 2 < self.bound else 0


class Source(Protocol):
    """Sends as much as it may, in pieces such as a session has."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.followLine()
        self.transport.registerProducer(self, True)
        self.paused = False

    def resumeProducing(self) -> None:
        self.paused = False
        while not self.paused:
            self.transport.write(b"x" * min(self.transport.full, 65536))

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.paused = True


class FollowingTests(SynchronousTestCase):
    """A transport lets little wait, and never the line."""

    def make(self, source: Source) -> tuple[SlowSocket, FakeKernel, SocketTransport]:
        kernel = FakeKernel()
        socket: Any = SlowSocket(kernel, 3)
        kernel.sockets[3] = socket
        self.reactor = FakeReactor()
        transport = SocketTransport(
            Poller(self.reactor, kernel),
            socket,
            source,
            None,
            object(),  # type: ignore[arg-type] # nobody asks
        )
        transport.begin()
        return socket, kernel, transport

    def send(self, rate: float, step: float) -> tuple[SlowSocket, SocketTransport, int]:
        """
        Send for a second.

        @return: The socket, the transport, and how often the line stood still in the
            second half.
        """
        source = Source()
        socket, _, transport = self.make(source)
        reactor = self.reactor
        source.resumeProducing()
        stood = 0
        for number in range(int(1 / step)):
            reactor.advance(0)
            for reader in list(reactor.readers):
                reader.doRead()
            reactor.advance(step)
            socket.notSent -= rate * step
            if socket.notSent < 0:
                socket.notSent = 0.0
                stood += number > 0.5 / step
        return socket, transport, stood

    def test_slow(self) -> None:
        """
        On ten megabits a second, a keystroke waits for 25 milliseconds' worth at
        the most, and the line is never without bytes.
        """
        rate = 1.25e6
        socket, transport, stood = self.send(rate, 0.001)
        self.assertEqual(0, stood)
        self.assertLess(abs(socket.bound - 0.01 * rate), 0.25 * 0.01 * rate)
        self.assertLess(socket.notSent + transport.unsent, 0.025 * rate)

    def test_fast(self) -> None:
        """On a gigabit a second nothing is held back."""
        socket, _, stood = self.send(1.25e8, 0.0004)
        self.assertEqual((0, MOST), (stood, socket.bound))

    def test_seldom(self) -> None:
        """A steady line costs no calls."""
        self.assertLess(self.send(4e6, 0.001)[0].bounds, 8)

    def test_requests(self) -> None:
        """
        Many small answers, each of which the line has taken before the next one, are
        no slow line: the kernel is never asked for room.
        """
        socket, kernel, transport = self.make(Source())
        for _ in range(2000):
            transport.write(b"x" * 300)
            self.reactor.advance(0)
            self.assertEqual(IN, kernel.watched[3])
            socket.notSent = 0.0
        self.assertEqual(1, socket.bounds)
