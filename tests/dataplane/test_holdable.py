"""
Tests for L{tristunnel.dataplane.holdable}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.dataplane.holdable import HoldableEnd
from tristunnel.dataplane.rate import TokenBucket

REASONS = (HoldableEnd.PEER, HoldableEnd.RULE, HoldableEnd.PIPE, HoldableEnd.UNJOINED)


class Source(HoldableEnd):
    """Notes whether it is read."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._prepareReading(self.clock)
        self.reads = True

    def _stopReading(self) -> None:
        assert self.reads, "stopped twice"
        self.reads = False

    def _goOnReading(self) -> None:
        assert not self.reads, "resumed twice"
        self.reads = True

    def end(self) -> None:
        self._eof = True


class HoldableEndTests(SynchronousTestCase):
    """What holds reading, and what slows it down."""

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from(REASONS)), max_size=12))
    def test_reasons(self, steps: list[tuple[bool, int]]) -> None:
        """It is read as long as there is no reason not to."""
        source = Source()
        held: set[int] = set()
        for holds, why in steps:
            if holds:
                source.hold(why)
                held.add(why)
            else:
                source.release(why)
                held.discard(why)
            self.assertEqual(source.reads, not held)

    def test_afterTheEnd(self) -> None:
        """After the end, nothing is read again."""
        source = Source()
        source.pauseReading()
        source.end()
        source.resumeReading()
        self.assertFalse(source.reads)

    def test_rate(self) -> None:
        """Who reads more than a rate allows waits, and of two rates for the slower."""
        source = Source()
        for rate in (2000, 1000):
            source.obey(TokenBucket(rate, source.clock.seconds, 500))
        self.assertEqual(source.allowance(10_000), 500)
        source.counted(500)
        self.assertTrue(source.reads)
        source.counted(500)
        source.clock.advance(0.4)
        self.assertFalse(source.reads)
        source.clock.advance(0.1)
        self.assertEqual((source.reads, source.received), (True, 1000))

    def test_rateChanged(self) -> None:
        """At another rate it is read at once, unless something else holds it."""
        source = Source()
        source.obey(TokenBucket(1, source.clock.seconds, 500))
        source.counted(1000)
        source.hold(source.PIPE)
        source.obeyAgain()
        self.assertFalse(source.reads)
        source.release(source.PIPE)
        self.assertTrue(source.reads)
        self.assertEqual(source.clock.getDelayedCalls(), [])
