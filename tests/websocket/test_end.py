"""
Tests of L{tristunnel.websocket.end}, in memory.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.ends import NotingEnd
from tristunnel.dataplane.connection_end import EARLY
from tristunnel.dataplane.following import FULL
from tristunnel.dataplane.join import ANSWER_LINGER, LINGER
from tristunnel.dialects.zlayer.data_end import DataEnd
from tristunnel.errors import TunnelError
from tristunnel.websocket.end import EMPTIES, RELAY_SUBPROTOCOL, WebSocketEnd

DONE = Failure(ConnectionDone())


class _Connection:
    """A connection that notes what is done to it."""

    chosen = ""

    def __init__(self) -> None:
        self.did: list[Any] = []
        self.canSend = True
        self.reactor = Clock()

    def sendBytes(self, data: bytes) -> None:
        self.did.append(data)

    def registerProducer(self, producer: object) -> None:
        """Take it."""

    def pauseReading(self) -> None:
        self.did.append("pause")

    def resumeReading(self) -> None:
        self.did.append("resume")

    def close(self) -> None:
        self.did.append("close")

    def leave(self) -> None:
        self.did.append("leave")

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        self.did.append(reason.code.name)


class WebSocketEndTests(SynchronousTestCase):
    """What an end makes of its connection, and of its peer."""

    def setUp(self) -> None:
        self.end = WebSocketEnd()
        self.connection = cast(Any, _Connection())
        self.end.opened(self.connection)
        self.peer: Any = NotingEnd()
        self.closed: list[TunnelError | None] = []

    def say(self, *messages: bytes) -> None:
        for message in messages:
            self.end.bytesReceived(message)

    def join(self) -> None:
        self.end.join(self.peer, self.closed.append)

    def test_early(self) -> None:
        """What comes before it is joined is held, up to a bound."""
        self.end.bytesReceived(b"x" * EARLY)
        self.assertEqual([], self.connection.did)
        self.end.bytesReceived(b"y")
        self.assertEqual(["pause"], self.connection.did)
        self.join()
        self.assertEqual([b"x" * EARLY, b"y"], self.peer.told)
        self.assertEqual(["pause", "resume"], self.connection.did)

    def test_pausedSource(self) -> None:
        """When the far side closes while the peer is paused, the peer is resumed:
        paused for ever, it would never see its own end. Until then, what waits for the
        far side counts."""
        self.join()
        self.end.pauseProducing()
        self.assertEqual(FULL, self.end.memory.of(self.end))
        self.end.closeReceived(None)
        self.assertEqual(0, self.end.memory.of(self.end))
        self.assertEqual(["pause", "finish", "resume"], self.peer.told)
        self.end.connectionLost(None, DONE)
        self.assertEqual([None], self.closed)

    def test_discards(self) -> None:
        """To a far side that has left nothing is sent; a peer that goes on and on is
        broken, one that soon ends is not."""
        self.join()
        self.connection.canSend = False
        self.end.closeReceived(None)
        self.end.write(b"x" * EARLY)
        self.assertNotIn("reset", self.peer.told)
        self.end.write(b"x")
        self.assertIn("reset", self.peer.told)

    def test_finish(self) -> None:
        """The end of one direction closes the connection; what still comes is passed
        on."""
        self.join()
        self.end.write(b"last")
        self.end.finish()
        self.end.finish()
        self.end.bytesReceived(b"under way")
        self.assertEqual([b"last", "close"], self.connection.did)
        self.assertEqual([b"under way"], self.peer.told)

    def test_reset(self) -> None:
        """A break is one for both sides, and over once."""
        self.join()
        self.end.reset(TunnelError("stalled"))
        self.end.reset(TunnelError("closed"))
        self.assertEqual(["stalled"], self.connection.did)
        self.end.connectionLost(TunnelError("reset"), DONE)
        (reason,) = self.closed
        assert reason is not None
        self.assertEqual("stalled", reason.code.name)
        self.assertEqual([], self.peer.told)

    def test_cut(self) -> None:
        """A connection that breaks breaks the peer."""
        self.join()
        self.end.connectionLost(TunnelError("reset"), DONE)
        self.assertEqual(["reset"], self.peer.told)

    def test_leftBefore(self) -> None:
        """Who waits for it learns that it has left."""
        self.end.whileWaiting(self.closed.append)
        self.end.closeReceived(None)
        self.end.connectionLost(None, DONE)
        self.assertEqual([None], self.closed)

    def test_joinedAfterTheEnd(self) -> None:
        """What it had said before it left still reaches who comes later."""
        self.end.bytesReceived(b"bye")
        self.end.closeReceived(None)
        self.join()
        self.assertEqual([b"bye", "finish"], self.peer.told)
        self.end.connectionLost(None, DONE)
        self.assertEqual([None], self.closed)

    def test_text(self) -> None:
        """Text is refused, and the peer hears of it."""
        self.join()
        self.end.textReceived(b"hello")
        self.assertEqual(["protocol-error"], self.connection.did)
        self.assertEqual(["protocol-error"], self.peer.told)

    def test_empties(self) -> None:
        """Some empty messages in a row are the end of what a plain peer sends; it is
        read no further, and gets what the other end still has for it."""
        self.join()
        for _ in range(2):
            for _ in range(EMPTIES - 1):
                self.end.bytesReceived(b"")
            self.end.bytesReceived(b"x")
        self.assertFalse(self.end.ended)
        for _ in range(EMPTIES * 100):
            self.end.bytesReceived(b"")
        self.assertTrue(self.end.ended)
        self.assertEqual([b"x", b"x", "finish"], self.peer.told)
        self.end.resumeReading()
        self.end.write(b"rest")
        self.end.finish()
        self.assertEqual(["pause", b"rest", "close"], self.connection.did)

    def test_emptiesAndTakesNothing(self) -> None:
        """A peer that has nothing more to say and takes nothing has its source paused
        for as long: what that sends would be held without bound."""
        self.join()
        self.end.pauseProducing()
        self.say(*[b""] * EMPTIES)
        self.assertEqual(["pause", "finish"], self.peer.told)
        self.end.resumeProducing()
        self.assertEqual(["pause", "finish", "resume"], self.peer.told)

    def test_emptiesEarly(self) -> None:
        """Nobody is joined to a peer that has nothing to say any more: it may come
        again."""
        for _ in range(EMPTIES):
            self.end.bytesReceived(b"")
        self.assertEqual(["pause", "leave"], self.connection.did)

    def test_askedEarly(self) -> None:
        """One that has asked something by then waits for who answers it."""
        self.end.bytesReceived(b"question")
        for _ in range(EMPTIES):
            self.end.bytesReceived(b"")
        self.assertEqual(["pause"], self.connection.did)
        self.join()
        self.assertEqual([b"question", "finish"], self.peer.told)
        self.end.write(b"answer")
        self.end.finish()
        self.assertEqual(["pause", b"answer", "close"], self.connection.did)

    def test_waitsForTheAnswer(self) -> None:
        """When a visitor has said its last in that way, and may listen, its host is not
        closed before it has answered."""
        for asked, seconds in ((True, LINGER), (False, ANSWER_LINGER)):
            self.setUp()
            self.join()
            self.peer.listens = True
            if asked:
                self.end.write(b"question")
            self.connection.did.clear()
            self.end.finish()
            for piece in (b"answer", b"that takes its time"):
                self.connection.reactor.advance(seconds * 0.75)
                self.end.bytesReceived(piece)
            self.connection.reactor.advance(seconds * 0.75)
            self.assertEqual([], self.connection.did)
            self.connection.reactor.advance(seconds * 0.25)
            self.assertEqual(["close"], self.connection.did)

    def test_waitsWhilePaused(self) -> None:
        """A host that is not read is not silent."""
        self.join()
        self.peer.listens = True
        self.end.finish()
        self.end.pauseReading()
        self.connection.reactor.pump([ANSWER_LINGER] * 30)
        self.assertEqual(["pause"], self.connection.did)
        self.connection.reactor.advance(ANSWER_LINGER * 0.9)
        self.end.resumeReading()
        self.connection.reactor.advance(ANSWER_LINGER * 0.9)
        self.assertEqual(["pause", "resume"], self.connection.did)
        self.connection.reactor.advance(ANSWER_LINGER)
        self.assertEqual(["pause", "resume", "close"], self.connection.did)

    def test_waitsNoLonger(self) -> None:
        """A host that has nothing to say either, or breaks, is not waited for."""
        for end, did in (
            (lambda: self.say(*[b""] * 8), "leave"),
            (lambda: self.end.reset(TunnelError("stalled")), "stalled"),
            (lambda: self.end.connectionLost(None, DONE), None),
        ):
            self.setUp()
            self.join()
            self.peer.listens = True
            self.end.finish()
            end()
            self.assertEqual([], self.connection.reactor.getDelayedCalls())
            self.assertEqual(did, self.connection.did[-1] if did else None)

    def test_emptiesOfOurOwn(self) -> None:
        """Between our own ends they say something else, however many come."""
        self.connection.chosen = RELAY_SUBPROTOCOL
        self.join()
        for _ in range(EMPTIES * 2):
            self.end.bytesReceived(b"")
        self.assertFalse(self.end.ended)

    def test_emptiesOfData(self) -> None:
        """It is the same on a visitor's own connection, of a zlayer client."""
        end = DataEnd()
        end.opened(self.connection)
        end.join(self.peer, self.closed.append)
        for _ in range(EMPTIES):
            end.bytesReceived(b"")
        self.assertEqual(["finish"], self.peer.told)
