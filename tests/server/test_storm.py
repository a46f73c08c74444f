"""
A thousand clients lose their server and come back.
"""

from __future__ import annotations

import random
from bisect import insort
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.notes import ServerNotes
from tristunnel.connect.address import ServerAddress
from tristunnel.dialects.base.client import LONGEST_DELAY, backoff
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.errors import TunnelError
from tristunnel.model.memory_book import MemoryBook
from tristunnel.service.preauth import LONGEST_WAIT, AcceptRateLimiter
from tristunnel.service.tunnel_service import TunnelService

CLIENTS = 1000
RATE = 100.0
ADDRESS = IPv4Address("TCP", "192.0.2.1", 9000)


class AcceptRateTests(SynchronousTestCase):
    """L{AcceptRateLimiter}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.acceptLimiter = AcceptRateLimiter(self.clock.seconds, 10)

    def hint(self) -> float:
        try:
            self.acceptLimiter.check()
        except TunnelError as refusal:
            self.assertEqual(refusal.code.name, "limit-reached")
            self.assertFalse(refusal.code.permanent)
            assert refusal.retryAfter is not None
            return refusal.retryAfter
        return 0.0

    def test_rate(self) -> None:
        """A second's worth comes in at once, then as many as the rate says; each of the
        others has a time of its own."""
        hints = [self.hint() for _ in range(30)]
        self.assertEqual(hints[:10], [0.0] * 10)
        self.assertEqual(hints[10:13], [1.1, 1.2, 1.3])
        self.clock.advance(0.5)
        self.assertEqual([self.hint() > 0 for _ in range(6)], [False] * 5 + [True])

    def test_bounded(self) -> None:
        """Nobody is told to stay away for long."""
        for _ in range(10_000):
            self.assertLessEqual(self.hint(), LONGEST_WAIT + 1.2)

    def test_none(self) -> None:
        """Without a rate all may come."""
        self.acceptLimiter.rate = 0
        self.assertEqual({self.hint() for _ in range(1000)}, {0.0})


class ManyClock(Clock):
    """A clock for thousands of timers, which are not all sorted for each new one."""

    def _sortCalls(self) -> None:
        while self.calls and self.calls[0].delayed_time:
            call = self.calls.pop(0)
            call.activate_delay()
            insort(self.calls, call, key=lambda call: call.time)

    def callLater(
        self, delay: float, callable: Any, *args: object, **kw: object
    ) -> DelayedCall:
        made = DelayedCall(
            self.seconds() + delay,
            callable,
            args,
            kw,
            self.calls.remove,
            self._moved,
            self.seconds,
        )
        insort(self.calls, made, key=lambda call: call.time)
        return made

    def _moved(self, call: DelayedCall) -> None:
        self.calls.sort(key=lambda call: call.time)


class _Half:
    """One side of a connection in memory."""

    other: _Half

    def __init__(self, underway: deque[tuple[Any, ...]]) -> None:
        self._underway = underway
        self.protocol: Any = None
        self.connected = True
        self.disconnecting = False

    def write(self, data: bytes) -> None:
        if self.connected and not self.disconnecting:
            self._underway.append((self.other.arrive, data))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def arrive(self, data: bytes) -> None:
        if self.connected:
            self.protocol.dataReceived(data)

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self._underway.append((self.cut,))

    def cut(self) -> None:
        for half in (self, self.other):
            if half.connected:
                half.connected = False
                half.protocol.connectionLost(Failure(ConnectionLost()))

    abortConnection = cut

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Never pause it."""

    def unregisterProducer(self) -> None:
        """Nothing to forget."""

    pauseProducing = resumeProducing = unregisterProducer

    def getPeer(self) -> IPv4Address:
        return ADDRESS

    getHost = getPeer


@implementer(IStreamClientEndpoint)
class _Place:
    """Where a server is, or is not."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._underway: deque[tuple[Any, ...]] = deque()
        self.factory: TunnelServerFactory | None = None
        self.connections: list[_Half] = []
        self.attempts: Counter[int] = Counter()

    def carry(self) -> None:
        while self._underway:
            act, *data = self._underway.popleft()
            act(*data)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        self.attempts[int(self._clock.seconds())] += 1
        if self.factory is None:
            return fail(Failure(ConnectionRefusedError()))
        here: Any = _Half(self._underway)
        there: Any = _Half(self._underway)
        here.other, there.other = there, here
        here.protocol = client = protocolFactory.buildProtocol(ADDRESS)
        there.protocol = self.factory.buildProtocol(ADDRESS)
        self.connections.append(there)
        there.protocol.makeConnection(there)
        assert client is not None
        client.makeConnection(here)
        return succeed(client)


class StormTests(SynchronousTestCase):
    """A server that was gone has all of its clients back soon, without being run
    over."""

    def setUp(self) -> None:
        self.clock = ManyClock()
        self.place = _Place(self.clock)
        # The delays are random; the test is not.
        self.patch(random, "uniform", random.Random(7).uniform)

    def startServer(self) -> None:
        self.notes = ServerNotes()
        self.service = TunnelService(self.clock, MemoryBook(self.clock), {}, self.notes)
        self.service.clients.limit = 0
        self.service.clients.acceptLimiter.rate = RATE
        self.place.factory = TunnelServerFactory(self.clock, self.service)

    def crash(self) -> None:
        self.place.factory = None
        connections, self.place.connections = self.place.connections, []
        for connection in connections:
            connection.cut()

    def advance(self, seconds: float, step: float) -> None:
        for _ in range(int(seconds / step)):
            self.clock.advance(step)
            self.place.carry()

    def untilBack(self, many: int, most: float) -> float:
        """
        Let time pass until so many clients are in.

        @param most: Seconds.
        @return: Seconds.
        """
        began = self.clock.seconds()
        while len(self.service.clients) < many:
            self.advance(0.05, 0.05)
            passed = self.clock.seconds() - began
            self.assertLess(passed, most, f"{len(self.service.clients)} are back")
        return self.clock.seconds() - began

    def test_storm(self) -> None:
        """Nearly everybody is back as fast as the server lets them in, and all within
        the longest delay of a client; nobody who is back is lost again."""
        self.startServer()
        clients = []
        for _ in range(CLIENTS):
            address = ServerAddress("memory", "server", self.place)
            client = TunnelClientService(self.clock, address, [])
            client.startService()
            clients.append(client)
        self.untilBack(CLIENTS, 20)
        self.crash()
        self.advance(5, 0.25)
        self.startServer()
        self.place.attempts.clear()
        back = self.untilBack(CLIENTS * 95 // 100, 20)
        self.assertGreater(back, CLIENTS / RATE - 2)
        self.untilBack(CLIENTS, LONGEST_DELAY)
        # Those who are told to wait do not add up to a second storm.
        self.assertLess(sum(self.place.attempts.values()), 4 * CLIENTS)
        self.advance(60, 1.0)
        self.assertEqual(self.notes.named("clientGone"), [])
        self.assertEqual(len(self.service.clients), CLIENTS)

    def test_spread(self) -> None:
        """Without a word from the server clients spread over all of the time that they
        may wait."""
        delays = [backoff(10) for _ in range(6000)]
        seconds = Counter(int(delay) for delay in delays)
        self.assertEqual(set(seconds), set(range(60)))
        self.assertLess(max(seconds.values()), 2 * 6000 / 60)
