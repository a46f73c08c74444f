"""Tests for L{tristunnel.util.words}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import printable
from tristunnel.util.words import age, amount, count, plural, rate


class WordsTests(SynchronousTestCase):
    """Numbers and text for people."""

    def test_numbers(self) -> None:
        """Thousands have commas, and one thing is one."""
        self.assertEqual(count(1234567), "1,234,567")
        self.assertEqual(plural(1, "visitor"), "1 visitor")
        self.assertEqual(plural(0, "visitor"), "0 visitors")
        self.assertEqual(rate(1_234_567), "1.2 MB/s")

    def test_amount(self) -> None:
        """Bytes have three digits at the most."""
        sizes = (0, 999, 1000, 99_949, 99_950, 999_499, 999_500, 1e18)
        texts = "0 B, 999 B, 1.0 kB, 99.9 kB, 100 kB, 999 kB, 1.0 MB, 1000 PB"
        self.assertEqual(", ".join(map(amount, sizes)), texts)

    def test_age(self) -> None:
        """A time has its two greatest units."""
        texts = "0 s, 59 s, 1 min 1 s, 1 h 1 min, 1 d 1 h"
        ages = map(age, (-1, 59.9, 61, 3660, 90000))
        self.assertEqual(", ".join(ages), texts)

    @given(st.text())
    def test_printable(self, text: str) -> None:
        """Nothing that drives a terminal is left, and everything else is."""
        found = printable(text, 20)
        self.assertTrue(found.isprintable())
        self.assertEqual(len(found), min(20, len(text)))
        for before, after in zip(text, found, strict=False):
            self.assertIn(after, (before, "?"))
            self.assertEqual(after == before or not before.isprintable(), True)
