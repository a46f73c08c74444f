"""Tests for L{tristunnel.wire.windows}."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.wire.windows import (
    ReceiveWindow,
    SendWindow,
    WindowBudget,
    roundTripAfter,
)


class SendWindowTests(SynchronousTestCase):
    @given(st.lists(st.integers(0, 1000), max_size=20))
    def test_anyOrder(self, limits: list[int]) -> None:
        """Announcements may come late, twice and in any order."""
        window = SendWindow(100)
        window.sent = 40
        for limit in limits + limits[::-1]:
            before = window.limit
            self.assertEqual(window.grant(limit), limit > before)
            self.assertGreaterEqual(window.limit, before)
        self.assertEqual(window.limit, max([100, *limits]))
        self.assertEqual(window.available, window.limit - 40)

    def test_repeated(self) -> None:
        """The same announcement twice gives nothing more."""
        window = SendWindow(0)
        self.assertTrue(window.grant(10))
        self.assertFalse(window.grant(10))
        self.assertEqual(window.available, 10)


class RoundTripTests(SynchronousTestCase):
    """What a way takes."""

    def test_estimate(self) -> None:
        """A shorter time counts at once, a longer one step by step."""
        estimate = 0.0
        for measured, expected in ((8.0, 8.0), (1.0, 1.0), (5.0, 2.0), (3.0, 3.0)):
            estimate = roundTripAfter(estimate, measured)
            self.assertEqual(estimate, expected)


class ReceiveWindowTests(SynchronousTestCase):
    """Tests for L{ReceiveWindow} and L{WindowBudget}."""

    @settings(max_examples=200)
    @given(
        st.integers(1, 1000),
        st.integers(0, 5000),
        st.integers(0, 5000),
        st.lists(st.tuples(st.sampled_from("sdat"), st.integers(0, 2000))),
    )
    def test_conversation(
        self, size: int, largest: int, total: int, steps: list[tuple[str, int]]
    ) -> None:
        """Who keeps to its credit never overdraws it, and windows keep their bounds."""
        budget = WindowBudget(total)
        window = ReceiveWindow(size, largest, budget)
        sender = SendWindow(size)
        announced: list[int] = []
        now = 0.0
        for step, amount in steps:
            if step == "s":
                amount = min(amount, sender.available)
                sender.sent += amount
                self.assertTrue(window.receive(amount))
            elif step == "d":
                credit = window.drain(min(amount, window.waiting), now, 0.1)
                if credit is not None:
                    announced.append(credit)
            elif step == "a" and announced:
                sender.grant(announced.pop(amount % len(announced)))
            else:
                now += amount / 1000
            self.assertGreaterEqual(sender.available, 0)
            self.assertLessEqual(window.waiting, window.size)
            self.assertLessEqual(window.limit, window.drained + window.size)
            self.assertLessEqual(window.size, max(size, largest))
            self.assertEqual(window.size - size, total - budget.free)
            self.assertGreaterEqual(budget.free, 0)
        window.close()
        window.close()
        self.assertEqual(budget.free, total)

    @given(st.integers(1, 1000), st.integers(1, 1000))
    def test_neverStuck(self, size: int, step: int) -> None:
        """A reader that takes everything always gives new credit in time."""
        window, sender = ReceiveWindow(size), SendWindow(size)
        for _ in range(100):
            amount = min(step, sender.available)
            self.assertGreater(amount, 0)
            sender.sent += amount
            self.assertTrue(window.receive(amount))
            credit = window.drain(amount, 0.0, 0.0)
            if credit is not None:
                sender.grant(credit)

    def test_overdrawn(self) -> None:
        """One byte more than the credit is noticed."""
        window = ReceiveWindow(10)
        self.assertTrue(window.receive(10))
        self.assertFalse(window.receive(1))

    def test_announcedAtHalf(self) -> None:
        """Credit is announced when half of it is used up."""
        window = ReceiveWindow(100)
        window.receive(80)
        self.assertIsNone(window.drain(49, 5.0, 0.0))
        self.assertEqual(window.drain(1, 5.0, 0.0), 150)
        self.assertIsNone(window.drain(30, 5.0, 0.0))

    def test_growsWhenQuick(self) -> None:
        """A window that is used up within two round trips is doubled."""
        window = ReceiveWindow(100, 1000, WindowBudget(10_000))
        window.receive(100)
        window.drain(50, 10.0, 0.1)
        self.assertEqual(window.size, 100)
        window.drain(50, 10.1, 0.1)
        self.assertEqual(window.size, 200)

    def test_longWay(self) -> None:
        """
        A gigabit a second over 100 ms is filled by the largest window of a session's
        stream, as soon as that has grown.
        """
        rate, trip, turn = 125_000_000, 0.1, 0.005
        window = ReceiveWindow(256 * 1024, 16 << 20, WindowBudget(24 << 20))
        sender = SendWindow(window.limit)
        under: deque[tuple[float, int]] = deque()
        credits: deque[tuple[float, int]] = deque()
        arrived = 0
        for step in range(1000):
            now = step * turn
            while credits and credits[0][0] <= now:
                sender.grant(credits.popleft()[1])
            amount = min(int(rate * turn), sender.available)
            sender.sent += amount
            under.append((now + trip / 2, amount))
            while under[0][0] <= now:
                amount = under.popleft()[1]
                self.assertTrue(window.receive(amount))
                arrived += amount if now >= 3 else 0
                credit = window.drain(amount, now, trip)
                if credit is not None:
                    credits.append((now + trip / 2, credit))
        self.assertGreater(arrived, 0.98 * 2 * rate)
        self.assertEqual(16 << 20, window.size)

    def test_steadyWhenSlow(self) -> None:
        """A reader that takes longer than that has window enough."""
        window = ReceiveWindow(100, 1000, WindowBudget(10_000))
        for turn in range(1, 20):
            window.receive(50)
            window.drain(50, turn * 0.3, 0.1)
        self.assertEqual(window.size, 100)

    def test_steadyWhenUnknown(self) -> None:
        """Before a round trip was measured nothing grows."""
        window = ReceiveWindow(100, 1000, WindowBudget(10_000))
        for _ in range(20):
            window.receive(50)
            window.drain(50, 5.0, 0.0)
        self.assertEqual(window.size, 100)

    def test_steadyWithoutReader(self) -> None:
        """What nobody takes makes no window grow."""
        window = ReceiveWindow(100, 1000, WindowBudget(10_000))
        for _ in range(100):
            window.receive(1)
        self.assertEqual((window.size, window.limit), (100, 100))

    def test_budget(self) -> None:
        """Growth stops where the budget of all windows does."""
        budget = WindowBudget(150)
        first, second = (ReceiveWindow(100, 1000, budget) for _ in range(2))
        for window in (first, second):
            window.receive(100)
            window.drain(100, 0.0, 0.1)
        self.assertEqual((first.size, second.size, budget.free), (200, 100, 50))
        first.close()
        self.assertEqual(budget.free, 150)
        second.receive(100)
        second.drain(100, 0.1, 0.1)
        self.assertEqual((second.size, budget.free), (200, 50))

    def test_largest(self) -> None:
        """The last step of growth may be smaller than a doubling."""
        window = ReceiveWindow(100, 130, WindowBudget(1000))
        window.receive(100)
        window.drain(100, 0.0, 0.1)
        self.assertEqual(window.size, 130)
