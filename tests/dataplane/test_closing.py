"""
Tests for L{tristunnel.dataplane.closing}.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, wrapServerTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.dataplane.kernel import FakeKernel, FakeReactor
from tests.dialects.framed.memory import RecordingEnd
from tests.tls.authority import makeAuthority
from tristunnel.dataplane import closing
from tristunnel.dataplane.closing import SLOWEST, WriteDeadline
from tristunnel.dataplane.connection_end import CLOSE_TIMEOUT
from tristunnel.dataplane.poller import Poller
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.stock import unsent
from tristunnel.errors import TunnelError


class DeadlineTests(SynchronousTestCase):
    """Deadlines over memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        self.left = 1000 * SLOWEST
        self.patch(closing, "unsent", lambda transport: self.left)

    def close(self, patient: bool) -> Any:
        deadline = WriteDeadline(self.clock, self.transport, 10.0, patient)
        deadline.close()
        return deadline

    def test_cut(self) -> None:
        """Who has not taken everything in time is cut off, slow or not."""
        deadline = self.close(False)
        self.assertTrue(self.transport.disconnecting)
        self.clock.advance(9)
        self.left //= 2
        self.assertFalse(self.transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(self.transport.disconnected)
        self.assertFalse(deadline.active())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_patient(self) -> None:
        """
        Who takes some of it all the time may go on, and is cut off when that
        stops or is next to nothing.
        """
        self.close(True)
        for _ in range(5):
            self.left -= 10 * SLOWEST
            self.clock.advance(10)
        self.assertFalse(self.transport.disconnected)
        self.left -= 10 * SLOWEST - 1
        self.clock.advance(10)
        self.assertTrue(self.transport.disconnected)

    def test_cancel(self) -> None:
        """Whose connection is gone needs no deadline."""
        deadline = self.close(True)
        deadline.cancel()
        deadline.cancel()
        self.clock.advance(10)
        self.assertFalse(self.transport.disconnected)


class _Full(Protocol):
    """Writes much, and closes the connection when it is told to."""

    def __init__(self) -> None:
        self.begun: Deferred[None] = Deferred()
        self.over: Deferred[None] = Deferred()
        self._deadline: Any = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(bytes(32 * 2**20))
        self.begun.callback(None)

    def close(self, reactor: Any, seconds: float) -> None:
        self._deadline = WriteDeadline(reactor, self.transport, seconds, True)
        self._deadline.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._deadline.cancel()
        self.over.callback(None)


class KernelTests(TestCase):
    """Peers that do not read, over real connections."""

    timeout = 60

    async def full(self, creator: Any = None) -> tuple[_Full, socket.socket]:
        """Make a connection whose buffers are full; our end, and the peer's."""
        from twisted.internet import reactor

        self.reactor: Any = reactor
        protocol = _Full()
        factory = Factory.forProtocol(lambda: protocol)
        factory.noisy = False
        endpoint: Any = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        if creator is not None:
            endpoint = wrapServerTLS(creator, endpoint)
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        peer = socket.create_connection(("127.0.0.1", port.getHost().port))
        self.addCleanup(peer.close)
        await protocol.begun
        return protocol, peer

    async def test_notRead(self) -> None:
        """A peer that reads nothing is cut off, also where we are patient."""
        protocol, _ = await self.full()
        self.assertGreater(unsent(protocol.transport), 2**20)
        protocol.close(self.reactor, 0.1)
        await protocol.over

    async def test_notReadTLS(self) -> None:
        """Over TLS too, whose peer has not even said hello."""
        certificate, key = makeAuthority().issue(["localhost"])
        own = PrivateCertificate.loadPEM(certificate + key)
        self.assertIsInstance(own, Certificate)
        protocol, _ = await self.full(own.options())
        self.assertGreater(unsent(protocol.transport), 2**20)
        protocol.close(self.reactor, 0.1)
        await protocol.over


class SocketEndTests(SynchronousTestCase):
    """A stream's end on a socket of ours, whose far side does not take the rest."""

    def setUp(self) -> None:
        self.kernel, self.reactor = FakeKernel(), FakeReactor()
        self.poller = Poller(self.reactor, self.kernel)
        self.socket = self.kernel.socket()
        self.socket.room = 100
        made: Any = self.socket
        self.end = SocketEnd(self.poller, made, lambda end: None)
        self.end.begin()
        self.over: list[TunnelError | None] = []
        self.end.join(RecordingEnd(), self.over.append)

    def turn(self) -> None:
        for reader in list(self.reactor.readers):
            reader.doRead()
        self.reactor.advance(0)

    def close(self, rest: int) -> None:
        """End both directions while so many bytes wait to be sent."""
        self.end.write(b"x" * (self.socket.room + rest))
        self.socket.peerEnded = True
        self.turn()
        self.end.finish()
        self.assertEqual((True, rest), (self.end.isOpen, self.end.unsent))

    def wait(self, seconds: float) -> None:
        """Let time pass in steps, as a clock does."""
        for _ in range(int(seconds)):
            self.reactor.advance(1)
            self.turn()

    def test_takesNothing(self) -> None:
        """One that takes nothing is cut off with a reset, when its time is over."""
        self.close(1000)
        self.wait(CLOSE_TIMEOUT - 1)
        self.assertFalse(self.socket.closed)
        self.wait(3)
        self.assertEqual((True, True), (self.socket.closed, self.socket.wasReset))
        (reason,) = self.over
        self.assertIsNotNone(reason)
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_slow(self) -> None:
        """One that takes a little all the time may go on until it has everything."""
        rest = int(3 * CLOSE_TIMEOUT) * SLOWEST * 2
        self.close(rest)
        while self.end.unsent:
            self.socket.room += SLOWEST * 2
            self.wait(1)
        self.assertEqual((True, False), (self.socket.closed, self.socket.wasReset))
        self.assertEqual([None], self.over)
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_oneDirection(self) -> None:
        """While the far side may still send, there is no hurry."""
        self.end.finish()
        self.wait(2 * CLOSE_TIMEOUT)
        self.assertTrue(self.end.isOpen)
        self.end.abort()
