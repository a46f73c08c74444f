"""
The lines with which an SSH connection begins, L{tristunnel.dialects.conch.version}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.dialects.conch.version import (
    MAX_PREAMBLE,
    MAX_VERSION,
    checkVersion,
    takeVersion,
)
from tristunnel.errors import TunnelError

_LINE = b"SSH-2.0-program 1"


class VersionTests(SynchronousTestCase):
    """What is taken is one line, and memory is bounded before it has come."""

    @given(st.binary(max_size=40), st.integers(0, 200), st.booleans())
    def test_pieces(self, rest: bytes, at: int, return_: bool) -> None:
        """Wherever the line is cut, it is taken once it is whole, and no more."""
        whole = b"Welcome\n" + _LINE + (b"\r\n" if return_ else b"\n") + rest
        unread = bytearray(whole[:at])
        line = takeVersion(unread, True)
        if line is None:
            self.assertEqual(unread, whole[:at])
            unread += whole[at:]
            line = takeVersion(unread, True)
        else:
            unread += whole[at:]
        self.assertEqual((line, bytes(unread)), (_LINE, rest))

    def test_tooMuch(self) -> None:
        """Neither a line without an end nor many lines are kept."""
        for said in (
            b"x" * (MAX_VERSION + 1),
            b"SSH-2.0-" + b"x" * MAX_VERSION + b"\n",
            b"x\n" * MAX_PREAMBLE,
        ):
            self.assertRaises(TunnelError, takeVersion, bytearray(said), True)

    def test_clientSaysNothingBefore(self) -> None:
        """Only a server may greet people before its version."""
        said = b"Welcome\n" + _LINE + b"\n"
        self.assertRaises(TunnelError, takeVersion, bytearray(said), False)

    def test_spoken(self) -> None:
        """A peer that speaks another version is told which one it has said."""
        checkVersion(_LINE, (b"2.0",))
        error = self.assertRaises(
            TunnelError, checkVersion, b"SSH-1.5-\x1bold", (b"2.0",)
        )
        self.assertIn("SSH-1.5-", str(error))
        self.assertNotIn("\x1b", str(error))
