"""Tests for L{tristunnel.wire.websocket}."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.websocket.frames import CONTINUE, frame, readFrames
from tristunnel.dataplane.pieces import RECORD
from tristunnel.dataplane.poller import LONG_READ, READ
from tristunnel.wire import websocket
from tristunnel.wire.framed import FrameType, frameHeader
from tristunnel.wire.websocket import (
    BINARY,
    CLOSE,
    CONTROL,
    PING,
    PONG,
    PROTOCOL_ERROR,
    SMALL,
    TEXT,
    TOO_BIG,
    FrameReader,
    Violation,
    encodeMessage,
    mask,
)

LONGEST = 14 + CONTROL
"""Bytes of the longest thing that is waited for: less than a whole control frame."""

MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([TEXT, BINARY]),
        st.lists(st.binary(max_size=300), min_size=1, max_size=4),
        st.lists(
            st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=CONTROL)),
            max_size=2,
        ),
    ),
    max_size=8,
)
"""Messages: opcode, fragments, and control frames behind the first of these."""


def reader(isMasked: bool = True, most: int = 1 << 20) -> FrameReader:
    return FrameReader(isMasked, {TEXT: most, BINARY: most})


def read(source: FrameReader, *data: bytes) -> list[tuple[int, bytes]]:
    """Messages and control frames, with their pieces joined."""
    whole: list[tuple[int, bytes]] = []
    begun = b""
    for each in data:
        for opcode, payload, ends in source.feed(each):
            if opcode & 8:
                whole.append((opcode, payload))
                continue
            begun += payload
            if ends:
                whole.append((opcode, begun))
                begun = b""
        assert source.held < LONGEST
    return whole


class ReaderTests(SynchronousTestCase):
    """What is read."""

    @given(
        MESSAGES, st.lists(st.integers(1, 200), min_size=1, max_size=8), st.booleans()
    )
    def test_anyChunks(
        self,
        messages: list[tuple[int, list[bytes], list[tuple[int, bytes]]]],
        sizes: list[int],
        isMasked: bool,
    ) -> None:
        """However frames are cut up on their way, the same comes out, and less than a
        head or a control frame is kept meanwhile."""
        wire, expected = b"", []
        for opcode, fragments, controls in messages:
            for index, fragment in enumerate(fragments):
                fin = index == len(fragments) - 1
                wire += frame(CONTINUE if index else opcode, fragment, fin, isMasked)
                if not (index or fin):
                    for kind, payload in controls:
                        wire += frame(kind, payload, True, isMasked)
            if len(fragments) > 1:
                expected += controls
            expected.append((opcode, b"".join(fragments)))
        chunks: list[bytes] = []
        at = 0
        while at < len(wire):
            chunks.append(wire[at : at + sizes[len(chunks) % len(sizes)]])
            at += len(chunks[-1])
        source = reader(isMasked)
        self.assertEqual(read(source, *chunks), expected)

    @settings(max_examples=300)
    @given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
    def test_garbage(self, data: list[bytes], isMasked: bool) -> None:
        """Whatever comes, it is read or refused, and little is kept."""
        source = reader(isMasked)
        try:
            for each in data:
                list(source.feed(each))
                self.assertLess(source.held, LONGEST)
        except Violation as violation:
            self.assertIn(violation.code, (PROTOCOL_ERROR, TOO_BIG))

    def test_lengths(self) -> None:
        """Lengths in their three forms."""
        for size in (0, 1, 125, 126, 127, 65535, 65536, 65537):
            data = os.urandom(size)
            self.assertEqual(read(reader(), frame(BINARY, data)), [(BINARY, data)])

    def test_atOnce(self) -> None:
        """A piece is there as soon as its bytes are; the head alone is none."""
        source = reader()
        whole = frame(BINARY, b"0123456789")
        self.assertEqual(list(source.feed(whole[:6])), [])
        self.assertEqual(list(source.feed(whole[6:9])), [(BINARY, b"012", False)])
        self.assertEqual(list(source.feed(whole[9:])), [(BINARY, b"3456789", True)])

    def test_small(self) -> None:
        """Frames that cost more than they carry are counted, whatever they are."""
        source = reader()
        read(source, frame(BINARY, b"x" * SMALL) * 3)
        self.assertEqual(source.small, 0)
        read(source, frame(PING) + frame(BINARY) + frame(TEXT, b"x" * (SMALL - 1)))
        read(source, frame(BINARY, b"", False) + frame(CONTINUE, b"", False))
        self.assertEqual(source.small, 5)

    def test_violations(self) -> None:
        """What RFC 6455 forbids is refused as soon as two bytes of it are there."""
        begun = frame(TEXT, b"x", False)
        for before, wrong, isMasked in (
            (b"", frame(BINARY, b"x", mask=False), True),
            (b"", frame(BINARY, b"x"), False),
            (b"", frame(PING, mask=False), True),
            (b"", frame(BINARY, b"x", rsv=4), True),
            (b"", frame(PING, b"x", rsv=1), True),
            (b"", frame(PING, b"x", fin=False), True),
            (b"", frame(PING, b"x" * (CONTROL + 1)), True),
            (b"", frame(CLOSE, b"x"), True),
            (b"", frame(CONTINUE, b"x"), True),
            *((b"", frame(opcode), True) for opcode in (3, 4, 5, 6, 7, 11, 15)),
            (begun, frame(TEXT, b"x"), True),
            (begun, frame(BINARY, b"x", False), True),
            (begun + frame(CONTINUE, b"y"), frame(CONTINUE, b"x"), True),
        ):
            source = reader(isMasked)
            read(source, before)
            with self.assertRaises(Violation, msg=wrong.hex()) as caught:
                read(source, wrong[:2])
            self.assertEqual(caught.exception.code, PROTOCOL_ERROR)

    def test_compressed(self) -> None:
        """Where messages may be compressed, the first frame of one says so, and nothing
        else has that bit."""
        source = FrameReader(False, {TEXT: 99, BINARY: 99}, deflates=True)
        said = []
        for data in (b"\xc1\x01x", b"\x82\x01y", b"\x42\x01a", b"\x80\x01b"):
            for opcode, payload, _ in source.feed(data):
                said.append((opcode, payload, source.compressed))
        self.assertEqual(
            said,
            [
                *((TEXT, b"x", True), (BINARY, b"y", False)),
                *((BINARY, b"a", True), (BINARY, b"b", True)),
            ],
        )
        for wrong in (b"\xc9\x00", b"\xa1\x00", b"\xf1\x00"):
            fresh = FrameReader(False, {TEXT: 9, BINARY: 9}, deflates=True)
            self.assertRaises(Violation, read, fresh, wrong)
        read(source, b"\x01\x01x")
        self.assertRaises(Violation, read, source, b"\xc0\x01x")

    def test_wrongForms(self) -> None:
        """A length has one form only, and 63 bits."""
        for head in (
            b"\x82\xfe\x00\x7d",
            b"\x82\xff" + (65535).to_bytes(8, "big"),
            b"\x82\xff" + (1 << 63).to_bytes(8, "big"),
        ):
            with self.assertRaises(Violation) as caught:
                read(reader(most=1 << 70), head)
            self.assertEqual(caught.exception.code, PROTOCOL_ERROR)

    def test_tooBig(self) -> None:
        """A message is too long as soon as that is known; what came before it is handed
        out, and control frames do not count."""
        source = reader(most=100)
        before = frame(BINARY, b"a" * 100) + frame(TEXT, b"b" * 99, False)
        self.assertEqual(
            read(source, before + frame(PING, b"c" * 100)),
            [(BINARY, b"a" * 100), (PING, b"c" * 100)],
        )
        with self.assertRaises(Violation) as caught:
            read(source, frame(CONTINUE, b"", False, length=2)[:6])
        self.assertEqual(caught.exception.code, TOO_BIG)
        self.assertIn("text message of 101 bytes", str(caught.exception))

    def test_limitChanges(self) -> None:
        """A limit that is set because of a message holds for the next one, also if both
        came at once."""
        source = reader(most=10)
        heard = []
        for _, payload, ends in source.feed(
            frame(BINARY, b"hello") + frame(BINARY, b"x" * 1000)
        ):
            heard.append(payload)
            if ends:
                source.most[BINARY] = 1000
        self.assertEqual(heard, [b"hello", b"x" * 1000])


class WriterTests(SynchronousTestCase):
    """What is written."""

    @given(st.lists(st.binary(max_size=700), max_size=5), st.booleans())
    def test_asOthersRead(self, pieces: list[bytes], isMasked: bool) -> None:
        """A message is one frame, with a mask where one is due, and another one every
        time."""
        whole = b"".join(pieces)
        written = b"".join(encodeMessage(BINARY, pieces, isMasked))
        self.assertEqual(readFrames(written), [(BINARY, whole, True, isMasked)])
        self.assertEqual(read(reader(isMasked), written), [(BINARY, whole)])

    def test_lengths(self) -> None:
        """Lengths in their three forms."""
        for size in (0, 125, 126, 65535, 65536):
            for isMasked in (False, True):
                written = b"".join(encodeMessage(TEXT, [bytes(size)], isMasked))
                expected = (TEXT, bytes(size), True, isMasked)
                self.assertEqual(readFrames(written), [expected])

    def test_notCopied(self) -> None:
        """Without a mask, the bytes go out as they are."""
        piece = os.urandom(1000)
        self.assertIs(encodeMessage(BINARY, [piece], False)[1], piece)

    def test_fillsRecords(self) -> None:
        """What is read at once goes, with all heads, in four or sixteen TLS records,
        without another for a few bytes."""
        for size, records in ((READ, 4), (LONG_READ, 16)):
            head = frameHeader(1, FrameType.DATA, size)
            for isMasked in (False, True):
                written = encodeMessage(BINARY, [head, bytes(size)], isMasked)
                self.assertEqual(-(-sum(map(len, written)) // RECORD), records)

    def test_keys(self) -> None:
        """No two messages have the same key, but by chance."""
        keys = {bytes(encodeMessage(BINARY, [b""], True)[0][2:]) for _ in range(20)}
        self.assertGreater(len(keys), 15)

    def test_masked(self) -> None:
        """A mask is the same by numbers and by native code, wherever it begins, and
        undoes itself."""
        key, native = b"\x01\x80\xff\x00", websocket._NATIVE
        for size in (0, 1, 3, 4, 5, 15, 16, 17, 33, 70001):
            data = os.urandom(size)
            bytewise = bytes(byte ^ key[index & 3] for index, byte in enumerate(data))
            for start in (0, 1, 14):
                for way in (native, None):
                    self.patch(websocket, "_NATIVE", way)
                    buffer = bytearray(bytes(start) + data)
                    mask(buffer, key, start)
                    self.assertEqual(buffer, bytes(start) + bytewise)
                    mask(buffer, key, start)
                    self.assertEqual(buffer, bytes(start) + data)
