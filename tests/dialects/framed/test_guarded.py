"""
Tests that an error of one stream's code is that stream's alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.memory import (
    MemorySink,
    Pair,
    RecordingEnd,
    extendedPair,
    plainPair,
)
from tristunnel.dataplane.join import LINGER
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.base.outgoing import SOURCE_HIGH
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import Frame, FrameType, encodeCredit, encodeObject


class BadEnd(RecordingEnd):
    """
    A stream's local end with an error in its code.

    @ivar bad: The methods that raise.
    """

    bad: tuple[str, ...] = ()

    def __getattribute__(self, name: str) -> object:
        if name in super().__getattribute__("bad"):

            def raising(*arguments: object) -> None:
                raise AttributeError(name)

            return raising
        return super().__getattribute__(name)


def _say(pair: Pair, far: RecordingEnd, bad: BadEnd) -> None:
    far.say(b"hello")


def _saySlowly(pair: Pair, far: RecordingEnd, bad: BadEnd) -> None:
    assert bad.stream is not None
    bad.stream.pauseReading()
    far.say(b"hello")
    pair.settle()
    bad.stream.resumeReading()


def _leave(pair: Pair, far: RecordingEnd, bad: BadEnd) -> None:
    far.end()
    # W3P's dialect waits for an answer first.
    pair.clock.advance(LINGER)


def _crash(pair: Pair, far: RecordingEnd, bad: BadEnd) -> None:
    far.crash()


def _flood(pair: Pair, far: RecordingEnd, bad: BadEnd) -> None:
    pair.client.multiplexer.pauseProducing()
    bad.say(b"x" * (SOURCE_HIGH + 1))


CASES: list[tuple[str, Callable[[Pair, RecordingEnd, BadEnd], None]]] = [
    ("write", _say),
    ("write", _saySlowly),
    ("finish", _leave),
    ("reset", _crash),
    ("pauseReading", _flood),
    ("resumeReading", _flood),
]
"""A method that raises, and what has it called."""


class GuardedTests(SynchronousTestCase):
    """Two streams in a session; one of their services is written badly."""

    def pairs(self) -> list[Pair]:
        return [extendedPair(), plainPair()]

    def open(self, pair: Pair, *bad: str) -> tuple[RecordingEnd, BadEnd]:
        """Open a stream to an end with an error; both ends of it."""
        made = BadEnd()

        def opened(stream: SessionStream, info: dict[str, object]) -> None:
            made.meet(stream)
            pair.client.multiplexer.accept(stream)

        pair.client.multiplexer._opened = opened
        far = pair.server.open()
        far.say(b"begin")
        pair.settle()
        pair.client.multiplexer._opened = pair.client.opened
        made.bad = bad
        return far, made

    def check(self, pair: Pair) -> None:
        """The error was logged once, and the session goes on."""
        pair.settle()
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        visitor = pair.server.open()
        visitor.say(b"hello")
        pair.settle()
        assert visitor.stream is not None
        service = pair.client.ends[visitor.stream.id]
        service.say(b"you too")
        pair.settle()
        self.assertEqual(service.taken, b"hello")
        self.assertEqual(visitor.taken, b"you too")
        self.assertEqual(len(pair.client.multiplexer.streams), 1)
        self.assertEqual(len(pair.server.multiplexer.streams), 1)

    def test_methods(self) -> None:
        """
        Whatever an end is asked and cannot do, the visitor is reset and no other
        one learns of it.
        """
        for method, act in CASES:
            for pair in self.pairs():
                far, bad = self.open(pair, method)
                act(pair, far, bad)
                self.check(pair)
                if act not in (_leave, _crash):
                    self.assertIsNotNone(far.broken, (method, act))

    def test_allMethods(self) -> None:
        """An end that can do nothing at all is logged once, too."""
        methods = ("write", "finish", "reset", "pauseReading", "resumeReading")
        for pair in self.pairs():
            far, _ = self.open(pair, *methods)
            far.say(b"hello")
            self.check(pair)

    def test_opening(self) -> None:
        """So it is where the stream could not even be handed over."""

        def opened(stream: SessionStream, info: dict[str, object]) -> None:
            raise RuntimeError("no")

        for pair in self.pairs():
            pair.client.multiplexer._opened = opened
            far = pair.server.open()
            far.say(b"begin")
            pair.settle()
            self.assertIsNotNone(far.broken)
            pair.client.multiplexer._opened = pair.client.opened
            self.check(pair)

    def test_closing(self) -> None:
        """So it is where whoever waits for the end of the stream fails."""

        def closed(reason: TunnelError | None) -> None:
            raise RuntimeError("no")

        for pair in self.pairs():
            far, bad = self.open(pair)
            assert bad.stream is not None
            bad.stream.join(bad, closed)
            far.crash()
            self.check(pair)

    def test_sessionLost(self) -> None:
        """When the session ends, all of its streams learn of it."""
        for pair in self.pairs():
            self.open(pair, "reset")
            good = pair.server.open()
            good.say(b"hello")
            pair.settle()
            assert good.stream is not None
            pair.client.multiplexer.close(TunnelError("session-lost"))
            self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
            self.assertIsNotNone(pair.client.ends[good.stream.id].broken)


class FlowTests(SynchronousTestCase):
    """Flows of datagrams share the session, too."""

    def test_datagram(self) -> None:
        """A flow whose end fails is over; the others go on."""
        multiplexer = ExtendedMultiplexer(
            MemorySink(),
            Clock().seconds,
            lambda stream, info: None,
            Limits(),
            False,
            0,
            0,
        )
        multiplexer.datagrams.largest = 1500
        arrived: list[bytes] = []

        class Bad:
            def send(self, datagram: bytes) -> None:
                arrived.append(datagram)
                raise RuntimeError("no")

            finish = reset = send

        def opened(flow: object, info: dict[str, object]) -> None:
            raise RuntimeError("no")

        multiplexer.datagrams.opened = opened
        begin = encodeCredit(0) + encodeObject({"protocol": "udp"})
        multiplexer.framesArrived([Frame(2, FrameType.OPEN, begin)])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertFalse(multiplexer.datagrams.flows)
        bad: Any = Bad()
        multiplexer.datagrams.opened = lambda flow, info: flow.join(
            bad, lambda reason: None
        )
        multiplexer.framesArrived(
            [
                Frame(8, FrameType.OPEN, begin),
                Frame(8, FrameType.DATAGRAM, b"one"),
                Frame(8, FrameType.DATAGRAM, b"two"),
                Frame(10, FrameType.OPEN, begin),
            ]
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(arrived[:1], [b"one"])
        self.assertNotIn(b"two", arrived)
        self.assertEqual(list(multiplexer.datagrams.flows), [10])
