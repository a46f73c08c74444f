"""
Tests for L{benchmarks.path}: when packets arrive, and what is left when there can be
no path.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks.path import Line, Way
from benchmarks.processes import Failed, Room

_PACKET = bytes(10 + 1250)
"""A millisecond of the line."""


class LineTests(SynchronousTestCase):
    """One direction of a path."""

    def setUp(self) -> None:
        """Make a line of 10 Mbit/s and 20 ms, with a queue of 5 ms."""
        self.line = Line(Way(1.25e6, 0.02, 0.005))

    def arrivals(self) -> list[float]:
        """When the packets arrive that are under way, in milliseconds."""
        return [round(due * 1000, 6) for due, _ in self.line.under]

    def test_rate(self) -> None:
        """Packets arrive one after the other, each after the line's delay."""
        for _ in range(3):
            self.line.take(0.0, _PACKET)
        self.line.take(0.1, _PACKET)
        self.assertEqual([21, 22, 23, 121], self.arrivals())

    def test_queue(self) -> None:
        """What finds the queue full is lost."""
        for _ in range(10):
            self.line.take(0.0, _PACKET)
        self.assertEqual((6, 4), (len(self.line.under), self.line.lost))
        self.line.take(0.003, _PACKET)
        self.assertEqual(27, self.arrivals()[-1])


class WayTests(SynchronousTestCase):
    """A path between two namespaces."""

    def test_none(self) -> None:
        """Where there can be no path, whoever wanted one is where it was before."""
        namespace = Path("/proc/self/ns/net")
        if not namespace.exists():
            raise SkipTest("there are no namespaces")
        before = os.readlink(namespace), sorted(os.listdir("/proc/self/fd"))
        way = Way(1.25e6, 0.02, 0.1, congestion="none-such")
        room = Room(Path(self.mktemp()))
        with self.assertRaises(Failed), way.laid(room):
            pass
        after = os.readlink(namespace), sorted(os.listdir("/proc/self/fd"))
        self.assertEqual(before, after)
