"""
Tests for L{tristunnel.dataplane.splice}, on real sockets: two programs, with two
joined ends between them.
"""

from __future__ import annotations

import os
from socket import SO_LINGER, SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from struct import pack
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from tests.support.amounts import pattern
from tests.support.listening import listenHere
from tests.support.loopback import Talk
from tests.support.polling import until
from tests.support.short import shortDirectory
from tristunnel.dataplane import join as joining
from tristunnel.dataplane.join import join
from tristunnel.dataplane.pipes import PIPES, canSplice
from tristunnel.dataplane.rate import TokenBucket
from tristunnel.dataplane.reactor import polledReactor
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.splice import Splice
from tristunnel.dataplane.transport_end import EndFactory
from tristunnel.errors import TunnelError

reactor: Any = _reactor
ours: Any = polledReactor(reactor)

SIZE = 24 * 1024 * 1024
"""Bytes that no buffers on the way hold at once."""


class _Rule:
    """A rule that only takes notes, and sometimes makes one wait."""

    atOnce = 100_000

    def __init__(self) -> None:
        self.charges: list[int] = []

    def charge(self, amount: int) -> float:
        self.charges.append(amount)
        return 0.001 if len(self.charges) % 20 == 0 else 0.0


def closeNow(talk: Talk) -> None:
    """Break a connection before the reactor's next turn."""
    handle = talk.transport.getHandle()
    handle.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
    talk.abort()
    handle.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Spliced(TestCase):
    """
    Two programs, C{one} and C{other}, whose connections are joined.

    @ivar ends: The ends that are joined.
    @ivar moving: Directions that were spliced.
    """

    timeout = 60

    if not canSplice():
        skip = "this system has no splice"

    async def meet(self) -> None:
        PIPES.clear()
        # Other tests of the process may hold some.
        self.pipes = PIPES.opened
        arrivals: DeferredQueue[SocketEnd] = DeferredQueue()
        factory: Any = EndFactory(ours, arrivals.put)
        self.ends: list[SocketEnd] = []
        self.talks: list[Talk] = []
        self.over: list[TunnelError | None] = []
        self.allOver: Deferred[None] = Deferred()
        self.moving: set[Splice] = set()
        move = Splice.move

        def note(splice: Splice) -> None:
            self.moving.add(splice)
            move(splice)

        self.patch(Splice, "move", note)
        for endpoint in self.places(factory):
            talk = await connectProtocol(endpoint, Talk())
            # Else the kernel may take everything for somebody who does not read.
            talk.transport.getHandle().setsockopt(SOL_SOCKET, SO_RCVBUF, 256 * 1024)
            self.talks.append(talk)
            end = await arrivals.get()
            end.connection.setsockopt(SOL_SOCKET, SO_SNDBUF, 256 * 1024)
            self.ends.append(end)
        self.one, self.other = self.talks
        self.prepare()
        join(self.ends[0], self.ends[1], self.closed)
        self.addCleanup(self.leave)

    def places(self, factory: Factory) -> list[Any]:
        port = listenHere(self, ours, factory)
        return [TCP4ClientEndpoint(reactor, "127.0.0.1", port)] * 2

    def prepare(self) -> None:
        """Do something before the ends are joined."""

    def closed(self, reason: TunnelError | None) -> None:
        self.over.append(reason)
        if len(self.over) == 2:
            self.allOver.callback(None)

    async def leave(self) -> None:
        """End what is left; no pipe may be left in use."""
        for talk in self.talks:
            if talk.lost is None:
                talk.abort()
                await talk.gone()
        await self.allOver
        PIPES.clear()
        self.assertLessEqual(PIPES.opened, self.pipes)

    async def stall(self) -> None:
        """
        Have C{one} send to C{other}, which takes the first part and then no
        more, until bytes wait in a pipe.
        """
        self.one.say(pattern(SIZE, 1))
        await self.other.has(SIZE // 4)
        self.other.transport.pauseProducing()
        splice = self.ends[0].splice
        await until(lambda: splice is not None and splice.blocked)

    def orderly(self, talk: Talk) -> bool:
        """Whether a connection ended, and not by a break."""
        return talk.lost is not None and bool(talk.lost.check(ConnectionDone))


class BytesTests(Spliced):
    """What arrives, and how it ends."""

    async def test_bothWays(self) -> None:
        """All bytes arrive, in both directions at once, and are counted."""
        await self.meet()
        there, back = pattern(SIZE, 1), pattern(SIZE, 2)
        self.one.say(there)
        self.other.say(back)
        await self.other.has(SIZE)
        await self.one.has(SIZE)
        self.assertTrue(self.other.data == there and self.one.data == back)
        self.assertEqual([end.received for end in self.ends], [SIZE, SIZE])
        self.assertGreaterEqual(len(self.moving), 1)

    async def test_small(self) -> None:
        """Small messages are copied: they do not pay for the pipe."""
        await self.meet()
        for _ in range(20):
            self.one.say(b"question")
            await self.other.has(8)
            self.other.data.clear()
        self.assertEqual(len(self.moving), 0)

    async def test_quiet(self) -> None:
        """One who had much to say, and has little now, waits for no others' bulk."""
        await self.meet()
        self.one.say(pattern(SIZE, 1))
        await self.other.has(SIZE)
        self.other.data.clear()
        self.one.say(b"keystroke")
        await self.other.has(9)
        end = self.ends[0]
        self.assertTrue(end.splices)
        self.assertNotIn(end.connection.fileno(), end.poller.busy)

    async def test_halfClose(self) -> None:
        """The end of one direction follows its last byte; the other goes on."""
        await self.meet()
        self.one.say(pattern(SIZE, 1))
        self.one.finish()
        await self.other.ended()
        self.assertIsNone(self.other.lost)
        self.assertTrue(self.other.data == pattern(SIZE, 1))
        end = self.ends[0]
        self.assertNotIn(end.connection.fileno(), end.poller.busy)
        self.other.say(pattern(SIZE, 2))
        self.other.finish()
        await self.one.gone()
        self.assertTrue(self.one.data == pattern(SIZE, 2))
        await self.allOver
        self.assertEqual(self.over, [None, None])
        self.assertTrue(self.orderly(self.one) and self.orderly(self.other))

    async def test_slowReader(self) -> None:
        """
        What waits in the pipe arrives when the reader goes on, with the end
        that was met meanwhile.
        """
        await self.meet()
        await self.stall()
        self.one.finish()
        self.other.transport.resumeProducing()
        await self.other.ended()
        self.assertTrue(self.other.data == pattern(SIZE, 1))

    async def test_earlyFirst(self) -> None:
        """
        What an end read before it was joined, and what is still to be sent to
        its other side, go first.
        """

        def prepare() -> None:
            self.ends[1]._transmit(b"greeting:")

        self.patch(self, "prepare", prepare)
        await self.meet()
        self.one.say(pattern(SIZE, 1))
        await self.other.has(9 + SIZE)
        self.assertTrue(self.other.data == b"greeting:" + pattern(SIZE, 1))

    async def test_withoutPipes(self) -> None:
        """Who gets no pipe copies."""
        self.patch(PIPES, "_most", 0)
        await self.meet()
        self.one.say(pattern(SIZE, 1))
        await self.other.has(SIZE)
        self.assertTrue(self.other.data == pattern(SIZE, 1))
        self.assertLessEqual(PIPES.opened, self.pipes)

    async def test_withoutSplice(self) -> None:
        """A system that has no splice copies."""
        self.patch(joining, "canSplice", lambda: False)
        await self.meet()
        self.one.say(pattern(SIZE, 1))
        self.other.say(pattern(SIZE, 2))
        await self.other.has(SIZE)
        await self.one.has(SIZE)
        self.assertTrue(self.other.data == pattern(SIZE, 1))
        self.assertTrue(self.one.data == pattern(SIZE, 2))
        self.assertEqual(len(self.moving), 0)


class UNIXTests(BytesTests):
    """The same with UNIX sockets."""

    def places(self, factory: Factory) -> list[Any]:
        path = str(shortDirectory(self) / "s")
        port = ours.listenUNIX(path, factory)
        self.addCleanup(port.stopListening)
        return [UNIXClientEndpoint(reactor, path)] * 2


class BreakTests(Spliced):
    """
    What breaks in the middle of a splice breaks the whole stream, and leaves
    nothing behind.
    """

    async def checkBroken(self, talk: Talk) -> None:
        """C{talk} sees a reset, and both ends are over."""
        await talk.gone()
        await self.allOver
        self.assertFalse(self.orderly(talk))
        self.assertEqual(
            [reason.code.name for reason in self.over if reason], ["reset"] * 2
        )

    async def test_sourceVanishes(self) -> None:
        """The sender breaks its connection while bytes flow."""
        await self.meet()
        self.one.say(pattern(SIZE, 1))
        await self.other.has(SIZE // 4)
        self.one.abort()
        await self.checkBroken(self.other)
        self.assertLess(len(self.other.data), SIZE)

    async def test_readerVanishes(self) -> None:
        """The reader breaks its connection while bytes wait for it in the pipe."""
        await self.meet()
        await self.stall()
        self.other.abort()
        await self.checkBroken(self.one)

    async def test_sourceVanishesWhileBlocked(self) -> None:
        """
        The sender breaks its connection while the reader stands still: the
        reader learns of it when it reads on, and is not told of an end.
        """
        await self.meet()
        await self.stall()
        self.one.abort()
        await self.one.gone()
        self.other.transport.resumeProducing()
        await self.checkBroken(self.other)
        self.assertLess(len(self.other.data), SIZE)

    async def test_metByWrite(self) -> None:
        """
        A socket tells of a reset only once: when it is a write that learns of
        it, the other side must not take it for an end.
        """
        await self.meet()
        closeNow(self.other)
        self.ends[1].write(b"late")
        await self.checkBroken(self.one)
        self.assertFalse(self.one.eof)

    async def test_metBySplice(self) -> None:
        """Nor when it is a splice."""
        await self.meet()
        self.one.say(pattern(SIZE, 1))
        splice = self.ends[0].splice
        assert splice is not None
        await until(lambda: splice.begun and not splice.blocked, 0)
        closeNow(self.other)
        splice.move()
        await self.checkBroken(self.one)
        self.assertFalse(self.one.eof)

    async def test_kicked(self) -> None:
        """A stream can be broken from outside while it is spliced."""
        await self.meet()
        # Four sockets will be gone.
        after = descriptors() - 4
        await self.stall()
        for end in self.ends:
            end.reset(TunnelError("reset", "kicked"))
        self.other.transport.resumeProducing()
        await self.checkBroken(self.other)
        await self.one.gone()
        PIPES.clear()
        await until(lambda: descriptors() <= after)


class OppositeTests(BreakTests):
    """The same in the other direction."""

    async def meet(self) -> None:
        await super().meet()
        self.one, self.other = self.other, self.one
        self.ends.reverse()


class RuleTests(Spliced):
    """Rules hold for spliced streams as for copied ones."""

    async def test_charged(self) -> None:
        """Every byte is charged, in the portions that the rule allows."""
        rule = _Rule()
        await self.meet()
        self.ends[0].obey(rule)
        self.one.say(pattern(SIZE, 1))
        await self.other.has(SIZE)
        self.assertTrue(self.other.data == pattern(SIZE, 1))
        self.assertEqual(sum(rule.charges), SIZE)
        self.assertLessEqual(max(rule.charges), rule.atOnce)
        self.assertEqual(len(self.moving), 1)


class RateTests(TestCase):
    """Tests for L{TokenBucket}."""

    def test_average(self) -> None:
        """In the long run no more passes than the rate allows."""
        now, passed = 0.0, 0
        rate = TokenBucket(1000.0, lambda: now, burst=500)
        while now < 100.0:
            passed += 700
            now += max(rate.charge(700), 0.001)
        self.assertTrue(980 < passed / 100.0 < 1020)

    def test_rest(self) -> None:
        """A long rest earns no more than the burst."""
        now = 0.0
        rate = TokenBucket(1000.0, lambda: now, burst=500)
        now = 1000.0
        self.assertEqual(rate.charge(500), 0.0)
        self.assertEqual(rate.charge(1000), 1.0)
