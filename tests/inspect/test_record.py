"""Tests for L{tristunnel.inspect.record}: it is bounded."""

from __future__ import annotations

import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from tests.inspect.streams import INFO, STREAMS, aForward, aRecord, passing
from tristunnel.inspect.record import Limits, Record
from tristunnel.inspect.tap import Tap

_REQUEST = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n"
_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"


def _ask(record: Record, times: int) -> None:
    tap = Tap(record, aForward(), INFO)
    for _ in range(times):
        tap.asked(_REQUEST + bytes(5000))
        tap.answered(_RESPONSE + bytes(5000))


class BoundTests(SynchronousTestCase):
    """However many exchanges there are, what is kept of them is bounded."""

    def test_count(self) -> None:
        """The oldest go when there are too many."""
        record = aRecord(Limits(count=3))
        _ask(record, 10)
        self.assertEqual(list(record.exchanges), [8, 9, 10])

    def test_total(self) -> None:
        """They also go when they are too large together."""
        record = aRecord(Limits(total=60_000))
        _ask(record, 10)
        self.assertLess(len(record.exchanges), 6)
        self.assertLessEqual(record.size, 60_000)
        self.assertGreater(record.size, 30_000)

    def test_unfinished(self) -> None:
        """Nothing more is kept of one that is gone, though it goes on."""
        record = aRecord(Limits(count=1))
        tap = Tap(record, aForward(), INFO)
        tap.asked(_REQUEST)
        (first,) = record.exchanges.values()
        _ask(record, 1)
        tap.asked(bytes(5000))
        tap.answered(_RESPONSE + bytes(5000))
        assert first.response is not None
        self.assertEqual((len(first.request.kept), first.request.size), (0, 5000))
        self.assertEqual((len(first.response.kept), first.response.size), (0, 5000))

    def test_messages(self) -> None:
        """The messages of one WebSocket take a part of the room, the latest ones."""
        record = aRecord(Limits(total=40_000))
        tap = Tap(record, aForward(), INFO)
        asked, answered, _ = STREAMS["a WebSocket"]
        tap.asked(asked[0])
        tap.answered(answered[0])
        for number in range(100):
            tap.answered(b"\x82\x7e\x03\xe8" + bytes((number,)) * 1000)
        (exchange,) = record.exchanges.values()
        self.assertLessEqual(exchange.cost, 10_000)
        self.assertEqual(exchange.frames[-1].kept[:1], b"\x63")
        self.assertEqual(exchange.framesGone + len(exchange.frames), 102)

    def test_many(self) -> None:
        """Ten thousand exchanges need no more memory than a thousand."""
        record = aRecord(Limits(count=200, total=1_000_000))
        _ask(record, 1000)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        _ask(record, 1000)
        after, _ = tracemalloc.get_traced_memory()
        _ask(record, 9000)
        now, most = tracemalloc.get_traced_memory()
        self.assertLess(now - after, 200_000)
        self.assertLess(most, 3_000_000)

    def test_notes(self) -> None:
        """So are the notes on what is not looked at."""
        record = aRecord()
        for number in range(200):
            record.notLookedAt(aForward(), f"reason {number % 100}")
        self.assertEqual(len(record.notes), 50)
        self.assertEqual(record.notes[0].reason, "reason 99")

    def test_clear(self) -> None:
        """All can be forgotten, and numbers go on."""
        record = aRecord()
        passing(record, "one")
        record.clear()
        self.assertEqual((len(record.exchanges), record.size), (0, 0))
        passing(record, "one")
        self.assertEqual(list(record.exchanges), [2])
