"""Tests for L{tristunnel.util.words}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import printable
from tristunnel.util.words import count, plural, rate


class WordsTests(SynchronousTestCase):
    """Numbers and text for people."""

    def test_numbers(self) -> None:
        """Thousands have commas, and one thing is one."""
        self.assertEqual(count(1234567), "1,234,567")
        self.assertEqual(plural(1, "visitor"), "1 visitor")
        self.assertEqual(plural(0, "visitor"), "0 visitors")
        self.assertEqual(rate(1_234_567), "1.2 MB/s")

    @given(st.text())
    @settings(deadline=None)
    def test_printable(self, text: str) -> None:
        """Nothing that drives a terminal is left, and everything else is."""
        found = printable(text, 20)
        self.assertTrue(found.isprintable())
        self.assertEqual(len(found), min(20, len(text)))
        for before, after in zip(text, found, strict=False):
            self.assertIn(after, (before, "?"))
            self.assertEqual(after == before or not before.isprintable(), True)
