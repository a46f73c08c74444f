"""
Tests for L{tristunnel.dataplane.watched} and L{tristunnel.dataplane.writing}, without
what reads, on a kernel in memory.
"""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.dataplane.kernel import FakeKernel, FakeReactor, fakePoller
from tristunnel.dataplane.poller import IN, OUT
from tristunnel.dataplane.writing import WritingSocket


class Writing(WritingSocket):
    """Sends, and notes what happens."""

    def __init__(self, poller: Any, connection: Any) -> None:
        super().__init__(poller, connection)
        self.notes: list[str] = []
        self.reason: Failure | None = None

    def ready(self, events: int) -> None:
        if events & OUT:
            self._drain()

    def drained(self) -> None:
        self.notes.append("drained")

    def waits(self) -> None:
        self.notes.append("waits")

    def notTaken(self) -> None:
        self.notes.append("not taken")

    def writeEnded(self) -> None:
        self.notes.append("ended")

    def lost(self, reason: Failure) -> None:
        assert self.reason is None, "lost twice"
        self.reason = reason


class WritingSocketTests(SynchronousTestCase):
    """One connection that is not read."""

    def setUp(self) -> None:
        self.kernel = FakeKernel()
        self.reactor = FakeReactor()
        self.poller = fakePoller(self.reactor, self.kernel)
        self.connection = self.kernel.socket()
        self.made = Writing(self.poller, self.connection)
        self.made.start()

    def turn(self) -> None:
        for reader in list(self.reactor.readers):
            reader.doRead()
        self.reactor.advance(0)

    @property
    def asked(self) -> int:
        return self.kernel.watched[self.connection.number]

    def test_room(self) -> None:
        """What finds no room waits until there is some, with the end behind it."""
        made, connection = self.made, self.connection
        self.assertEqual(self.asked, IN)
        connection.room = 2
        made.write(b"12345")
        made.endWriting()
        self.assertEqual((self.asked, made.unsent), (IN | OUT, 3))
        self.turn()
        self.assertFalse(connection.weEnded)
        connection.room = 100
        self.turn()
        self.assertEqual((connection.outgoing, self.asked), (b"12345", IN))
        self.assertTrue(connection.weEnded)
        self.assertEqual(made.notes, ["waits", "ended"])

    def test_gathered(self) -> None:
        """What is gathered goes out when the turn ends."""
        self.made.gather([b"a", b"", b"b"])
        self.assertEqual(self.connection.outgoing, b"")
        self.turn()
        self.assertEqual(self.connection.outgoing, b"ab")
        self.assertEqual(self.made.notes, ["drained"])

    def test_over(self) -> None:
        """Once it is gone, nothing waits any more, and nothing is taken."""
        made, connection = self.made, self.connection
        connection.room = 0
        made.write(b"waits")
        made.abort()
        self.assertEqual((made.unsent, connection.closed), (0, True))
        self.assertEqual(self.kernel.watched, {})
        made.write(b"too late")
        self.assertEqual(made.notes, ["waits", "not taken"])
        assert made.reason is not None
        made.reason.trap(ConnectionAborted)
        made.abort()

    def test_broken(self) -> None:
        """An error of the kernel's ends it."""
        self.connection.problem = errno.ECONNRESET
        self.made.write(b"never arrives")
        assert self.made.reason is not None
        self.made.reason.trap(ConnectionLost)
        self.assertFalse(self.made.isOpen)
