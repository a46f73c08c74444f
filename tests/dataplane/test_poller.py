"""
Tests for L{tristunnel.dataplane.poller} and L{tristunnel.dataplane.polled}, on a
kernel in memory.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.dataplane.kernel import (
    FakeKernel,
    FakeReactor,
    FakeSocket,
    FakeTLS,
    fakePoller,
)
from tristunnel.dataplane import records
from tristunnel.dataplane.polled import PolledSocket
from tristunnel.dataplane.poller import READ, Poller
from tristunnel.dataplane.records import MOST_RECORDS


class Recording(PolledSocket):
    """Notes what happens, and does what a test wants done then."""

    def __init__(self, poller: Poller, connection: Any, tls: Any = None) -> None:
        super().__init__(poller, connection, tls)
        self.data = b""
        self.ended = False
        self.drains = 0
        self.reason: Failure | None = None
        self.whenReceived: Callable[[bytes], None] = lambda data: None

    def bytesReceived(self, data: bytes) -> None:
        assert self.reason is None, "bytes after the end"
        self.data += data
        self.whenReceived(data)

    def readEnded(self) -> None:
        assert not self.ended, "ended twice"
        self.ended = True

    def drained(self) -> None:
        self.drains += 1

    def lost(self, reason: Failure) -> None:
        assert self.reason is None, "lost twice"
        self.reason = reason


class PolledTestCase(SynchronousTestCase):
    """Sockets of a kernel in memory."""

    def setUp(self) -> None:
        self.kernel = FakeKernel()
        self.reactor = FakeReactor()
        self.poller = fakePoller(self.reactor, self.kernel)

    def make(self, tls: type[FakeTLS] | None = None) -> tuple[Recording, FakeSocket]:
        connection = self.kernel.socket()
        made = Recording(self.poller, connection, tls and tls(connection))
        made.start()
        return made, connection

    def turn(self) -> None:
        for reader in list(self.reactor.readers):
            reader.doRead()
        self.reactor.advance(0)


class ByteTLS(FakeTLS):
    """TLS with a byte in each record, up and running."""

    def __init__(self, below: FakeSocket) -> None:
        super().__init__(below)
        self.shaken = True

    def recv(self, size: int) -> bytes:
        return super().recv(1)


class GreedyTLS(ByteTLS):
    """TLS that takes more from the kernel than it was asked for."""

    held = b""

    def recv(self, size: int) -> bytes:
        if not self.held:
            self.held = FakeTLS.recv(self, 100)
        data, self.held = self.held[:1], self.held[1:]
        return data

    def pending(self) -> int:
        return len(self.held)


class RecordTests(PolledTestCase):
    """Records of TLS."""

    def test_tiny(self) -> None:
        """Who puts a byte into each has no longer turn than others, and loses none."""
        for kind in (ByteTLS, GreedyTLS):
            made, connection = self.make(kind)
            sizes: list[int] = []

            def note(data: bytes, sizes: list[int] = sizes) -> None:
                sizes.append(len(data))

            made.whenReceived = note
            said = connection.incoming = bytes(range(256)) * 40
            for _ in range(100):
                self.turn()
            self.assertEqual(made.data, said)
            self.assertLessEqual(max(sizes), MOST_RECORDS)

    def test_newOwner(self) -> None:
        """Who becomes the owner gets what OpenSSL holds, though the kernel is empty."""
        made, connection = self.make(GreedyTLS)
        connection.incoming = b"0123456789"
        heir = Recording(self.poller, connection)

        def leave(data: bytes) -> None:
            made.whenReceived = lambda data: None
            heir.takeOver(made)

        self.patch(records, "MOST_RECORDS", 3)
        made.whenReceived = leave
        for _ in range(10):
            self.turn()
        self.assertEqual((made.data, heir.data), (b"012", b"3456789"))


class PollerTests(PolledTestCase):
    """Turns."""

    def test_noDescriptorWhileEmpty(self) -> None:
        """The reactor knows the instance only while there are sockets."""
        self.assertEqual(set(), self.reactor.readers)
        made, _ = self.make()
        self.assertEqual({self.poller}, self.reactor.readers)
        made.abort()
        self.assertEqual((set(), False), (self.reactor.readers, self.kernel.opened))

    def test_closedByAnotherInTheSameTurn(self) -> None:
        """A socket that another one's bytes close gets no event of that turn."""
        first, one = self.make()
        second, two = self.make()
        one.incoming = two.incoming = b"x"
        first.whenReceived = lambda data: second.abort()
        self.turn()
        self.assertEqual((b"x", b""), (first.data, second.data))
        assert second.reason is not None
        second.reason.trap(ConnectionAborted)

    def test_resumedInTheSameTurn(self) -> None:
        """
        A socket that hung up while nobody read it, and that is read again because
        of another one's event of the same turn, loses nothing.
        """
        first, one = self.make()
        second, two = self.make()
        second.hold()
        one.incoming = b"x"
        two.incoming, two.peerEnded, two.hungUp = b"all", True, True
        first.whenReceived = lambda data: second.resume()
        for _ in range(3):
            self.turn()
        self.assertEqual((b"all", True), (second.data, second.ended))

    def test_numberReusedInTheSameTurn(self) -> None:
        """
        A connection that comes while another one's event waits does not get
        that event, nor that one's number.
        """
        first, one = self.make()
        second, two = self.make()
        one.incoming = two.incoming = b"old"
        taken: list[Recording] = []

        def replace(data: bytes) -> None:
            second.abort()
            taken.append(self.make()[0])

        first.whenReceived = replace
        self.turn()
        self.assertEqual(b"", taken[0].data)
        self.assertNotEqual(two.number, taken[0].connection.fileno())
        self.assertTrue(two.closed)
        self.turn()
        self.assertEqual(b"", taken[0].data)

    def test_exceptionEndsOneOnly(self) -> None:
        """
        What one socket's code raises ends it, is logged once, and the others of
        the turn are served.
        """
        first, one = self.make()
        second, two = self.make()

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        first.whenReceived = fail
        one.incoming = two.incoming = b"x"
        self.turn()
        assert first.reason is not None
        first.reason.trap(ZeroDivisionError)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual((b"x", None), (second.data, second.reason))

    def test_bulkBehindOthers(self) -> None:
        """Who had much to read comes behind those who had not."""
        served: list[str] = []
        sockets = []
        for name in ("bulk", "keystroke"):
            made, connection = self.make()

            def note(data: bytes, name: str = name) -> None:
                served.append(name)

            made.whenReceived = note
            sockets.append(connection)

        def turn(*sizes: int) -> list[str]:
            served.clear()
            for connection, size in zip(sockets, sizes, strict=True):
                connection.incoming = bytes(size)
            self.turn()
            return list(served)

        self.assertEqual(turn(READ, 1), ["bulk", "keystroke"])
        self.assertTrue(self.poller.isForBulkAlone)
        self.assertEqual(turn(READ, 1), ["keystroke", "bulk"])
        self.assertFalse(self.poller.isForBulkAlone)
        self.reactor.advance(2)
        self.assertTrue(self.poller.isForBulkAlone)
        turn(1, 0)
        self.assertEqual(turn(1, 1), ["bulk", "keystroke"])


class PolledSocketTests(PolledTestCase):
    """One connection."""

    def test_gathered(self) -> None:
        """What is gathered in a turn goes out in one piece at its end."""
        made, connection = self.make()
        calls: list[bytes] = []
        send = made._send

        def counted(data: Any, *flags: int) -> int:
            calls.append(bytes(data))
            return send(data, *flags)

        made._send = counted
        made.gather([b"a", b"b"])
        made.gather([b"c"])
        self.assertEqual(b"", connection.outgoing)
        self.turn()
        self.assertEqual((b"abc", [b"abc"]), (connection.outgoing, calls))

    def test_held(self) -> None:
        """Nothing is read while reading is held, and all of it afterwards."""
        made, connection = self.make()
        made.hold()
        connection.incoming = b"later"
        self.turn()
        self.assertEqual(b"", made.data)
        made.resume()
        self.turn()
        self.assertEqual(b"later", made.data)

    def test_halfClose(self) -> None:
        """Each direction has its own end; the socket is closed after both."""
        made, connection = self.make()
        connection.peerEnded = True
        self.turn()
        self.assertTrue(made.ended)
        made.write(b"still")
        self.turn()
        self.assertEqual((b"still", False), (connection.outgoing, connection.closed))
        made.endWriting()
        self.turn()
        assert made.reason is not None
        made.reason.trap(ConnectionDone)
        self.assertTrue(connection.closed)

    def test_endWaitsForBytes(self) -> None:
        """The end comes after all bytes that wait."""
        made, connection = self.make()
        connection.room = 2
        made.write(b"12345")
        made.endWriting()
        self.assertFalse(connection.weEnded)
        connection.room = 100
        self.turn()
        self.assertEqual((b"12345", True), (connection.outgoing, connection.weEnded))

    def test_brokenWhileHeld(self) -> None:
        """A reset is noticed though nobody reads."""
        made, connection = self.make()
        made.hold()
        connection.problem = errno.ECONNRESET
        self.turn()
        assert made.reason is not None
        made.reason.trap(ConnectionLost)

    def test_giveAway(self) -> None:
        """
        A socket that was given away is open, watched by nobody, and no end is
        told.
        """
        made, connection = self.make()
        self.assertIs(connection, made.giveAway())
        self.assertEqual((False, {}), (connection.closed, self.kernel.watched))
        self.assertIsNone(made.reason)

    def test_giveAwayWithBytes(self) -> None:
        """One with bytes that wait cannot be given away."""
        made, connection = self.make()
        connection.room = 0
        made.write(b"x")
        self.assertRaises(ValueError, made.giveAway)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["in", "out", "hold", "resume", "room", "eof", "end", "turn"]
                ),
                st.binary(max_size=40),
            ),
            max_size=40,
        )
    )
    def test_everyByteInOrder(self, steps: list[tuple[str, bytes]]) -> None:
        """
        Whatever happens in whatever order, each direction's bytes come through
        whole and in order, and an orderly end after them.
        """
        self.setUp()
        made, connection = self.make()
        connection.room = 16
        sent = written = b""
        for step, data in steps:
            if step == "in" and not connection.peerEnded:
                connection.incoming += data
                sent += data
            elif step == "out" and not made._writeEnding and made.isOpen:
                if len(data) % 2:
                    made.write(data)
                else:
                    made.gather([data[:7], data[7:]])
                written += data
            elif step == "hold":
                made.hold()
            elif step == "resume":
                made.resume()
            elif step == "room":
                connection.room = len(data)
            elif step == "eof":
                connection.peerEnded = True
            elif step == "end":
                made.endWriting()
            self.turn()
        made.resume()
        connection.room = 1 << 20
        connection.peerEnded = True
        made.endWriting()
        for _ in range(5):
            self.turn()
        self.assertEqual((sent, written), (made.data, connection.outgoing))
        assert made.reason is not None
        made.reason.trap(ConnectionDone)
        self.assertTrue(connection.closed)
