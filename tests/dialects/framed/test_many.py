"""
Many streams at once, of all sizes, that pause and end in all ways, by every
carrier: C{TRISTUNNEL_LONG=1} has ten thousand of them for each.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from tests.dialects.framed.moves_rig import CarrierTestCase
from tests.support.loopback import Talk
from tests.support.polling import until
from tests.websocket.rig import WebSocketTestCase
from tristunnel.dataplane import join as joining
from tristunnel.dataplane.pipes import PIPES, canSplice
from tristunnel.dialects.framed.moves import Carrier

LONG = bool(os.environ.get("TRISTUNNEL_LONG"))

STREAMS = 10_000 if LONG else 100
"""Streams of each mode."""

AT_ONCE = 40
"""Of them at the same time: fewer than a client dials at once, so that those
that want a connection of their own get it."""

_HEAD = 8
"""Bytes at a stream's begin that tell the service which one it is."""


@dataclass(frozen=True)
class Plan:
    """
    What happens in one stream; both sides work it out from its number.

    @ivar number: Which stream.
    @ivar halves: Whether one direction can end before the other.
    """

    number: int
    halves: bool

    @cached_property
    def facts(self) -> dict[str, Any]:
        chance = random.Random(self.number)
        up, down = (int(2 ** chance.uniform(0, 20.5)) for _ in range(2))
        ways = ["close", "abort"] + ["finish"] * self.halves
        return {
            "up": chance.randbytes(up),
            "down": chance.randbytes(down),
            "closer": chance.choice(["visitor", "service"]),
            "way": chance.choice(ways),
            "cut": chance.random(),
        }

    def said(self, side: str) -> bytes:
        said: bytes = self.facts["up" if side == "visitor" else "down"]
        return said


class Side(Talk):
    """
    A visitor or a service, with its part of the plan.

    @param case: The test.
    @param name: C{"visitor"} or C{"service"}.
    """

    plan: Plan | None = None

    def __init__(self, case: ManyTests, name: str) -> None:
        super().__init__()
        self._case = case
        self._name = name
        self._other = "service" if name == "visitor" else "visitor"

    def connectionMade(self) -> None:
        """A service begins when it knows which stream it is."""
        if self._name == "service":
            self._case.served.append(Deferred.fromCoroutine(self.serve()))

    async def serve(self) -> None:
        await self.until(lambda talk: len(talk.data) >= _HEAD or talk.lost)
        if len(self.data) < _HEAD:
            # Who breaks a stream may do so before it said anything.
            self._case.unknown += 1
            return
        number = int.from_bytes(self.data[:_HEAD], "big")
        del self.data[:_HEAD]
        if number >= STREAMS:
            self.abort()
        self._case.assertLess(number, STREAMS)
        await self.play(Plan(number, self._case.halves))

    async def play(self, plan: Plan) -> None:
        """
        Do this side's part; if anything is wrong, do not have the other side
        wait.
        """
        try:
            await self._play(plan)
        except BaseException:
            if self.lost is None:
                self.abort()
            raise

    async def _play(self, plan: Plan) -> None:
        """Do this side's part, and check what the other one said."""
        self.plan = plan
        self._chance = random.Random(f"{plan.number} {self._name}")
        mine, theirs = plan.said(self._name), plan.said(self._other)
        way, active = plan.facts["way"], plan.facts["closer"] == self._name
        self._rest()
        if way == "abort":
            await self._break(active, mine, theirs)
            return
        if active and way == "finish":
            await self._say(mine)
            self.finish()
        elif active:
            await self._say(mine)
            await self.has(len(theirs))
            self.close()
        elif way == "finish":
            # Nobody answers before the other direction is over.
            await self.ended()
            await self._say(mine)
            self.close()
        else:
            await self._say(mine)
            await self.ended()
            self.close()
        await self.gone()
        self._case.assertTrue(
            self.data == theirs,
            f"stream {plan.number}, {way} by {plan.facts['closer']}: the"
            f" {self._name} got {len(self.data)} of {len(theirs)} bytes",
        )

    async def _break(self, active: bool, mine: bytes, theirs: bytes) -> None:
        """Break the stream somewhere, or have it broken."""
        assert self.plan is not None
        if active:
            await self._say(mine[: int(len(mine) * self.plan.facts["cut"])])
            self.abort()
        else:
            await self._say(mine)
        await self.gone()
        self._case.assertTrue(theirs.startswith(bytes(self.data)))
        if self._case.tellsBreaks:
            # A break is not an end: who takes it for one believes that it
            # has everything.
            self._case.assertFalse(self.eof, f"stream {self.plan.number}")

    async def _say(self, data: bytes) -> None:
        sent = 0
        while sent < len(data) and self.lost is None:
            piece = self._chance.randrange(1, 300_000)
            self.say(data[sent : sent + piece])
            sent += piece
            if self._chance.random() < 0.3:
                await deferLater(self._case.reactor, self._chance.random() * 0.005)

    def _rest(self) -> None:
        if self._chance.random() < 0.2:
            self.transport.pauseProducing()
            self._case.reactor.callLater(self._chance.random() * 0.02, self._wake)

    def _wake(self) -> None:
        if self.lost is None:
            self.transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._case.sides.discard(self)


class ManyTests(CarrierTestCase):
    """
    Streams within a session over TCP.

    @cvar halves: Whether this mode can end one direction alone.
    @cvar tellsBreaks: Whether it tells a break from an end.
    @cvar moves: Whether any stream is to move at any moment.
    @cvar splices: Whether bytes are expected to go through pipes.
    @ivar served: The services' parts.
    @ivar unknown: Streams that were broken before they said anything.
    """

    carrier = Carrier("session")
    halves = True
    tellsBreaks = True
    moves = False
    splices = False
    timeout = 1200 if LONG else 60

    async def test_many(self) -> None:
        """Every byte is right, and nothing is left over."""
        self.served: list[Deferred[None]] = []
        self.sides: set[Side] = set()
        self.unknown = 0
        self.chance = random.Random(8)
        service: Factory[Any] = Factory.forProtocol(lambda: self.side("service"))
        service.noisy = False
        port = await self.tunnel(service)
        PIPES.clear()
        # Other tests of the process may hold some.
        pipes, moved = PIPES.opened, PIPES.moved
        before = len(os.listdir("/proc/self/fd"))
        if self.moves:
            mover = LoopingCall(self.moveSome)
            mover.start(0.002)
            self.addCleanup(mover.stop)
        for first in range(0, STREAMS, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, STREAMS))
            await gatherResults(
                [Deferred.fromCoroutine(self.one(port, each)) for each in numbers],
                consumeErrors=True,
            )
            served, self.served = self.served, []
            await gatherResults(served, consumeErrors=True)
        await until(lambda: self.session.streams() == 0)
        await until(lambda: self.client.session.streams() == 0)
        await until(lambda: not self.sides)
        PIPES.clear()
        self.assertLessEqual(PIPES.opened, pipes)
        self.assertEqual(self.session.lease.tunnels[0].streams, set())
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
        if self.splices and canSplice() and LONG:
            self.assertGreater(PIPES.moved, moved)

    def moveSome(self) -> None:
        """Let streams move that have not proved anything."""
        for stream in list(self.session.multiplexer.streams.values()):
            if self.chance.random() < 0.2:
                self.session.moves.offer(stream)

    def side(self, name: str) -> Side:
        side = Side(self, name)
        self.sides.add(side)
        return side

    async def one(self, port: int, number: int) -> None:
        endpoint = TCP4ClientEndpoint(self.outside, "127.0.0.1", port)
        visitor: Side = await connectProtocol(endpoint, self.side("visitor"))
        visitor.say(number.to_bytes(_HEAD, "big"))
        await visitor.play(Plan(number, self.halves))


class ManyTLSTests(ManyTests):
    """Streams within a session over TLS."""

    tls = True


class ManyWebSocketTests(ManyTests, WebSocketTestCase):
    """Streams within a session by WebSocket, over TLS."""

    tls = True

    async def startClient(self, *forwards: str, **options: Any) -> list[int]:
        return await super().startClient(
            *forwards, connect=self.url("/tunnel"), **options
        )


class ManyBusyTests(ManyTests):
    """Streams that leave the session when they prove busy."""

    carrier = Carrier()


class ManyMovingTests(ManyTests):
    """Streams that leave the session at any moment."""

    carrier = Carrier()
    moves = True
    splices = True


class ManyMovingTLSTests(ManyMovingTests):
    """The same over TLS."""

    tls = True
    splices = False


class ManyDirectTests(ManyTests):
    """Streams that leave the session as soon as they can."""

    carrier = Carrier("direct")
    splices = True


class ManyCopiedTests(ManyDirectTests):
    """The same where there is no splice."""

    splices = False

    def setUp(self) -> None:
        super().setUp()
        self.patch(joining, "canSplice", lambda: False)


class ManyDirectTLSTests(ManyDirectTests):
    """The same over TLS."""

    tls = True
    splices = False


class ManyStockTests(ManyTests):
    """Streams over Twisted's own transports."""

    stock = True


class ManyStockTLSTests(ManyStockTests):
    """And over TLS in Twisted's memory."""

    tls = True


class ManyExtraConnectionTests(ManyTests):
    """Streams on three connections of one session."""

    carrier = Carrier("session", sessions=3)

    @property
    def session(self) -> Any:
        (main,) = [s for s in self.sessions.sessions if s.lease is not None]
        return main
