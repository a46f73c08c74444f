"""
Tests for L{benchmarks.report}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.contestant import HAPROXY
from benchmarks.report import (
    Check,
    bestPeer,
    checks,
    medians,
    ratios,
    report,
    tables,
    targets,
)

_BULK = {
    HAPROXY: {"up 1 Gbit/s": 8.0, "down 1 Gbit/s": 10.0},
    "tristunnel tcp": {
        "up 1 Gbit/s": 9.0,
        "down 1 Gbit/s": 9.0,
        "up 4 Gbit/s": 12.0,
        "down 4 Gbit/s": 8.0,
        "CPU s/GiB": 0.5,
    },
    "tristunnel tls": {"up 1 Gbit/s": 3.0, "down 1 Gbit/s": 5.0},
    "rathole": {"up 1 Gbit/s": 5.0, "down 1 Gbit/s": 4.0, "CPU s/GiB": 1.2},
    "ssh -R": {"up 1 Gbit/s": 4.0, "down 1 Gbit/s": 4.5, "CPU s/GiB": 3.0},
}


class MediansTests(SynchronousTestCase):
    """Tests for L{medians}."""

    def test_each(self) -> None:
        """Each metric has its own, over the rounds that measured it."""
        rounds = [{"a": 1.0, "b": 5.0}, {"a": 9.0}, {"a": 2.0, "b": 7.0}]
        self.assertEqual(medians(rounds), {"a": 2.0, "b": 6.0})

    def test_nothing(self) -> None:
        """No rounds, no medians."""
        self.assertEqual(medians([]), {})


class RatiosTests(SynchronousTestCase):
    """Tests for L{ratios} and L{bestPeer}."""

    def test_bestPeer(self) -> None:
        """
        The best has the highest rate or the lowest cost; neither we nor the
        limits are peers.
        """
        self.assertEqual(bestPeer(_BULK, "up 1 Gbit/s"), ("rathole", 5.0))
        self.assertEqual(bestPeer(_BULK, "down 1 Gbit/s"), ("ssh -R", 4.5))
        self.assertEqual(bestPeer(_BULK, "CPU s/GiB"), ("rathole", 1.2))
        self.assertIsNone(bestPeer(_BULK, "up 4 Gbit/s"))

    def test_both(self) -> None:
        """
        Every figure is divided by HAProxy's and by the best peer's, where
        there is one.
        """
        found = ratios(_BULK)["tristunnel tcp"]
        self.assertEqual(
            found["up 1 Gbit/s"], {"haproxy": 9.0 / 8.0, "best peer": 9.0 / 5.0}
        )
        self.assertEqual(found["CPU s/GiB"], {"best peer": 0.5 / 1.2})
        self.assertEqual(found["up 4 Gbit/s"], {})


class TablesTests(SynchronousTestCase):
    """Tests for L{tables}."""

    def test_table(self) -> None:
        """Processor time has a table of its own, without those who have none."""
        text = tables("bulk", _BULK)
        speed, _, cost = text.partition("\n\n")
        self.assertIn("9 (1.12 h, 1.80 p)", speed)
        self.assertIn(HAPROXY, speed)
        self.assertNotIn("CPU", speed)
        self.assertIn("0.5 (0.42 p)", cost)
        self.assertNotIn(HAPROXY, cost)

    def test_empty(self) -> None:
        """A load that nobody finished says so."""
        self.assertEqual(tables("long", {}), "long: nothing was measured")


class ChecksTests(SynchronousTestCase):
    """Tests for L{checks} and L{targets}."""

    def find(self, what: str, mode: str, against: str) -> Check:
        (found,) = [
            check
            for check in checks({"bulk": _BULK})
            if (check.what, check.mode) == (what, mode) and against in check.against
        ]
        return found

    def test_worst(self) -> None:
        """Of several metrics, the worst decides."""
        check = self.find("bulk", "tristunnel tcp", "HAProxy")
        self.assertEqual((check.metric, check.met), ("down 1 Gbit/s", False))
        self.assertAlmostEqual(check.share, 0.9)

    def test_peers(self) -> None:
        """Who encrypts is compared with those who do."""
        plain = self.find("bulk", "tristunnel tcp", "1 of rathole")
        self.assertEqual((plain.measured, plain.wanted, plain.met), (9.0, 5.0, True))
        secret = self.find("bulk", "tristunnel tls", "1 of ssh -R")
        self.assertEqual((secret.measured, secret.wanted), (3.0, 4.0))
        self.assertFalse(secret.met)

    def test_oneStream(self) -> None:
        """Four streams are compared with one in the same direction."""
        check = self.find("bulk", "tristunnel tcp", "of one stream")
        self.assertEqual((check.measured, check.wanted), (8.0, 8.1))

    def test_costs(self) -> None:
        """Of a cost, less is better."""
        check = self.find("CPU per GiB", "tristunnel tcp", "0.5 of rathole")
        self.assertEqual((check.measured, check.wanted, check.met), (0.5, 0.6, True))
        self.assertAlmostEqual(check.share, 1.2)

    def test_fixed(self) -> None:
        """Some are to be reached whatever others do."""
        long = {"tristunnel wss": {"Mbit/s": 200.0}}
        (check,) = checks({"long": long})
        self.assertEqual(check.wanted, 950.0)
        self.assertFalse(check.met)

    def test_missing(self) -> None:
        """What was not measured is neither met nor missed."""
        self.assertEqual(checks({}), [])

    def test_written(self) -> None:
        """The table tells what is missed, and by how much."""
        text = targets(checks({"bulk": _BULK}))
        (line,) = [
            line
            for line in text.splitlines()
            if line.startswith("bulk") and "HAProxy" in line
        ]
        self.assertIn("MISSED (0.90)", line)
        self.assertIn("at least 10", line)
        self.assertIn(" met ", text)


class ReportTests(SynchronousTestCase):
    """Tests for L{report}."""

    def test_whole(self) -> None:
        """
        It tells of the machine, what was measured, what was not, and what was
        to be reached.
        """
        machine = {
            "processors": 2,
            "processor": "Some One 3",
            "kernel": "6.1",
            "python": "3.11.7",
        }
        text = report(
            {
                "machine": machine,
                "settings": {"seconds": 2.0, "quick": False},
                "figures": {"bulk": {name: [each] for name, each in _BULK.items()}},
                "failures": {"bulk": {"bore": "it broke"}},
                "medians": {"bulk": _BULK},
            }
        )
        self.assertTrue(text.startswith("2 processors (Some One 3), Linux 6.1"))
        self.assertIn("medians of up to 1 rounds, 2 s", text)
        self.assertIn("bore: it broke", text)
        self.assertIn("MISSED (0.90)", text)
