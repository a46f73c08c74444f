"""
Tests for L{tristunnel.dataplane.memory} and L{tristunnel.dataplane.descriptors}.
"""

from __future__ import annotations

import os
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any
from unittest import skipUnless

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.waiting import WaitingEnd
from tristunnel.dataplane.descriptors import EACH, Reserve
from tristunnel.dataplane.memory import HeldBytes, defaultMemory
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import Frame, FrameType


class HeldBytesTests(SynchronousTestCase):
    """L{HeldBytes}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.held = HeldBytes(1600, self.clock.seconds)
        self.ended: list[str] = []

    def hold(self, name: str, amount: int) -> None:
        def end(reason: TunnelError) -> None:
            self.assertEqual(reason.code.name, "stalled")
            self.assertIn("--max-memory", reason.message)
            self.ended.append(name)

        self.held.hold(name, amount, end)

    def test_greediest(self) -> None:
        """
        When it is too much, the greediest have to go, as few as will do; it
        is said so once.
        """
        self.hold("a", 500)
        self.hold("b", 900)
        with capturedLogs() as events:
            self.hold("c", 201)
        self.assertEqual(self.ended, ["b"])
        self.assertEqual(self.held.total, 701)
        (line,) = map(formatEvent, events)
        self.assertIn("1601 bytes were held", line)

    def test_standstill(self) -> None:
        """
        Who takes what it is sent stays, however much that is, as long as
        others stand still.
        """
        self.hold("busy", 1000)
        self.hold("idle", 300)
        self.hold("small", 100)
        self.clock.advance(5)
        self.held.release("busy", 10)
        self.hold("busy", 310)
        self.assertEqual(self.ended, ["idle"])
        self.hold("busy", 300)
        self.assertEqual(self.ended, ["idle", "small", "busy"])

    def test_released(self) -> None:
        """
        What is released counts no more; of who holds nothing, nothing is
        kept.
        """
        self.hold("a", 500)
        self.held.release("a", 200)
        self.assertEqual((self.held.total, self.held.of("a")), (300, 300))
        self.held.release("a", 999)
        self.held.release("a", 999)
        self.held.releaseAll("a")
        self.assertEqual((self.held.total, len(self.held)), (0, 0))

    def test_expected(self) -> None:
        """
        Connections that are on their way count as if they were there: a burst
        of visitors would use up the reserve otherwise, once they arrive.
        """
        reserve = Reserve(lambda: 100, lambda: 70)
        reserve.checkVisitor()
        reserve.expected = 5
        self.assertRaises(TunnelError, reserve.checkVisitor)
        reserve.checkSession()

    def test_unlimited(self) -> None:
        """Without a bound it only counts."""
        self.held.most = 0
        self.hold("a", 1 << 40)
        self.assertEqual(self.ended, [])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("abcdef"), st.sampled_from("hrl"), st.integers(0, 999)
            )
        )
    )
    def test_never(self, steps: list[tuple[str, str, int]]) -> None:
        """The total is what all hold, and never more than may be."""
        held = HeldBytes(1600)
        own: dict[str, int] = {}
        for name, what, amount in steps:
            if what == "h":
                own[name] = own.get(name, 0) + amount

                def end(reason: TunnelError, name: str = name) -> None:
                    own[name] = 0

                held.hold(name, amount, end)
            elif what == "r":
                own[name] = max(0, own.get(name, 0) - amount)
                held.release(name, amount)
            else:
                own[name] = 0
                held.releaseAll(name)
            self.assertEqual(held.total, sum(own.values()))
            self.assertLessEqual(held.total, 1600)

    def test_default(self) -> None:
        """The default is some of this machine's memory."""
        self.assertGreaterEqual(defaultMemory(), 64 * 1024 * 1024)


class StreamTests(SynchronousTestCase):
    """What sessions hold is counted, and the bound holds across sessions."""

    def setUp(self) -> None:
        self.held = HeldBytes(1024 * 1024)
        self.patch(SessionStream, "memory", self.held)
        self.clock = Clock()
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def writeSequence(self, data: Any) -> None:
        self.written += sum(map(len, data))

    def pauseProducing(self) -> None:
        """Be a session's connection."""

    resumeProducing = pauseProducing

    def session(self) -> ExtendedMultiplexer:
        return ExtendedMultiplexer(
            self,
            self.clock.seconds,
            lambda stream, info: None,
            Limits(),
            True,
            1 << 30,
            1 << 30,
        )

    def stalled(self, session: ExtendedMultiplexer, amount: int) -> WaitingEnd:
        stream = session.open({})
        peer = WaitingEnd()
        stream.join(peer, lambda reason: None)
        stream.pauseReading()
        while amount:
            size = min(amount, 16 * 1024)
            session.framesArrived([Frame(stream.id, FrameType.DATA, bytes(size))])
            amount -= size
        return peer

    def test_readers(self) -> None:
        """
        Of readers that stand still, the ones for which most is held go when
        all sessions together hold too much; the others stay.
        """
        peers = [self.stalled(self.session(), 200 * 1024) for _ in range(5)]
        small = self.stalled(self.session(), 1024)
        self.assertEqual(self.held.total, 1001 * 1024)
        more = self.stalled(self.session(), 64 * 1024)
        self.assertLessEqual(self.held.total, 1024 * 1024)
        self.assertEqual([p.refused for p in peers].count("stalled"), 1)
        self.assertEqual((small.refused, more.refused), ("", ""))

    def test_taken(self) -> None:
        """What the reader takes after all is not held any more."""
        session = self.session()
        self.stalled(session, 100 * 1024)
        self.assertEqual(self.held.total, 100 * 1024)
        (stream,) = session.streams.values()
        stream.resumeReading()
        self.assertEqual((self.held.total, len(self.held)), (0, 0))

    def test_source(self) -> None:
        """
        What waits for the session to take it is counted, until the stream is
        over.
        """
        session = self.session()
        session.pauseProducing()
        stream = session.open({})
        stream.join(WaitingEnd(), lambda reason: None)
        stream.write(bytes(100 * 1024))
        self.assertEqual(self.held.total, 102400)
        session.resumeProducing()
        self.assertEqual(self.held.total, 0)
        session.pauseProducing()
        stream.write(bytes(100 * 1024))
        stream.reset(TunnelError("reset"))
        self.assertEqual((self.held.total, len(self.held)), (0, 0))


def _closeAll(descriptors: list[int]) -> None:
    for each in descriptors:
        os.close(each)


class ReserveTests(SynchronousTestCase):
    """L{Reserve}, with the descriptors of this process."""

    @skipUnless(os.path.isdir("/proc/self/fd"), "there is no /proc")
    def test_real(self) -> None:
        """
        When a process has few descriptors left, visitors get none, and the
        operator does.
        """
        soft, hard = getrlimit(RLIMIT_NOFILE)
        self.addCleanup(setrlimit, RLIMIT_NOFILE, (soft, hard))
        inUse = max(int(name) for name in os.listdir("/proc/self/fd"))
        limit = max(2 * inUse, 64)
        setrlimit(RLIMIT_NOFILE, (limit, hard))
        reserve = Reserve()
        reserve.checkVisitor()
        opened: list[int] = []
        self.addCleanup(_closeAll, opened)
        states = []
        for check in (reserve.checkVisitor, reserve.checkSession):
            while True:
                try:
                    check()
                except TunnelError as refusal:
                    self.assertEqual(refusal.code.name, "limit-reached")
                    states.append(limit - len(os.listdir("/proc/self/fd")))
                    break
                opened.append(os.open(os.devnull, os.O_RDONLY))
        self.assertLess(abs(states[0] - limit // 4), 3)
        self.assertLess(abs(states[1] - limit // 8), 3)
        for _ in range(3):
            opened.append(os.open(os.devnull, os.O_RDONLY))

    @skipUnless(os.path.isdir("/proc/self/fd"), "there is no /proc")
    def test_gap(self) -> None:
        """
        A gap, as the reactor leaves one when it takes a copy of a socket and
        closes the first, does not look as if there were room.
        """
        soft, hard = getrlimit(RLIMIT_NOFILE)
        self.addCleanup(setrlimit, RLIMIT_NOFILE, (soft, hard))
        inUse = max(int(name) for name in os.listdir("/proc/self/fd"))
        limit = max(2 * inUse, 64)
        setrlimit(RLIMIT_NOFILE, (limit, hard))
        reserve = Reserve()
        opened: list[int] = []
        self.addCleanup(_closeAll, opened)
        for _ in range(limit):
            if reserve.isLow:
                break
            first = os.open(os.devnull, os.O_RDONLY)
            opened.append(os.dup(first))
            os.close(first)
        left = limit - len(os.listdir("/proc/self/fd"))
        self.assertGreaterEqual(left, reserve.size - EACH)

    def test_none(self) -> None:
        """With none left at all, nobody is let in, and it is no error."""
        reserve = Reserve(lambda: 100, lambda: 1 << 30)
        self.assertRaises(TunnelError, reserve.checkVisitor)
        self.assertRaises(TunnelError, reserve.checkSession)

    def test_unlimited(self) -> None:
        """Without a limit everybody comes in."""
        Reserve(lambda: 0, lambda: 1 << 30).checkVisitor()
