"""
Tests for the pings of a connection, and for the last word of a client.
"""

from __future__ import annotations

from typing import Any

from tests.dialects.framed.one_side import OneSideTests
from tristunnel.dialects.framed.farewell import Farewell
from tristunnel.dialects.framed.liveness import DEADLINE, PING_INTERVAL, Liveness
from tristunnel.errors import TunnelError
from tristunnel.util.process import FAREWELL
from tristunnel.wire.framed import FrameType, encodeCredit


class Answering:
    """A peer that takes all answers."""

    def latest(self, send: Any) -> None:
        send()


class LivenessTests(OneSideTests):
    """Whether a peer is there."""

    def setUp(self) -> None:
        super().setUp()
        self.measured: list[float] = []
        answers: Any = Answering()
        self.liveness = Liveness(
            self.clock, self.multiplexer, answers, self.measured.append
        )

    def sent(self) -> list[tuple[int, bytes]]:
        """The frames that were sent since the last time."""
        return [(kind, payload) for _, kind, payload in self.sink.frames()]

    def test_roundTrip(self) -> None:
        """The first answer is measured, and once more when there was none before."""
        for expected in (1, 0):
            token = self.liveness.ping()
            self.assertEqual([(FrameType.PING, encodeCredit(token))], self.sent())
            self.clock.advance(0.25)
            self.liveness.pongArrived(encodeCredit(token ^ 1))
            self.liveness.pongArrived(encodeCredit(token))
            self.liveness.pongArrived(encodeCredit(token))
            self.assertEqual(expected, len(self.sent()))
        self.assertEqual([0.25, 0.25], self.measured)
        self.assertEqual(0.25, self.multiplexer.roundTrip)

    def test_answered(self) -> None:
        """A ping is answered with what it says; one of another size is an error."""
        self.liveness.pingArrived(encodeCredit(7))
        self.assertEqual([(FrameType.PONG, encodeCredit(7))], self.sent())
        for take in (self.liveness.pingArrived, self.liveness.pongArrived):
            self.assertRaises(TunnelError, take, b"7")

    def test_silence(self) -> None:
        """A peer is pinged at intervals; one that stays silent is lost."""
        self.clock.advance(PING_INTERVAL)
        self.liveness.check()
        self.liveness.check()
        self.assertEqual(1, len(self.sent()))
        self.clock.advance(DEADLINE - PING_INTERVAL)
        self.liveness.check()
        self.clock.advance(1)
        with self.assertRaises(TunnelError) as caught:
            self.liveness.check()
        self.assertEqual("session-lost", caught.exception.code.name)
        self.liveness.heard = self.clock.seconds()
        self.liveness.check()

    def test_quiet(self) -> None:
        """While both sides are to be quiet, silence means nothing; then it does."""
        self.liveness.stayQuiet(3 * DEADLINE)
        for _ in range(3):
            self.clock.advance(DEADLINE - 1)
            self.liveness.check()
        self.assertEqual([], self.sent())
        self.clock.advance(DEADLINE)
        self.liveness.check()
        self.assertEqual(1, len(self.sent()))
        self.clock.advance(DEADLINE)
        self.assertRaises(TunnelError, self.liveness.check)

    def test_farewell(self) -> None:
        """Visitors are awaited until the ping is answered, or for a moment."""
        for answers in (True, False):
            farewell = Farewell(self.clock, self.liveness)
            ((_, payload),) = self.sent()
            farewell.answered(encodeCredit(1))
            self.assertTrue(farewell.isAwaited)
            if answers:
                farewell.answered(payload)
            else:
                self.clock.advance(FAREWELL)
            self.assertFalse(farewell.isAwaited)
            self.assertEqual([], self.clock.getDelayedCalls())
            farewell.end()
