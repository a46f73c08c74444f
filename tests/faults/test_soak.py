"""
Tests for how C{benchmarks.faults.soak} judges, and for what it draws.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.faults.plot import WIDTH, Curve, drawn
from benchmarks.faults.soak import FIGURES, Watched, _isFlat, _thirds


class JudgementTests(SynchronousTestCase):
    """What is flat, and what is not."""

    def watched(self, *values: float) -> Watched:
        """Make a process that was looked at once a second."""
        seconds = [float(number) for number in range(len(values))]
        watched = Watched("server", 1, Path("x"), seconds)
        watched.seen["timers"] = list(values)
        return watched

    def test_thirds(self) -> None:
        """The warm-up does not count; of each third the median does."""
        each = self.watched(*[900] * 10, *[10] * 16, *[500] * 17, *[20] * 16, 9000)
        self.assertEqual(_thirds(each, "timers", (0.0, 60.0)), (10, 20))

    def test_flat(self) -> None:
        """A leak of one in a visit is seen, and noise is none."""
        memory = FIGURES["memory"]
        self.assertTrue(_isFlat(memory, 60.0, 63.0))
        self.assertTrue(_isFlat(memory, 60.0, 20.0))
        self.assertFalse(_isFlat(memory, 60.0, 66.0))
        self.assertFalse(_isFlat(FIGURES["timers"], 20, 40))
        self.assertFalse(_isFlat(FIGURES["descriptors"], 30, 50))
        self.assertFalse(_isFlat(FIGURES["objects"], 70_000, 80_000))


class PlotTests(SynchronousTestCase):
    """L{drawn}."""

    def test_drawn(self) -> None:
        """What is flat is drawn flat, and what grows is not."""
        seconds = [float(number) for number in range(1000)]
        flat = drawn(Curve("a", "b", seconds, [5.0] * 1000)).splitlines()
        self.assertEqual(flat[1].count(":"), WIDTH)
        grown = drawn(Curve("a", "b", seconds, seconds)).splitlines()
        top, bottom = grown[1], grown[-3]
        marks = [line[12:].replace(".", ":").count(":") for line in (top, bottom)]
        self.assertLess(marks[0], WIDTH / 4)
        self.assertGreater(marks[1], WIDTH - 3)
        self.assertIn("16.6 min", grown[-1])
