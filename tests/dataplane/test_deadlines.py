"""
Tests for L{tristunnel.dataplane.deadlines}.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.dataplane.deadlines import Deadlines, Key


class DeadlinesTests(SynchronousTestCase):
    """One timer for many deadlines."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.late: list[str] = []

    def test_calledOnceNotEarly(self) -> None:
        """
        What is not cancelled is called once, not before its time and at most two
        looks after it.
        """
        self.clock.advance(0.7)
        self.deadlines.add(10.0, lambda: self.late.append("late"))
        self.clock.pump([1.0] * 9)
        self.assertEqual([], self.late)
        self.clock.pump([1.0] * 4)
        self.assertEqual(["late"], self.late)
        self.clock.pump([1.0] * 10)
        self.assertEqual(["late"], self.late)

    def test_oneTimer(self) -> None:
        """
        A thousand deadlines are one delayed call, and none when all are
        cancelled.
        """
        keys = [self.deadlines.add(at, self.fail) for at in range(1000)]
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        for key in [*keys, *keys]:
            self.deadlines.cancel(key)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_forgotten(self) -> None:
        """A reactor that forgets all its calls, as after a test, loses no new ones."""
        old = self.deadlines.add(1.0, self.fail)
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.deadlines.cancel(old)
        self.deadlines.add(1.0, self.late.clear)
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.deadlines.add(5.0, lambda: self.late.append("late"))
        self.clock.pump([1.0] * 8)
        self.assertEqual(["late"], self.late)

    def test_failingNeighbour(self) -> None:
        """What one raises is logged, and the others are called."""

        def fail() -> None:
            raise ZeroDivisionError

        self.deadlines.add(1.0, fail)
        self.deadlines.add(1.0, lambda: self.late.append("late"))
        self.clock.pump([1.0] * 3)
        self.assertEqual(["late"], self.late)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_cancelledByNeighbour(self) -> None:
        """One that is called may cancel another one of the same second."""
        keys: list[Key] = []

        def late(at: int) -> None:
            self.late.append("x")
            self.deadlines.cancel(keys[1 - at])

        keys += [self.deadlines.add(1.0, partial(late, at)) for at in range(2)]
        self.clock.pump([1.0] * 3)
        self.assertEqual(["x"], self.late)

    def test_cancelledBeforeNeighbours(self) -> None:
        """
        In a program that was held up for seconds, one may cancel all of a later second;
        those of yet another one are called, too.
        """
        other = self.deadlines.add(2.0, self.fail)
        self.deadlines.add(1.0, lambda: self.deadlines.cancel(other))
        self.deadlines.add(3.0, lambda: self.late.append("late"))
        self.clock.advance(10.0)
        self.assertEqual(["late"], self.late)

    def test_addedAndCancelled(self) -> None:
        """One that was added and cancelled in the same look leaves no timer."""
        keys: list[Key] = []
        self.deadlines.add(1.0, lambda: self.deadlines.cancel(keys[0]))
        self.deadlines.add(1.0, lambda: keys.append(self.deadlines.add(1.0, self.fail)))
        self.clock.pump([1.0] * 2)
        self.assertEqual(1, len(keys))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_addedWhileLooking(self) -> None:
        """A deadline may set the next one."""

        def again() -> None:
            self.late.append("once")
            self.deadlines.add(1.0, lambda: self.late.append("twice"))

        self.deadlines.add(1.0, again)
        self.clock.pump([1.0] * 6)
        self.assertEqual(["once", "twice"], self.late)
        self.assertEqual([], self.clock.getDelayedCalls())
