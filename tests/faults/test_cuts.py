"""
The way between client and server is cut under load: the short form of
C{python -m benchmarks.faults --only cuts}.
"""

from __future__ import annotations

import random
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError

from tests.faults.load import Listing, Service, SocketCarrier, Tale, Visitor
from tests.faults.way import Leg, Link
from tests.support.loopback import LoopbackTestCase
from tests.support.polling import until
from tristunnel.dataplane import endings
from tristunnel.dialects.framed.moves import Carrier

MOMENTS = 10
SEED = 20
STREAMS = (("D", 200_000), ("U", 200_000), ("B", 100_000), ("E", 4_000))
FAULTS = ("reset", "fin", "reset one", "fin one", "hang")


class SessionTests(LoopbackTestCase):
    """Streams in a session."""

    carrier = Carrier("session")
    timeout = 60

    def setUp(self) -> None:
        """Have what waits for a sign of life wait for moments, not for a minute."""
        super().setUp()
        for name, seconds in (("DEADLINE", 0.4), ("TICK", 0.05), ("SOON", 0.1)):
            self.patch(endings, name, seconds)
        self.ledger = Listing(self.reactor.seconds)
        self.service = Service(self.ledger)
        self.chance = random.Random(SEED)

    async def begin(self) -> None:
        """Start a server, and a client that reaches it by a way of ours."""
        await self.startServer(
            port="ssl:0:interface=127.0.0.1"
            if self.tls
            else "tcp:0:interface=127.0.0.1"
        )
        self.way = Link(self.outside, self.serverPort)
        self.addCleanup(self.way.stop)
        scheme, host = ("tls", "localhost") if self.tls else ("tcp", "127.0.0.1")
        (self.port,) = await self.startClient(
            f"0=127.0.0.1:{self.offer(self.service)}",
            connect=f"{scheme}:{host}:{self.way.port}",
        )

    async def come(self, kind: str, size: int) -> Tale:
        tale = self.ledger.begin(kind, size)
        carrier = SocketCarrier()
        carrier.talk = Visitor(self.ledger, carrier, tale)
        endpoint = TCP4ClientEndpoint(self.outside, "127.0.0.1", self.port)
        try:
            await connectProtocol(endpoint, carrier)
        except ConnectError as error:
            # Broken off before it was here.
            carrier.talk.gone(str(error))
        return tale

    def over(self, tales: list[Tale]) -> Deferred[None]:
        """Wait until both ends of all streams know that they are over."""
        waiting: Deferred[None] = Deferred()

        def look() -> None:
            if all(tale.over for tale in tales) and not waiting.called:
                self.ledger.changed.remove(look)
                waiting.callback(None)

        self.ledger.changed.append(look)
        look()
        return waiting

    def happens(self, fault: str) -> None:
        legs = self.way.ups()
        if fault.endswith("one") and legs:
            legs = [self.chance.choice(legs)]
        if fault.startswith("reset"):
            self.way.some(legs, Leg.abort)
        elif fault.startswith("fin"):
            self.way.some(legs, Leg.close)
        else:
            self.way.some(legs, Leg.hang)
            self.reactor.callLater(0.1, self.way.some, legs, Leg.resume)

    async def test_moments(self) -> None:
        """
        Each stream is complete, or has failed at both ends; nobody takes one for
        complete that is not. Afterwards visitors reach the service at the same
        port.
        """
        await self.begin()
        failed = 0
        for number in range(MOMENTS):
            fault = FAULTS[number % len(FAULTS)]
            at = self.way.passed + self.chance.randrange(500_000)
            self.way.moment = (at, partial(self.happens, fault))
            tales = [await self.come(*each) for each in STREAMS]
            await self.over(tales)
            for tale in tales:
                self.assertEqual(tale.faults(), [], f"{fault}: {tale}")
                if fault == "hang":
                    self.assertTrue(tale.complete, f"{fault}: {tale}")
                failed += not tale.complete
            self.way.moment = None
            while True:
                probe = await self.come("E", 400)
                await self.over([probe])
                self.assertEqual(probe.faults(), [])
                if probe.complete:
                    break
        self.assertGreater(failed, 0)
        self.assertLess(failed, MOMENTS * len(STREAMS))
        # A connection whose visitor was cut off before its first byte is in no
        # tale, so nobody has waited for its end; one that stays runs into the
        # test's timeout.
        await until(lambda: not self.service.open)
        self.assertEqual(len(self.service.open), 0)


class TLSSessionTests(SessionTests):
    """The same over TLS."""

    tls = True


class DirectTests(SessionTests):
    """
    Streams on connections of their own, where a connection that something in
    between has closed once looked like a stream that was complete.
    """

    carrier = Carrier("direct")


class TLSDirectTests(SessionTests):
    """The same over TLS, where a stream could not even end in one direction."""

    tls = True
    carrier = Carrier("direct")


class BusyTests(SessionTests):
    """Which move in the middle."""

    carrier = Carrier()


class ExtraConnectionsTests(SessionTests):
    """In sessions of several connections."""

    carrier = Carrier("session", 3)
