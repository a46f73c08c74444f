"""
Tests for what both forms of the framed protocol share, and for the extended
one: L{tristunnel.dialects.base.multiplexer}, L{tristunnel.dialects.base.stream} and
L{tristunnel.dialects.framed.extended}.
"""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.memory import RecordingEnd
from tests.dialects.framed.one_side import OPEN, OneSideTests
from tristunnel.dialects.base.outgoing import SOURCE_HIGH
from tristunnel.dialects.framed.extended import OPEN_TIMEOUT, ExtendedMultiplexer
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import FrameType, decodeObject, encodeCredit, encodeObject


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

    @settings(max_examples=300)
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

        def take(kind: int, payload: bytes) -> bool:
            taken.append((kind, payload))
            return kind == FrameType.PING

        self.multiplexer.takeOther = take
        self.hear((0, FrameType.PING, b"12345678"), (0, 0xFF, b""))
        self.assertEqual(taken, [(FrameType.PING, b"12345678"), (0xFF, b"")])
        self.assertEqual(self.multiplexer.unknownFrames, 1)

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
                (2, FrameType.OPEN, encodeCredit(1000) + b'{"visitor":"192.0.2.1:5"}'),
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
