"""
Tests for L{tristunnel.dataplane.reading}, on real sockets.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.dataplane.test_splice import Spliced
from tristunnel.dataplane.gathering import GATHERED, Gathered
from tristunnel.dataplane.reading import ReadySet, readySetOf
from tristunnel.dataplane.sockets import CHATTY
from tristunnel.errors import TunnelError

reactor: Any = _reactor


class _End(Protocol):
    """
    An end that takes notes.

    @ivar failing: Raised by what comes next.
    """

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None
        self.left = 0
        self.failing: Exception | None = None

    def dataReceived(self, data: bytes) -> None:
        """
        Take bytes.
        """
        if self.failing is not None:
            raise self.failing
        self.data += data

    def leaveReadySet(self) -> None:
        """
        Take note.
        """
        self.left += 1

    def connectionLost(self, reason: Any = None) -> None:
        """
        Take note.
        """
        self.lost = reason


class _Reactor:
    """
    Knows who wants to be read.
    """

    def __init__(self) -> None:
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        """
        Read somebody.
        """
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        """
        Read somebody no more.
        """
        self.readers.discard(reader)

    removeWriter = removeReader


class ReadySetTests(SynchronousTestCase):
    """
    Ends in a set, whose other sides the test has.
    """

    if not hasattr(__import__("select"), "epoll"):
        skip = "this system has no epoll"

    def setUp(self) -> None:
        """
        Make a set.
        """
        self.reactor: Any = _Reactor()
        self.ready = ReadySet(self.reactor)

    def end(self) -> tuple[_End, socket.socket, int]:
        """
        Make an end in the set.

        @return: It, its other side, and what leaves the set.
        """
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        ours.setblocking(False)
        end = _End()
        transport = Connection(ours, end, self.reactor)
        transport.connected = 1
        transport.startReading()
        return end, theirs, self.ready.enter(ours, transport, end)

    def test_oneForAll(self) -> None:
        """
        The reactor reads the set in the place of its ends, and all that are
        ready are read in one turn.
        """
        ends = [self.end() for _ in range(5)]
        self.assertEqual(self.reactor.readers, {self.ready})
        for number, (_, theirs, _) in enumerate(ends[:4]):
            theirs.send(b"%d" % number)
        self.ready.doRead()
        self.assertEqual(
            [end.data for end, _, _ in ends], [b"0", b"1", b"2", b"3", b""]
        )

    def test_empty(self) -> None:
        """
        An empty set has no descriptor, and can be used again.
        """
        for _ in range(2):
            ends = [self.end(), self.end()]
            self.assertGreaterEqual(self.ready.fileno(), 0)
            for _, _, number in ends:
                self.ready.leave(number)
            self.assertEqual(self.ready.fileno(), -1)
            self.assertEqual(self.reactor.readers, set())
            self.assertEqual(len(self.ready), 0)

    def test_noRoom(self) -> None:
        """
        Where the kernel has no descriptor or no memory left, an end is read by
        its transport as before.
        """

        def full() -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        class Full:
            """
            An epoll set that takes nothing more.
            """

            def register(self, number: int, events: int) -> None:
                """Refuse."""
                raise OSError(errno.ENOSPC, "No space left on device")

            def close(self) -> None:
                """Nothing to close."""

        for make in (full, Full):
            self.ready.makePoll = make
            _, _, number = self.end()
            self.assertEqual(number, -1)
            self.assertEqual(len(self.ready), 0)
            self.assertNotIn(self.ready, self.reactor.readers)
        self.assertEqual(len(self.reactor.readers), 2)

    def test_over(self) -> None:
        """
        Where nothing more comes, the transport takes over.
        """
        end, theirs, number = self.end()
        theirs.close()
        self.ready.doRead()
        self.assertEqual((end.left, end.data), (1, b""))
        self.ready.leave(number)

    def test_bytesBeforeTheEnd(self) -> None:
        """
        What came before the end is read first, by either.
        """
        end, theirs, number = self.end()
        theirs.send(b"last words")
        theirs.shutdown(socket.SHUT_WR)
        self.ready.doRead()
        self.ready.doRead()
        self.assertEqual((end.left, end.data), (1, b"last words"))
        self.ready.leave(number)

    def test_failing(self) -> None:
        """
        An error in what one end does ends that one; others are read.
        """
        bad, hers, _ = self.end()
        good, his, number = self.end()
        bad.failing = RuntimeError("a bug")
        hers.send(b"x")
        his.send(b"y")
        self.ready.doRead()
        self.assertEqual(good.data, b"y")
        assert bad.lost is not None
        self.assertTrue(bad.lost.check(RuntimeError))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.ready), 1)
        self.ready.leave(number)

    def test_leavesMeanwhile(self) -> None:
        """
        An end that leaves because of what another one had is not read.
        """
        hers = self.end()[1]
        second, his, number = self.end()

        def leave(data: bytes) -> None:
            self.ready.leave(number)

        hers.send(b"x")
        his.send(b"y")
        # Whichever is asked first has the other one leave.
        for entry in self.ready._entries.values():
            entry.received = leave
        self.ready._entries[number].received = second.dataReceived
        order = [n for n, _ in self.ready._poll.poll(0)]
        self.ready.doRead()
        self.assertEqual(second.data, b"" if order[0] != number else b"y")

    def test_without(self) -> None:
        """
        A reactor that takes no descriptors has no set.
        """
        self.assertIsNone(readySetOf(Clock()))


class ChattyTests(Spliced):
    """
    Joined ends that are read again and again.
    """

    if readySetOf(reactor) is None:
        skip = "this reactor has no such set"

    async def chat(self, rounds: int = 3 * CHATTY) -> None:
        """
        Say something small, often.
        """
        for _ in range(rounds):
            self.one.say(b"question")
            await self.other.has(8)
            self.other.data.clear()
            self.other.say(b"answer")
            await self.one.has(6)
            self.one.data.clear()

    def together(self) -> list[bool]:
        """
        Which ends are read together with others.
        """
        return [end._readyNumber >= 0 for end in self.ends]

    async def test_enters(self) -> None:
        """
        Both ends enter the set, and are counted as ever.
        """
        await self.meet()
        await self.chat(CHATTY - 1)
        self.assertEqual(self.together(), [False, False])
        await self.chat(1)
        self.assertEqual(self.together(), [True, True])
        await self.chat()
        self.assertEqual(
            [e.received for e in self.ends], [8 * 4 * CHATTY, 6 * 4 * CHATTY]
        )
        self.one.finish()
        self.other.finish()
        await self.allOver
        self.assertEqual(self.over, [None, None])
        self.assertEqual(len(readySetOf(reactor) or ()), 0)

    async def test_halfClose(self) -> None:
        """
        One direction ends, the other one goes on.
        """
        await self.meet()
        await self.chat()
        self.one.finish()
        await self.other.ended()
        self.other.say(b"still here")
        await self.one.has(10)
        self.assertEqual(bytes(self.one.data), b"still here")
        self.other.finish()
        await self.allOver
        self.assertEqual(self.over, [None, None])

    async def test_reset(self) -> None:
        """
        A reset is passed on as one, and not as an end.
        """
        await self.meet()
        await self.chat()
        linger = struct.pack("ii", 1, 0)
        handle = self.one.transport.getHandle()
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.one.transport.abortConnection()
        await self.allOver
        await self.other.gone()
        self.assertFalse(self.orderly(self.other))
        self.assertTrue(all(reason is not None for reason in self.over))

    async def test_bulkAfterwards(self) -> None:
        """
        An end that becomes busy leaves the set and is spliced; its bytes are
        whole.
        """
        await self.meet()
        await self.chat()
        size = 4 * 1024 * 1024
        self.one.say(bytes(range(256)) * (size // 256))
        await self.other.has(size)
        self.assertEqual(bytes(self.other.data), bytes(range(256)) * (size // 256))
        self.assertEqual(self.spliced, 1)
        self.assertEqual(self.together(), [False, True])

    async def test_held(self) -> None:
        """
        An end that is held is not read; when it is released, it is.
        """
        await self.meet()
        await self.chat()
        self.ends[0].pauseReading()
        self.assertEqual(self.together(), [False, True])
        self.one.say(b"later")
        self.ends[0].resumeReading()
        await self.other.has(5)
        self.assertEqual(bytes(self.other.data), b"later")

    async def test_kicked(self) -> None:
        """
        Ends that are reset leave the set.
        """
        await self.meet()
        await self.chat()
        for end in self.ends:
            end.reset(TunnelError("kicked"))
        self.assertEqual(self.together(), [False, False])
        await self.one.gone()
        await self.other.gone()


class GatheredTests(TestCase):
    """
    What is told at the end of a turn.
    """

    def test_told(self) -> None:
        """
        Each holder is told once, and one that comes later with the next turn.
        """
        gathered = Gathered()
        told: list[str] = []

        class Holder:
            """
            Takes note.
            """

            def turnOver(self) -> None:
                """
                The turn is over.
                """
                self_.assertFalse(gathered.active)
                told.append("over")

        self_ = self
        gathered.begin()
        self.assertTrue(gathered.active)
        gathered.add(Holder())
        self.assertEqual(told, [])
        gathered.end()
        self.assertEqual(told, ["over"])
        gathered.begin()
        gathered.end()
        self.assertEqual(told, ["over"])

    def test_processes(self) -> None:
        """
        Between turns, this process gathers nothing.
        """
        self.assertFalse(GATHERED.active)
