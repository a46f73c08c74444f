"""Tests for L{tristunnel.wire.framed}."""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.vectors import readVectors
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import (
    MAGIC,
    MAX_CONTROL,
    MAX_FRAME,
    MAX_HANDSHAKE,
    Frame,
    FrameDecoder,
    FrameType,
    HandshakeDecoder,
    decodeCredit,
    decodeObject,
    encodeCredit,
    encodeFrame,
    encodeHandshake,
    encodeObject,
    frameHeader,
)

KINDS = st.one_of(st.just(int(FrameType.DATA)), st.integers(0, 255))

FRAMES = st.lists(
    st.builds(Frame, st.integers(0, 0xFFFFFFFF), KINDS, st.binary(max_size=300)),
    max_size=12,
)

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=30)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)

OBJECTS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    result, offset, turn = [], 0, 0
    while offset < len(data):
        size = sizes[turn % len(sizes)]
        result.append(data[offset : offset + size])
        offset += size
        turn += 1
    return result


def merged(frames: list[Frame]) -> list[tuple[int, int, bytes]]:
    result: list[tuple[int, int, bytes]] = []
    for stream, kind, payload in frames:
        if result and kind == FrameType.DATA and result[-1][:2] == (stream, kind):
            result[-1] = (stream, kind, result[-1][2] + payload)
        else:
            result.append((stream, kind, payload))
    return result


def problem(feed: Callable[[bytes], object], data: bytes) -> str:
    try:
        feed(data)
    except TunnelError as error:
        assert error.code.name == "protocol-error", error
        return str(error)
    raise AssertionError(f"{data[:40]!r} was taken")


class FrameDecoderTests(SynchronousTestCase):
    @given(FRAMES, SIZES)
    def test_chunks(self, frames: list[Frame], sizes: list[int]) -> None:
        """Fed in any pieces, it finds the frames that were written."""
        data = b"".join(encodeFrame(*frame) for frame in frames)
        whole = FrameDecoder().feed(data)
        decoder = FrameDecoder()
        cut = [frame for piece in pieces(data, sizes) for frame in decoder.feed(piece)]
        self.assertEqual(merged(whole), merged(frames))
        self.assertEqual(merged(cut), merged(frames))

    @settings(max_examples=300)
    @given(st.lists(st.binary(max_size=60), max_size=20))
    def test_garbage(self, chunks: list[bytes]) -> None:
        """Random bytes are frames or a C{protocol-error}, and nothing else."""
        decoder = FrameDecoder()
        for chunk in chunks:
            try:
                frames = decoder.feed(chunk)
            except TunnelError as error:
                self.assertEqual(error.code.name, "protocol-error")
                return
            for frame in frames:
                self.assertLessEqual(frame.stream, 0xFFFFFFFF)

    @given(st.integers(0, MAX_FRAME), st.integers(1, 70_000))
    def test_boundedDatum(self, size: int, chunk: int) -> None:
        """Of a data frame nothing is held but an unfinished head."""
        decoder = FrameDecoder()
        size = min(size, MAX_FRAME - 5)
        data = frameHeader(7, FrameType.DATA, size) + bytes(min(size, 200_000))
        for start in range(0, len(data), chunk):
            given_ = data[start : start + chunk]
            out = sum(len(frame.payload) for frame in decoder.feed(given_))
            self.assertLessEqual(out, len(given_))
            self.assertLess(len(decoder._partial), 9)

    def test_boundedControl(self) -> None:
        """Of other frames no more is held than the largest one accepted."""
        decoder = FrameDecoder()
        decoder.feed(frameHeader(0, FrameType.CONTROL, MAX_CONTROL))
        for _ in range(MAX_CONTROL // 4096 - 1):
            self.assertEqual(decoder.feed(bytes(4096)), [])
        self.assertLessEqual(len(decoder._partial), MAX_CONTROL + 9)
        (frame,) = decoder.feed(bytes(4096))
        self.assertEqual(len(frame.payload), MAX_CONTROL)
        self.assertEqual(len(decoder._partial), 0)

    def test_lengthTooSmall(self) -> None:
        """A length that leaves no room for the head is refused."""
        for length in range(5):
            problem(FrameDecoder().feed, length.to_bytes(4, "big") + bytes(5))

    def test_lengthTooLarge(self) -> None:
        """Too large a length is refused as soon as the head is there."""
        for length, kind, bound in (
            (0xFFFFFFFF, FrameType.DATA, MAX_FRAME),
            (MAX_FRAME + 1, FrameType.DATA, MAX_FRAME),
            (MAX_CONTROL + 6, FrameType.OPEN, MAX_CONTROL + 5),
            (MAX_CONTROL + 6, 0xEE, MAX_CONTROL + 5),
        ):
            head = length.to_bytes(4, "big") + bytes(4) + bytes([kind])
            said = problem(FrameDecoder().feed, head)
            self.assertIn(str(bound), said)

    def test_largest(self) -> None:
        """A data frame of the largest length passes, and no longer one."""
        data = encodeFrame(1, FrameType.DATA, bytes(MAX_FRAME - 5))
        (frame,) = FrameDecoder().feed(data)
        self.assertEqual(len(frame.payload), MAX_FRAME - 5)
        with self.assertRaises(TunnelError):
            FrameDecoder(maxFrame=100).feed(data)

    def test_emptyData(self) -> None:
        """An empty data frame is a frame: it begins a stream."""
        self.assertEqual(
            FrameDecoder().feed(encodeFrame(9, FrameType.DATA)), [(9, 1, b"")]
        )

    def test_recorded(self) -> None:
        """The frames of a real W3P exchange are read and written as recorded."""
        for side in ("client", "server"):
            data = b"".join(
                bytes.fromhex(line["hex"])
                for line in readVectors("w3p-http-get")
                if line["from"] == side and "hex" in line
            )
            done = HandshakeDecoder().feed(data)
            assert done is not None
            message, rest = done
            self.assertEqual(
                message, {"id": "x"} if side == "client" else {"port": 45267}
            )
            for size in (1, 2, 7, len(rest)):
                decoder = FrameDecoder()
                frames = merged(
                    [
                        frame
                        for piece in pieces(rest, [size])
                        for frame in decoder.feed(piece)
                    ]
                )
                self.assertEqual([kind for _, kind, _ in frames], [1, 2])
                again = b"".join(encodeFrame(*frame) for frame in frames)
                self.assertEqual(encodeHandshake(message) + again, data)


class HandshakeDecoderTests(SynchronousTestCase):
    @given(OBJECTS, st.binary(max_size=40), SIZES)
    def test_chunks(
        self, message: dict[str, object], rest: bytes, sizes: list[int]
    ) -> None:
        """Fed in any pieces, it finds the object and what follows it."""
        data = encodeHandshake(message) + rest
        self.assertEqual(HandshakeDecoder().feed(data), (message, rest))
        decoder = HandshakeDecoder()
        remaining = pieces(data, sizes)
        done = None
        while done is None:
            done = decoder.feed(remaining.pop(0))
        self.assertEqual((done[0], done[1] + b"".join(remaining)), (message, rest))

    @settings(max_examples=300)
    @given(st.booleans(), st.lists(st.binary(max_size=40), max_size=10))
    def test_garbage(self, magic: bool, chunks: list[bytes]) -> None:
        """Random bytes are an error, or not enough, and few of them are kept."""
        decoder = HandshakeDecoder(maxLength=100)
        if magic:
            decoder.feed(MAGIC)
        for chunk in chunks:
            try:
                done = decoder.feed(chunk)
            except TunnelError as error:
                self.assertEqual(error.code.name, "protocol-error")
                return
            if done is not None:
                self.assertIsInstance(done[0], dict)
                return
            self.assertLess(len(decoder._bytes), len(MAGIC) + 4 + 100)

    def test_wrongFirstByte(self) -> None:
        """One wrong byte is enough, and the decoder can show it."""
        for wrong in (b"\x16", b"G", b"W3X", b"w"):
            decoder = HandshakeDecoder()
            problem(decoder.feed, wrong)
            self.assertEqual(decoder.received, wrong)

    def test_receivedIsShort(self) -> None:
        """What it shows of the first bytes is a few, whatever came."""
        decoder = HandshakeDecoder()
        with self.assertRaises(TunnelError):
            decoder.feed(b"GET / HTTP/1.1\r\n" * 10_000)
        self.assertEqual(len(decoder.received), 64)

    def test_tooLong(self) -> None:
        """A length beyond the bound, up to 4 GiB, is refused before its bytes come."""
        for length in (MAX_HANDSHAKE + 1, 0xFFFFFFFF):
            said = problem(HandshakeDecoder().feed, MAGIC + length.to_bytes(4, "big"))
            self.assertIn(str(length), said)

    def test_longest(self) -> None:
        """The longest object that is accepted is read."""
        message: dict[str, object] = {"a": "b" * (MAX_HANDSHAKE - 8)}
        data = encodeHandshake(message)
        self.assertEqual(len(data), len(MAGIC) + 4 + MAX_HANDSHAKE)
        self.assertEqual(HandshakeDecoder().feed(data), (message, b""))

    def test_oneByteAtATime(self) -> None:
        """A slow peer is understood too."""
        decoder = HandshakeDecoder()
        *most, last = (bytes([byte]) for byte in encodeHandshake({"id": "x"}))
        for byte in most:
            self.assertIsNone(decoder.feed(byte))
        self.assertEqual(decoder.feed(last), ({"id": "x"}, b""))


class ObjectTests(SynchronousTestCase):
    """Tests for L{decodeObject}, L{encodeObject} and the credits."""

    @given(OBJECTS)
    def test_roundTrip(self, message: dict[str, object]) -> None:
        """What is written is read, and is JSON without spaces."""
        payload = encodeObject(message)
        self.assertEqual(decodeObject(payload), message)
        self.assertEqual(json.loads(payload), message)

    def test_compact(self) -> None:
        """Objects are written as JavaScript writes them."""
        self.assertEqual(
            encodeObject({"id": "x", "n": [1, 2], "ä": None}),
            '{"id":"x","n":[1,2],"ä":null}'.encode(),
        )

    def test_loneSurrogate(self) -> None:
        """Text that UTF-8 cannot hold is sent back as the escapes that it came in."""
        message = decodeObject(b'{"id":"\\ud800"}')
        self.assertEqual(encodeObject(message), b'{"id":"\\ud800"}')

    @settings(max_examples=300)
    @given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
    def test_garbage(self, payload: bytes) -> None:
        """Anything but an object is a C{protocol-error}."""
        try:
            message = decodeObject(payload)
        except TunnelError as error:
            self.assertEqual(error.code.name, "protocol-error")
        else:
            self.assertIsInstance(message, dict)

    def test_wrong(self) -> None:
        """What is no object is an error that says so in one line."""
        for payload in (
            b"",
            b"[]",
            b"null",
            b'"text"',
            b"{",
            b"\xff\xfe\xfd",
            b"[" * 60_000,
            b'{"a":' * 20_000,
            b'{"a":' + b"9" * 50_000 + b"}",
        ):
            said = problem(decodeObject, payload)
            self.assertNotIn("\n", said)

    @given(st.integers(0, 2**64 - 1))
    def test_credit(self, credit: int) -> None:
        """A credit is a u64."""
        payload = encodeCredit(credit)
        self.assertEqual(len(payload), 8)
        self.assertEqual(decodeCredit(payload), credit)

    def test_creditOfWrongLength(self) -> None:
        """Any other length is refused."""
        for size in (0, 1, 7, 9, 100):
            problem(decodeCredit, bytes(size))
