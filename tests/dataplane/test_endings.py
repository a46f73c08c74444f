"""
Tests for L{tristunnel.dataplane.endings}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import INegotiated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from tests.dialects.framed.network import Talker
from tristunnel.dataplane.endings import (
    ALONE,
    BROKEN,
    DEADLINE,
    ENDED,
    KEY,
    SENT,
    SOON,
    TICK,
    DirectEnd,
    EndAcknowledgements,
    StreamEnd,
)
from tristunnel.errors import TunnelError

NAME = b"k" * KEY


class _Transport(StringTransport):
    """
    A connection that can end in one direction.

    @ivar aborted: Whether it was reset.
    @ivar halfClosed: Whether we have ended our direction.
    """

    aborted = False
    halfClosed = False

    def loseWriteConnection(self) -> None:
        """End our direction."""
        self.halfClosed = True

    def abortConnection(self) -> None:
        """Reset it."""
        self.aborted = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It has no socket."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """It has no socket."""


class EndingTestCase(SynchronousTestCase):
    """
    A test of one end of a direct stream, with the session and the world on its
    other side played by the test.

    @cvar secure: Whether the connection is TLS.
    @ivar told: What was told over the session, C{(what, count)}.
    """

    secure = False

    def setUp(self) -> None:
        """
        Make an end.
        """
        self.clock = Clock()
        self.told: list[tuple[int, int]] = []
        self.confirmations = EndAcknowledgements(self.clock)
        self.send = self._send
        self.confirmations.up(self.send)
        self.ending = self.confirmations.expect(NAME)
        self.visitor = Talker()
        self.closings: list[TunnelError | None] = []
        self.end = self.begin(self.ending)
        self.addCleanup(self.confirmations.close)

    def _send(self, payload: bytes) -> None:
        """Note what is told."""
        self.assertEqual(payload[:KEY], NAME)
        self.told.append((payload[KEY], int.from_bytes(payload[KEY + 1 :], "big")))

    def begin(self, ending: StreamEnd | None) -> Any:
        """
        Make the end, and join it to a visitor.
        """
        self.transport = _Transport()
        if self.secure:
            directlyProvides(self.transport, INegotiated)
        end = DirectEnd(self.clock, lambda end: None, ending)
        end.takeOver(self.transport)
        end.join(self.visitor, self.closings.append)
        self.visitor.join(end, lambda reason: None)
        return end

    def hear(self, what: int, count: int = 0) -> None:
        """
        Be told something.
        """
        payload = NAME + bytes([what]) + count.to_bytes(8, "big")
        self.confirmations.arrived(0, payload)

    def lose(self, error: Exception) -> None:
        """
        Have the connection end.
        """
        self.end.connectionLost(Failure(error))

    def advance(self, seconds: float) -> None:
        """
        Let time pass, a tick at a time.
        """
        self.clock.pump([TICK] * round(seconds / TICK))

    @property
    def broken(self) -> str:
        """
        Why the visitor's connection was broken.
        """
        return "" if self.visitor.broken is None else self.visitor.broken.message


class PlainTests(EndingTestCase):
    """
    Over TCP, where a connection's end proves nothing.
    """

    def test_complete(self) -> None:
        """
        An end of which was told is an end, whichever comes first.
        """
        self.end.dataReceived(b"hello")
        self.hear(ENDED, 5)
        self.assertFalse(self.visitor.finished)
        self.end.readConnectionLost()
        self.assertTrue(self.visitor.finished)
        self.visitor.say(b"bye")
        self.visitor.end()
        self.assertEqual(self.told, [(ENDED, 3)])
        self.lose(ConnectionDone())
        self.assertEqual(self.closings, [None])
        self.assertEqual(self.broken, "")
        self.assertEqual(len(self.confirmations), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_toldLater(self) -> None:
        """
        The session may be slower than the connection, even if that is gone.
        """
        for gone in (False, True):
            with self.subTest(gone=gone):
                self.end.dataReceived(b"hello")
                self.end.readConnectionLost()
                if gone:
                    self.visitor.end()
                    self.lose(ConnectionDone())
                self.assertFalse(self.visitor.finished)
                self.advance(DEADLINE - TICK)
                self.hear(ENDED, 5)
                self.assertTrue(self.visitor.finished)
                self.assertEqual(self.broken, "")
                self.assertEqual(self.closings, [None] if gone else [])
            self.confirmations.close()
            self.setUp()

    def test_cut(self) -> None:
        """
        An end that comes too early is a break, at both sides.
        """
        for toldFirst in (False, True):
            self.end.dataReceived(b"hell")
            if toldFirst:
                self.hear(ENDED, 5)
            self.end.readConnectionLost()
            if not toldFirst:
                self.hear(ENDED, 5)
            self.assertFalse(self.visitor.finished)
            self.assertIn("4 of 5 bytes", self.broken)
            self.assertTrue(self.transport.aborted)
            self.assertEqual(self.told, [(BROKEN, 0)])
            self.setUp()

    def test_nobodyTells(self) -> None:
        """
        An end of which nobody tells is a break after L{DEADLINE}.
        """
        for gone in (False, True):
            self.end.dataReceived(b"hello")
            self.end.readConnectionLost()
            if gone:
                self.lose(ConnectionDone())
            self.advance(DEADLINE)
            self.assertEqual(self.broken, "")
            self.advance(2 * TICK)
            self.assertIn("nobody has told why", self.broken)
            self.assertFalse(self.visitor.finished)
            self.assertEqual(len(self.closings), 1)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.setUp()

    def test_farSideBroke(self) -> None:
        """
        A break that was told of is one, whether its reset comes through or not.
        """
        self.hear(BROKEN)
        self.assertEqual(self.broken, "the far side broke it")
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.told, [])

    def test_reset(self) -> None:
        """
        A reset of the connection is told of, and so is a visitor's.
        """
        self.lose(ConnectionLost())
        self.assertEqual(self.told, [(BROKEN, 0)])
        self.assertIsNotNone(self.visitor.broken)
        self.setUp()
        self.visitor.crash()
        self.assertEqual(self.told, [(BROKEN, 0)])
        self.assertTrue(self.transport.aborted)

    def test_blackHole(self) -> None:
        """
        When bytes that were sent do not come for L{DEADLINE}, the stream is
        broken; but not while the visitor reads nothing, nor before.
        """
        self.end.dataReceived(b"hello")
        self.hear(SENT, 6)
        self.advance(DEADLINE)
        self.assertEqual(self.broken, "")
        self.visitor.stall()
        self.advance(2 * DEADLINE)
        self.assertEqual(self.broken, "")
        self.visitor.relent()
        self.advance(DEADLINE)
        self.assertEqual(self.broken, "")
        self.advance(2 * TICK)
        self.assertIn("nothing came through", self.broken)

    def test_idle(self) -> None:
        """
        A stream through which nothing was sent may be silent for ever.
        """
        self.end.dataReceived(b"hello")
        self.hear(SENT, 5)
        self.advance(100 * DEADLINE)
        self.assertEqual(self.broken, "")

    def test_underWay(self) -> None:
        """
        Bytes that were just sent may be under way, however long it was silent
        before.
        """
        self.end.dataReceived(b"hello")
        self.advance(10 * DEADLINE)
        self.hear(SENT, 6)
        self.advance(SOON)
        self.assertEqual(self.broken, "")
        self.end.dataReceived(b"!")
        self.advance(10 * DEADLINE)
        self.assertEqual(self.broken, "")

    def test_tells(self) -> None:
        """
        What was sent is told of at a tick, once.
        """
        self.visitor.say(b"hello")
        self.assertEqual(self.told, [])
        self.advance(3 * TICK)
        self.assertEqual(self.told, [(SENT, 5)])
        self.visitor.say(b"!")
        self.advance(3 * TICK)
        self.assertEqual(self.told, [(SENT, 5), (SENT, 6)])

    def test_nextSession(self) -> None:
        """
        What may have been lost with a session is told again on the next one.
        """
        self.visitor.say(b"hello")
        self.visitor.end()
        self.advance(TICK)
        self.confirmations.down(self.send)
        self.advance(TICK)
        self.assertEqual(self.told, [(ENDED, 5), (SENT, 5)])
        self.told.clear()
        self.confirmations.up(self.send)
        self.assertEqual(self.told, [(ENDED, 5)])
        self.advance(TICK)
        self.assertEqual(self.told, [(ENDED, 5), (SENT, 5)])
        self.told.clear()
        self.advance(ALONE)
        self.confirmations.up(self.send)
        self.assertEqual(self.told, [])

    def test_otherSessionEnds(self) -> None:
        """
        The end of a session that was replaced already means nothing.
        """
        self.confirmations.up(lambda payload: self.told.append((9, 9)))
        self.confirmations.down(self.send)
        self.visitor.end()
        self.assertEqual(self.told, [(9, 9)])

    def test_alone(self) -> None:
        """
        Without a session a stream goes on as long as anything comes.
        """
        self.confirmations.down(self.send)
        for _ in range(10):
            self.advance(ALONE - TICK)
            self.end.dataReceived(b"x")
        self.assertEqual(self.broken, "")
        self.advance(ALONE + 3 * TICK)
        self.assertIn("gone", self.broken)

    def test_lastBytesWithoutEnd(self) -> None:
        """
        If all has come that was told of, and only the connection's own end is
        lost, it is an end.
        """
        self.end.dataReceived(b"hello")
        self.hear(ENDED, 5)
        self.assertFalse(self.visitor.finished)
        self.advance(SOON + 2 * TICK)
        self.assertTrue(self.visitor.finished)
        self.assertEqual(self.broken, "")

    def test_untold(self) -> None:
        """
        With a peer that tells nothing, ends are taken as they come.
        """
        end = self.begin(None)
        end.dataReceived(b"hello")
        end.readConnectionLost()
        self.assertTrue(self.visitor.finished)

    def test_unknown(self) -> None:
        """
        What is told of streams that are over is skipped; what has another
        length than it must is an error.
        """
        self.ending.forget()
        self.hear(BROKEN)
        self.assertEqual(self.broken, "")
        for size in (0, 16, 18):
            with self.assertRaises(TunnelError) as caught:
                self.confirmations.arrived(0, bytes(size))
            self.assertEqual(caught.exception.code.name, "protocol-error")

    def test_neverConnected(self) -> None:
        """
        A stream that never gets its connection is forgotten.
        """
        self.confirmations.close()
        self.confirmations.expect(NAME)
        self.advance(DEADLINE + 2 * TICK)
        self.assertEqual(len(self.confirmations), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stops(self) -> None:
        """
        When this side stops, streams are broken and nothing is left.
        """
        self.confirmations.close()
        self.assertIn("this side stops", self.broken)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SecureTests(EndingTestCase):
    """
    Over TLS, which cannot end one direction.
    """

    secure = True

    def test_halfClose(self) -> None:
        """
        A direction ends when as many bytes have come as were told of, and the
        other one goes on.
        """
        self.visitor.say(b"question")
        self.visitor.end()
        self.assertEqual(self.told, [(ENDED, 8)])
        self.assertFalse(self.transport.disconnecting)
        self.end.dataReceived(b"ans")
        self.hear(ENDED, 6)
        self.assertFalse(self.visitor.finished)
        self.end.dataReceived(b"wer")
        self.assertTrue(self.visitor.finished)
        self.assertTrue(self.transport.disconnecting)
        self.lose(ConnectionDone())
        self.assertEqual(self.closings, [None])
        self.assertEqual(self.broken, "")

    def test_endsFirst(self) -> None:
        """
        The service may say its last word first.
        """
        self.end.dataReceived(b"greeting")
        self.hear(ENDED, 8)
        self.assertTrue(self.visitor.finished)
        self.assertFalse(self.transport.disconnecting)
        self.visitor.say(b"more")
        self.visitor.end()
        self.assertEqual(self.transport.value(), b"more")
        self.assertTrue(self.transport.disconnecting)

    def test_cut(self) -> None:
        """
        A connection that ends too early is a break, in good order or not.
        """
        self.end.dataReceived(b"hell")
        self.lose(ConnectionDone())
        self.assertFalse(self.visitor.finished)
        self.hear(ENDED, 5)
        self.assertIn("4 of 5 bytes", self.broken)

    def test_goodbyeIsLost(self) -> None:
        """
        A connection whose last goodbye never comes is cut in the end.
        """
        self.hear(ENDED, 0)
        self.visitor.end()
        self.advance(DEADLINE + 2 * TICK)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.broken, "")
