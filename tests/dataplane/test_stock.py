"""
Tests for L{tristunnel.dataplane.stock}: services that are stock endpoints of
Twisted, with transports that promise little.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet._posixstdio import StandardIO
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import ProcessEndpoint
from twisted.internet.error import ConnectionDone, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.dialects.framed.memory import Pair, RecordingEnd, extendedPair
from tristunnel.dataplane.descriptors import Reserve
from tristunnel.dataplane.stock import MOST_UNASKED, completed
from tristunnel.dataplane.transport_end import TransportEnd
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.errors import TunnelError
from tristunnel.forwards import service_connector as local
from tristunnel.forwards.service_connector import ServiceConnector
from tristunnel.model.observer import ClientObserver

reactor: Any = _reactor


@implementer(ITransport)
class BareTransport:
    """
    A transport that has what L{ITransport} promises, as conch's channel has.

    @ivar closed: Whether it was told to close.
    """

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def writeSequence(self, data: Any) -> None:
        self.written += b"".join(data)

    def loseConnection(self) -> None:
        self.closed = True

    def getPeer(self) -> Any:
        return None

    def getHost(self) -> Any:
        return None


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    A service whose transport is given.

    @ivar protocols: What was connected.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.protocols: list[Any] = []

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        protocol = protocolFactory.buildProtocol(None)
        self.protocols.append(protocol)
        transport = self._transport
        protocol.makeConnection(transport() if callable(transport) else transport)
        connected: Deferred[Any] = Deferred()
        connected.callback(protocol)
        return connected


def session(clock: Any, endpoint: Any) -> Pair:
    """Make a session whose client leads every visitor to C{endpoint}."""
    pair = extendedPair()
    connector = ServiceConnector(clock, ClientObserver())

    def opened(stream: SessionStream, info: dict[str, object]) -> None:
        connector.connect(stream, "it", endpoint, pair.client.multiplexer.accept)

    pair.client.multiplexer._opened = opened
    return pair


class BareTests(SynchronousTestCase):
    """Services in memory."""

    def test_visitorLeaves(self) -> None:
        """
        A visitor that ends, and one that breaks off, have the service's
        connection ended as far as it can be; the session goes on.
        """
        for leave in (RecordingEnd.end, RecordingEnd.crash):
            bare, fake = BareTransport(), FakeTransport(None, False)
            for transport in (bare, fake):
                pair = session(Clock(), MemoryEndpoint(transport))
                visitor = pair.server.open()
                visitor.say(b"hello")
                pair.settle()
                leave(visitor)
                pair.settle()
                again = pair.server.open()
                again.say(b"hello")
                pair.settle()
                self.assertIsNone(again.broken)
            self.assertTrue(bare.closed)
            # It can be closed for one direction.
            self.assertEqual(bool(fake.disconnecting), leave is RecordingEnd.crash)

    def test_noDescriptors(self) -> None:
        """
        When only the reserve is left, visitors are refused before a descriptor
        is taken for them, whether it is used already or will be as soon as a
        name is found; later ones are served again.
        """
        used = 0
        reserve = Reserve(lambda: 40, lambda: used)
        self.patch(local, "RESERVE", reserve)
        names: list[Deferred[Any]] = []

        class Looking(MemoryEndpoint):
            def connect(self, protocolFactory: Any) -> Deferred[Any]:
                looking: Deferred[Any] = Deferred()
                names.append(looking)
                return looking

        pair = session(Clock(), Looking(None))
        visitors = [pair.server.open() for _ in range(31)]
        pair.settle()
        self.assertEqual((len(names), reserve.expected), (30, 30))
        self.assertEqual([v.broken is not None for v in visitors].count(True), 1)
        assert visitors[-1].broken is not None
        self.assertEqual(visitors[-1].broken.code.name, "limit-reached")
        for looking in names[:20]:
            looking.errback(DNSLookupError())
        visitors[-2].crash()
        pair.settle()
        self.assertEqual(reserve.expected, 9)
        pair.server.open()
        pair.settle()
        used = 30
        pair.server.open()
        pair.settle()
        self.assertEqual(len(names), 31)

    def test_serviceLeaves(self) -> None:
        """A transport may have nothing to say of its end."""
        for reason in (Failure(ConnectionDone()), None):
            endpoint = MemoryEndpoint(BareTransport())
            pair = session(Clock(), endpoint)
            visitor = pair.server.open()
            visitor.say(b"hello")
            pair.settle()
            endpoint.protocols[0].dataReceived(b"bye")
            endpoint.protocols[0].connectionLost(reason)
            pair.settle()
            self.assertEqual(visitor.taken, b"bye")
            self.assertEqual(visitor.finishes, 1)

    def test_neverPauses(self) -> None:
        """What is taken from a transport that cannot be paused is bounded."""
        endpoint = MemoryEndpoint(BareTransport())
        pair = session(Clock(), endpoint)
        visitor = pair.server.open()
        visitor.say(b"hello")
        pair.settle()
        pair.client.multiplexer.pauseProducing()
        size = 64 * 1024
        for _ in range(MOST_UNASKED // size + 3):
            endpoint.protocols[0].dataReceived(bytes(size))
        self.assertFalse(pair.client.multiplexer.streams)
        pair.settle()
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "stalled")

    def test_complete(self) -> None:
        """A transport that lacks nothing stays itself."""
        transport = TransportEnd(Clock(), lambda end: None)
        whole = FakeTransport(transport, False)
        self.assertIs(completed(whole), whole)


class ProcessTests(TestCase):
    """Services that are child processes."""

    def serve(self, code: str) -> Pair:
        """Have a process of its own serve each visitor."""
        return session(
            reactor,
            ProcessEndpoint(reactor, sys.executable, [sys.executable, "-c", code]),
        )

    async def until(self, pair: Pair, visitor: RecordingEnd, done: Any) -> None:
        while not done():
            pair.settle()
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.01, turn.callback, None)
            await turn
        pair.settle()

    async def test_halfClose(self) -> None:
        """A process sees the end of what its visitor sends and may answer then."""
        pair = self.serve("import sys; print(len(sys.stdin.read()))")
        visitor = pair.server.open()
        visitor.say(b"x" * 1000)
        visitor.end()
        await self.until(pair, visitor, lambda: visitor.finishes)
        self.assertEqual(visitor.taken, b"1000\n")
        self.assertFalse(pair.client.multiplexer.streams)

    async def test_reset(self) -> None:
        """A process whose visitor breaks off is ended, even if it reads nothing."""
        pair = self.serve(
            "import time, os; print(os.getpid(), flush=True); time.sleep(99)"
        )
        visitor = pair.server.open()
        visitor.say(b"x")
        await self.until(pair, visitor, lambda: b"\n" in visitor.taken)
        number = int(visitor.taken)
        visitor.crash()

        def ended() -> bool:
            try:
                os.kill(number, 0)
            except ProcessLookupError:
                return True
            return False

        await self.until(pair, visitor, ended)
        self.assertFalse(pair.client.multiplexer.streams)


class StandardIOTests(TestCase):
    """Pipes, as C{stdio:} has them."""

    async def test_reset(self) -> None:
        """
        A visitor at standard input and output can be closed, though not aborted,
        before it is joined and after.
        """
        for joined in (False, True):
            reading, feed = os.pipe()
            result, writing = os.pipe()
            lost: Deferred[None] = Deferred()
            shown: list[TransportEnd] = []

            class End(TransportEnd):
                def connectionLost(self, reason: Any = None) -> None:
                    super().connectionLost(reason)
                    lost.callback(None)  # noqa: B023

            end = End(reactor, shown.append)
            StandardIO(end, reading, writing, reactor)
            self.assertEqual(shown, [end])
            if joined:
                end.join(RecordingEnd(), lambda reason: None)
            end.reset(TunnelError("reset"))
            await lost
            for number in (feed, result):
                os.close(number)
