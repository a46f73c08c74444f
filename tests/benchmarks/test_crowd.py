"""
Tests for the programs that C{python -m benchmarks} starts beside itself.
"""

from __future__ import annotations

from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase


class ProgramsTests(SynchronousTestCase):
    """Nothing else imports them, so that a module that moves would break them alone."""

    def test_start(self) -> None:
        """All of them find what they need."""
        for name in ("crowd", "service"):
            module = import_module(f"benchmarks.{name}")
            self.assertTrue(callable(module.main))
