"""Tests for L{tristunnel.processes.channel} and L{tristunnel.processes.link}."""

from __future__ import annotations

import errno
import os
import resource
import socket
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.processes.fakes import FakeReactor, descriptors
from tristunnel.errors import TunnelError
from tristunnel.processes import channel as channelModule
from tristunnel.processes.channel import PIECE, Channel, Message, firstOf, pair
from tristunnel.processes.link import PATIENCE, Link


class ChannelTests(SynchronousTestCase):
    """Messages between two ends."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.came: list[Message] = []
        self.lost = 0
        ours, theirs = pair()
        self.one = Channel(self.reactor, ours, self.came.append)
        self.other = Channel(self.reactor, theirs, self.came.append, self._lost)
        self.addCleanup(self.one.close)
        self.addCleanup(self.other.close)

    def _lost(self) -> None:
        self.lost += 1

    def pump(self, count: int) -> None:
        for _ in range(10_000):
            if len(self.came) >= count:
                return
            self.reactor.turn()
        self.fail(f"{len(self.came)} of {count} messages came")

    def test_message(self) -> None:
        """The object, the bytes and the sockets arrive together."""
        end, far = socket.socketpair()
        self.addCleanup(far.close)
        self.one.send({"a": [1, "é"]}, b"\0bytes", [end])
        self.pump(1)
        (message,) = self.came
        self.assertEqual((message.head, message.data), ({"a": [1, "é"]}, b"\0bytes"))
        self.assertEqual(end.fileno(), -1)
        message.sockets[0].send(b"through")
        self.assertEqual(far.recv(10), b"through")
        message.close()

    def test_copied(self) -> None:
        """A copy of a socket that came does not make it block for who has it, too."""
        end, far = socket.socketpair()
        end.setblocking(False)
        kept = end.dup()
        self.addCleanup(kept.close)
        self.addCleanup(far.close)
        self.one.send({}, b"", [end])
        self.pump(1)
        self.came[0].sockets[0].dup().close()
        self.assertFalse(os.get_blocking(kept.fileno()))
        self.came[0].close()

    @settings(
        max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None
    )
    @given(st.lists(st.integers(0, 4 * PIECE), max_size=6))
    def test_order(self, sizes: list[int]) -> None:
        """Messages of all sizes come whole and in order."""
        self.came.clear()
        for number, size in enumerate(sizes):
            self.one.send({"n": number}, bytes([number]) * size)
        self.pump(len(sizes))
        self.assertEqual(
            [(each.head["n"], each.data) for each in self.came],
            [(number, bytes([number]) * size) for number, size in enumerate(sizes)],
        )

    def test_queueFull(self) -> None:
        """
        Somebody who does not read has a bounded queue; more is refused, its sockets
        are closed, and what was taken arrives later.
        """
        self.patch(channelModule, "MOST_WAITING", 50)
        before = descriptors()
        sent = 0
        with self.assertRaises(TunnelError) as raised:
            for _ in range(10_000):
                end, far = socket.socketpair()
                far.close()
                self.one.send({"n": sent}, b"x" * 5000, [end])
                sent += 1
        self.assertEqual(raised.exception.code.name, "limit-reached")
        self.assertEqual(end.fileno(), -1)
        self.assertLessEqual(descriptors(), before + 50)
        self.pump(sent)
        self.assertEqual([each.head["n"] for each in self.came], list(range(sent)))
        for message in self.came:
            message.close()
        self.assertEqual(descriptors(), before)

    def test_closedWhileFull(self) -> None:
        """The end of a channel closes what waits to be sent."""
        before = descriptors()
        for _ in range(300):
            end, far = socket.socketpair()
            far.close()
            self.one.send({}, b"x" * 5000, [end])
        self.other.close()
        self.one.doWrite()
        self.assertFalse(self.one.isOpen)
        self.assertLessEqual(descriptors(), before - 2)
        with self.assertRaises(TunnelError) as raised:
            self.one.send({})
        self.assertEqual(raised.exception.code.name, "session-lost")

    def test_tooManyOnTheirWay(self) -> None:
        """Descriptors for which the kernel has no room are sent again later."""
        tries: list[int] = []

        def sendmsg(connection: socket.socket, packet: Any) -> None:
            tries.append(1)
            if len(tries) < 3:
                raise OSError(errno.ETOOMANYREFS, "too many references")
            sendOne(connection, packet)

        sendOne = self.one._sendOne
        self.patch(self.one, "_sendOne", sendmsg)
        self.one.send({"a": 1})
        for _ in range(3):
            self.reactor.advance(channelModule.PAUSE)
        self.pump(1)
        self.assertEqual(len(tries), 3)

    def test_receiverWithoutDescriptors(self) -> None:
        """
        What the receiver has no descriptor for, is closed by the kernel; the message
        says so, and no other is lost.
        """
        end, far = socket.socketpair()
        self.addCleanup(far.close)
        self.one.send({"n": 1}, b"", [end])
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        probe = os.dup(0)
        os.close(probe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
        try:
            self.other.doRead()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(self.came[0].sockets, [])
        self.assertTrue(self.came[0].missing)
        self.assertEqual(far.recv(1), b"")
        self.one.send({"n": 2})
        self.pump(2)
        self.assertFalse(self.came[1].missing)

    def test_lost(self) -> None:
        """The end of the other process is told once."""
        self.one.close()
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(self.lost, 1)
        self.assertEqual(self.other.fileno(), -1)

    def test_nonsense(self) -> None:
        """What is no message ends nothing but itself."""
        assert self.one._socket is not None
        self.one._socket.send(b"\0\xff\xff\xff\xff{")
        self.reactor.turn()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.one.send({"a": 1})
        self.pump(1)

    def test_first(self) -> None:
        """The first message can be waited for, before there is a reactor."""
        ours, theirs = pair()
        self.addCleanup(theirs.close)
        channel = Channel(self.reactor, ours, self.came.append)
        end, far = socket.socketpair()
        self.addCleanup(far.close)
        channel.send({"method": "begin"}, b"data", [end])
        message = firstOf(theirs)
        self.assertEqual((message.head, message.data), ({"method": "begin"}, b"data"))
        self.assertEqual(len(message.sockets), 1)
        message.close()
        channel.close()
        self.assertRaises(OSError, firstOf, theirs)


class LinkTests(TestCase):
    """Questions and answers."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.lost: list[Link] = []
        ours, theirs = pair()
        methods: dict[str, Any] = {
            "double": lambda asker, number: 2 * number,
            "count": lambda asker: len(asker.message.sockets),
            "never": lambda asker: Deferred(),
            "refuse": self._refuse,
        }
        self.one = Link(self.reactor, ours, methods.get, self.lost.append, 1)
        self.other = Link(self.reactor, theirs, methods.get)
        self.addCleanup(self.one.close)
        self.addCleanup(self.other.close)

    def _refuse(self, asker: object) -> None:
        raise TunnelError("unknown-tunnel", "there is none")

    def answer(self, asked: Deferred[Any]) -> Any:
        for _ in range(10):
            self.reactor.turn()
        return self.successResultOf(asked)

    def test_asked(self) -> None:
        """An answer comes back, and sockets come along with the question."""
        self.assertEqual(self.answer(self.one.call("double", [21])), 42)
        end, far = socket.socketpair()
        far.close()
        self.assertEqual(self.answer(self.one.call("count", (), b"", [end])), 1)

    def test_refused(self) -> None:
        """A refusal crosses with its code."""
        asked = self.one.call("refuse")
        for _ in range(10):
            self.reactor.turn()
        error = self.failureResultOf(asked, TunnelError).value
        self.assertEqual(error.code.name, "unknown-tunnel")

    def test_late(self) -> None:
        """Nobody waits for ever."""
        asked = self.one.call("never")
        self.reactor.turn()
        self.reactor.advance(PATIENCE)
        error = self.failureResultOf(asked, TunnelError).value
        self.assertIn("did not answer", error.message)

    def test_lost(self) -> None:
        """With the other process, all that was asked of it fails."""
        asked = self.one.call("never")
        self.other.close()
        self.reactor.turn()
        error = self.failureResultOf(asked, TunnelError).value
        self.assertEqual(error.code.name, "session-lost")
        self.assertEqual(self.lost, [self.one])
        error = self.failureResultOf(self.one.call("double", [1]), TunnelError).value
        self.assertEqual(error.code.name, "session-lost")
