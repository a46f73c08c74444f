"""Tests for L{tristunnel.service.counters}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.service.rig import ServiceTestCase
from tristunnel.service.counters import INTERVAL, OTHER, Buckets, Counters, ReactorLag


class BucketsTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        """A value is counted in the bucket whose bound it does not pass, and in all
        above."""
        buckets = Buckets((1.0, 10.0))
        for value in (0, 1, 2, 10, 11):
            buckets.add(value)
        self.assertEqual(
            list(buckets.cumulative()), [("1.0", 2.0), ("10.0", 4.0), ("+Inf", 5.0)]
        )
        self.assertEqual(buckets.total, 24)


class LagTests(SynchronousTestCase):
    def test_late(self) -> None:
        """What is measured is by how much the call was late."""
        clock = Clock()
        lag = ReactorLag(clock)
        ticks: list[float] = []
        lag.tick = lambda: ticks.append(clock.seconds())
        lag.start()
        lag.start()
        self.assertEqual(lag.timers, 1)
        clock.advance(INTERVAL)
        self.assertEqual(lag.last, 0)
        clock.advance(INTERVAL + 0.25)
        self.assertEqual(lag.last, 0.25)
        clock.advance(INTERVAL)
        self.assertEqual((lag.last, len(ticks)), (0, 3))
        self.assertEqual(lag.seconds.total, 0.25)
        lag.stop()
        lag.stop()
        self.assertEqual(clock.getDelayedCalls(), [])


class CountersTests(ServiceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.tally = Counters(self.clock.seconds, most=1)
        self.service.observer = self.tally

    def test_bounded(self) -> None:
        """So many tunnels are told apart; the others are counted together, and their
        sum does not fall when one of them is over."""
        first = self.open(name="first")
        second = self.open(name="second")
        for port, sent in ((8011, 5), (8013, 7)):
            visitor = self.visitors.open_[port].come()
            visitor.received = sent
        totals = self.tally.byLabel()
        self.assertEqual(set(totals), {("first", "tcp"), (OTHER, "tcp")})
        self.assertEqual(totals[OTHER, "tcp"].bytesIn, 7)
        self.close(second)
        totals = self.tally.byLabel()
        other = totals[OTHER, "tcp"]
        self.assertEqual((other.bytesIn, other.visitorsTotal), (7, 1))
        self.assertEqual(other.visitors, 0)
        self.close(first)
        self.assertEqual(set(self.tally.byLabel()), {(OTHER, "tcp")})
        self.open(name="third")
        self.assertIn(("third", "tcp"), self.tally.byLabel())
        self.assertEqual(self.tally.closed, {"closed": 2})
        self.assertEqual(self.tally.opened, {"tcp": 3})

    def test_namedOther(self) -> None:
        """A tunnel cannot pose as all the others."""
        self.open(name=OTHER)
        self.open(name="mine")
        self.assertEqual(set(self.tally.byLabel()), {(OTHER, "tcp"), ("mine", "tcp")})

    def test_lives(self) -> None:
        """When a visitor leaves, its life is counted, and why it broke."""
        uri = self.open()
        visitor = self.visitors.open_[8011].come()
        visitor.received = 150
        self.clock.advance(2)
        self.close(uri)
        visits = self.tally.visits[OTHER, "tcp"]
        self.assertEqual((visits.lives.total, visits.received.total), (2, 150))
        self.assertEqual(self.tally.relayed, 150)
        self.assertEqual(self.tally.broken, {"closed": 1})
        self.assertEqual(self.tally.tunnels, [])
