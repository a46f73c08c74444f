"""
One visitor reads nothing, among others that work: the short form of
C{python -m benchmarks.faults --only readers}. It counts answers, not seconds.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater

from tests.faults.load import Listing, Service, SocketCarrier, Tale, Visitor
from tests.support.loopback import LoopbackTestCase
from tests.support.polling import until
from tristunnel.dialects.base.plain import HOLD, PlainServerSide
from tristunnel.dialects.framed import client as clientSession
from tristunnel.dialects.framed.moves import Carrier

WORKING = 10
ANSWERS = 50
MORE = 10**12


class _Stalled(SocketCarrier):
    """Reads no more than the first bytes."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.pauseProducing()


class SessionTests(LoopbackTestCase):
    """
    In a session with credit.

    @cvar survives: Whether the stalled visitor's stream goes on.
    """

    carrier = Carrier("session")
    timeout = 60
    survives = True

    async def come(self, carrier: SocketCarrier, kind: str, size: int) -> Tale:
        tale = self.ledger.begin(kind, size)
        carrier.talk = Visitor(self.ledger, carrier, tale, False)
        self.addCleanup(self._leave, carrier)
        endpoint = TCP4ClientEndpoint(self.outside, "127.0.0.1", self.port)
        await connectProtocol(endpoint, carrier)
        return tale

    async def _leave(self, carrier: SocketCarrier) -> None:
        if carrier.transport is not None:
            carrier.transport.abortConnection()
        await deferLater(self.reactor, 0)

    def held(self) -> int:
        """Bytes that the server holds for all visitors."""
        (session,) = [s for s in self.sessions.sessions if s.multiplexer is not None]
        streams = session.multiplexer.streams.values()
        return sum(int(stream.holding) for stream in streams)

    async def test_others(self) -> None:
        """The others get all their answers, and no more is held than may be."""
        self.ledger = Listing(self.reactor.seconds)
        service = Service(self.ledger)
        self.port = await self.tunnel(service)
        stalled = await self.come(_Stalled(), "D", MORE)
        # Its service sends until it is told to wait.
        sent = -1
        while stalled.service is None or stalled.service.sent > sent:
            sent = stalled.service.sent if stalled.service is not None else -1
            await deferLater(self.reactor, 0.05)
        working = [
            await self.come(SocketCarrier(), "E", ANSWERS * 200) for _ in range(WORKING)
        ]
        most = 0

        def through() -> bool:
            nonlocal most
            most = max(most, self.held())
            return all(tale.over for tale in working)

        await until(through)
        for tale in working:
            self.assertTrue(tale.complete, str(tale))
        self.assertLessEqual(most, 8 * 1024 * 1024)
        assert stalled.service is not None
        if not self.survives:
            await until(lambda: stalled.service.gone is not None)
        self.assertEqual(stalled.service.gone is None, self.survives)


class DirectTests(SessionTests):
    """On connections of their own."""

    carrier = Carrier("direct")


class PlainTests(SessionTests):
    """
    With a client that speaks W3P and no more: the stalled visitor is reset when
    the others begin to wait.
    """

    survives = False

    def setUp(self) -> None:
        super().setUp()
        say = clientSession.TunnelClientProtocol.sendHandshake

        def sayLess(session: Any, message: dict[str, object]) -> None:
            say(session, {k: v for k, v in message.items() if k != "tristunnel"})

        self.patch(clientSession.TunnelClientProtocol, "sendHandshake", sayLess)
        self.patch(PlainServerSide, "pause", 0.1)

    def held(self) -> int:
        """What the session holds is bounded as it is."""
        held = super().held()
        self.assertLessEqual(held, HOLD + 2 * 1024 * 1024)
        return held
