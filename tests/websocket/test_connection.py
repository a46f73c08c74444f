"""
Tests of L{tristunnel.websocket.connection}, with a clock and bytes by hand.
"""

from __future__ import annotations

import os
import struct
from types import SimpleNamespace

from autobahn.websocket.protocol import WebSocketProtocol
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.websocket.connection_rig import ConnectionTestCase, _Transport
from tests.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUE,
    PING,
    PONG,
    TEXT,
    Frame,
    closePayload,
    frame,
)
from tristunnel.errors import TunnelError
from tristunnel.service.preauth import PreauthLimiter
from tristunnel.websocket.connection import CLOSE_TIME, LINGER, PREAUTH_CLOSE_TIME
from tristunnel.websocket.incoming import MAX_BINARY, MAX_TEXT
from tristunnel.websocket.outgoing import GATHER, Outgoing
from tristunnel.wire.websocket import MESSAGE


class StockTransportTests(SynchronousTestCase):
    """Where there is no epoll, Twisted's sockets carry it."""

    def test_bytes(self) -> None:
        """A client's frames, which are masked in place, are bytes there."""

        class Client(Outgoing):
            answers = None
            state = WebSocketProtocol.STATE_OPEN
            factory = SimpleNamespace(isServer=False)
            _isOpen = True

        client = Client()
        client.transport = _Transport()
        client.sendText(b"text")
        self.assertEqual(len(client.transport.value()), 2 + 4 + 4)


class LeavingTests(ConnectionTestCase):
    """Peers that never stop to send."""

    def test_left(self) -> None:
        """They are cut, but not before they have taken what was sent."""
        self.connection.sendBytes(b"answer")
        self.transport.unsent = 3
        self.connection.leave()
        self.assertEqual([BINARY, CLOSE], [each.opcode for each in self.sent()])
        for self.transport.unsent in (2, 1):
            self.clock.advance(LINGER)
            self.assertFalse(self.transport.aborted)
        self.clock.advance(LINGER)
        self.assertTrue(self.transport.aborted)
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual("", self.receiver.reason)
        self.assertEqual([], self.clock.getDelayedCalls())


class SendingTests(ConnectionTestCase):
    """What is sent, and in what pieces."""

    def test_gathered(self) -> None:
        """What is written in one turn goes in one message."""
        for piece in (b"one", b"two", b"three"):
            self.connection.sendBytes(piece)
        self.assertEqual([], self.sent())
        self.clock.advance(0)
        self.assertEqual([Frame(BINARY, b"onetwothree", True, False)], self.sent())

    def test_notTooMuch(self) -> None:
        """So much is gathered and no more; the rest of the turn follows."""
        self.connection.sendBytes(b"a" * (GATHER - 1))
        self.assertEqual([], self.sent())
        self.connection.sendBytes(b"bb")
        self.connection.sendBytes(b"c")
        self.assertEqual(1, len(self.sent()))
        self.clock.advance(0)
        self.assertEqual([GATHER + 1, 1], [len(f.payload) for f in self.sent()])

    def test_slowLine(self) -> None:
        """No more is gathered than may wait to be sent."""
        self.transport.full = 4000
        self.connection.sendBytes(b"a" * 3999)
        self.assertEqual([], self.sent())
        self.connection.sendBytes(b"a")
        self.assertEqual([4000], [len(f.payload) for f in self.sent()])

    def test_longWrite(self) -> None:
        """No message is longer than what other programs accept."""
        data = os.urandom(MESSAGE * 2 + 5)
        self.connection.sendBytes(data)
        self.assertEqual([MESSAGE, MESSAGE, 5], [len(f.payload) for f in self.sent()])
        self.assertEqual(data, b"".join(f.payload for f in self.sent()))

    def test_closeFollows(self) -> None:
        """A close goes after all that was written, and ends by the clock."""
        self.connection.sendBytes(b"last words")
        self.connection.close()
        self.assertEqual([BINARY, CLOSE], [f.opcode for f in self.sent()])
        self.connection.sendBytes(b"too late")
        self.come(frame(BINARY, b"under way"))
        self.assertEqual(b"under way", self.receiver.data)
        self.clock.advance(CLOSE_TIME)
        self.assertTrue(self.transport.aborted)

    def test_unauthenticatedClose(self) -> None:
        """Who has not said who it is gets less time to agree to a close, and has left
        when the connection is gone."""
        limiter = PreauthLimiter(self.clock.seconds)
        self.connection.pending = pending = limiter.enter(None)
        self.connection.close()
        self.clock.advance(PREAUTH_CLOSE_TIME)
        self.assertTrue(self.transport.aborted)
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertFalse(pending.waiting)
        self.assertEqual(limiter.unauthenticated, 0)

    def test_consent(self) -> None:
        """When the peer agrees to a close, the connection is closed, in order."""
        self.connection.close()
        self.come(frame(CLOSE, closePayload(1000)))
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.aborted)
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual("", self.receiver.reason)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_text(self) -> None:
        """Text goes at once, whole."""
        self.connection.sendText(b"{}")
        self.assertEqual([Frame(TEXT, b"{}", True, False)], self.sent())


class ReceivingTests(ConnectionTestCase):
    """What comes."""

    def test_pieces(self) -> None:
        """A binary message is handed on as it comes."""
        whole = frame(BINARY, b"0123456789")
        self.come(whole[:9], whole[9:])
        self.assertEqual([b"012", b"3456789"], self.receiver.messages)

    def test_empty(self) -> None:
        """An empty message is handed on too."""
        self.come(frame(BINARY))
        self.assertEqual([b""], self.receiver.messages)

    def test_fragmentsAndPings(self) -> None:
        """A message in fragments, with pings in between, is whole, and the pings are
        answered."""
        self.come(
            frame(TEXT, b"a\xc3", fin=False),
            frame(PING, b"1"),
            frame(CONTINUE, b"\xa4", fin=False),
            frame(PING, b"2"),
            frame(CONTINUE, b"b"),
        )
        self.assertEqual(["aäb".encode()], self.receiver.texts)
        self.assertEqual([(PONG, b"1"), (PONG, b"2")], [f[:2] for f in self.sent()])

    def test_peerCloses(self) -> None:
        """A peer's close is answered; what we hold goes first."""
        self.connection.sendBytes(b"held")
        self.come(frame(CLOSE, closePayload(1000, "bye")))
        self.assertEqual([BINARY, CLOSE], [f.opcode for f in self.sent()])
        self.assertEqual([None], self.receiver.closes)
        self.assertTrue(self.transport.disconnecting)
        self.connection.sendBytes(b"nowhere to go")
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual("", self.receiver.reason)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_peerClosesForAReason(self) -> None:
        """The reason of a peer's close is told, by our own codes."""
        self.come(frame(CLOSE, closePayload(1013, "no host [client-away]")))
        (reason,) = self.receiver.closes
        assert reason is not None
        self.assertEqual(("client-away", "no host"), (reason.code.name, reason.message))

    def test_cut(self) -> None:
        """A connection that ends without a close was broken."""
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual("reset", self.receiver.reason)

    @given(
        st.lists(st.tuples(st.booleans(), st.binary(max_size=300)), max_size=12),
        st.lists(st.integers(1, 200), min_size=1, max_size=8),
    )
    def test_anyChunks(
        self, messages: list[tuple[bool, bytes]], chunks: list[int]
    ) -> None:
        """However frames are cut up on their way, the same comes out."""
        receiver, connection, _ = self.connect()
        wire = b""
        for whole, payload in messages:
            half = len(payload) // 2
            wire += (
                frame(BINARY, payload)
                if whole
                else frame(BINARY, payload[:half], fin=False)
                + frame(CONTINUE, payload[half:])
            )
        at = turn = 0
        while at < len(wire):
            size = chunks[turn % len(chunks)]
            connection.dataReceived(wire[at : at + size])
            at, turn = at + size, turn + 1
        self.assertEqual(b"".join(m for _, m in messages), bytes(receiver.data))
        self.assertIsNone(receiver.lost)

    @given(st.binary(max_size=2000))
    def test_garbage(self, data: bytes) -> None:
        """Whatever comes, nothing is raised and little is held."""
        _, connection, _ = self.connect()
        connection.dataReceived(data)
        connection.dataReceived(data)
        self.assertLess(len(connection.data), 5000)
        connection.connectionLost(Failure(ConnectionDone()))


class MistakeTests(ConnectionTestCase):
    """What a peer may not do, and what it is told."""

    def test_unmasked(self) -> None:
        """A client's frame without a mask."""
        self.come(frame(BINARY, b"x", mask=False))
        self.assertClosed(1002, "unmasked")

    def test_announcedGiB(self) -> None:
        """A message of 1 GiB is refused as soon as it is announced."""
        self.come(frame(BINARY, b"x" * 100, length=1 << 30))
        self.assertClosed(1009, str(MAX_BINARY))

    def test_longText(self) -> None:
        """Text is held whole, so less of it is accepted."""
        self.come(frame(TEXT, b"x", length=MAX_TEXT + 1))
        self.assertClosed(1009, str(MAX_TEXT))

    def test_longByFragments(self) -> None:
        """Fragments add up."""
        self.come(frame(TEXT, b"x" * 1000, fin=False))
        self.come(frame(CONTINUE, b"x", fin=False, length=MAX_TEXT - 999))
        self.assertClosed(1009, "longer")

    def test_longControl(self) -> None:
        """A ping of 1 GiB is refused, and not collected."""
        self.come(frame(PING, b"x" * 100, length=1 << 30))
        self.assertClosed(1002, "125")

    def test_interleaved(self) -> None:
        """A message that begins within another."""
        self.come(frame(BINARY, b"a", fin=False), frame(BINARY, b"b"))
        self.assertClosed(1002, "inside of a fragmented message")

    def test_continuesNothing(self) -> None:
        """The rest of no message."""
        self.come(frame(CONTINUE, b"a"))
        self.assertClosed(1002, "outside")

    def test_compressed(self) -> None:
        """Compression, which was not agreed upon."""
        self.come(frame(BINARY, b"a", rsv=4))
        self.assertClosed(1002, "RSV")

    def test_notUTF8(self) -> None:
        """Text that is none."""
        self.come(frame(TEXT, b"\xff\xfe"))
        self.assertClosed(1007, "UTF-8")

    def test_badClose(self) -> None:
        """A close code that nobody may send."""
        self.come(frame(CLOSE, closePayload(1005)))
        self.assertClosed(1002, "1005")

    def test_ourReason(self) -> None:
        """Our own refusals say their code and are cut to what fits."""
        self.connection.fail(TunnelError("limit-reached", "ä" * 200))
        (close,) = self.sent()
        self.assertEqual(1013, struct.unpack("!H", close.payload[:2])[0])
        self.assertTrue(close.payload.endswith(b" [limit-reached]"))
        self.assertLessEqual(len(close.payload), 125)


class LivenessTests(ConnectionTestCase):
    """Pings, and peers that are gone; all by the clock that was given, which autobahn's
    own timers are not."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.receiver, self.connection, self.transport = self.connect(10.0)

    def test_pings(self) -> None:
        """Pings go out, and answers keep the connection."""
        for _ in range(20):
            self.clock.advance(10)
            self.come(frame(PONG))
        self.assertEqual([PING] * 20, [f.opcode for f in self.sent()])
        self.assertFalse(self.transport.aborted)

    def test_silence(self) -> None:
        """After three intervals without a byte the peer is dead."""
        for _ in range(3):
            self.assertFalse(self.transport.aborted)
            self.clock.advance(10)
        self.assertTrue(self.transport.aborted)
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual("session-lost", self.receiver.reason)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_quiet(self) -> None:
        """For a while there may be neither pings nor answers."""
        self.connection.stayQuiet(100)
        for _ in range(9):
            self.clock.advance(10)
        self.assertEqual([], self.sent())
        self.clock.advance(20)
        self.assertEqual(PING, self.sent()[-1].opcode)
        self.clock.pump([10, 10])
        self.assertTrue(self.transport.aborted)

    def test_ownSilence(self) -> None:
        """Who is not listened to is not blamed for silence."""
        self.connection.pauseReading()
        for _ in range(9):
            self.clock.advance(10)
        self.assertFalse(self.transport.aborted)
        self.connection.resumeReading()
        self.clock.advance(10)
        self.assertFalse(self.transport.aborted)
        self.clock.pump([10, 10])
        self.assertTrue(self.transport.aborted)

    def test_autobahnsTimers(self) -> None:
        """None of autobahn's timers is on: they would run on the global reactor."""
        for option in (
            "openHandshakeTimeout",
            "closeHandshakeTimeout",
            "autoPingInterval",
            "autoPingTimeout",
        ):
            self.assertEqual(0, getattr(self.connection, option))
        self.connection.close()
        self.assertIsNone(self.connection.closeHandshakeTimeoutCall)
        self.assertIsNone(self.connection.openHandshakeTimeoutCall)
