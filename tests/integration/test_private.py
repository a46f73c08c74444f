"""
Tunnels without a port, whose visitors come through their own client.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint

from tests.support.loopback import Service, Talk
from tests.support.polling import until
from tests.websocket.rig import WebSocketTestCase
from tristunnel.client import visitor as visitors
from tristunnel.client.visitor import LocalPort, VisitorService
from tristunnel.connect.address import ServerAddress, parseConnect
from tristunnel.dataplane.descriptors import Reserve
from tristunnel.dialects.base import visiting
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.framed import movable
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.dialect import bySession
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.model.permissions import Grant, Identity, Permissions
from tristunnel.service.caller import Caller
from tristunnel.service.clients import Visits
from tristunnel.service.listing import Listing

DATA = os.urandom(1_000_000)


class PrivateTests(WebSocketTestCase):
    """C{--private}, and C{--listen} with C{--service}."""

    users = MappingProxyType({"one": "1", "two": "2"})

    def byTCP(self) -> ServerAddress:
        where = f"tcp:127.0.0.1:{self.serverPort}"
        return parseConnect(self.reactor, where, self.trust)

    async def offerPrivately(
        self,
        service: Service,
        private: bool = True,
        lease: ClientLease | None = None,
    ) -> TunnelClientService:
        ready: Deferred[None] = Deferred()

        def told(event: tuple[Any, ...]) -> None:
            if event[0] == "tunnelReady" and not ready.called:
                ready.callback(None)

        self.seen.listeners.append(told)
        forward = parseForward(self.reactor, f"db=127.0.0.1:{self.offer(service)}")
        client = TunnelClientService(
            self.reactor,
            self.server("/tunnel"),
            [replace(forward, private=private)],
            {"id": "one", "secret": self.users["one"]},
            self.seen,
            lease=lease,
            grace=0.0,
            delay=lambda failures, hint: 0.05,
        )
        client.startService()
        self.addCleanup(self._stop, client)
        await ready
        return client

    async def listen(self, server: ServerAddress, user: str, name: str = "db") -> int:
        """Listen for visitors of a service; the local port."""
        client = TunnelClientService(
            self.reactor,
            server,
            [],
            {"id": user, "secret": self.users[user]},
            grace=0.0,
        )
        endpoint = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        port = LocalPort(
            self.reactor, endpoint, "tcp:0", bySession(client, name), name, 0.0
        )
        both = VisitorService(client, port)
        both.startService()
        self.addCleanup(self._stop, both)
        await until(lambda: client.session is not None)
        at: Any = port.listening
        number: int = at.getHost().port
        return number

    async def test_throughClient(self) -> None:
        """
        Nobody finds a port, but the owner's other client finds the service,
        over whatever it is connected by, half-close included.
        """
        await self.startServer()
        service = Service(b"banner")
        await self.offerPrivately(service)
        (tunnel,) = list(self.tunnels.here)
        self.assertIsNone(tunnel.listener)
        self.assertEqual(
            [("service db",)], [event[:1] for event in self.seen.named("tunnelReady")]
        )
        for server in (self.server("/tunnel"), self.byTCP()):
            port = await self.listen(server, "one")
            visitor, at = await self.pair(port, service)
            await visitor.has(6)
            visitor.say(DATA)
            visitor.finish()
            await at.ended()
            self.assertTrue(bytes(at.data) == DATA)
            at.say(DATA)
            at.finish()
            await visitor.ended()
            self.assertTrue(bytes(visitor.data) == b"banner" + DATA)
        self.assertEqual(2, tunnel.visitorCount)

    async def test_notYours(self) -> None:
        """Another client does not find it, no more than one that is not there."""
        await self.startServer()
        service = Service()
        await self.offerPrivately(service)
        for user, name in (("two", "db"), ("one", "no")):
            visitor = await self.visit(
                await self.listen(self.server("/tunnel"), user, name)
            )
            await visitor.gone()
        self.assertEqual([], service.talks)

    async def test_noDescriptors(self) -> None:
        """
        When only the reserve is left, a visitor is turned away, and another is
        served when there is room again.
        """
        await self.startServer()
        service = Service(b"banner")
        await self.offerPrivately(service)
        port = await self.listen(self.byTCP(), "one")
        used = 30
        self.patch(visitors, "RESERVE", Reserve(lambda: 40, lambda: used))
        await (await self.visit(port)).gone()
        self.assertEqual([], service.talks)
        used = 29
        other, _ = await self.pair(port, service)
        await other.has(6)

    async def test_public(self) -> None:
        """A tunnel with a port may be visited by name as well, by everybody."""
        await self.startServer()
        service = Service(b"hello")
        await self.offerPrivately(service, private=False)
        visitor = await self.visit(await self.listen(self.server("/tunnel"), "two"))
        await visitor.has(5)

    async def movedVisit(self) -> tuple[Talk, Talk]:
        """Visit a service by a stream that has left the session; both ends."""
        self.patch(movable, "SHORT", math.inf)
        await self.startServer()
        service = Service(b"banner")
        await self.offerPrivately(service)
        port = await self.listen(self.byTCP(), "one")
        visitor, at = await self.pair(port, service)
        for _ in range(3):
            visitor.say(DATA)
        (tunnel,) = list(self.tunnels.here)
        (stream,) = tunnel.streams
        end: Any = stream.visitor
        await until(lambda: end.hasMoved)
        return visitor, at

    @property
    def visiting(self) -> Any:
        """The session that does not offer the service."""
        (found,) = [
            client
            for client in self.tunnels.clients
            if not self.tunnels.servedBy(client.side)
        ]
        return found

    async def endedVisit(self, visitor: Talk, at: Talk) -> None:
        """Wait until both ends of a visit are broken."""
        await visitor.gone()
        await at.gone()

    async def test_closedOnRequest(self) -> None:
        """With the session of a visitor its visits end, also those that have moved."""
        visitor, at = await self.movedVisit()
        caller = Caller(Identity("one"), "localhost")
        await Listing(self.tunnels).closeSession(caller, self.visiting.id)
        await self.endedVisit(visitor, at)

    async def test_revoked(self) -> None:
        """
        A visit ends with what permits it, also when it has moved and the session is
        gone.
        """
        grant = Grant(Permissions())
        self.patch(visiting, "Visits", lambda who: Visits(replace(who, grant=grant)))
        visitor, at = await self.movedVisit()
        self.visiting.side.connection.transport.abortConnection()
        visitor.say(b"still here")
        await at.has(3 * len(DATA) + 10)
        grant.end(TunnelError("token-revoked"))
        await self.endedVisit(visitor, at)
        self.assertFalse(grant.inUse)

    async def test_away(self) -> None:
        """
        While its client is away, to come back by its lease, a visitor is turned
        away.
        """
        await self.startServer()
        lease = ClientLease.forClient(Path(self.mktemp()), "here", ["db"])
        client = await self.offerPrivately(Service(), lease=lease)
        port = await self.listen(self.server("/tunnel"), "one")
        await client.stopService()
        await until(lambda: next(iter(self.tunnels.here)).clientSide is None)
        visitor = await self.visit(port)
        await visitor.gone()
