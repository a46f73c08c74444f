"""
Streams that leave their session, through a server and a client of ours.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater

from tests.dialects.framed import test_session_loopback as base
from tests.support.loopback import LoopbackTestCase, Service, Talk
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dialects.framed import client_direct as clientDirect
from tristunnel.dialects.framed import client_service as clientService
from tristunnel.dialects.framed import direct as serverDirect
from tristunnel.dialects.framed.client_direct import Carrier, DirectWays
from tristunnel.errors import TunnelError
from tristunnel.service.caller import Caller
from tristunnel.service.listing import Listing
from tristunnel.wire.framed import encodeHandshake


class CarrierTestCase(LoopbackTestCase):
    """
    A test with a client of one carrier.

    @cvar carrier: How its streams travel.
    """

    carrier = Carrier("direct")

    def setUp(self) -> None:
        """
        Have clients use the carrier.
        """
        super().setUp()
        self.patch(clientService, "Carrier", lambda: self.carrier)

    @property
    def session(self) -> Any:
        """
        The server's side of the only session.
        """
        (session,) = [s for s in self.sessions.sessions if s.multiplexer is not None]
        return session

    def isDirect(self) -> bool:
        """
        Whether the newest stream has a connection of its own.
        """
        (tunnel,) = self.session.lease.tunnels
        newest = max(tunnel.streams, key=lambda stream: stream.number)
        return isinstance(newest.client, SocketEnd)

    async def turn(self, condition: Any) -> None:
        """
        Let the reactor work until C{condition} holds.
        """
        while not condition():
            await deferLater(self.reactor, 0.005)


class DirectStreamTests(CarrierTestCase, base.StreamTests):
    """
    Whatever a stream within a session does, one beside it does too.
    """


class SpareStreamTests(CarrierTestCase, base.StreamTests):
    """
    And one on a spare connection.
    """

    carrier = Carrier("direct", 3)


class DirectTests(CarrierTestCase):
    """
    How a stream finds its connection.
    """

    async def test_ownConnection(self) -> None:
        """
        The stream is not in the session, and survives it.
        """
        service = Service(b"hello")
        visitor = await self.visit(await self.tunnel(service))
        await visitor.has(5)
        self.assertTrue(self.isDirect())
        self.assertEqual(len(self.session.multiplexer.streams), 0)
        self.assertEqual(self.session.streams(), 1)
        self.assertEqual(len(self.tunnels.tickets), 0)
        self.session.transport.abortConnection()
        talk = await service.arrivals.get()
        talk.say(b" again")
        await visitor.has(11)

    async def test_closedOnRequest(self) -> None:
        """
        Whoever ends the session on purpose ends what has left it, too.
        """
        visitor = await self.visit(await self.tunnel(Service(b"hello")))
        await visitor.has(5)
        self.assertTrue(self.isDirect())
        (client,) = self.tunnels.clients
        caller = Caller(client.identity, "localhost")
        await Listing(self.tunnels).closeSession(caller, client.id)
        await self.turn(lambda: visitor.lost is not None)

    async def test_blocked(self) -> None:
        """
        Where no second connection gets through, visitors are served all the
        same, and later ones without delay.
        """

        def blocked(ways: DirectWays, ticket: str) -> Deferred[Any]:
            failed: Deferred[Any] = Deferred()
            self.tried += 1
            failed.errback(TunnelError("session-lost"))
            return failed

        self.tried = 0
        self.patch(DirectWays, "_show", blocked)
        service = Service()
        port = await self.tunnel(service)
        for _ in range(serverDirect.DECLINED + 2):
            visitor, talk = await self.pair(port, service)
            visitor.say(b"question")
            await talk.has(8)
            self.assertFalse(self.isDirect())
        # After a few, the client was not asked any more.
        self.assertEqual(self.tried, serverDirect.DECLINED)

    async def test_burst(self) -> None:
        """
        Of visitors who all come at once some stay in the session; those who
        come later have connections of their own again.
        """
        self.patch(clientDirect, "AT_ONCE", 1)
        service = Service(b"hello")
        port = await self.tunnel(service)
        count = 4 * serverDirect.DECLINED
        visits = [Deferred.fromCoroutine(self.visit(port)) for _ in range(count)]
        for visiting in visits:
            visitor = await visiting
            await visitor.has(5)
        (tunnel,) = self.session.lease.tunnels
        kinds = {isinstance(stream.client, SocketEnd) for stream in tunnel.streams}
        self.assertEqual(kinds, {True, False})
        visitor = await self.visit(port)
        await visitor.has(5)
        self.assertTrue(self.isDirect())

    async def test_hangs(self) -> None:
        """
        A firewall that swallows the second connection costs the visitor a
        short while.
        """
        self.patch(clientDirect, "PATIENCE", 0.05)
        self.patch(clientDirect, "dial", lambda *a: Deferred())
        service = Service(b"hello")
        visitor = await self.visit(await self.tunnel(service))
        await visitor.has(5)
        self.assertFalse(self.isDirect())

    async def test_refusedTicket(self) -> None:
        """
        A wrong ticket is refused, with a reason.
        """
        await self.startServer()
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.serverPort)
        talk = await connectProtocol(endpoint, Talk())
        talk.say(encodeHandshake({"tristunnel": {"ticket": "a.b"}}))
        await talk.ended()
        self.assertIn(b"refused", talk.data)
        talk.close()
        await talk.gone()

    async def test_visitorLeaves(self) -> None:
        """
        A visitor who leaves while the client dials leaves nothing behind.
        """
        dialled: Deferred[None] = Deferred()

        def dial(*arguments: object) -> Deferred[Any]:
            dialled.callback(None)
            return Deferred()

        self.patch(clientDirect, "dial", dial)
        service = Service()
        visitor, talk = await self.pair(await self.tunnel(service), service)
        await dialled
        self.assertEqual(len(self.tunnels.tickets), 1)
        visitor.abort()
        await talk.gone()
        self.assertEqual(len(self.tunnels.tickets), 0)
        self.assertEqual(self.session.streams(), 0)
        await self.turn(lambda: self.client.session.streams() == 0)

    async def test_serviceRefuses(self) -> None:
        """
        Without its service, a visitor is turned away.
        """
        service = Service()
        await self.startServer()
        port = self.reactor.listenTCP(0, service, interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        (public,) = await self.startClient(f"0=127.0.0.1:{number}")
        visitor = await self.visit(public)
        await visitor.gone()
        self.assertEqual(len(self.tunnels.tickets), 0)

    async def test_kicked(self) -> None:
        """
        A stream can be broken wherever it is.
        """
        service = Service(b"hello")
        visitor = await self.visit(await self.tunnel(service))
        await visitor.has(5)
        (tunnel,) = self.session.lease.tunnels
        for stream in list(tunnel.streams):
            stream.reset(TunnelError("closed"))
        await visitor.gone()
        await service.talks[0].gone()

    async def test_shortStreams(self) -> None:
        """
        Where visitors come for little, they stay in the session, unless it was
        said that none should.
        """
        self.carrier = Carrier("auto")
        service = Service(b"hello")
        port = await self.tunnel(service)
        for _ in range(serverDirect.SAMPLE):
            visitor, talk = await self.pair(port, service)
            await visitor.has(5)
            self.assertTrue(self.isDirect())
            visitor.close()
            talk.close()
            await self.turn(lambda: self.session.streams() == 0)
        visitor = await self.visit(port)
        await visitor.has(5)
        self.assertFalse(self.isDirect())

    async def test_session(self) -> None:
        """
        A client can keep all streams in the session.
        """
        self.carrier = Carrier("session")
        service = Service(b"hello")
        visitor = await self.visit(await self.tunnel(service))
        await visitor.has(5)
        self.assertFalse(self.isDirect())
        self.assertIsNone(self.session.direct)


class DirectTLSTests(CarrierTestCase):
    """
    Direct streams over TLS, for whoever asks for them.
    """

    tls = True

    async def exchange(self) -> None:
        """
        Say much in both directions.
        """
        service = Service(b"hello")
        visitor, talk = await self.pair(await self.tunnel(service), service)
        said = random.Random(3).randbytes(2_000_000)
        visitor.say(said)
        talk.say(said)
        await talk.has(len(said))
        await visitor.has(5 + len(said))
        self.assertTrue(talk.data == said and visitor.data == b"hello" + said)

    async def test_direct(self) -> None:
        """
        They work.
        """
        await self.exchange()
        self.assertTrue(self.isDirect())

    async def test_spare(self) -> None:
        """
        And so do spare connections.
        """
        self.carrier = Carrier("direct", 2)
        await self.exchange()
        self.assertTrue(self.isDirect())
        await self.turn(lambda: self.session.direct.spares == 2)

    async def test_auto(self) -> None:
        """
        Who does not ask gets none.
        """
        self.carrier = Carrier()
        await self.exchange()
        self.assertFalse(self.isDirect())


class SpareTests(CarrierTestCase):
    """
    Connections dialled ahead.
    """

    carrier = Carrier("direct", 2)

    async def ready(self) -> None:
        """
        Wait until the spares stand.
        """
        await self.turn(lambda: self.session.direct.spares == 2)

    async def test_used(self) -> None:
        """
        A visitor gets one, and it is replaced.
        """
        service = Service(b"hello")
        port = await self.tunnel(service)
        await self.ready()
        for _ in range(5):
            visitor = await self.visit(port)
            await visitor.has(5)
            self.assertTrue(self.isDirect())
            await self.ready()
        self.assertEqual(self.session.streams(), 5)

    async def test_dead(self) -> None:
        """
        One that turns out to be dead costs the visitor nothing but time; it is
        replaced at the next look.
        """
        service = Service(b"hello")
        port = await self.tunnel(service)
        await self.ready()
        for spare in self.session.direct._spares:
            spare.open = lambda *more, s=spare: s.transport.abortConnection()
        visitor = await self.visit(port)
        await visitor.has(5)
        self.assertTrue(self.isDirect())
        spares: Any = self.client.session._spares
        await self.turn(lambda: len(spares) < 2)
        spares._tick()
        await self.ready()

    async def test_serviceRefuses(self) -> None:
        """
        The client says on the spare connection that there is no service.
        """
        service = Service()
        await self.startServer()
        port = self.reactor.listenTCP(0, service, interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        (public,) = await self.startClient(f"0=127.0.0.1:{number}")
        await self.ready()
        visitor = await self.visit(public)
        await visitor.gone()
        (gone,) = self.notes.named("visitorGone")
        self.assertEqual(gone[-1], "service-refused")

    async def test_pinged(self) -> None:
        """
        They are asked for signs of life; who gives none is dropped.
        """
        await self.tunnel(Service())
        await self.ready()
        (spare, other) = self.session.direct._spares
        heard = spare.lastHeard
        spares: Any = self.client.session._spares
        await self.turn(lambda: len(spares) == 2)
        spares._tick()
        await self.turn(lambda: spare.lastHeard > heard)
        other.lastHeard -= serverDirect.SPARE_SILENCE + 1
        self.session.direct.tick()
        await self.turn(lambda: self.session.direct.spares == 1)

    async def test_bounded(self) -> None:
        """
        A client gets no more tickets than the server cares for.
        """
        await self.tunnel(Service())
        await self.ready()
        direct = self.session.direct
        direct.grantSpares(1_000_000)
        self.assertEqual(direct.grantSpares(1), [])
        self.assertLessEqual(len(self.tunnels.tickets), serverDirect.MOST_SPARES)

    async def test_sessionOver(self) -> None:
        """
        With the session its tickets are void and its spares closed.
        """
        await self.tunnel(Service())
        await self.ready()
        session = self.session
        session.direct.grantSpares(4)
        spares = list(session.direct._spares)
        await self.client.stopService()
        await self.turn(lambda: not any(s.transport.connected for s in spares))
        self.assertEqual(len(self.tunnels.tickets), 0)
