"""Tests for L{tristunnel.inspect.tap}, and for what it tells of messages."""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.inspect.streams import INFO, STREAMS, Seen, aForward, aRecord, passing
from tristunnel.errors import TunnelError
from tristunnel.inspect.messages import COMPRESSED, INFLATED
from tristunnel.inspect.pipeline import MOST_PIPELINED
from tristunnel.inspect.record import Limits
from tristunnel.inspect.tap import Tap

_FEW = Limits(body=16)


def _seen(name: str, cuts: object = None) -> list[Seen]:
    record = aRecord(_FEW)
    passing(record, name, cuts)
    found = [Seen.of(each) for each in record.exchanges.values()]
    prefix = "not shown from here on: "
    return [
        replace(each, problem=f"{prefix}...")
        if each.problem.startswith(prefix)
        else each
        for each in found
    ]


class TapTests(SynchronousTestCase):
    """Requests and responses are found in what passes."""

    def test_streams(self) -> None:
        """Each kind of stream is read as it is meant."""
        for name, (_, _, expected) in STREAMS.items():
            self.assertEqual(_seen(name), expected, name)

    @given(st.sampled_from(sorted(STREAMS)), st.randoms(use_true_random=False))
    def test_pieces(self, name: str, random: Random) -> None:
        """Into which pieces it comes makes no difference."""

        def cuts(data: bytes) -> list[bytes]:
            places = sorted(
                random.randrange(len(data) + 1) for _ in range(random.randrange(6))
            )
            ends = [0, *places, len(data)]
            return [data[a:b] for a, b in pairwise(ends) if a < b]

        self.assertEqual(_seen(name, cuts), _seen(name))

    def test_bytewise(self) -> None:
        """Nor does it if each byte comes alone."""
        for name in STREAMS:
            bytewise = _seen(name, lambda data: [bytes((byte,)) for byte in data])
            self.assertEqual(bytewise, _seen(name), name)

    def test_sizes(self) -> None:
        """What is not kept is counted, and so are bytes that no reader sees."""
        record = aRecord(_FEW)
        passing(record, "more than is kept")
        one, two = record.exchanges.values()
        assert one.response is not None and two.response is not None
        sizes = one.request.size, one.response.size, two.response.size
        self.assertEqual(sizes, (40, 50, 60))
        self.assertTrue(one.isOver and two.isOver)
        self.assertIsNotNone(two.ended)

    def test_detached(self) -> None:
        """What is no HTTP is let go, once, and it is said why."""
        for name in ("another protocol", "another protocol behind a request"):
            record = aRecord()
            self.assertEqual(passing(record, name), [True])
            (note,) = record.notes
            self.assertEqual((note.target, note.count), ("localhost:3000", 1))
            self.assertTrue(note.reason)

    def test_pipelinedTooMuch(self) -> None:
        """Requests that nobody answers are not kept without a bound."""
        record = aRecord()
        tap = Tap(record, aForward(), INFO)
        tap.asked(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * (MOST_PIPELINED + 1))
        self.assertEqual(len(record.exchanges), MOST_PIPELINED)
        self.assertIn("too many requests", record.notes[0].reason)

    def test_waitingTooMuch(self) -> None:
        """Nor is what follows a request for another protocol."""
        record = aRecord()
        tap = Tap(record, aForward(), INFO)
        head = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
        tap.asked(head)
        for _ in range(9):
            tap.asked(bytes(8192))
        self.assertIn("too much follows", record.notes[0].reason)

    def test_canceled(self) -> None:
        """A visitor who leaves is the reason why there is no answer."""
        record = aRecord()
        tap = Tap(record, aForward(), INFO)
        tap.asked(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        tap.broken(TunnelError("reset", "the visitor has left"))
        (exchange,) = record.exchanges.values()
        self.assertEqual(exchange.problem, "the visitor has left")
        self.assertTrue(exchange.isOver)

    def test_answeredEarly(self) -> None:
        """A response that is complete before its request leaves the next one whole."""
        record = aRecord(_FEW)
        tap = Tap(record, aForward(), INFO)
        tap.asked(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\n\r\n" + b"x" * 20
        )
        tap.answered(b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n")
        tap.asked(b"x" * 10 + b"GET /n HTTP/1.1\r\nHost: h\r\n\r\n")
        tap.answered(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        lines = [Seen.of(each).line for each in record.exchanges.values()]
        self.assertEqual(lines, ["POST / 413", "GET /n 200"])
        self.assertEqual(record.exchanges[1].request.size, 30)


class CompressedTests(SynchronousTestCase):
    """Messages that were compressed are unpacked, within bounds."""

    def _frames(self, payload: bytes) -> list[tuple[bytes, str]]:
        record = aRecord(_FEW)
        tap = Tap(record, aForward(), INFO)
        asked, answered, _ = STREAMS["a compressed WebSocket"]
        tap.asked(asked[0])
        tap.answered(answered[0])
        # Masked with zeros, so that it stays as it is.
        head = b"\xc1\xff" + len(payload).to_bytes(8, "big") + bytes(4)
        for _ in range(2):
            tap.asked(head + payload)
        frames = list(record.exchanges[1].frames)[-2:]
        return [(frame.kept, frame.note) for frame in frames]

    def test_bomb(self) -> None:
        """One that grows beyond all bounds is shown packed, and so are later ones."""
        packer = zlib.compressobj(wbits=-15)
        payload = packer.compress(bytes(INFLATED + 1)) + packer.flush(zlib.Z_SYNC_FLUSH)
        payload = payload[:-4].ljust(1 << 16, b"\0")
        first, second = self._frames(payload)
        self.assertEqual(first, (payload[:16], COMPRESSED))
        self.assertEqual(second, (payload[:16], COMPRESSED))

    def test_damaged(self) -> None:
        """So is what cannot be unpacked, in its whole length."""
        record = aRecord()
        tap = Tap(record, aForward(), INFO)
        asked, answered, _ = STREAMS["a compressed WebSocket"]
        tap.asked(asked[0])
        tap.answered(answered[0])
        tap.answered(b"\xc1\x01\x00" + b"\xc1\x03\xff\xff\xff")
        *_, empty, damaged = record.exchanges[1].frames
        self.assertEqual((empty.kept, empty.size, empty.note), (b"", 0, ""))
        self.assertEqual(
            (damaged.kept, damaged.size, damaged.note), (b"\xff" * 3, 3, COMPRESSED)
        )
