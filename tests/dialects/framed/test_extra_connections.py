"""
Several connections that share a session's streams.
"""

from __future__ import annotations

from typing import Any

from tests.dialects.framed import test_many as many
from tests.dialects.framed import test_session_loopback as base
from tests.dialects.framed.moves_rig import CarrierTestCase
from tests.support.loopback import Service
from tests.support.polling import until
from tristunnel.dialects.framed.extra_connections import MOST_EXTRA_CONNECTIONS
from tristunnel.dialects.framed.moves import Carrier
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.pending import RemoteError

THREE = Carrier("session", sessions=3)


class ExtraConnectionStreamTests(CarrierTestCase, base.StreamTests):
    """Whatever a stream within a session does, one on an extra connection does too."""

    carrier = THREE


class ExtraConnectionTests(CarrierTestCase):
    """How extra connections come and go."""

    carrier = THREE
    session: Any = many.ManyExtraConnectionTests.session

    async def begin(self) -> tuple[int, Service]:
        service = Service(b"hello")
        port = await self.tunnel(service)
        await until(lambda: len(self.session.extraConnections or ()) == 2)
        return port, service

    def loads(self) -> list[int]:
        extra = self.session.extraConnections._connections
        return [len(each.multiplexer.streams) for each in (self.session, *extra)]

    async def test_shared(self) -> None:
        """Visitors are spread evenly."""
        port, _ = await self.begin()
        for _ in range(6):
            await (await self.visit(port)).has(5)
        self.assertEqual(self.loads(), [2, 2, 2])
        self.assertEqual(self.client.session.streams(), 6)
        self.assertEqual(self.sessions.streams(), 6)

    async def test_lost(self) -> None:
        """An extra connection's streams are lost with it, no others; it is replaced."""
        port, _ = await self.begin()
        visitors = [await self.visit(port) for _ in range(3)]
        for visitor in visitors:
            await visitor.has(5)
        self.session.extraConnections._connections[0].transport.abortConnection()
        await until(lambda: sum(v.lost is not None for v in visitors) == 1)
        await until(lambda: len(self.client.session.beside.extra._connections) == 1)
        self.client.session.beside.extra._look()
        await until(lambda: len(self.session.extraConnections) == 2)

    async def test_endTogether(self) -> None:
        """Extra connections end with their session."""
        await self.begin()
        await self.client.stopService()
        await until(lambda: not self.sessions.sessions)

    async def test_noCalls(self) -> None:
        """Nobody has logged in on an extra connection: calls there are not answered."""
        await self.begin()
        (extra, _) = self.client.session.beside.extra._connections
        await until(lambda: extra.extended)
        answer = extra.call("listTunnels")
        answer.addErrback(lambda failure: failure.trap(TunnelError, RemoteError))
        liveness = extra.liveness
        pinged = liveness.pinged
        liveness.ping()
        await until(lambda: liveness.pinged > pinged and liveness.awaited is None)
        self.assertFalse(answer.called)

    async def test_bounded(self) -> None:
        """A client has no more extra connections than the server cares for."""
        await self.begin()
        tickets = await self.client.session.call("laneTickets", count=1000)
        assert isinstance(tickets, list)
        self.assertEqual(len(tickets), MOST_EXTRA_CONNECTIONS - 2)
