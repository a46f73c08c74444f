"""Tests for L{tristunnel.util.moments}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import LONGEST_HINT, boundedHint
from tristunnel.util.moments import retryAfter

NOW = 1_445_412_450.0
"""21 October 2015, 07:27:30 UTC."""


class RetryAfterTests(SynchronousTestCase):
    """L{retryAfter} and L{boundedHint}."""

    def test_good(self) -> None:
        """Seconds, and dates."""
        for text, seconds in (
            ("120", 120.0),
            (" 5 ", 5.0),
            ("86400", LONGEST_HINT),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 30.0),
            ("Wed, 21 Oct 2025 07:28:00 GMT", LONGEST_HINT),
            ("Wed, 21 Oct 2015 07:00:00 GMT", None),
            ("0", None),
            ("-5", None),
            ("soon", None),
            ("\u0661", None),
            ("", None),
        ):
            self.assertEqual(retryAfter(text, lambda: NOW), seconds, text)

    @settings(deadline=None)
    @given(st.text() | st.from_regex(r"[A-Z][a-z]+, \d+ \w+ \d+ [\d:]+ ?\w*"))
    def test_anything(self, text: str) -> None:
        """Whatever it says, it is nothing or within bounds."""
        self.assertTrue(0 < (retryAfter(text) or 1) <= LONGEST_HINT)

    @settings(deadline=None)
    @given(st.floats() | st.integers() | st.booleans() | st.text() | st.none())
    def test_hints(self, hint: object) -> None:
        """The same for the protocol's own hints."""
        self.assertTrue(0 < (boundedHint(hint) or 1) <= LONGEST_HINT)
