"""Tests for L{tristunnel.util.collector}."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.util.collector import YOUNG, tuneCollector


class CollectorTests(SynchronousTestCase):
    """What a long-lived process asks of the collector."""

    def test_tuned(self) -> None:
        """What is there is set aside, and cycles are still found."""
        before = gc.get_threshold()
        self.addCleanup(gc.set_threshold, *before)
        self.addCleanup(gc.unfreeze)
        tuneCollector()
        self.assertEqual(gc.get_threshold()[0], YOUNG)
        self.assertGreater(gc.get_freeze_count(), 0)
        self.assertTrue(gc.isenabled())
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        self.assertGreaterEqual(gc.collect(), 1)
