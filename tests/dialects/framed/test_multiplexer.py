"""
Tests for what both forms of the framed protocol share, and for the extended
one: L{tristunnel.dialects.base.multiplexer}, L{tristunnel.dialects.base.stream} and
L{tristunnel.dialects.framed.extended}.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.memory import (
    MemorySink,
    Pair,
    RecordingEnd,
    extendedPair,
    frameBytes,
)
from tristunnel.dialects.base.multiplexer import FRAME_ALONE, FRAME_SHARED, Limits
from tristunnel.dialects.base.stream import SOURCE_HIGH, SessionStream
from tristunnel.dialects.framed import extended
from tristunnel.dialects.framed.extended import (
    OPEN_TIMEOUT,
    PAUSE,
    STALL,
    ExtendedMultiplexer,
)
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import (
    Frame,
    FrameDecoder,
    FrameType,
    decodeObject,
    encodeCredit,
    encodeObject,
)
from tristunnel.wire.windows import UNLIMITED

OPEN = encodeCredit(1000) + b"{}"


class OneSideTests(SynchronousTestCase):
    """Tests of one L{ExtendedMultiplexer}, a server's, whose peer is the test."""

    def setUp(self) -> None:
        """Make a multiplexer."""
        self.clock = Clock()
        self.sink = MemorySink()
        self.ends: list[RecordingEnd] = []
        self.infos: list[dict[str, object]] = []
        self.limits = Limits(1000, 4000, 3000, streams=10)
        self.multiplexer = ExtendedMultiplexer(
            self.sink,
            self.clock.seconds,
            self.opened,
            self.limits,
            True,
            UNLIMITED,
            UNLIMITED,
        )

    def opened(self, stream: SessionStream, info: dict[str, object]) -> None:
        """Accept a stream."""
        self.infos.append(info)
        end = RecordingEnd()
        self.ends.append(end)
        end.meet(stream)
        self.multiplexer.accept(stream)

    def open(self) -> RecordingEnd:
        """Open a stream from this side."""
        end = RecordingEnd()
        end.meet(self.multiplexer.open({}))
        return end

    def hear(self, *frames: tuple[int, int, bytes]) -> list[Frame]:
        """
        Have the peer send frames.

        @return: The frames that were sent since the last time.
        """
        self.multiplexer.framesArrived(FrameDecoder().feed(frameBytes(*frames)))
        return self.sink.frames()

    def violation(self, *frames: tuple[int, int, bytes]) -> str:
        """
        Have the peer send frames that it may not send.

        @return: What is wrong with them.
        """
        with self.assertRaises(TunnelError) as caught:
            self.hear(*frames)
        self.assertEqual(caught.exception.code.name, "protocol-error")
        return str(caught.exception)


class ViolationTests(OneSideTests):
    """Tests of peers that break the protocol."""

    def test_streamOverdrawn(self) -> None:
        """A stream may not be sent more than its credit."""
        self.hear((1, FrameType.OPEN, OPEN))
        assert self.ends[0].stream is not None
        self.ends[0].stream.pauseReading()
        self.hear((1, FrameType.DATA, bytes(1000)))
        self.assertIn("credit", self.violation((1, FrameType.DATA, b"x")))

    def test_sessionOverdrawn(self) -> None:
        """Nor may all streams together."""
        for number in (1, 3, 5):
            self.hear((number, FrameType.OPEN, OPEN))
        for end, number in zip(self.ends, (1, 3, 5), strict=True):
            assert end.stream is not None
            end.stream.pauseReading()
            self.hear((number, FrameType.DATA, bytes(1000)))
        self.hear((7, FrameType.OPEN, OPEN))
        self.assertIn("session", self.violation((7, FrameType.DATA, b"x")))

    def test_dataAfterEnd(self) -> None:
        """After its end a direction is silent."""
        for kind in (FrameType.EOF, FrameType.CLOSE):
            number = 1 + 2 * len(self.ends)
            self.hear((number, FrameType.OPEN, OPEN))
            assert self.ends[-1].stream is not None
            self.ends[-1].stream.pauseReading()
            self.hear((number, FrameType.DATA, b"last"), (number, kind, b""))
            self.assertIn("end", self.violation((number, FrameType.DATA, b"x")))

    def test_wrongNumbers(self) -> None:
        """A client opens odd numbers, each once at a time."""
        self.hear((1, FrameType.OPEN, OPEN))
        for number in (0, 2, 4, 0xFFFFFFFE, 1):
            self.violation((number, FrameType.OPEN, OPEN))

    def test_wrongParityAtClient(self) -> None:
        """A server opens even numbers."""
        self.multiplexer = ExtendedMultiplexer(
            self.sink, self.clock.seconds, self.opened, self.limits, False, 0, 0
        )
        for number in (0, 1, 0xFFFFFFFF):
            self.violation((number, FrameType.OPEN, OPEN))
        self.hear((2, FrameType.OPEN, OPEN))
        self.assertEqual(len(self.ends), 1)

    def test_wrongLengths(self) -> None:
        """Credit is eight bytes."""
        self.open()
        for payload in (b"", bytes(7), bytes(9)):
            self.violation((0, FrameType.WINDOW, payload))
            self.violation((2, FrameType.WINDOW, payload))
            self.violation((2, FrameType.OPENED, payload))
            self.violation((1, FrameType.OPEN, payload))

    def test_wrongObjects(self) -> None:
        """What should be a JSON object and is not."""
        self.open()
        for payload in (b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":"\n"}'):
            self.violation((1, FrameType.OPEN, encodeCredit(5) + payload))
            self.violation((2, FrameType.REFUSED, payload))
            self.violation((2, FrameType.ERROR, payload))

    @settings(deadline=None, max_examples=300)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 5),
                st.sampled_from([*map(int, FrameType), 0x77]),
                st.one_of(
                    st.binary(max_size=20),
                    st.integers(0, 2**64 - 1).map(encodeCredit),
                    st.just(OPEN),
                    st.just(b"{}"),
                    st.just(b'{"code":1,"message":[],"retryAfter":-1}'),
                    st.just(b'{"retryAfter":1' + b"0" * 400 + b"}"),
                    st.just(b'{"retryAfter":1e999}'),
                ),
            ),
            max_size=20,
        ),
        st.booleans(),
    )
    def test_anyFrames(
        self, frames: list[tuple[int, int, bytes]], paused: bool
    ) -> None:
        """
        Whatever frames come, in any order: they are taken, or the session
        ends with C{protocol-error}.
        """
        self.setUp()
        for _ in range(2):
            end = self.open()
            assert end.stream is not None
            if paused:
                end.stream.pauseReading()
            end.say(b"hello")
        try:
            self.hear(*frames)
        except TunnelError as error:
            self.assertEqual(error.code.name, "protocol-error")
        self.multiplexer.tick()
        self.multiplexer.close(TunnelError("session-lost"))
        self.assertEqual(self.multiplexer.streams, {})

    def test_unknownTypes(self) -> None:
        """Frames whose type is not known are counted and skipped."""
        end = self.open()
        self.hear((2, 0x77, b"?"), (0, 0xFF, b""), (2, FrameType.DATA, b"data"))
        self.assertEqual(self.multiplexer.unknownFrames, 2)
        self.assertEqual(bytes(end.taken), b"data")

    def test_handled(self) -> None:
        """A type that somebody takes is no longer unknown."""
        taken: list[tuple[int, bytes]] = []
        self.multiplexer.handle(
            FrameType.PING, lambda number, payload: taken.append((number, payload))
        )
        self.hear((0, FrameType.PING, b"12345678"))
        self.assertEqual(taken, [(0, b"12345678")])
        self.assertEqual(self.multiplexer.unknownFrames, 0)

    def test_unknownStreams(self) -> None:
        """
        Frames for streams that are over, or never were, are counted; their
        bytes do not use up the session's credit.
        """
        kinds = (
            (FrameType.CLOSE, b""),
            (FrameType.ERROR, b"{}"),
            (FrameType.EOF, b""),
            (FrameType.WINDOW, encodeCredit(5)),
            (FrameType.OPENED, encodeCredit(5)),
            (FrameType.REFUSED, b"{}"),
        )
        for kind, payload in kinds:
            self.assertEqual(self.hear((8, kind, payload)), [])
        self.assertEqual(self.multiplexer.lateFrames, len(kinds))
        sent = self.hear(*[(8, FrameType.DATA, bytes(500))] * 3)
        self.assertEqual(sent, [(0, FrameType.WINDOW, encodeCredit(4000))])
        self.assertEqual(self.multiplexer.lateFrames, len(kinds) + 3)

    def test_tooManyStreams(self) -> None:
        """
        One stream too many is refused, whoever opens it, and the others go
        on.
        """
        for turn in range(5):
            self.open()
            self.hear((2 * turn + 1, FrameType.OPEN, OPEN))
        with self.assertRaises(TunnelError) as caught:
            self.multiplexer.open({})
        self.assertEqual(caught.exception.code.name, "limit-reached")
        ((number, kind, payload),) = self.hear((11, FrameType.OPEN, OPEN))
        self.assertEqual((number, kind), (11, FrameType.REFUSED))
        self.assertEqual(decodeObject(payload)["code"], "limit-reached")
        self.assertEqual(len(self.multiplexer.streams), 10)


class LifeTests(OneSideTests):
    """Tests of how streams begin and end."""

    def test_open(self) -> None:
        """
        A stream is opened with our credit and what the peer is told; bytes
        may follow at once.
        """
        stream = self.multiplexer.open({"visitor": "192.0.2.1:5"})
        stream.write(b"early")
        self.assertEqual(
            self.sink.frames(),
            [
                (
                    2,
                    FrameType.OPEN,
                    encodeCredit(1000) + b'{"visitor":"192.0.2.1:5"}',
                ),
                (2, FrameType.DATA, b"early"),
            ],
        )

    def test_numbers(self) -> None:
        """Numbers count up, go round and skip those in use."""
        self.assertEqual(self.multiplexer.open({}).id, 2)
        self.multiplexer._lastId = 0xFFFFFFFE
        self.assertEqual(self.multiplexer.open({}).id, 4)

    def test_accepted(self) -> None:
        """A stream is accepted once, with our credit."""
        sent = self.hear((1, FrameType.OPEN, encodeCredit(7) + b'{"tunnel":"x"}'))
        self.assertEqual(sent, [(1, FrameType.OPENED, encodeCredit(1000))])
        self.assertEqual(self.infos, [{"tunnel": "x"}])
        (end,) = self.ends
        assert end.stream is not None
        self.multiplexer.accept(end.stream)
        end.say(b"0123456789")
        self.assertEqual(self.sink.frames(), [(1, FrameType.DATA, b"0123456")])

    def test_openedGivesCredit(self) -> None:
        """The peer's acceptance may bring more credit than it promised."""
        self.multiplexer._peerStreamWindow = 2
        self.open().say(b"0123456789")
        self.sink.frames()
        sent = self.hear((2, FrameType.OPENED, encodeCredit(5)))
        self.assertEqual(sent, [(2, FrameType.DATA, b"234")])
        self.assertEqual(self.hear((2, FrameType.OPENED, encodeCredit(4))), [])
        sent = self.hear((2, FrameType.WINDOW, encodeCredit(100)))
        self.assertEqual(sent, [(2, FrameType.DATA, b"56789")])

    def test_refused(self) -> None:
        """A refusal breaks the stream, with the peer's reason."""
        end = self.open()
        reason = {"code": "service-unreachable", "message": "port 3000: no"}
        self.hear((2, FrameType.REFUSED, encodeObject(reason)))
        assert end.broken is not None
        self.assertEqual(end.broken.code.name, "service-unreachable")
        self.assertEqual(end.broken.message, "port 3000: no")
        self.assertEqual(end.closings, [end.broken])
        self.assertEqual(self.multiplexer.streams, {})

    def test_refusing(self) -> None:
        """A stream that was not accepted is refused; one that was is broken."""
        for accept, kind in ((False, FrameType.REFUSED), (True, FrameType.ERROR)):
            stream = self.multiplexer._newStream(5, 10)
            if accept:
                self.multiplexer.accept(stream)
            self.sink.frames()
            stream.reset(TunnelError("service-refused", "nobody there"))
            ((number, sent, payload),) = self.sink.frames()
            self.assertEqual((number, sent), (5, kind))
            self.assertEqual(
                json.loads(payload),
                {"code": "service-refused", "message": "nobody there"},
            )

    def test_timeout(self) -> None:
        """A stream that the peer does not answer is given up, there too."""
        silent, answered = self.open(), self.open()
        self.hear((4, FrameType.OPENED, encodeCredit(5)), (1, FrameType.OPEN, OPEN))
        self.clock.advance(OPEN_TIMEOUT)
        self.multiplexer.tick()
        self.assertIsNone(silent.broken)
        self.clock.advance(1)
        self.multiplexer.tick()
        assert silent.broken is not None
        self.assertEqual(silent.broken.code.name, "service-timeout")
        self.assertIsNone(answered.broken)
        self.assertIsNone(self.ends[0].broken)
        ((number, kind, _),) = self.sink.frames()
        self.assertEqual((number, kind), (2, FrameType.ERROR))

    def test_halfClosed(self) -> None:
        """Each direction ends by itself, and the stream with the second one."""
        end = self.open()
        self.hear((2, FrameType.DATA, b"question"), (2, FrameType.EOF, b""))
        self.assertEqual((end.finishes, end.closings), (1, []))
        end.say(b"answer")
        end.end()
        self.assertEqual(
            self.sink.frames(),
            [(2, FrameType.DATA, b"answer"), (2, FrameType.EOF, b"")],
        )
        self.assertEqual(end.closings, [None])
        self.assertEqual(self.multiplexer.streams, {})

    def test_endOnce(self) -> None:
        """A local end that pauses and goes on is not told of the end again."""
        end = self.open()
        assert end.stream is not None
        self.hear((2, FrameType.EOF, b""))
        end.stream.pauseReading()
        end.stream.resumeReading()
        self.assertEqual(end.finishes, 1)

    def test_endWaitsForBytes(self) -> None:
        """The end follows the bytes that credit still holds back."""
        self.multiplexer._peerStreamWindow = 3
        end = self.open()
        end.say(b"abcdef")
        end.end()
        self.sink.frames()
        sent = self.hear((2, FrameType.WINDOW, encodeCredit(100)))
        self.assertEqual(sent, [(2, FrameType.DATA, b"def"), (2, FrameType.EOF, b"")])

    def test_endBeforeJoin(self) -> None:
        """Bytes and their end wait for the local end."""
        stream = self.multiplexer.open({})
        self.hear((2, FrameType.DATA, b"early"), (2, FrameType.EOF, b""))
        end = RecordingEnd()
        end.meet(stream)
        self.assertEqual((bytes(end.taken), end.finishes), (b"early", 1))

    def test_brokenBeforeJoin(self) -> None:
        """Whoever is about to join the stream hears that it is over."""
        stream = self.multiplexer.open({})
        left: list[TunnelError | None] = []
        stream.whileWaiting(left.append)
        self.hear((2, FrameType.ERROR, b""))
        (reason,) = left
        assert reason is not None
        self.assertEqual(reason.code.name, "reset")

    def test_closeFrame(self) -> None:
        """A close frame ends both directions, after the bytes before it."""
        end = self.open()
        assert end.stream is not None
        end.stream.pauseReading()
        self.hear((2, FrameType.DATA, b"last"), (2, FrameType.CLOSE, b""))
        self.assertEqual(end.closings, [])
        end.stream.resumeReading()
        self.assertEqual((bytes(end.taken), end.finishes), (b"last", 1))
        self.assertEqual(end.closings, [None])

    def test_closeFrameFreesSource(self) -> None:
        """
        A source that was paused goes on when the other side has left: only so
        can it come to its own end.
        """
        self.multiplexer._peerStreamWindow = 3
        end = self.open()
        end.say(bytes(SOURCE_HIGH + 4))
        self.assertTrue(end.paused)
        self.hear((2, FrameType.CLOSE, b""))
        self.assertFalse(end.paused)
        self.assertEqual((end.finishes, end.closings), (1, [None]))

    def test_lateBytes(self) -> None:
        """
        What the local end still says after the stream is dropped, and breaks
        that end only if it goes on and on.
        """
        end = self.open()
        self.hear((2, FrameType.CLOSE, b""))
        end.say(bytes(SOURCE_HIGH))
        self.assertIsNone(end.broken)
        end.say(b"x")
        assert end.broken is not None
        self.assertEqual(end.broken.code.name, "reset")

    def test_lost(self) -> None:
        """With the connection all streams break; nothing more is sent."""
        ends = [self.open() for _ in range(3)]
        self.sink.frames()
        self.multiplexer.close(TunnelError("session-lost"))
        for end in ends:
            assert end.broken is not None
            self.assertEqual(end.broken.code.name, "session-lost")
            self.assertEqual(end.closings, [end.broken])
            end.say(b"late")
        self.multiplexer.stopProducing()
        self.multiplexer.resumeProducing()
        self.assertEqual(self.sink.frames(), [])

    def test_growthAfterTheEnd(self) -> None:
        """
        A reader that breaks the stream while it takes bytes does not keep a
        part of the windows' budget.
        """
        self.multiplexer.roundTrip = 5.0
        free = self.multiplexer._budget.free
        end = self.open()
        end.fragile = True
        self.hear((2, FrameType.DATA, bytes(900)))
        self.assertEqual(self.multiplexer.streams, {})
        self.assertEqual(self.multiplexer._budget.free, free)


class ReasonTests(SynchronousTestCase):
    """Tests for L{TunnelError.fromDict}."""

    def test_known(self) -> None:
        """Code, message and hint are taken over."""
        reason = TunnelError.fromDict(
            {"code": "port-taken", "message": "no", "retryAfter": 5}, "reset"
        )
        self.assertEqual(
            (reason.code.name, reason.message, reason.retryAfter),
            ("port-taken", "no", 5.0),
        )

    def test_wrong(self) -> None:
        """What is missing or makes no sense is left out."""
        for message in (
            {},
            {"code": "nonsense", "message": 5, "retryAfter": "soon"},
            {"code": ["reset"], "retryAfter": -1},
            {"retryAfter": float("nan")},
        ):
            reason = TunnelError.fromDict(dict(message), "reset")
            self.assertEqual(reason.code.name, "reset")
            self.assertEqual(reason.message, reason.code.meaning)
            self.assertIsNone(reason.retryAfter)

    def test_hugeHint(self) -> None:
        """A hint too large for any clock is bounded, not an error of ours."""
        for hint in (10**400, float("inf"), 10**9):
            reason = TunnelError.fromDict({"retryAfter": hint}, "reset")
            assert reason.retryAfter is not None
            self.assertLessEqual(reason.retryAfter, 24 * 3600)

    def test_longMessage(self) -> None:
        """A message is of bounded length."""
        reason = TunnelError.fromDict({"message": "x" * 100_000}, "reset")
        self.assertLessEqual(len(reason.message), 500)


class SchedulingTests(OneSideTests):
    """Tests of who may send when."""

    def test_alternate(self) -> None:
        """Two streams with data take turns, in small frames."""
        first, second = self.open(), self.open()
        self.multiplexer.pauseProducing()
        self.sink.frames()
        first.say(bytes(200_000))
        second.say(bytes(100_000))
        self.assertEqual(self.sink.frames(), [])
        self.multiplexer.resumeProducing()
        frames = self.sink.frames()
        shared = frames[:12]
        self.assertEqual([frame.stream for frame in shared], [2, 4] * 6)
        for frame in shared:
            self.assertLessEqual(len(frame.payload), FRAME_SHARED)
        sent = {2: 0, 4: 0}
        for frame in frames:
            self.assertLessEqual(len(frame.payload), FRAME_ALONE)
            sent[frame.stream] += len(frame.payload)
        self.assertEqual(sent, {2: 200_000, 4: 100_000})

    def test_keystroke(self) -> None:
        """A byte of one stream waits behind one small frame of another at most."""
        download, shell = self.open(), self.open()
        self.multiplexer.pauseProducing()
        self.sink.frames()
        download.say(bytes(1_000_000))
        shell.say(b"x")
        self.multiplexer.resumeProducing()
        before = 0
        for frame in self.sink.frames():
            if frame.stream == 4:
                break
            before += len(frame.payload)
        self.assertLessEqual(before, FRAME_SHARED)

    def test_controlOvertakes(self) -> None:
        """
        Control frames do not wait for data, not even when the connection has
        enough.
        """
        end = self.open()
        self.multiplexer.pauseProducing()
        self.sink.frames()
        end.say(bytes(100_000))
        self.multiplexer.sendFrame(0, FrameType.PING, bytes(8))
        self.hear((1, FrameType.OPEN, OPEN), (1, FrameType.DATA, bytes(600)))
        self.multiplexer.resumeProducing()
        self.assertEqual(self.ends[0].taken, bytes(600))

    def test_controlOvertakesOrder(self) -> None:
        """The ping is on its way before the data that was there before it."""
        end = self.open()
        self.multiplexer.pauseProducing()
        self.sink.frames()
        end.say(b"data")
        self.multiplexer.sendFrame(0, FrameType.PING, bytes(8))
        self.multiplexer.resumeProducing()
        self.assertEqual(
            [frame.kind for frame in self.sink.frames()],
            [FrameType.PING, FrameType.DATA],
        )

    def test_sourceBounded(self) -> None:
        """
        While nothing can be sent a source is paused, and resumed when most
        of its bytes are gone.
        """
        end = self.open()
        self.multiplexer.pauseProducing()
        sent = 0
        while not end.paused:
            end.say(bytes(10_000))
            sent += 10_000
        self.assertLessEqual(sent, SOURCE_HIGH + 10_000)
        self.multiplexer.resumeProducing()
        self.assertFalse(end.paused)

    def test_sessionCredit(self) -> None:
        """
        When the session's credit is used up all streams wait, and then go on
        in turn.
        """
        self.multiplexer.sendWindow.limit = 10
        first, second = self.open(), self.open()
        first.say(bytes(12))
        second.say(bytes(3))
        self.sink.frames()
        sent = self.hear((0, FrameType.WINDOW, encodeCredit(13)))
        self.assertEqual(sum(len(frame.payload) for frame in sent), 3)
        self.assertEqual(self.hear((0, FrameType.WINDOW, encodeCredit(13))), [])
        sent = self.hear((0, FrameType.WINDOW, encodeCredit(100)))
        self.assertEqual(sum(len(frame.payload) for frame in sent), 2)

    def test_stalls(self) -> None:
        """
        Each wait for credit is counted once, when it is over; a reader that
        gives credit before it is needed makes nobody wait.
        """
        self.patch(extended, "STALLS", Counter())
        self.multiplexer._peerStreamWindow = 3
        end = self.open()
        for _ in range(5):
            end.say(b"ab")
        self.hear((2, FrameType.WINDOW, encodeCredit(4)))
        self.hear((2, FrameType.WINDOW, encodeCredit(100)))
        self.hear((2, FrameType.WINDOW, encodeCredit(200)))
        self.assertEqual(extended.STALLS, {"stream": 2})
        self.multiplexer.sendWindow.limit = self.multiplexer.sendWindow.sent
        end.say(b"more")
        self.hear((0, FrameType.WINDOW, encodeCredit(1000)))
        self.hear((0, FrameType.WINDOW, encodeCredit(2000)))
        self.assertEqual(extended.STALLS, {"stream": 2, "session": 1})


class StalledTests(SynchronousTestCase):
    """Tests of readers that stand still in an extended session."""

    def serve(self, pair: Pair, visitors: list[RecordingEnd], size: int) -> None:
        """Have the services of some visitors send bytes."""
        for visitor in visitors:
            assert visitor.stream is not None
            service = pair.client.ends[visitor.stream.id]
            for _ in range(size // 10_000):
                if not service.paused:
                    service.say(bytes(10_000))
        pair.settle()

    def test_others(self) -> None:
        """
        While one visitor reads nothing fifty others are served, and no more
        is held for the one than its window and what its source may send
        before it is paused.
        """
        pair = extendedPair()
        stalled = pair.server.open()
        others = [pair.server.open() for _ in range(50)]
        pair.settle()
        assert stalled.stream is not None
        stalled.stream.pauseReading()
        for _ in range(20):
            self.serve(pair, [stalled, *others], 100_000)
        for other in others:
            self.assertEqual(len(other.taken), 20 * 100_000)
        limits = Limits()
        service = pair.client.ends[stalled.stream.id]
        self.assertTrue(service.paused)
        self.assertEqual(stalled.stream.holding, limits.streamWindow)
        self.assertLessEqual(
            len(service.said), limits.streamWindow + SOURCE_HIGH + 10_000
        )
        stalled.stream.resumeReading()
        pair.settle()
        self.assertEqual(bytes(stalled.taken), bytes(service.said))

    def test_manyStalled(self) -> None:
        """
        However much of the session's window readers hold that stand still,
        others are not held up for longer than L{STALL}.
        """
        limits = Limits(streamWindow=1000, largestWindow=0, sessionWindow=16_000)
        for count in range(1, 16):
            pair = extendedPair(limits, limits)
            stalled = [pair.server.open() for _ in range(count)]
            working = pair.server.open()
            pair.settle()
            for end in stalled:
                assert end.stream is not None
                end.stream.pauseReading()
                pair.client.ends[end.stream.id].say(bytes(1000))
            pair.settle()
            assert working.stream is not None
            service = pair.client.ends[working.stream.id]
            service.say(bytes(50_000))
            pair.settle()
            for _ in range(20):
                pair.clock.advance(STALL / 5)
                pair.server.multiplexer.tick()
                pair.settle()
            self.assertEqual(len(working.taken), 50_000, f"{count} stalled")

    def test_crowd(self) -> None:
        """
        A crowd that stands still holds others up for no longer than L{PAUSE};
        who goes on reading meanwhile stays.
        """
        limits = Limits(streamWindow=1000, largestWindow=0, sessionWindow=16_000)
        pair = extendedPair(limits, limits)
        multiplexer: Any = pair.server.multiplexer
        multiplexer.callLater = pair.clock.callLater
        crowd = [pair.server.open() for _ in range(15)]
        slow = pair.server.open()
        slow.slow = True
        working = pair.server.open()
        pair.settle()
        for end in (*crowd, slow):
            assert end.stream is not None
            end.stream.pauseReading()
            for _ in range(10):
                pair.client.ends[end.stream.id].say(bytes(100))
        pair.settle()
        assert working.stream is not None and slow.stream is not None
        pair.client.ends[working.stream.id].say(bytes(50_000))
        pair.settle()
        self.assertLess(len(working.taken), 50_000)
        pair.clock.advance(PAUSE / 2)
        slow.stream.resumeReading()
        pair.settle()
        self.assertEqual([end.broken for end in crowd], [None] * 15)
        pair.clock.advance(PAUSE / 2)
        pair.settle()
        self.assertEqual(len(working.taken), 50_000)
        broken = [end for end in crowd if end.broken is not None]
        self.assertGreaterEqual(len(broken), 7)
        self.assertLess(len(broken), 15)
        self.assertIsNone(slow.broken)
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_crowdLeaves(self) -> None:
        """A session that ends while it is crowded leaves no timer."""
        limits = Limits(streamWindow=1000, largestWindow=0, sessionWindow=1000)
        pair = extendedPair(limits, limits)
        multiplexer: Any = pair.server.multiplexer
        multiplexer.callLater = pair.clock.callLater
        end = pair.server.open()
        pair.settle()
        assert end.stream is not None
        end.stream.pauseReading()
        pair.client.ends[end.stream.id].say(bytes(1000))
        pair.settle()
        self.assertEqual(len(pair.clock.getDelayedCalls()), 1)
        pair.server.multiplexer.close(TunnelError("session-lost"))
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_greediest(self) -> None:
        """
        It is the one that holds most which is broken, with a reason, at both
        ends; and only after L{STALL}.
        """
        limits = Limits(streamWindow=800, largestWindow=0, sessionWindow=1000)
        pair = extendedPair(limits, limits)
        small, big = pair.server.open(), pair.server.open()
        pair.settle()
        for end, size in ((small, 100), (big, 800)):
            assert end.stream is not None
            end.stream.pauseReading()
            pair.client.ends[end.stream.id].say(bytes(size))
        pair.settle()
        pair.server.multiplexer.tick()
        pair.clock.advance(STALL)
        pair.server.multiplexer.tick()
        self.assertIsNone(big.broken)
        pair.clock.advance(1)
        pair.server.multiplexer.tick()
        pair.settle()
        assert big.broken is not None and big.stream is not None
        self.assertEqual(big.broken.code.name, "stalled")
        reason = pair.client.ends[big.stream.id].broken
        assert reason is not None
        self.assertEqual(reason.code.name, "stalled")
        self.assertIsNone(small.broken)

    def test_slowIsNotStalled(self) -> None:
        """A session whose window was full but is moving again breaks nobody."""
        limits = Limits(streamWindow=1000, largestWindow=0, sessionWindow=1000)
        pair = extendedPair(limits, limits)
        end = pair.server.open()
        pair.settle()
        assert end.stream is not None
        for _ in range(5):
            end.stream.pauseReading()
            pair.client.ends[end.stream.id].say(bytes(900))
            pair.settle()
            pair.server.multiplexer.tick()
            pair.clock.advance(STALL - 1)
            end.stream.resumeReading()
            pair.settle()
            pair.server.multiplexer.tick()
        self.assertIsNone(end.broken)
        self.assertEqual(len(end.taken), 4500)
