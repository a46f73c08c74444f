"""Tests for L{tristunnel.util.quantities}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import LONGEST_HINT, TunnelError, boundedHint
from tristunnel.util.quantities import (
    LONGEST,
    formatDuration,
    formatRate,
    parseDuration,
    parseRate,
    retryAfter,
)

ODD = st.text(max_size=20) | st.text("0123456789.dhmswkMGiBbt/ -e", max_size=12)


class DurationTests(SynchronousTestCase):
    """Durations."""

    def test_good(self) -> None:
        """Units, several of them, fractions and plain seconds."""
        for text, seconds in {
            "30d": 2592000,
            "12h": 43200,
            "90m": 5400,
            "45s": 45,
            "2w": 1209600,
            "1h30m": 5400,
            "1.5h": 5400,
            " 3600 ": 3600,
            "0.25": 0.25,
        }.items():
            self.assertEqual(parseDuration(text), seconds)

    def test_bad(self) -> None:
        """Anything else is refused in one line."""
        for text in (
            "",
            "0",
            "0s",
            "d",
            "-5m",
            "5x",
            "5 m",
            "1e9",
            "30D",
            "101w9",
            "٣d",
            "1h-",
            "999999d",
            "9" * 400,
            "nan",
            "inf",
            "5m\n6",
        ):
            error = self.assertRaises(TunnelError, parseDuration, text)
            self.assertEqual(error.code.name, "bad-option")
            self.assertNotIn("\n", error.message)
            self.assertLess(len(error.message), 200)

    @given(ODD)
    def test_anything(self, text: str) -> None:
        """Whatever is written is read or refused."""
        try:
            seconds = parseDuration(text)
        except TunnelError as error:
            self.assertEqual(error.code.name, "bad-option")
        else:
            self.assertTrue(0 < seconds <= LONGEST)

    @given(st.integers(1, 10**9))
    def test_written(self, seconds: int) -> None:
        """What is written for people is nearly what it was."""
        again = parseDuration(formatDuration(seconds))
        self.assertTrue(again <= seconds <= again * 1.05 + 1)

    def test_nothing(self) -> None:
        """No time is written, too."""
        self.assertEqual(formatDuration(-3), "0s")
        self.assertEqual(formatDuration(90061), "1d1h")


class RateTests(SynchronousTestCase):
    """Rates."""

    def test_good(self) -> None:
        """Bytes and bits, decimal and binary."""
        for text, rate in {
            "10MB/s": 10_000_000,
            "10MB": 10_000_000,
            "512KiB/s": 524288,
            "80Mbit/s": 10_000_000,
            "1.5kB/s": 1500,
            "1 GB/s": 10**9,
            "1000": 1000,
        }.items():
            self.assertEqual(parseRate(text), rate)

    def test_bad(self) -> None:
        """Anything else is refused in one line."""
        for text in (
            "",
            "0",
            "fast",
            "-1",
            "10mB/s",
            "10TB/s",
            "1bit/s",
            "1/s/s",
            "9" * 400,
            "10MB/h",
            "10MB/s\n" * 2,
        ):
            error = self.assertRaises(TunnelError, parseRate, text)
            self.assertEqual(error.code.name, "bad-option")
            self.assertNotIn("\n", error.message)

    @given(ODD)
    def test_anything(self, text: str) -> None:
        """Whatever is written is read or refused."""
        try:
            self.assertGreaterEqual(parseRate(text), 1)
        except TunnelError as error:
            self.assertEqual(error.code.name, "bad-option")

    @given(st.integers(1, 10**12))
    def test_written(self, rate: int) -> None:
        """What is written for people is nearly what it was."""
        again = parseRate(formatRate(rate))
        self.assertTrue(abs(again - rate) <= rate * 0.0006)


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

    @given(st.text() | st.from_regex(r"[A-Z][a-z]+, \d+ \w+ \d+ [\d:]+ ?\w*"))
    def test_anything(self, text: str) -> None:
        """Whatever it says, it is nothing or within bounds."""
        self.assertTrue(0 < (retryAfter(text) or 1) <= LONGEST_HINT)

    @given(st.floats() | st.integers() | st.booleans() | st.text() | st.none())
    def test_hints(self, hint: object) -> None:
        """The same for the protocol's own hints."""
        self.assertTrue(0 < (boundedHint(hint) or 1) <= LONGEST_HINT)
