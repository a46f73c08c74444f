"""PostgreSQL's first messages."""

from __future__ import annotations

from struct import pack
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.wire.postgres import (
    LONGEST,
    NotPostgres,
    Opening,
    StartupMessage,
    readOpening,
    refusal,
)

_TLS = pack("!II", 8, 80877103)
_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)


def _startup(parameters: dict[str, str], version: int = 196608) -> bytes:
    words = [word for pair in parameters.items() for word in pair]
    body = b"".join(word.encode() + b"\0" for word in words) + b"\0"
    return pack("!II", len(body) + 8, version) + body


class OpeningTests(SynchronousTestCase):
    """Reading them."""

    def test_short(self) -> None:
        """Those that say no more than what they are."""
        self.assertEqual(readOpening(_TLS + b"more"), (Opening.TLS, 8))
        gss = pack("!II", 8, 80877104)
        self.assertEqual(readOpening(gss), (Opening.GSS, 8))
        for key in (b"1234", b"x" * 256):
            cancel = pack("!III", 12 + len(key), 80877102, 7) + key
            self.assertEqual(readOpening(cancel), (Opening.CANCEL, len(cancel)))
            self.assertIsNone(readOpening(cancel[:-1]))

    def test_database(self) -> None:
        """Where no database is said, it is called as the user."""
        read: Any = readOpening(_startup({"user": "bob", "database": "shop"}, 196610))
        self.assertEqual(read[0].database, "shop")
        read = readOpening(_startup({"user": "bob"}))
        self.assertEqual(read[0].database, "bob")
        self.assertEqual(StartupMessage().database, "")

    @given(
        st.dictionaries(_TEXT.filter(bool), _TEXT, max_size=6), st.binary(max_size=20)
    )
    def test_pieces(self, parameters: dict[str, str], more: bytes) -> None:
        """It is read when it is whole, not before, whatever follows."""
        data = _startup(parameters)
        for size in range(len(data)):
            self.assertIsNone(readOpening(data[:size]))
        read = readOpening(data + more)
        self.assertEqual(read, (StartupMessage(parameters), len(data)))

    @given(
        st.binary(max_size=60)
        | st.binary(max_size=60).map(lambda b: pack("!II", len(b) + 8, 196608) + b)
    )
    @example(b"\x16\x03\x01\x02")
    @example(b"GET / HTTP/1.1\r\n")
    @example(pack("!II", 8, 196608))
    def test_anything(self, data: bytes) -> None:
        """Whatever comes is such a message, none, or not yet one."""
        try:
            read = readOpening(data)
        except NotPostgres as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertTrue(read is None or read[1] <= len(data))

    def test_wrong(self) -> None:
        """What cannot be one is refused before all of it is there."""
        for data in (
            pack("!II", LONGEST + 1, 196608),
            pack("!II", 7, 196608),
            pack("!II", 9, 80877103),
            pack("!II", 300, 80877102),
            pack("!II", 50, 131072),
            b"\x16\x03\x01",
            b"GET ",
        ):
            self.assertRaises(NotPostgres, readOpening, data)

    def test_refusal(self) -> None:
        """A reason is an error that programs show."""
        self.assertEqual(
            refusal("no"), b"E" + pack("!I", 30) + b"SFATAL\0VFATAL\0C08004\0Mno\0\0"
        )
