"""Tests for L{tristunnel.demand.waiting} and the transport of those who wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.ends import NotingEnd
from tests.support.protocols import Hearing
from tristunnel.demand import waiting
from tristunnel.demand.waiting import ENOUGH, KEPT, LINGER, WaitingVisitor
from tristunnel.errors import TunnelError
from tristunnel.forwards.inner_transport import InnerTransport

_POST = b"POST / HTTP/1.1\r\nHost: blog\r\nContent-Length: 99999\r\n\r\n"
_ASKS = b"GET / HTTP/1.1\r\nHost: blog\r\nAccept: text/html\r\n\r\n"


class _OneWay(Hearing):
    """The visitor's side, as one that knows no half-closed connections sees it."""

    def __init__(self, first: bytes = b"") -> None:
        super().__init__(first)
        self.hasEnded = False
        self.said: list[str] = []

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        super().connectionMade()

    def pauseProducing(self) -> None:
        self.said.append("pause")

    def resumeProducing(self) -> None:
        self.said.append("resume")


@implementer(IHalfCloseableProtocol)
class _BothWays(_OneWay):
    def readConnectionLost(self) -> None:
        self.hasEnded = True

    def writeConnectionLost(self) -> None:
        """It knows."""


class TransportTests(SynchronousTestCase):
    """A protocol whose peer is an end."""

    def made(self, protocol: Protocol) -> tuple[InnerTransport, NotingEnd]:
        far = NotingEnd()
        made = InnerTransport(protocol, far)
        made.begin()
        return made, far

    def test_says(self) -> None:
        made, far = self.made(_BothWays())
        made.write(b"a")
        made.writeSequence([b"b", b"c"])
        made.pauseProducing()
        made.resumeProducing()
        made.loseWriteConnection()
        made.loseWriteConnection()
        made.write(b"too late")
        self.assertEqual(far.told, [b"a", b"bc", "pause", "resume", "finish"])
        self.assertEqual(made.end.received, 3)

    def test_hears(self) -> None:
        protocol = _BothWays()
        made, _ = self.made(protocol)
        end = made.end
        end.write(b"a")
        end.finish()
        self.assertEqual((protocol.data, protocol.hasEnded), (b"a", True))
        self.assertIsNone(protocol.lost)
        made.loseConnection()
        self.assertTrue(protocol.lost.check(ConnectionDone))

    def test_held(self) -> None:
        """It goes on when neither who holds it nor its peer is against it."""
        protocol = _BothWays()
        made, _ = self.made(protocol)
        made.hold(True)
        made.end.pauseReading()
        made.hold(False)
        self.assertEqual(protocol.said, ["pause"])
        made.end.resumeReading()
        self.assertEqual(protocol.said, ["pause", "resume"])

    def test_oneWay(self) -> None:
        """A protocol that knows no half-closed connections ends with its peer."""
        protocol = _OneWay()
        made, far = self.made(protocol)
        made.end.finish()
        self.assertTrue(protocol.lost.check(ConnectionDone))
        made.end.write(b"more")
        self.assertEqual(far.told, ["finish", "reset"])

    def test_broken(self) -> None:
        protocol = _BothWays()
        made, far = self.made(protocol)
        made.end.reset(TunnelError("reset", "why"))
        self.assertEqual(str(protocol.lost.value.args[0]), "why")
        made.abortConnection()
        made.loseConnection()
        self.assertEqual(far.told, [])

    def test_aborted(self) -> None:
        protocol = _BothWays()
        made, far = self.made(protocol)
        made.abortConnection()
        made.abortConnection()
        self.assertEqual(far.told, ["reset"])
        self.assertIsNotNone(protocol.lost)

    def test_passedTo(self) -> None:
        made, _ = self.made(_BothWays())
        made.pauseProducing()
        other = NotingEnd()
        made.passTo(other)
        made.write(b"a")
        self.assertEqual(other.told, ["pause", b"a"])


class WaitingTests(SynchronousTestCase):
    """Visitors of a service that does not start."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.crowd: set[WaitingVisitor] = set()
        self.start: Callable[[], Deferred[None]] = Deferred

    def visit(self, protocol: _OneWay) -> WaitingVisitor:
        endpoint: Any = None
        made = WaitingVisitor(self.clock, self.start, endpoint, self.crowd)
        made.wait(protocol)
        return made

    def test_heldBack(self) -> None:
        """No more is taken than is needed to know who it is."""
        protocol = _BothWays(_POST + b"x" * ENOUGH)
        self.visit(protocol)
        self.assertEqual((protocol.said, len(self.crowd)), (["pause"], 1))
        protocol.transport.abortConnection()
        self.assertEqual(self.crowd, set())

    def test_tooMany(self) -> None:
        """Those who find too many are told when to come again."""
        self.patch(waiting, "HELD_BACK", 1)
        first, second = (_BothWays(_POST + b"x" * ENOUGH) for _ in range(2))
        other = _BothWays(b"\0" * 70_000)
        for each in (first, second, other):
            self.visit(each)
        self.assertEqual((first.data, first.lost), (b"", None))
        self.assertIn(b" 503 ", second.data)
        self.assertIn(b"\r\nRetry-After: 2\r\n", second.data)
        self.assertIn(b"too many others wait", second.data)
        self.assertTrue(other.lost.check(ConnectionLost))

    def test_memory(self) -> None:
        """Those of whom little is kept are bounded together."""
        self.patch(KEPT, "most", 10_000)
        visitors = [_BothWays(b"\0" * 6_000), _BothWays(_POST + b"x" * 3_000)]
        for each in visitors:
            self.visit(each)
        self.assertEqual([each.lost for each in visitors], [None, None])
        late = _BothWays(b"\0" * 1_500)
        self.visit(late)
        self.assertTrue(visitors[0].lost.check(ConnectionLost))
        self.assertEqual([each.lost for each in (visitors[1], late)], [None, None])
        for each in (visitors[1], late):
            each.transport.abortConnection()
        self.assertEqual(KEPT.total, 0)

    def test_answered(self) -> None:
        """Who was answered and does not leave is made to."""
        protocol = _BothWays(_ASKS)
        self.visit(protocol)
        self.assertIn(b"being started", protocol.data)
        self.assertTrue(protocol.hasEnded)
        protocol.transport.write(b"more")
        self.clock.advance(LINGER)
        self.assertTrue(protocol.lost.check(ConnectionLost))

    def test_leaves(self) -> None:
        """Who leaves by itself leaves nothing behind."""
        protocol = _BothWays(_ASKS)
        self.visit(protocol)
        protocol.transport.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_upAtOnce(self) -> None:
        """A service that is up by the time that its visitor is over is left alone."""
        self.start = lambda: succeed(None)
        protocol = _OneWay(_ASKS)
        self.visit(protocol)
        self.assertIn(b"being started", protocol.data)
        self.assertEqual(self.clock.getDelayedCalls(), [])
