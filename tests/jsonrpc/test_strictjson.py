"""Tests for L{tristunnel.jsonrpc.strictjson}."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.jsonrpc.strictjson import BadJSON, decode, depthWithin, encode

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class DecodeTests(SynchronousTestCase):
    def test_ordinary(self) -> None:
        """JSON is parsed, whether it comes as text or as UTF-8."""
        expected = {"a": [1, 2.5, "ü", None, True]}
        text = '{"a": [1, 2.5, "ü", null, true]}'
        self.assertEqual(decode(text), expected)
        self.assertEqual(decode(text.encode("utf-8")), expected)

    def test_lastKeyWins(self) -> None:
        """Of a key that comes twice, the last value counts."""
        self.assertEqual(decode(b'{"a": 1, "a": 2}'), {"a": 2})

    def test_refused(self) -> None:
        """What is not JSON, or beyond the bounds, is L{BadJSON}."""
        for text in (
            b"",
            b"{",
            b"nul",
            b"NaN",
            b"[Infinity]",
            b"[-Infinity]",
            b"1e999",
            b"-1e999",
            b"9" * 5000,
            b'"\xff"',
            b"\xef\xbb\xbf{}",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"[" * 65 + b"]" * 65,
            b"{} {}",
        ):
            self.assertRaises(BadJSON, decode, text)

    def test_depth(self) -> None:
        """The greatest depth is allowed, and one more is not."""
        self.assertEqual(decode("[[]]", maxDepth=2), [[]])
        self.assertRaises(BadJSON, decode, "[[[]]]", maxDepth=2)
        self.assertRaises(BadJSON, decode, '[{"a": {}}]', maxDepth=2)
        self.assertTrue(depthWithin(5, 0))
        self.assertFalse(depthWithin([], 0))
        self.assertTrue(depthWithin([1, "a"], 1))
        self.assertFalse(depthWithin([1, [2]], 1))

    @given(st.binary() | st.text())
    def test_garbage(self, text: bytes | str) -> None:
        """Nothing but L{BadJSON} comes out of garbage."""
        with contextlib.suppress(BadJSON):
            decode(text)

    @given(VALUES)
    def test_roundTrip(self, value: object) -> None:
        """What L{encode} writes is what L{decode} reads."""
        self.assertEqual(decode(encode(value)), value)


class EncodeTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """What has no JSON form is a C{ValueError}."""
        circle: list[object] = []
        circle.append(circle)
        deep: Any = []
        for _ in range(100_000):
            deep = [deep]
        for value in (object(), b"bytes", float("nan"), float("inf"), circle, deep):
            self.assertRaises(ValueError, encode, value)
        while deep:  # Freed step by step, whatever the interpreter's stack.
            deep = deep.pop()

    def test_ascii(self) -> None:
        """Even text that has no UTF-8 form is written."""
        self.assertEqual(json.loads(encode("\ud800é")), "\ud800é")
