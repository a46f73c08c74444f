"""Whose bytes go next, and what becomes of streams that nobody reads."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.memory import Pair, RecordingEnd, extendedPair
from tests.dialects.framed.one_side import OPEN, OneSideTests
from tristunnel.dialects.base.multiplexer import FRAME_ALONE, FRAME_SHARED, Limits
from tristunnel.dialects.base.outgoing import SOURCE_HIGH
from tristunnel.dialects.framed import credit
from tristunnel.dialects.framed.credit import PAUSE, STALL
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import FrameType, encodeCredit


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
        self.patch(credit, "STALLS", Counter())
        self.multiplexer._peerStreamWindow = 3
        end = self.open()
        for _ in range(5):
            end.say(b"ab")
        self.hear((2, FrameType.WINDOW, encodeCredit(4)))
        self.hear((2, FrameType.WINDOW, encodeCredit(100)))
        self.hear((2, FrameType.WINDOW, encodeCredit(200)))
        self.assertEqual(credit.STALLS, {"stream": 2})
        self.multiplexer.sendWindow.limit = self.multiplexer.sendWindow.sent
        end.say(b"more")
        self.hear((0, FrameType.WINDOW, encodeCredit(1000)))
        self.hear((0, FrameType.WINDOW, encodeCredit(2000)))
        self.assertEqual(credit.STALLS, {"stream": 2, "session": 1})


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
