"""
Tests for L{benchmarks.meter}.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.meter import Meter, stacks, table
from benchmarks.processes import cpuSeconds

_RAW = [
    "run (twistd:5);loop (/x/lib/python3.11/site-packages/twisted/a.py:7);"
    "send (tristunnel/b.py:10) 3",
    "run (twistd:5);loop (/x/lib/python3.11/site-packages/twisted/a.py:7);"
    "send (tristunnel/b.py:12) 5",
    "run (twistd:5);loop (/x/lib/python3.11/site-packages/twisted/a.py:9) 2",
    "not a sample",
]


class TableTests(SynchronousTestCase):
    """Tests for L{table}."""

    def test_stacks(self) -> None:
        """A line is frames and a count; others are skipped."""
        self.assertEqual([count for _, count in stacks(_RAW)], [3, 5, 2])

    def test_table(self) -> None:
        """
        Functions have their lines' time together; what is always there is
        left out.
        """
        lines = table(_RAW).splitlines()
        self.assertEqual(lines[0], "10 samples")
        self.assertIn("  80.0%  send (tristunnel/b.py)", lines)
        self.assertIn("  50.0%  send (tristunnel/b.py:12)", lines)
        self.assertIn("  20.0%  loop (twisted/a.py)", lines)
        self.assertNotIn(" 100.0%  run (twistd)", lines)

    def test_nothing(self) -> None:
        """Without samples there is no table."""
        self.assertEqual(table([]), "")


@dataclass
class _Running:
    """A tunnel, for the meter."""

    servers: list[int]
    clients: list[int] = field(default_factory=list)


class MeterTests(SynchronousTestCase):
    """Tests for L{Meter}."""

    def test_sides(self) -> None:
        """Each side has the time that it used meanwhile."""
        start = cpuSeconds([os.getpid()])
        with Meter().during("all", _Running([os.getpid()])) as spent:
            while cpuSeconds([os.getpid()]) < start + 0.03:
                sum(range(10_000))
        self.assertGreater(spent.server, 0.0)
        self.assertEqual(spent.client, 0.0)
        self.assertEqual(spent.both, spent.server)
