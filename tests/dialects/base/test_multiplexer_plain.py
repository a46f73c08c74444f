"""
Tests for L{tristunnel.dialects.base.plain}.
"""

from __future__ import annotations

from tests.dialects.base.plain_rig import (
    CLOSE,
    DATA,
    ERROR,
    PlainSideTestCase,
    recorded,
)
from tests.dialects.framed.memory import RecordingEnd
from tristunnel.dataplane.join import ANSWER_LINGER, GIVEN_UP, LINGER
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.base.outgoing import SOURCE_HIGH
from tristunnel.dialects.base.plain import HOLD, LEAST, PAUSE, RECOVERY, PlainServerSide
from tristunnel.errors import TunnelError


class ServerSideTests(PlainSideTestCase):
    """Tests for L{PlainServerSide}."""

    kind = PlainServerSide

    def visitor(self) -> RecordingEnd:
        end = RecordingEnd()
        end.meet(self.side.open({"visitor": "not told"}))
        return end

    def flood(self, number: int, size: int) -> None:
        """Have the client send C{size} bytes on a stream."""
        step = 64 * 1024
        for start in range(0, size, step):
            self.hear((number, DATA, bytes(min(step, size - start))))

    def test_recorded(self) -> None:
        """
        The recorded exchange with the real client: the frames sent are those
        that W3P's own server sent, but for the empty one at the beginning and
        the stream's number.
        """
        request, close = recorded("server")
        answer, closeAnswer = recorded("client")
        visitor = self.visitor()
        visitor.say(request.payload)
        self.assertEqual(
            self.sink.frames(), [(1, DATA, b""), (1, DATA, request.payload)]
        )
        self.assertEqual(self.hear((1, answer.kind, answer.payload)), [])
        self.assertEqual(bytes(visitor.taken), answer.payload)
        self.assertEqual(len(answer.payload), 1264)
        self.clock.advance(ANSWER_LINGER)
        visitor.end()
        self.assertEqual(self.sink.frames(), [(1, close.kind, close.payload)])
        self.assertEqual(visitor.closings, [None])
        self.assertEqual(self.hear((1, closeAnswer.kind, b"")), [])
        self.assertEqual(self.side.lateFrames, 1)

    def test_begins(self) -> None:
        """An empty data frame announces a visitor that says nothing."""
        self.visitor()
        self.visitor()
        self.assertEqual(self.sink.frames(), [(1, DATA, b""), (2, DATA, b"")])

    def test_numbers(self) -> None:
        """Numbers go round, never to 0 nor to one in use."""
        self.assertEqual(self.side.open({}).id, 1)
        self.side._lastId = 0xFFFFFFFE
        self.assertEqual(self.side.open({}).id, 0xFFFFFFFF)
        self.assertEqual(self.side.open({}).id, 2)

    def test_tooMany(self) -> None:
        """One visitor too many is refused."""
        for _ in range(3):
            self.visitor()
        with self.assertRaises(TunnelError) as caught:
            self.visitor()
        self.assertEqual(caught.exception.code.name, "limit-reached")

    def test_unknownTypes(self) -> None:
        """Frames that W3P does not know end the session."""
        for kind in (0, 4, 5, 0x20, 0x30, 0x41, 0xFF):
            with self.assertRaises(TunnelError) as caught:
                self.hear((1, kind, b""))
            self.assertEqual(caught.exception.code.name, "protocol-error")

    def test_unknownStreams(self) -> None:
        """Data for nobody is answered by one close, and a close by nothing."""
        self.assertEqual(
            self.hear((9, DATA, b"a"), (9, DATA, b"b"), (8, DATA, b"c")),
            [(9, CLOSE, b""), (8, CLOSE, b"")],
        )
        self.assertEqual(self.hear((7, CLOSE, b""), (6, ERROR, b"")), [])
        self.assertEqual(self.side.lateFrames, 5)

    def test_unknownStreamsAreForgotten(self) -> None:
        """What is remembered of them is bounded."""
        for number in range(10_000):
            self.hear((number, DATA, b"x"))
        self.assertLess(len(self.side._told), 5000)

    def test_serviceEnds(self) -> None:
        """The service's end is the visitor's end, after all bytes."""
        visitor = self.visitor()
        assert visitor.stream is not None
        visitor.stream.pauseReading()
        self.hear((1, DATA, b"all of it"), (1, CLOSE, b""))
        self.assertEqual(visitor.finishes, 0)
        visitor.stream.resumeReading()
        self.assertEqual((bytes(visitor.taken), visitor.finishes), (b"all of it", 1))
        self.assertEqual(visitor.closings, [None])

    def test_serviceEndFreesSource(self) -> None:
        """
        A visitor that was paused is read again once the service has left, so
        that its own end is noticed.
        """
        self.side.pauseProducing()
        visitor = self.visitor()
        visitor.say(bytes(SOURCE_HIGH + 1))
        self.assertTrue(visitor.paused)
        self.hear((1, CLOSE, b""))
        self.assertFalse(visitor.paused)

    def test_broken(self) -> None:
        """
        An error frame breaks the visitor's connection, and a broken visitor
        is an error frame, without a payload.
        """
        first, second = self.visitor(), self.visitor()
        self.sink.frames()
        self.assertEqual(self.hear((1, ERROR, b"")), [])
        self.assertIsNotNone(first.broken)
        second.crash()
        self.assertEqual(self.sink.frames(), [(2, ERROR, b"")])

    def test_lingers(self) -> None:
        """
        The end of a visitor that awaits its answer is held back for
        L{LINGER}, from the last byte of the answer on.
        """
        visitor = self.visitor()
        visitor.say(b"question")
        visitor.end()
        self.assertEqual([frame.kind for frame in self.sink.frames()], [DATA, DATA])
        self.clock.advance(LINGER - 1)
        self.hear((1, DATA, b"ans"))
        self.clock.advance(LINGER - 1)
        self.hear((1, DATA, b"wer"))
        self.assertEqual(self.sink.frames(), [])
        self.clock.advance(LINGER)
        self.assertEqual(self.sink.frames(), [(1, CLOSE, b"")])
        self.assertEqual(bytes(visitor.taken), b"answer")
        self.assertEqual((visitor.finishes, visitor.closings), (1, [None]))

    def test_answered(self) -> None:
        """
        A visitor that has had its answer for a moment, or never asked, leaves
        at once.
        """
        for say in (b"", b"question"):
            visitor = self.visitor()
            assert visitor.stream is not None
            number = visitor.stream.id
            visitor.say(say)
            if say:
                self.hear((number, DATA, b"answer"))
            self.sink.frames()
            self.clock.advance(ANSWER_LINGER)
            visitor.end()
            self.assertEqual(self.sink.frames(), [(number, CLOSE, b"")])

    def test_justAnswered(self) -> None:
        """A visitor that leaves on its answer's last byte has left soon after."""
        visitor = self.visitor()
        visitor.say(b"question")
        self.hear((1, DATA, b"answer"))
        self.sink.frames()
        visitor.end()
        self.assertEqual(self.sink.frames(), [])
        self.clock.advance(ANSWER_LINGER)
        self.assertEqual(self.sink.frames(), [(1, CLOSE, b"")])

    def test_gaveUp(self) -> None:
        """A visitor that leaves after it has waited in vain has left at once."""
        for waited, frames in ((GIVEN_UP, []), (GIVEN_UP + 0.1, [(2, CLOSE, b"")])):
            visitor = self.visitor()
            visitor.say(b"question")
            self.clock.advance(waited)
            self.sink.frames()
            visitor.end()
            self.assertEqual(self.sink.frames(), frames)

    def test_spokenFirst(self) -> None:
        """What a service says first reaches a visitor that says nothing."""
        visitor = self.visitor()
        visitor.end()
        self.hear((1, DATA, b"220"))
        self.clock.advance(ANSWER_LINGER)
        self.assertEqual(bytes(visitor.taken), b"220")
        self.assertEqual(self.sink.frames(), [(1, CLOSE, b"")])

    def test_lingersWhileNotRead(self) -> None:
        """
        While the session is not read, as a visitor has enough, no answer is
        taken for over.
        """
        visitor = self.stall(1, HOLD + 1)
        assert visitor.stream is not None
        visitor.end()
        self.clock.pump([ANSWER_LINGER] * 100)
        visitor.stream.resumeReading()
        self.assertTrue(self.sink.reading)
        self.clock.advance(ANSWER_LINGER / 2)
        self.assertEqual(self.sink.frames(), [])
        self.clock.advance(ANSWER_LINGER)
        self.assertEqual(self.sink.frames(), [(1, CLOSE, b"")])

    def test_endInTheMiddle(self) -> None:
        """A visitor that ends while its answer is still coming gets the rest."""
        visitor = self.visitor()
        visitor.say(b"question")
        self.hear((1, DATA, b"ans"))
        visitor.end()
        self.hear((1, DATA, b"wer"), (1, CLOSE, b""))
        self.assertEqual(bytes(visitor.taken), b"answer")

    def stall(self, number: int, size: int = 0) -> RecordingEnd:
        """
        Have a visitor arrive that reads nothing, and C{size} bytes for it.

        @param number: The number that its stream gets.
        """
        end = self.visitor()
        assert end.stream is not None and end.stream.id == number
        end.stream.pauseReading()
        self.flood(number, size)
        return end

    def test_stalled(self) -> None:
        """
        When much is held for one visitor the session is read no further; and if
        somebody waits for it, that one is reset after a moment.
        """
        other, stalled = self.visitor(), self.stall(2, HOLD)
        self.assertTrue(self.sink.reading)
        self.sink.frames()
        self.hear((2, DATA, b"x"))
        self.assertFalse(self.sink.reading)
        self.assertEqual(self.side.waiting, HOLD + 1)
        self.clock.advance(PAUSE - 0.1)
        self.assertIsNone(stalled.broken)
        self.clock.advance(0.1)
        assert stalled.broken is not None
        self.assertEqual(stalled.broken.code.name, "stalled")
        self.assertEqual(self.sink.frames(), [(2, ERROR, b"")])
        self.assertTrue(self.sink.reading)
        self.assertEqual(self.side.waiting, 0)
        self.assertIsNone(other.broken)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stoodStillBefore(self) -> None:
        """
        Who has stood still for long enough when there is too much for it is reset
        at once: nobody waits for that.
        """
        self.visitor()
        stalled = self.stall(2, HOLD)
        self.clock.advance(PAUSE)
        self.hear((2, DATA, b"x"))
        self.assertIsNotNone(stalled.broken)
        self.assertTrue(self.sink.reading)

    def test_stalledAlone(self) -> None:
        """While nobody else waits a reader may stand still, and then goes on."""
        idle, visitor = self.visitor(), self.stall(2)
        idle.say(b"question")
        self.hear((1, DATA, b"answer"))
        self.clock.advance(PAUSE)
        self.flood(2, HOLD + 5)
        self.clock.pump([PAUSE] * 100)
        self.assertIsNone(visitor.broken)
        self.assertFalse(self.sink.reading)
        assert visitor.stream is not None
        visitor.stream.resumeReading()
        self.assertTrue(self.sink.reading)
        self.assertEqual(len(visitor.taken), HOLD + 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_othersBeginToWait(self) -> None:
        """
        Who holds up the session alone is reset soon after somebody asks for
        something, or arrives.
        """
        for arrives in (False, True):
            idle = self.visitor()
            assert idle.stream is not None
            number = idle.stream.id
            idle.say(b"question")
            self.hear((number, DATA, b"answer"))
            self.clock.advance(PAUSE)
            alone = self.stall(number + 1, HOLD + 1)
            self.clock.pump([PAUSE] * 5)
            self.assertIsNone(alone.broken)
            if arrives:
                self.visitor()
            else:
                idle.say(b"another question")
            self.clock.advance(PAUSE)
            self.assertIsNotNone(alone.broken)
            self.assertTrue(self.sink.reading)
            idle.crash()

    def test_slowIsNotStalled(self) -> None:
        """
        A reader that takes enough within the moment holds nobody up for longer,
        however long it goes on.
        """
        self.visitor()
        slow = self.stall(2, HOLD + 1)
        slow.slow = True
        assert slow.stream is not None
        for _ in range(200):
            self.clock.advance(PAUSE / 8)
            slow.stream.resumeReading()
            while self.sink.reading and slow.broken is None:
                self.hear((2, DATA, bytes(64 * 1024)))
        self.assertGreater(len(slow.taken), HOLD)
        self.assertIsNone(slow.broken)

    def test_tooSlow(self) -> None:
        """One that takes less than that is reset while others wait."""
        self.visitor()
        slow = self.stall(2, HOLD + 1)
        slow.slow = True
        assert slow.stream is not None
        self.clock.advance(PAUSE / 2)
        slow.stream.resumeReading()
        self.assertFalse(self.sink.reading)
        self.clock.advance(PAUSE / 2)
        self.assertIsNotNone(slow.broken)

    def test_twoStalled(self) -> None:
        """The session is read again only when none holds it up."""
        first, second = self.stall(1, HOLD + 1), self.stall(2, HOLD + 1)
        assert first.stream is not None
        first.stream.resumeReading()
        self.assertFalse(self.sink.reading)
        second.crash()
        self.assertTrue(self.sink.reading)

    def many(self, count: int) -> list[RecordingEnd]:
        """
        Have many visitors arrive at once that read nothing, until the session
        holds as much as it may.
        """
        self.side.limits = Limits(sessionWindow=8 * HOLD, streams=1000)
        ends = [self.stall(number + 2) for number in range(count)]
        while self.sink.reading:
            for number in range(2, count + 2):
                if self.sink.reading:
                    self.hear((number, DATA, bytes(64 * 1024)))
        return ends

    def test_manyStalled(self) -> None:
        """
        Many for whom little waits hold up the session together. While somebody
        waits, the greediest go after a moment, and then no others make anybody
        wait again.
        """
        working, many = self.visitor(), self.many(150)
        self.assertLessEqual(self.side.waiting, 8 * HOLD + 64 * 1024)
        self.clock.advance(PAUSE)
        self.assertTrue(self.sink.reading)
        self.assertLessEqual(self.side.waiting, 4 * HOLD)
        self.assertIsNone(working.broken)
        left = [end for end in many if end.broken is None]
        self.assertGreater(len(left), 50)
        # Those that are left have stood still for as long, so they go at once.
        for _ in range(200):
            for end in left:
                assert end.stream is not None
                self.hear((end.stream.id, DATA, bytes(64 * 1024)))
                self.assertTrue(self.sink.reading)

    def test_littleIsKept(self) -> None:
        """
        When the greediest go, those for whom little waits stay, however still
        they stand.
        """
        self.visitor()
        little = self.stall(2, 1000)
        self.side.limits = Limits(sessionWindow=HOLD, streams=1000)
        greedy = self.stall(3, HOLD)
        self.assertFalse(self.sink.reading)
        self.clock.advance(PAUSE)
        self.assertIsNotNone(greedy.broken)
        self.assertIsNone(little.broken)
        self.assertTrue(self.sink.reading)

    def test_stallsAgain(self) -> None:
        """
        Who stalls again and again cannot stop the others each time: next to
        nothing of the moment is left after the first, and it comes back slowly.
        """
        self.visitor()
        for number, patience in ((2, PAUSE), (3, PAUSE * LEAST), (4, PAUSE * LEAST)):
            end = self.stall(number, HOLD + 1)
            self.assertFalse(self.sink.reading)
            self.clock.advance(patience * 0.9)
            self.assertFalse(self.sink.reading)
            self.clock.advance(patience * 0.2)
            self.assertTrue(self.sink.reading)
            self.assertIsNotNone(end.broken)
        self.clock.advance(PAUSE / RECOVERY)
        end = self.stall(5, HOLD + 1)
        self.clock.advance(PAUSE * 0.9)
        self.assertFalse(self.sink.reading)
        self.clock.advance(PAUSE * 0.2)
        self.assertIsNotNone(end.broken)

    def test_closedWhilePaused(self) -> None:
        """A session that ends while it is held up leaves no timer."""
        self.visitor()
        self.stall(2, HOLD + 1)
        self.side.close(TunnelError("session-lost"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """With the connection every visitor is broken."""
        visitor = self.visitor()
        self.side.close(TunnelError("session-lost"))
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "session-lost")
        self.assertEqual(self.side.streams, {})
