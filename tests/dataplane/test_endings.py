"""
Tests for L{tristunnel.dataplane.endings}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.dataplane.kernel import FakeKernel, FakeReactor, FakeTLS, fakePoller
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
    EndAcknowledgements,
    MovedEnd,
    StreamEnd,
)
from tristunnel.errors import TunnelError

NAME = b"k" * KEY


class _Stream:
    """What the stream is within its session."""

    def __init__(self, visitor: Talker) -> None:
        self._visitor = visitor

    @property
    def passed(self) -> int:
        return self._visitor.received

    def pauseSource(self) -> None:
        self._visitor.pauseReading()

    def resumeSource(self) -> None:
        self._visitor.resumeReading()


class EndingTestCase(SynchronousTestCase):
    """
    A test of one end of a stream that has moved, with the session and the world on its
    other side played by the test.

    @cvar secure: Whether the connection is TLS.
    @ivar told: What was told over the session, C{(what, count)}.
    """

    secure = False

    def setUp(self) -> None:
        self.clock = FakeReactor()
        self.kernel = FakeKernel()
        self.poller = fakePoller(self.clock, self.kernel)
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
        self.assertEqual(payload[:KEY], NAME)
        self.told.append((payload[KEY], int.from_bytes(payload[KEY + 1 :], "big")))

    def begin(self, ending: StreamEnd) -> MovedEnd:
        self.socket: Any = self.kernel.socket()
        tls: Any = None
        if self.secure:
            tls = FakeTLS(self.socket)
            tls.shaken = True
        connection: Any = self.socket
        end = MovedEnd(
            self.poller,
            connection,
            lambda end: None,
            tls,
            ending,
            _Stream(self.visitor),
        )
        end.begin()
        end.join(self.visitor, self.closings.append)
        self.visitor.join(end, lambda reason: None)
        return end

    def hear(self, what: int, count: int = 0) -> None:
        payload = NAME + bytes([what]) + count.to_bytes(8, "big")
        self.confirmations.arrived(payload)

    def lose(self, error: Exception) -> None:
        if isinstance(error, ConnectionDone):
            self.eof()
            self.end._finishBoth()
        else:
            self.end._fail(Failure(error))

    def come(self, data: bytes) -> None:
        self.socket.incoming += data
        self.turn()

    def eof(self) -> None:
        self.socket.peerEnded = True
        self.turn()

    def turn(self) -> None:
        for reader in list(self.clock.readers):
            reader.doRead()
        self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        self.clock.pump([TICK] * round(seconds / TICK))

    @property
    def broken(self) -> str:
        return "" if self.visitor.broken is None else self.visitor.broken.message


class PlainTests(EndingTestCase):
    """Over TCP, where a connection's end proves nothing."""

    def test_complete(self) -> None:
        """An end of which was told is an end, whichever comes first."""
        self.come(b"hello")
        self.hear(ENDED, 5)
        self.assertFalse(self.visitor.finished)
        self.eof()
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
        """The session may be slower than the connection, even if that is gone."""
        for gone in (False, True):
            with self.subTest(gone=gone):
                self.come(b"hello")
                self.eof()
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
        """An end that comes too early is a break, at both sides."""
        for toldFirst in (False, True):
            self.come(b"hell")
            if toldFirst:
                self.hear(ENDED, 5)
            self.eof()
            if not toldFirst:
                self.hear(ENDED, 5)
            self.assertFalse(self.visitor.finished)
            self.assertIn("4 of 5 bytes", self.broken)
            self.assertTrue(self.socket.wasReset)
            self.assertEqual(self.told, [(BROKEN, 0)])
            self.setUp()

    def test_nobodyTells(self) -> None:
        """An end of which nobody tells is a break after L{DEADLINE}."""
        for gone in (False, True):
            self.come(b"hello")
            self.eof()
            if gone:
                self.lose(ConnectionDone())
            self.advance(DEADLINE)
            self.assertEqual(self.broken, "")
            self.advance(2 * TICK)
            self.assertIn("without a reason", self.broken)
            self.assertFalse(self.visitor.finished)
            self.assertEqual(len(self.closings), 1)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.setUp()

    def test_farSideBroke(self) -> None:
        """A break that was told of is one, whether its reset comes through or not."""
        self.hear(BROKEN)
        self.assertEqual(self.broken, "the other side reset it")
        self.assertTrue(self.socket.wasReset)
        self.assertEqual(self.told, [])

    def test_reset(self) -> None:
        """A reset of the connection is told of, and so is a visitor's."""
        self.lose(ConnectionLost())
        self.assertEqual(self.told, [(BROKEN, 0)])
        self.assertIsNotNone(self.visitor.broken)
        self.setUp()
        self.visitor.crash()
        self.assertEqual(self.told, [(BROKEN, 0)])
        self.assertTrue(self.socket.wasReset)

    def test_blackHole(self) -> None:
        """
        When bytes that were sent do not come for L{DEADLINE}, the stream is
        broken; but not while the visitor reads nothing, nor before.
        """
        self.come(b"hello")
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
        self.assertIn("nothing was received", self.broken)

    def test_idle(self) -> None:
        """A stream through which nothing was sent may be silent for ever."""
        self.come(b"hello")
        self.hear(SENT, 5)
        self.advance(100 * DEADLINE)
        self.assertEqual(self.broken, "")

    def test_underWay(self) -> None:
        """
        Bytes that were just sent may be under way, however long it was silent
        before.
        """
        self.come(b"hello")
        self.advance(10 * DEADLINE)
        self.hear(SENT, 6)
        self.advance(SOON)
        self.assertEqual(self.broken, "")
        self.come(b"!")
        self.advance(10 * DEADLINE)
        self.assertEqual(self.broken, "")

    def test_tells(self) -> None:
        """What was sent is told of at a tick, once."""
        self.visitor.say(b"hello")
        self.assertEqual(self.told, [])
        self.advance(3 * TICK)
        self.assertEqual(self.told, [(SENT, 5)])
        self.visitor.say(b"!")
        self.advance(3 * TICK)
        self.assertEqual(self.told, [(SENT, 5), (SENT, 6)])

    def test_nextSession(self) -> None:
        """What may have been lost with a session is told again on the next one."""
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
        """The end of a session that was replaced already means nothing."""
        self.confirmations.up(lambda payload: self.told.append((9, 9)))
        self.confirmations.down(self.send)
        self.visitor.end()
        self.assertEqual(self.told, [(9, 9)])

    def test_alone(self) -> None:
        """Without a session a stream goes on as long as anything comes."""
        self.confirmations.down(self.send)
        for _ in range(10):
            self.advance(ALONE - TICK)
            self.come(b"x")
        self.assertEqual(self.broken, "")
        self.advance(ALONE + 3 * TICK)
        self.assertIn("gone", self.broken)

    def test_lastBytesWithoutEnd(self) -> None:
        """
        If all has come that was told of, and only the connection's own end is
        lost, it is an end.
        """
        self.come(b"hello")
        self.hear(ENDED, 5)
        self.assertFalse(self.visitor.finished)
        self.advance(SOON + 2 * TICK)
        self.assertTrue(self.visitor.finished)
        self.assertEqual(self.broken, "")

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
                self.confirmations.arrived(bytes(size))
            self.assertEqual(caught.exception.code.name, "protocol-error")

    def test_late(self) -> None:
        """
        What is told of a stream is kept however late its connection comes, and heard
        afterwards, too.
        """
        for early in (True, False):
            with self.subTest(early=early):
                self.confirmations.close()
                ending = self.confirmations.expect(NAME)
                if early:
                    self.hear(ENDED, 5)
                self.advance(DEADLINE + 2 * TICK)
                self.visitor = Talker()
                self.end = self.begin(ending)
                self.advance(2 * TICK)
                self.come(b"hello")
                self.eof()
                if not early:
                    self.hear(ENDED, 5)
                self.assertTrue(self.visitor.finished)
                self.assertEqual(self.broken, "")

    def test_neverConnected(self) -> None:
        """Whoever waits in vain for the connection says so, and nothing is left."""
        self.confirmations.close()
        self.confirmations.expect(NAME).forget()
        self.assertEqual(len(self.confirmations), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sameKey(self) -> None:
        """A key that a stream has is no other's: the first would be lost sight of."""
        with self.assertRaises(TunnelError) as caught:
            self.confirmations.expect(NAME)
        self.assertEqual(caught.exception.code.name, "protocol-error")
        self.ending.forget()
        self.confirmations.expect(NAME)

    def test_stops(self) -> None:
        """When this side stops, streams are broken and nothing is left."""
        self.confirmations.close()
        self.assertIn("this side stops", self.broken)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SecureTests(EndingTestCase):
    """Over TLS, which cannot end one direction."""

    secure = True

    def test_halfClose(self) -> None:
        """
        A direction ends when as many bytes have come as were told of, also if
        TLS does not say so, and the other one goes on.
        """
        self.visitor.say(b"question")
        self.visitor.end()
        self.turn()
        self.assertEqual(self.told, [(ENDED, 8)])
        self.assertTrue(self.socket.weEnded)
        self.come(b"ans")
        self.hear(ENDED, 6)
        self.assertFalse(self.visitor.finished)
        self.come(b"wer")
        self.advance(SOON + 2 * TICK)
        self.assertTrue(self.visitor.finished)
        self.assertFalse(self.socket.wasReset)
        self.lose(ConnectionDone())
        self.assertEqual(self.closings, [None])
        self.assertEqual(self.broken, "")

    def test_endsFirst(self) -> None:
        """The service may say its last word first."""
        self.come(b"greeting")
        self.hear(ENDED, 8)
        self.eof()
        self.assertTrue(self.visitor.finished)
        self.assertFalse(self.socket.closed)
        self.visitor.say(b"more")
        self.visitor.end()
        self.turn()
        self.assertEqual(self.socket.outgoing, b"more")
        self.assertTrue(self.socket.closed)

    def test_cut(self) -> None:
        """A connection that ends too early is a break, in good order or not."""
        self.come(b"hell")
        self.lose(ConnectionDone())
        self.assertFalse(self.visitor.finished)
        self.hear(ENDED, 5)
        self.assertIn("4 of 5 bytes", self.broken)

    def test_goodbyeIsLost(self) -> None:
        """
        A connection whose last goodbye never comes is closed in the end; if
        the far side has not taken all, that is a break.
        """
        for taken in (True, False):
            if not taken:
                self.setUp()
                self.socket.room = 0
                self.visitor.say(b"more")
            self.hear(ENDED, 0)
            self.visitor.end()
            self.advance(DEADLINE + 2 * TICK)
            self.assertTrue(self.socket.closed)
            self.assertEqual(self.broken == "", taken)
