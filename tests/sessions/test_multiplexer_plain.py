"""
Tests for L{tristunnel.sessions.plain}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.sessions.memory import MemorySink, RecordingEnd, frameBytes, plainPair
from tests.vectors import readVectors
from tristunnel.errors import TunnelError
from tristunnel.sessions.multiplexer import Limits
from tristunnel.sessions.plain import (
    ANSWER_LINGER,
    HELD_UP,
    HOLD,
    LINGER,
    STALL,
    PlainClientSide,
    PlainServerSide,
)
from tristunnel.sessions.stream import SOURCE_HIGH, SessionStream
from tristunnel.wire.framed import (
    Frame,
    FrameDecoder,
    FrameType,
    HandshakeDecoder,
)

DATA, CLOSE, ERROR = FrameType.DATA, FrameType.CLOSE, FrameType.ERROR


def recorded(side: str) -> list[Frame]:
    """
    The frames that one side of the recorded exchange sent.

    @param side: C{"client"} or C{"server"}.
    """
    done = HandshakeDecoder().feed(
        b"".join(
            bytes.fromhex(line["hex"])
            for line in readVectors("w3p-http-get")
            if line["from"] == side and "hex" in line
        )
    )
    assert done is not None
    return FrameDecoder().feed(done[1])


class ServerSideTests(SynchronousTestCase):
    """
    Tests for L{PlainServerSide}.
    """

    def setUp(self) -> None:
        """
        Make a server's side.
        """
        self.clock = Clock()
        self.sink = MemorySink()
        self.side = PlainServerSide(
            self.sink, self.clock.seconds, self.unexpected, Limits(streams=3)
        )

    def unexpected(self, stream: SessionStream, info: dict[str, object]) -> None:
        """
        A client opens no streams.
        """
        self.fail("a stream was opened")

    def visitor(self) -> RecordingEnd:
        """
        Have a visitor arrive.
        """
        end = RecordingEnd()
        end.meet(self.side.open({"visitor": "not told"}))
        return end

    def hear(self, *frames: tuple[int, int, bytes]) -> list[Frame]:
        """
        Have the client send frames.

        @return: The frames that were sent since the last time.
        """
        self.side.framesArrived(FrameDecoder().feed(frameBytes(*frames)))
        return self.sink.frames()

    def flood(self, number: int, size: int) -> None:
        """
        Have the client send C{size} bytes on a stream.
        """
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
        """
        An empty data frame announces a visitor that says nothing.
        """
        self.visitor()
        self.visitor()
        self.assertEqual(self.sink.frames(), [(1, DATA, b""), (2, DATA, b"")])

    def test_numbers(self) -> None:
        """
        Numbers go round, never to 0 nor to one in use.
        """
        self.assertEqual(self.side.open({}).id, 1)
        self.side._lastId = 0xFFFFFFFE
        self.assertEqual(self.side.open({}).id, 0xFFFFFFFF)
        self.assertEqual(self.side.open({}).id, 2)

    def test_tooMany(self) -> None:
        """
        One visitor too many is refused.
        """
        for _ in range(3):
            self.visitor()
        with self.assertRaises(TunnelError) as caught:
            self.visitor()
        self.assertEqual(caught.exception.code.name, "limit-reached")

    def test_unknownTypes(self) -> None:
        """
        Frames that W3P does not know end the session.
        """
        for kind in (0, 4, 5, 0x20, 0x30, 0x41, 0xFF):
            with self.assertRaises(TunnelError) as caught:
                self.hear((1, kind, b""))
            self.assertEqual(caught.exception.code.name, "protocol-error")

    def test_unknownStreams(self) -> None:
        """
        Data for nobody is answered by one close, and a close by nothing.
        """
        self.assertEqual(
            self.hear((9, DATA, b"a"), (9, DATA, b"b"), (8, DATA, b"c")),
            [(9, CLOSE, b""), (8, CLOSE, b"")],
        )
        self.assertEqual(self.hear((7, CLOSE, b""), (6, ERROR, b"")), [])
        self.assertEqual(self.side.lateFrames, 5)

    def test_unknownStreamsAreForgotten(self) -> None:
        """
        What is remembered of them is bounded.
        """
        for number in range(10_000):
            self.hear((number, DATA, b"x"))
        self.assertLess(len(self.side._told), 5000)

    def test_serviceEnds(self) -> None:
        """
        The service's end is the visitor's end, after all bytes.
        """
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
        self.side.tick()
        self.hear((1, DATA, b"wer"))
        self.assertEqual(self.sink.frames(), [])
        self.clock.advance(LINGER)
        self.side.tick()
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
        """
        A visitor that leaves on its answer's last byte has left soon after.
        """
        visitor = self.visitor()
        visitor.say(b"question")
        self.hear((1, DATA, b"answer"))
        self.sink.frames()
        visitor.end()
        self.assertEqual(self.sink.frames(), [])
        self.clock.advance(ANSWER_LINGER)
        self.side.tick()
        self.assertEqual(self.sink.frames(), [(1, CLOSE, b"")])

    def test_holdsUpForTooLong(self) -> None:
        """
        A reader may be slow, but not for ever while others wait.
        """
        slow, _ = self.visitor(), self.visitor()
        assert slow.stream is not None
        slow.slow = True
        slow.stream.pauseReading()
        self.flood(1, HOLD * 4)
        for _ in range(int(HELD_UP / STALL * 4) + 1):
            self.clock.advance(STALL / 4)
            slow.stream.resumeReading()
            self.side.tick()
        assert slow.broken is not None
        self.assertEqual(slow.broken.code.name, "stalled")

    def test_endInTheMiddle(self) -> None:
        """
        A visitor that ends while its answer is still coming gets the rest.
        """
        visitor = self.visitor()
        visitor.say(b"question")
        self.hear((1, DATA, b"ans"))
        visitor.end()
        self.hear((1, DATA, b"wer"), (1, CLOSE, b""))
        self.assertEqual(bytes(visitor.taken), b"answer")

    def test_slowIsNotStalled(self) -> None:
        """
        A reader that goes on reading, however slowly, does not stand still.
        """
        slow, _ = self.visitor(), self.visitor()
        assert slow.stream is not None
        slow.slow = True
        slow.stream.pauseReading()
        self.flood(1, HOLD + 1)
        for _ in range(8):
            self.clock.advance(STALL / 4)
            slow.stream.resumeReading()
            self.side.tick()
        self.assertGreater(len(slow.taken), 0)
        self.assertIsNone(slow.broken)

    def test_stalled(self) -> None:
        """
        When much is held for one visitor the session is read no further; if
        that lasts while others wait, the one is reset.
        """
        stalled, other = self.visitor(), self.visitor()
        assert stalled.stream is not None
        stalled.stream.pauseReading()
        self.flood(1, HOLD)
        self.assertTrue(self.sink.reading)
        self.sink.frames()
        self.hear((1, DATA, b"x"))
        self.assertFalse(self.sink.reading)
        self.assertEqual(stalled.stream.holding, HOLD + 1)
        self.clock.advance(STALL - 1)
        self.side.tick()
        self.assertIsNone(stalled.broken)
        self.clock.advance(1)
        self.side.tick()
        assert stalled.broken is not None
        self.assertEqual(stalled.broken.code.name, "stalled")
        self.assertEqual(self.sink.frames(), [(1, ERROR, b"")])
        self.assertTrue(self.sink.reading)
        self.assertIsNone(other.broken)

    def test_stalledAlone(self) -> None:
        """
        While nobody else waits a reader may stand still, and then goes on.
        """
        visitor = self.visitor()
        assert visitor.stream is not None
        visitor.stream.pauseReading()
        self.flood(1, HOLD + 5)
        self.clock.advance(10 * STALL)
        self.side.tick()
        self.assertIsNone(visitor.broken)
        self.assertFalse(self.sink.reading)
        visitor.stream.resumeReading()
        self.assertTrue(self.sink.reading)
        self.assertEqual(len(visitor.taken), HOLD + 5)

    def test_twoStalled(self) -> None:
        """
        The session is read again only when none holds it up.
        """
        first, second = self.visitor(), self.visitor()
        for end in (first, second):
            assert end.stream is not None
            end.stream.pauseReading()
            self.flood(end.stream.id, HOLD + 1)
        assert first.stream is not None and second.stream is not None
        first.stream.resumeReading()
        self.assertFalse(self.sink.reading)
        second.crash()
        self.assertTrue(self.sink.reading)

    def test_lost(self) -> None:
        """
        With the connection every visitor is broken.
        """
        visitor = self.visitor()
        self.side.close(TunnelError("session-lost"))
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "session-lost")
        self.assertEqual(self.side.streams, {})


class ClientSideTests(SynchronousTestCase):
    """
    Tests for L{PlainClientSide}.
    """

    def setUp(self) -> None:
        """
        Make a client's side.
        """
        self.clock = Clock()
        self.sink = MemorySink()
        self.services: list[RecordingEnd] = []
        self.side = PlainClientSide(
            self.sink, self.clock.seconds, self.opened, Limits(streams=3)
        )

    def opened(self, stream: SessionStream, info: dict[str, object]) -> None:
        """
        Reach the service.
        """
        self.assertEqual(info, {})
        service = RecordingEnd()
        service.meet(stream)
        self.side.accept(stream)
        self.services.append(service)

    def hear(self, *frames: tuple[int, int, bytes]) -> list[Frame]:
        """
        Have the server send frames.

        @return: The frames that were sent since the last time.
        """
        self.side.framesArrived(FrameDecoder().feed(frameBytes(*frames)))
        return self.sink.frames()

    def test_recorded(self) -> None:
        """
        The recorded exchange with the real server: the frames sent are those
        that W3P's own client sent.
        """
        request, close = recorded("server")
        answer, closeAnswer = recorded("client")
        self.assertEqual(self.hear(request), [])
        (service,) = self.services
        self.assertEqual(bytes(service.taken), request.payload)
        service.say(answer.payload)
        self.assertEqual(self.sink.frames(), [answer])
        self.assertEqual(self.hear(close), [closeAnswer])
        self.assertEqual((service.finishes, service.closings), (1, [None]))
        self.assertEqual(self.side.streams, {})

    def test_emptyDataOpens(self) -> None:
        """
        An empty data frame is a visitor, and no bytes.
        """
        self.hear((77, DATA, b""))
        (service,) = self.services
        service.say(b"SSH-2.0-x\r\n")
        self.assertEqual(self.sink.frames(), [(77, DATA, b"SSH-2.0-x\r\n")])
        self.assertEqual(bytes(service.taken), b"")

    def test_numberZero(self) -> None:
        """
        No visitor has the number 0.
        """
        self.assertEqual(self.hear((0, DATA, b"x")), [])
        self.assertEqual((self.services, self.side.lateFrames), ([], 1))

    def test_tooMany(self) -> None:
        """
        One visitor too many is turned away.
        """
        sent = self.hear(*((number, DATA, b"x") for number in (5, 6, 7, 8)))
        self.assertEqual(sent, [(8, ERROR, b"")])
        self.assertEqual(len(self.services), 3)

    def test_serviceEnds(self) -> None:
        """
        What is still under way from the visitor when the service has ended
        does not reach the service anew, until the server has closed as well.
        """
        self.hear((5, DATA, b"x"))
        self.services[0].say(b"bye")
        self.services[0].end()
        self.assertEqual(
            self.hear((5, DATA, b"late")), [(5, DATA, b"bye"), (5, CLOSE, b"")]
        )
        self.assertEqual(len(self.services), 1)
        self.assertEqual(self.hear((5, CLOSE, b"")), [])
        self.hear((5, DATA, b"new"))
        self.assertEqual(len(self.services), 2)

    def test_serviceFails(self) -> None:
        """
        A broken service is an error frame; a broken visitor breaks the
        service's connection.
        """
        self.hear((5, DATA, b"x"), (6, DATA, b"x"))
        self.services[0].crash()
        self.assertEqual(self.sink.frames(), [(5, ERROR, b"")])
        self.assertEqual(self.hear((6, ERROR, b"")), [])
        self.assertIsNotNone(self.services[1].broken)

    def test_numberComesAgain(self) -> None:
        """
        A number that the server has closed may come again.
        """
        for _ in range(3):
            self.hear((5, DATA, b"x"), (5, CLOSE, b""))
            self.hear((5, DATA, b"x"), (5, ERROR, b""))
        self.assertEqual(len(self.services), 6)

    def test_goneIsBounded(self) -> None:
        """
        What is remembered of streams that are over is bounded.
        """
        for number in range(1, 10_000):
            self.hear((number, DATA, b"x"))
            self.services.pop().end()
        self.assertLess(len(self.side._gone), 5000)

    def test_unknownTypes(self) -> None:
        """
        Frames that W3P does not know end the session.
        """
        with self.assertRaises(TunnelError) as caught:
            self.hear((1, 4, b""))
        self.assertEqual(caught.exception.code.name, "protocol-error")

    def test_visitorsWork(self) -> None:
        """
        Fifty visitors are served while the service of one stands still,
        until much is held for it; then it is reset and they go on.
        """
        pair = plainPair()
        visitors = [pair.server.open() for _ in range(51)]
        pair.settle()
        stalled = pair.client.ends[1]
        assert stalled.stream is not None
        stalled.stream.pauseReading()
        offered = 0
        for _ in range(40):
            for visitor in visitors:
                if not visitor.paused and visitor.broken is None:
                    visitor.say(bytes(50_000))
                    if visitor is visitors[0]:
                        offered += 50_000
            pair.settle()
            self.assertLessEqual(stalled.stream.holding, HOLD + len(visitors) * 100_000)
            pair.clock.advance(STALL / 5)
            pair.client.multiplexer.tick()
        pair.settle()
        self.assertIsNotNone(stalled.broken)
        self.assertIsNotNone(visitors[0].broken)
        for visitor in visitors[1:]:
            assert visitor.stream is not None
            self.assertEqual(
                len(pair.client.ends[visitor.stream.id].taken), len(visitor.said)
            )
            self.assertGreaterEqual(len(visitor.said), 20 * 50_000)
