"""
Property tests of two multiplexers that talk to each other.
"""

from __future__ import annotations

import os
from random import Random
from typing import ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.memory import (
    Pair,
    RecordingEnd,
    Side,
    extendedPair,
    plainPair,
)
from tristunnel.dataplane.join import LINGER
from tristunnel.dialects.base import plain
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.base.outgoing import SOURCE_HIGH
from tristunnel.dialects.framed.extended import ExtendedMultiplexer

MORE = 10 if os.environ.get("TRISTUNNEL_LONG") else 1
"""How many times as many examples are tried."""

STEPS = (
    "carry",
    "carry",
    "carry",
    "carry",
    "say",
    "say",
    "say",
    "open",
    "end",
    "crash",
    "fragile",
    "read",
    "unread",
    "pause",
    "resume",
    "tick",
)

Script = list[tuple[str, bool, int]]


def longScript(seed: int) -> Script:
    """A script of many steps, which Hypothesis would seldom make by itself."""
    random = Random(seed)
    return [
        (random.choice(STEPS), random.random() < 0.5, random.randrange(2**20))
        for _ in range(random.randrange(50, 400))
    ]


SCRIPTS = st.one_of(
    st.integers(0, 2**32).map(longScript),
    st.lists(
        st.tuples(st.sampled_from(STEPS), st.booleans(), st.integers(0, 2**20)),
        min_size=1,
        max_size=120,
    ),
)


@st.composite
def tightLimits(draw: st.DrawFn) -> Limits:
    stream = draw(st.integers(1, 3000))
    return Limits(
        stream,
        stream * draw(st.integers(0, 4)),
        draw(st.integers(max(8, stream), max(8, min(8000, 20 * stream)))),
    )


PATTERN = Random(0).randbytes(1 << 17)


def payload(end: RecordingEnd, size: int) -> bytes:
    """Bytes that tell where in C{end}'s stream they belong."""
    start = len(end.said) % (1 << 16)
    return PATTERN[start : start + size]


class Conversation:
    """Plays a random script on a pair of multiplexers."""

    largest: ClassVar[int] = 5000

    def __init__(self, pair: Pair, bothOpen: bool) -> None:
        self.pair = pair
        self.bothOpen = bothOpen

    def play(self, script: Script) -> None:
        for step, atServer, value in script:
            side = self.pair.server if atServer else self.pair.client
            end = self._pick(side, value)
            if step == "carry":
                self.pair.carry(side, value % 4000 + 1)
            elif step == "open":
                if self.bothOpen:
                    side.open()
                else:
                    self.pair.server.open()
            elif step == "pause":
                side.multiplexer.pauseProducing()
            elif step == "resume":
                side.multiplexer.resumeProducing()
            elif step == "tick":
                self.pair.clock.advance(value % 40 / 10)
                side.multiplexer.tick()
            elif end is not None:
                self._act(step, end, value)

    def _pick(self, side: Side, value: int) -> RecordingEnd | None:
        ends = list(side.ends.values())
        return ends[value % len(ends)] if ends else None

    def _act(self, step: str, end: RecordingEnd, value: int) -> None:
        assert end.stream is not None
        if step == "unread":
            end.stream.pauseReading()
        elif step == "read":
            end.stream.resumeReading()
        elif end.ended or end.broken is not None:
            return
        elif step == "end":
            end.end()
        elif step == "crash" and value % 3 == 0:
            end.crash()
        elif step == "fragile" and value % 4 == 0:
            end.fragile = True
        elif step == "say" and not end.paused:
            end.say(payload(end, value % self.largest))

    def readAll(self) -> None:
        """Let every end read, and everything that is under way arrive."""
        for side in (self.pair.server, self.pair.client):
            for end in list(side.ends.values()):
                assert end.stream is not None
                end.fragile = False
                end.stream.resumeReading()
        self.pair.settle()

    def finishAll(self, side: Side) -> None:
        for end in list(side.ends.values()):
            if not end.ended and end.broken is None:
                end.end()
        self.readAll()


class ExtendedTests(SynchronousTestCase):
    """Tests of two L{ExtendedMultiplexer}s."""

    @settings(
        deadline=None, max_examples=40 * MORE, suppress_health_check=list(HealthCheck)
    )
    @given(tightLimits(), tightLimits(), SCRIPTS)
    def test_conversation(self, server: Limits, client: Limits, script: Script) -> None:
        """
        Whatever two ends do and however their bytes are cut and delayed:
        every byte arrives once and in order, no credit is overdrawn, each
        direction ends by itself, every stream ends on both sides, and nothing
        of the session's credit is lost.
        """
        pair = extendedPair(server, client)
        for side in (pair.server, pair.client):
            assert isinstance(side.multiplexer, ExtendedMultiplexer)
            side.multiplexer.roundTrip = 0.2
        conversation = Conversation(pair, bothOpen=True)
        conversation.play(script)
        conversation.readAll()
        self._checkHalves(pair)
        conversation.finishAll(pair.server)
        conversation.finishAll(pair.client)
        self._checkBytes(pair)
        self._checkNothingLeft(pair)
        self._checkCredit(pair, server, client)

    def _checkHalves(self, pair: Pair) -> None:
        """A direction that has ended is through, though the other goes on."""
        for number, one in pair.server.ends.items():
            other = pair.client.ends.get(number)
            if other is None:
                self.assertIsNotNone(one.broken or one.reset_ or None)
            elif not (one.reset_ or other.reset_ or one.broken or other.broken):
                self.assertEqual(other.finishes, int(one.ended))
                self.assertEqual(one.finishes, int(other.ended))
                self.assertEqual(bytes(other.taken), bytes(one.said))
                self.assertEqual(bytes(one.taken), bytes(other.said))

    def _checkBytes(self, pair: Pair) -> None:
        """Everything said was taken, or the beginning of it where it broke."""
        for number in pair.server.ends.keys() & pair.client.ends.keys():
            one, other = pair.server.ends[number], pair.client.ends[number]
            broken = any((one.reset_, other.reset_, one.broken, other.broken))
            for sender, taker in ((one, other), (other, one)):
                if not broken:
                    self.assertEqual(bytes(taker.taken), bytes(sender.said))
                    self.assertEqual(taker.finishes, 1)
                    self.assertEqual(taker.closings, [None])
                self.assertTrue(sender.said.startswith(taker.taken))
            if one.reset_ and not other.ended:
                self.assertIsNotNone(other.broken)
            if other.reset_ and not one.ended:
                self.assertIsNotNone(one.broken)

    def _checkNothingLeft(self, pair: Pair) -> None:
        """Both tables are empty, and each end was told once that it is over."""
        for side in (pair.server, pair.client):
            self.assertEqual(side.multiplexer.streams, {})
            for end in side.ends.values():
                self.assertEqual(len(end.closings), 1)
                self.assertLessEqual(end.finishes, 1)

    def _checkCredit(self, pair: Pair, server: Limits, client: Limits) -> None:
        """
        A new stream each way can send several times what the session's window
        holds; and what growth took was given back.
        """
        for source, limits in ((pair.server, client), (pair.client, server)):
            end = source.open()
            while len(end.said) < 3 * limits.sessionWindow:
                end.say(payload(end, 2000))
                pair.settle()
            end.end()
            pair.settle()
            assert end.stream is not None
            far = pair.other(source).ends[end.stream.id]
            self.assertEqual(bytes(far.taken), bytes(end.said))
            far.end()
            pair.settle()
            self.assertEqual(end.closings, [None])
        for side, limits in ((pair.server, server), (pair.client, client)):
            multiplexer = side.multiplexer
            assert isinstance(multiplexer, ExtendedMultiplexer)
            self.assertEqual(multiplexer._receiveWindow.waiting, 0)
            self.assertEqual(multiplexer._budget.free, limits.sessionWindow // 4 * 3)


class PlainTests(SynchronousTestCase):
    """Tests of L{plain.PlainServerSide} and L{plain.PlainClientSide}."""

    def setUp(self) -> None:
        self.patch(plain, "HOLD", 6000)

    @settings(
        deadline=None, max_examples=40 * MORE, suppress_health_check=list(HealthCheck)
    )
    @given(SCRIPTS)
    def test_conversation(self, script: Script) -> None:
        """
        Whatever two ends do and however their bytes are cut and delayed: what
        arrives is in order and nothing comes twice, all of it arrives unless
        the other end ended first, and nothing is left in the end.
        """
        pair = plainPair()
        conversation = Conversation(pair, bothOpen=False)
        conversation.play(script)
        conversation.readAll()
        whole = [
            number
            for number, service in pair.client.ends.items()
            if not (service.ended or service.broken or service.finishes)
            and not pair.server.ends[number].broken
        ]
        conversation.finishAll(pair.server)
        pair.clock.advance(LINGER + 1)
        pair.server.multiplexer.tick()
        conversation.readAll()
        conversation.finishAll(pair.client)
        for number, service in pair.client.ends.items():
            visitor = pair.server.ends[number]
            self.assertTrue(visitor.said.startswith(service.taken))
            self.assertTrue(service.said.startswith(visitor.taken))
            if number in whole:
                self.assertEqual(bytes(service.taken), bytes(visitor.said))
        for side in (pair.server, pair.client):
            self.assertEqual(side.multiplexer.streams, {})
            self.assertTrue(side.sink.reading)
            for end in side.ends.values():
                self.assertEqual(len(end.closings), 1)
                self.assertLessEqual(end.finishes, 1)

    @settings(max_examples=25 * MORE)
    @given(
        st.lists(st.integers(1, 200_000), max_size=6),
        st.lists(st.integers(1, 200_000), min_size=1, max_size=6),
        st.integers(1, 70_000),
    )
    def test_visitorEndsFirst(
        self, asked: list[int], answered: list[int], chunk: int
    ) -> None:
        """
        A visitor that has asked and ended gets its whole answer, though W3P
        has no half-close: its end is held back until the service ends.
        """
        pair = plainPair()
        visitor = pair.server.open()
        for size in [1, *asked]:
            visitor.say(bytes(size))
        visitor.end()
        while pair.carry(pair.server, chunk):
            pass
        (service,) = pair.client.ends.values()
        self.assertEqual(bytes(service.taken), bytes(visitor.said))
        self.assertEqual(service.finishes, 0)
        for size in answered:
            service.say(bytes(size))
            pair.clock.advance(LINGER - 1)
            pair.server.multiplexer.tick()
            while pair.carry(pair.client, chunk):
                pass
        service.end()
        pair.settle()
        self.assertEqual(bytes(visitor.taken), bytes(service.said))
        self.assertEqual((visitor.finishes, visitor.closings), (1, [None]))

    def test_sourceIsHeld(self) -> None:
        """
        A source is paused while the session does not take its bytes, and
        resumed when it does.
        """
        pair = plainPair()
        visitor = pair.server.open()
        pair.server.multiplexer.pauseProducing()
        visitor.say(bytes(SOURCE_HIGH))
        self.assertFalse(visitor.paused)
        visitor.say(b"x")
        self.assertTrue(visitor.paused)
        pair.server.multiplexer.resumeProducing()
        self.assertFalse(visitor.paused)
