"""
Tests for L{tristunnel.dataplane.transport_end} in memory; those that need real
sockets are in L{tests.dataplane.test_sockets_loopback}.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IPushProducer,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides
from zope.interface.verify import verifyObject

from tests.support.ends import NotingEnd
from tristunnel.dataplane.connection_end import (
    CLOSE_TIMEOUT,
    EARLY,
    TLS_HANDSHAKE_TIMEOUT,
)
from tristunnel.dataplane.following import FULL
from tristunnel.dataplane.transport_end import TransportEnd
from tristunnel.errors import TunnelError

DONE = Failure(ConnectionDone())
LOST = Failure(ConnectionLost())


class MemoryTransport(StringTransport):
    """
    A connection that notes how it is ended.

    @ivar calls: What was asked, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def setTcpNoDelay(self, enabled: bool) -> None:
        """A real connection has this."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """And this."""

    def unregisterProducer(self) -> None:
        """Forget the producer, if there is one, as real connections do."""
        self.producer = None

    def loseWriteConnection(self) -> None:
        self.calls.append("half")

    def loseConnection(self) -> None:
        """Note a close; with a producer it would never come to pass."""
        assert self.producer is None
        self.calls.append("close")

    def abortConnection(self) -> None:
        self.calls.append("abort")


class TransportEndTests(SynchronousTestCase):
    """Tests for L{TransportEnd}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.arrivals: list[TransportEnd] = []
        self.closings: list[TunnelError | None] = []
        self.peer = NotingEnd()
        self.transport = MemoryTransport()
        self.end = TransportEnd(self.clock, self.arrivals.append)
        self.end.makeConnection(self.transport)

    def useTLS(self) -> None:
        """Make another end, whose connection speaks TLS."""
        self.arrivals.clear()
        self.transport = MemoryTransport()
        alsoProvides(self.transport, INegotiated)
        self.end = TransportEnd(self.clock, self.arrivals.append)
        self.end.makeConnection(self.transport)

    def join(self) -> None:
        self.end.join(self.peer, self.closings.append)

    def test_interfaces(self) -> None:
        """It takes part in half-closing, TLS and flow control."""
        for interface in (IHalfCloseableProtocol, IHandshakeListener, IPushProducer):
            self.assertTrue(verifyObject(interface, self.end))

    def test_passesBytes(self) -> None:
        """Bytes pass both ways and are counted."""
        self.assertEqual(self.arrivals, [self.end])
        self.join()
        self.end.dataReceived(b"in")
        self.end.write(b"out")
        self.assertEqual(self.peer.told, [b"in"])
        self.assertEqual(self.transport.value(), b"out")
        self.assertEqual(self.end.received, 2)

    def test_early(self) -> None:
        """What comes before the end is joined waits, in bounds and in order."""
        self.end.dataReceived(b"a" * EARLY)
        self.assertEqual(self.transport.producerState, "producing")
        self.end.dataReceived(b"b")
        self.assertEqual(self.transport.producerState, "paused")
        self.join()
        self.assertEqual(self.peer.told, [b"a" * EARLY, b"b"])
        self.assertEqual(self.transport.producerState, "producing")

    def test_earlyToBusyPeer(self) -> None:
        """If the peer has enough of the early bytes, reading stays paused."""
        self.end.dataReceived(b"a" * (EARLY + 1))
        self.end.pauseReading()
        self.join()
        self.assertEqual(self.transport.producerState, "paused")
        self.end.resumeReading()
        self.assertEqual(self.transport.producerState, "producing")

    def test_endBeforeJoin(self) -> None:
        """
        Bytes and their end wait for the peer, and reading is not resumed
        after the end.
        """
        self.end.dataReceived(b"a")
        self.end.readConnectionLost()
        self.join()
        self.assertEqual(self.peer.told, [b"a", "finish"])
        self.end.pauseReading()
        self.end.resumeReading()
        self.assertEqual(self.transport.producerState, "producing")
        self.end.write(b"answer")
        self.assertEqual(self.transport.value(), b"answer")

    def test_goneBeforeJoin(self) -> None:
        """Even of a connection that is gone already the bytes are passed on."""
        for reason, events, code in (
            (DONE, [b"a", "finish"], None),
            (LOST, [b"a", "reset"], "reset"),
        ):
            self.setUp()
            self.end.dataReceived(b"a")
            self.end.connectionLost(reason)
            self.join()
            self.assertEqual(self.peer.told, events)
            (closing,) = self.closings
            self.assertEqual(closing and closing.code.name, code)

    def test_eofAndGoneBeforeJoin(self) -> None:
        """
        The end is passed on as well where it came before the connection was
        over.
        """
        self.end.readConnectionLost()
        self.end.connectionLost(DONE)
        self.join()
        self.assertEqual(self.peer.told, ["finish"])
        self.assertEqual(self.closings, [None])

    def test_leavesWhileWaiting(self) -> None:
        """Whoever is about to join it is told when it leaves."""
        for reason, code in ((DONE, None), (LOST, "reset")):
            self.setUp()
            self.end.whileWaiting(self.closings.append)
            self.end.connectionLost(reason)
            (closing,) = self.closings
            self.assertEqual(closing and closing.code.name, code)

    def test_finishBeforeJoin(self) -> None:
        """
        A peer that has said everything before the end was joined keeps no
        producer on the connection, which could otherwise not close.
        """
        self.end.write(b"everything")
        self.end.finish()
        self.join()
        self.assertIsNone(self.transport.producer)
        self.end.readConnectionLost()
        self.assertEqual(self.transport.calls, ["half", "close"])

    def test_halfCloses(self) -> None:
        """Both directions end by themselves, in either order."""
        self.join()
        self.end.finish()
        self.end.finish()
        self.assertEqual(self.transport.calls, ["half"])
        self.end.dataReceived(b"more")
        self.end.readConnectionLost()
        self.assertEqual(self.transport.calls, ["half", "close"])
        self.end.connectionLost(DONE)
        self.assertEqual(self.peer.told, [b"more", "finish"])
        self.assertEqual(self.closings, [None])

    def test_halfClosesAfterRead(self) -> None:
        """The same, with the other side's end first."""
        self.join()
        self.end.readConnectionLost()
        self.end.write(b"more")
        self.end.finish()
        self.assertEqual(self.transport.value(), b"more")
        self.assertEqual(self.transport.calls, ["close"])
        self.end.connectionLost(DONE)
        self.assertEqual(self.peer.told, ["finish"])
        self.assertEqual(self.closings, [None])

    def test_reset(self) -> None:
        """A reset breaks the connection, once."""
        self.join()
        reason = TunnelError("stalled")
        self.end.reset(reason)
        self.end.reset(TunnelError("reset"))
        self.assertEqual(self.transport.calls, ["abort"])
        self.end.connectionLost(LOST)
        self.assertEqual(self.closings, [reason])
        self.assertEqual(self.peer.told, [])

    def test_wasReset(self) -> None:
        """A broken connection resets the peer; so does a write to it."""
        self.join()
        self.end.connectionLost(LOST)
        self.end.write(b"late")
        self.assertEqual(self.peer.told, ["reset", "reset"])
        (closing,) = self.closings
        assert closing is not None
        self.assertEqual(closing.code.name, "reset")

    def test_flowControl(self) -> None:
        """
        The connection's fullness pauses the peer, and counts while it lasts; the peer's
        pauses this end.
        """
        self.join()
        self.assertIs(self.transport.producer, self.end)
        self.assertTrue(self.transport.streaming)
        self.end.pauseProducing()
        self.assertEqual(FULL, self.end.memory.of(self.end))
        self.end.resumeProducing()
        self.assertEqual(0, self.end.memory.of(self.end))
        self.assertEqual(self.peer.told, ["pause", "resume"])
        self.end.pauseReading()
        self.assertEqual(self.transport.producerState, "paused")
        self.end.dataReceived(b"still read")
        self.assertEqual(self.peer.told[-1], b"still read")
        self.end.resumeReading()
        self.assertEqual(self.transport.producerState, "producing")

    def test_handshake(self) -> None:
        """A TLS end is shown when its handshake is over."""
        self.useTLS()
        self.assertEqual(self.arrivals, [])
        self.end.handshakeCompleted()
        self.assertEqual(self.arrivals, [self.end])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noHandshake(self) -> None:
        """One that says no hello is ended, and never shown."""
        self.useTLS()
        self.clock.advance(TLS_HANDSHAKE_TIMEOUT)
        self.assertEqual(self.transport.calls, ["abort"])
        self.end.connectionLost(LOST)
        self.assertEqual(self.arrivals, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lostInHandshake(self) -> None:
        """No timer is left of one that goes away meanwhile."""
        self.useTLS()
        self.end.connectionLost(LOST)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_tlsFinish(self) -> None:
        """
        TLS ends as a whole, after what was written; a peer that never
        answers the close is cut off.
        """
        self.useTLS()
        self.end.handshakeCompleted()
        self.join()
        self.end.write(b"last")
        self.end.finish()
        self.assertEqual(self.transport.calls, ["close"])
        self.clock.advance(CLOSE_TIMEOUT)
        self.assertEqual(self.transport.calls, ["close", "abort"])

    def test_tlsFinished(self) -> None:
        """One that answers leaves no timer."""
        self.useTLS()
        self.end.handshakeCompleted()
        self.join()
        self.end.finish()
        self.end.connectionLost(DONE)
        self.assertEqual(self.peer.told, ["finish"])
        self.assertEqual(self.closings, [None])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_tlsReset(self) -> None:
        """A reset stops the wait for the other side's close."""
        self.useTLS()
        self.end.handshakeCompleted()
        self.join()
        self.end.finish()
        self.end.reset(TunnelError("reset"))
        self.assertEqual(self.transport.calls, ["close", "abort"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
