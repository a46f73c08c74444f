"""The client's side of a session without extensions."""

from __future__ import annotations

from tests.dialects.base.plain_rig import (
    CLOSE,
    DATA,
    ERROR,
    PlainSideTestCase,
    recorded,
)
from tests.dialects.framed.memory import RecordingEnd, plainPair
from tristunnel.dialects.base.plain import ALONE, HOLD, STALL, PlainClientSide
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.errors import TunnelError


class ClientSideTests(PlainSideTestCase):
    """Tests for L{PlainClientSide}."""

    kind = PlainClientSide

    def setUp(self) -> None:
        super().setUp()
        self.services: list[RecordingEnd] = []

    def opened(self, stream: SessionStream, info: dict[str, object]) -> None:
        self.assertEqual(info, {})
        service = RecordingEnd()
        service.meet(stream)
        self.side.accept(stream)
        self.services.append(service)

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
        """An empty data frame is a visitor, and no bytes."""
        self.hear((77, DATA, b""))
        (service,) = self.services
        service.say(b"SSH-2.0-x\r\n")
        self.assertEqual(self.sink.frames(), [(77, DATA, b"SSH-2.0-x\r\n")])
        self.assertEqual(bytes(service.taken), b"")

    def test_numberZero(self) -> None:
        """No visitor has the number 0."""
        self.assertEqual(self.hear((0, DATA, b"x")), [])
        self.assertEqual((self.services, self.side.lateFrames), ([], 1))

    def test_tooMany(self) -> None:
        """One visitor too many is turned away."""
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
        """A number that the server has closed may come again."""
        for _ in range(3):
            self.hear((5, DATA, b"x"), (5, CLOSE, b""))
            self.hear((5, DATA, b"x"), (5, ERROR, b""))
        self.assertEqual(len(self.services), 6)

    def test_goneIsBounded(self) -> None:
        """What is remembered of streams that are over is bounded."""
        for number in range(1, 10_000):
            self.hear((number, DATA, b"x"))
            self.services.pop().end()
        self.assertLess(len(self.side._gone), 5000)

    def test_unknownTypes(self) -> None:
        """Frames that W3P does not know end the session."""
        with self.assertRaises(TunnelError) as caught:
            self.hear((1, 4, b""))
        self.assertEqual(caught.exception.code.name, "protocol-error")

    def test_serviceAlone(self) -> None:
        """
        Even a service that is alone may not stand still for ever; one that
        moves, however slowly, may.
        """
        for slow in (True, False):
            number = 2 + slow
            self.hear((number, DATA, b"?"))
            service = self.services[-1]
            assert service.stream is not None
            service.slow = True
            service.stream.pauseReading()
            for _ in range(HOLD // 65536 + 1):
                self.hear((number, DATA, bytes(65536)))
            self.assertFalse(self.sink.reading)
            for _ in range(8):
                self.clock.advance(ALONE / 4)
                if slow:
                    service.stream.resumeReading()
                self.side.tick()
            self.assertEqual(service.broken is None, slow)
            self.hear((number, ERROR, b""))
            self.assertTrue(self.sink.reading)

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
        for _ in range(40):
            for visitor in visitors:
                if not visitor.paused and visitor.broken is None:
                    visitor.say(bytes(300_000 if visitor is visitors[0] else 50_000))
            pair.settle()
            self.assertLessEqual(stalled.stream.holding, HOLD + 51 * 350_000)
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
