"""
Tests for L{tristunnel.dataplane.kernel}.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from twisted.internet.abstract import FileDescriptor
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.dataplane.gathering import GATHERED
from tristunnel.dataplane.kernel import (
    AT_ONCE,
    PIECES,
    PlainSink,
    canHandOver,
    handOver,
    holdsNothing,
    kernelSocket,
    probeSoon,
    sinkFor,
)


class _Socket:
    """
    A socket that has room for so many bytes.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent = b""
        self.calls = 0

    def sendmsg(self, data: Sequence[bytes]) -> int:
        """
        Take what there is room for.
        """
        self.calls += 1
        taken = b"".join(data)[: self.room]
        if not taken:
            raise BlockingIOError
        self.sent += taken
        self.room -= len(taken)
        return len(taken)


class TransportTests(SynchronousTestCase):
    """
    What Twisted's transports are like inside. If these fail, Twisted has
    changed, and all bytes go the long way.
    """

    def setUp(self) -> None:
        """
        Make a connection.
        """
        ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.addCleanup(ours.close)
        self.clock = self.reactor = MemoryReactorClock()
        self.transport = Connection(ours, Protocol(), self.reactor)
        self.transport.connected = 1
        self.socket = ours

    def test_plain(self) -> None:
        """
        A connection's socket is found; that of another transport is not.
        """
        self.assertIs(kernelSocket(self.transport), self.socket)
        self.assertIsNone(kernelSocket(StringTransport()))
        self.assertIsNone(kernelSocket(FileDescriptor(self.reactor)))
        self.transport.TLS = True
        self.assertIsNone(kernelSocket(self.transport))

    def test_probes(self) -> None:
        """
        A silent peer is asked for a sign of life long before two hours are
        over; a transport without a socket is left alone.
        """
        probeSoon(StringTransport())
        with socket.socket() as tcp:
            probeSoon(Connection(tcp, Protocol(), self.reactor))
            idle = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            self.assertEqual(idle, 60)

    def test_holds(self) -> None:
        """
        A transport holds what was written until it was sent.
        """
        self.assertTrue(holdsNothing(self.transport))
        self.transport.write(b"x" * 10)
        self.assertFalse(holdsNothing(self.transport))
        self.transport.doWrite()
        self.assertTrue(holdsNothing(self.transport))
        self.assertEqual(self.theirs.recv(100), b"x" * 10)

    def test_handOver(self) -> None:
        """
        Another protocol gets what comes from now on.
        """
        other = Protocol()
        taken: list[bytes] = []
        self.patch(other, "dataReceived", taken.append)
        self.assertTrue(handOver(self.transport, other))
        self.theirs.send(b"x")
        self.transport.doRead()
        self.assertEqual(taken, [b"x"])
        self.assertFalse(canHandOver(StringTransport()))
        self.assertFalse(handOver(StringTransport(), other))

    def test_sink(self) -> None:
        """
        A plain transport has a short way.
        """
        self.assertIsInstance(sinkFor(self.transport), PlainSink)
        other = StringTransport()
        self.assertIs(sinkFor(other), other)

    def check(self, room: int, *pieces: Sequence[bytes]) -> _Socket:
        """
        Write pieces where so many bytes go the short way, and look that all
        arrive in order once the turn is over.
        """
        plain = _Socket(room)
        sink = PlainSink(self.transport, plain)  # type: ignore[arg-type]
        for each in pieces:
            sink.writeSequence(each)
        self.before = plain.sent
        self.clock.advance(0)
        held = self.transport.dataBuffer + b"".join(self.transport._tempDataBuffer)
        whole = b"".join(piece for each in pieces for piece in each)
        self.assertTrue(plain.sent + held == whole)
        return plain

    def test_large(self) -> None:
        """
        What is large is sent at once.
        """
        large = [b"head", b"x" * AT_ONCE]
        self.check(10 * AT_ONCE, large, large)
        self.assertEqual(len(self.before), 2 * (4 + AT_ONCE))

    def test_small(self) -> None:
        """
        What is small is gathered until the turn is over.
        """
        plain = self.check(100, [b"head", b"x"], [b"y"])
        self.assertEqual((self.before, plain.calls), (b"", 1))

    def test_smallThenLarge(self) -> None:
        """
        Nothing large overtakes what is small.
        """
        small, large = [b"head", b"x"], [b"head", b"y" * AT_ONCE]
        plain = self.check(10 * AT_ONCE, small, large)
        self.assertEqual((self.before == plain.sent, plain.calls), (True, 1))

    def test_many(self) -> None:
        """
        Much that is small is sent in several goes, so that the peer has
        something to do meanwhile.
        """
        plain = self.check(AT_ONCE, *[[b"head", b"x"]] * (2 * PIECES))
        self.assertEqual(plain.calls, 4)

    def test_inTurn(self) -> None:
        """
        Within a turn of others it is sent when that is over.
        """
        plain = _Socket(100)
        sink = PlainSink(self.transport, plain)  # type: ignore[arg-type]
        GATHERED.begin()
        sink.write(b"one")
        sink.write(b"two")
        self.assertEqual(plain.sent, b"")
        GATHERED.end()
        self.assertEqual((plain.sent, plain.calls), (b"onetwo", 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flush(self) -> None:
        """
        Before a connection is closed, what was gathered is sent.
        """
        plain = _Socket(100)
        sink = PlainSink(self.transport, plain)  # type: ignore[arg-type]
        sink.write(b"goodbye")
        sink.flush()
        self.assertEqual(plain.sent, b"goodbye")
        self.clock.advance(0)
        self.assertEqual(plain.calls, 1)

    def test_afterTheTransport(self) -> None:
        """
        Nothing overtakes what the transport holds.
        """
        plain = _Socket(100)
        sink = PlainSink(self.transport, plain)  # type: ignore[arg-type]
        self.transport.write(b"first")
        sink.write(b"second")
        self.clock.advance(0)
        self.assertEqual(plain.sent, b"")
        self.transport.doWrite()
        self.assertEqual(self.theirs.recv(100), b"firstsecond")

    def test_partly(self) -> None:
        """
        What the socket does not take goes the long way, in order.
        """
        large = [b"head", b"x" * AT_ONCE, b"tail" * AT_ONCE]
        for room in (0, 2, 4, 100, AT_ONCE + 4, AT_ONCE + 5):
            self.transport.dataBuffer = b""
            self.transport._tempDataBuffer, self.transport._tempDataLen = [], 0
            self.check(room, large, large)
