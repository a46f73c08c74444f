"""
Streams that move to a connection of their own, through a server and a client of
ours.
"""

from __future__ import annotations

from itertools import product
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from tests.dialects.framed.moves_rig import MUCH, CarrierTestCase
from tests.faults.way import Leg, Link
from tests.support.loopback import Service, Talk
from tests.support.polling import until
from tests.support.processes import freePort
from tests.tls.authority import makeAuthority
from tristunnel.dataplane.tls import tlsOverEndpoint
from tristunnel.dialects.framed import movable, moves
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.movable import MovableStream
from tristunnel.dialects.framed.moves import Carrier, ClientMoves
from tristunnel.errors import TunnelError
from tristunnel.model.policy import VisitorPolicy
from tristunnel.service.caller import Caller
from tristunnel.service.listing import Listing
from tristunnel.wire.framed import FrameType, encodeHandshake, encodeObject


class MoveTests(CarrierTestCase):
    """How a stream moves."""

    async def test_ownConnection(self) -> None:
        """The stream is not in the session any more, and survives it."""
        service = Service(b"hello")
        visitor = await self.visit(await self.tunnel(service))
        await visitor.has(5)
        await self.moved()
        self.assertEqual(len(self.session.multiplexer.streams), 0)
        self.assertEqual(self.session.streams(), 1)
        self.assertEqual(len(self.tunnels.tickets), 0)
        self.session.connection.transport.abortConnection()
        talk = await service.arrivals.get()
        talk.say(b" again")
        await visitor.has(11)

    async def test_offsets(self) -> None:
        """Both sides say at which byte they have changed over, and it is that one."""
        said: list[tuple[bool, int]] = []
        send = ExtendedMultiplexer.sendMoved

        def sendMoved(multiplexer: Any, stream: Any, offset: int) -> None:
            self.assertEqual(offset, stream.sendWindow.sent)
            said.append((multiplexer is self.session.multiplexer, offset))
            send(multiplexer, stream, offset)

        self.patch(ExtendedMultiplexer, "sendMoved", sendMoved)
        self.carrier = Carrier()
        service = Service(b"hello")
        visitor, talk = await self.pair(await self.tunnel(service), service)
        await self.exchange(visitor, talk)
        await self.moved()
        client, peer = self.newest, self.newest.peer
        offsets = dict(said)
        self.assertEqual(len(said), 2)
        self.assertEqual(client.receiveWindow.received, offsets[False])
        self.assertEqual(client.sendWindow.sent, offsets[True])
        self.assertEqual(client.received, 5 + MUCH)
        self.assertEqual(client.passed + offsets[True], MUCH)
        self.assertEqual(peer.received, MUCH)

    async def test_shortStays(self) -> None:
        """A stream that has not proved busy stays in the session."""
        self.carrier = Carrier()
        service = Service(b"hello")
        visitor, talk = await self.pair(await self.tunnel(service), service)
        await self.exchange(visitor, talk, 10_000)
        self.assertFalse(self.newest.moves)
        self.assertEqual(len(self.tunnels.tickets), 0)

    async def test_smallStay(self) -> None:
        """One with many small requests and answers stays, too."""
        self.carrier = Carrier()
        self.patch(movable, "BUSY", 20_000)
        service = Service(b"hello")
        visitor, talk = await self.pair(await self.tunnel(service), service)
        for _ in range(20):
            await self.exchange(visitor, talk, 1000)
        self.assertFalse(self.newest.moves)
        await self.exchange(visitor, talk)
        await self.moved()

    async def test_slowStays(self) -> None:
        """So does one whose bytes take longer than those of a busy stream may."""
        self.carrier = Carrier()
        self.patch(movable, "SHORT", 0.0)
        service = Service(b"hello")
        visitor, talk = await self.pair(await self.tunnel(service), service)
        await self.exchange(visitor, talk)
        self.assertFalse(self.newest.moves)
        self.assertEqual(len(self.tunnels.tickets), 0)

    async def test_busyMoves(self) -> None:
        """One that has, moves in the middle; nothing is lost."""
        self.carrier = Carrier()
        service = Service(b"hello")
        visitor, talk = await self.pair(await self.tunnel(service), service)
        await self.exchange(visitor, talk)
        await self.moved()
        await self.exchange(visitor, talk)

    async def test_session(self) -> None:
        """A client can keep all streams in the session."""
        self.carrier = Carrier("session")
        service = Service(b"hello")
        visitor, talk = await self.pair(await self.tunnel(service), service)
        await self.exchange(visitor, talk)
        self.assertFalse(self.newest.moves)
        self.assertIsNone(self.session.moves)

    async def test_closedOnRequest(self) -> None:
        """Whoever ends the session on purpose ends what has left it, too."""
        visitor = await self.visit(await self.tunnel(Service(b"hello")))
        await visitor.has(5)
        await self.moved()
        (client,) = self.tunnels.clients
        caller = Caller(client.identity, "localhost")
        await Listing(self.tunnels).closeSession(caller, client.id)
        await until(lambda: visitor.lost is not None)

    async def test_kicked(self) -> None:
        """A stream can be broken wherever it is."""
        service = Service(b"hello")
        visitor = await self.visit(await self.tunnel(service))
        await visitor.has(5)
        await self.moved()
        (tunnel,) = self.session.lease.tunnels
        for stream in list(tunnel.streams):
            stream.reset(TunnelError("closed"))
        await visitor.gone()
        await service.talks[0].gone()

    async def test_rateLater(self) -> None:
        """
        A rate that is set after the stream has moved holds for it, in both
        directions, and can be lifted.
        """
        service = Service(b"hello")
        visitor, talk = await self.pair(await self.tunnel(service), service)
        await self.exchange(visitor, talk)
        await self.moved()
        (tunnel,) = self.tunnels.here
        for policy, slow in (
            (VisitorPolicy(rate=8_000_000), True),
            (VisitorPolicy(), False),
        ):
            self.tunnels.policies.setByOwner(tunnel, policy)
            began = self.reactor.seconds()
            await self.exchange(visitor, talk, 4_000_000)
            if slow:
                self.assertGreater(self.reactor.seconds() - began, 0.3)

    async def test_serviceRefuses(self) -> None:
        """Without its service, a visitor is turned away, and no ticket is left."""
        await self.startServer()
        (public,) = await self.startClient(f"0=127.0.0.1:{freePort()}")
        visitor = await self.visit(public)
        await visitor.gone()
        await until(lambda: self.client.session.streams() == 0)


class MoveTLSTests(MoveTests):
    """The same over TLS."""

    tls = True

    async def test_wire(self) -> None:
        """Whatever leaves the session does so within TLS."""
        self.carrier = Carrier()
        await self.startServer()
        way = Link(self.outside, self.serverPort)
        self.addCleanup(way.stop)
        seen: dict[object, bytearray] = {}
        came = Leg.dataReceived

        def dataReceived(leg: Any, data: bytes) -> None:
            seen.setdefault(leg, bytearray()).extend(data)
            came(leg, data)

        self.patch(Leg, "dataReceived", dataReceived)
        service = Service(b"hello")
        (port,) = await self.startClient(
            f"0=127.0.0.1:{self.offer(service)}", connect=f"tls:localhost:{way.port}"
        )
        visitor, talk = await self.pair(port, service)
        visitor.say(b"secret" * 500_000)
        await talk.has(3_000_000)
        await self.moved()
        talk.say(b"secret" * 100_000)
        await visitor.has(600_005)
        self.assertEqual(len(seen), 4)
        for heard in seen.values():
            # A TLS handshake, and nothing in clear text.
            self.assertEqual(heard[0], 0x16)
            self.assertNotIn(b"secret", heard)
            self.assertNotIn(b"W3PTUNL", heard)
            self.assertNotIn(b"ticket", heard)

    async def test_otherServer(self) -> None:
        """A server that cannot prove who it is gets neither ticket nor stream."""
        self.carrier = Carrier()
        await self.startServer()
        way = Link(self.outside, self.serverPort)
        self.addCleanup(way.stop)
        heard = bytearray()

        class Impostor(Protocol):
            def dataReceived(self, data: bytes) -> None:
                heard.extend(data)

        authority = makeAuthority()
        pem = self.directory / "other.pem"
        pem.write_bytes(b"".join(authority.issue(["localhost"])))
        from twisted.internet.endpoints import TCP4ServerEndpoint

        from tristunnel.tls.server_context import ReloadingCertificate

        endpoint = tlsOverEndpoint(
            ReloadingCertificate(pem),
            TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1"),
        )
        factory: Any = Factory.forProtocol(Impostor)
        factory.noisy = False
        impostor: Any = await endpoint.listen(factory)
        self.addCleanup(impostor.stopListening)
        service = Service(b"hello")
        (port,) = await self.startClient(
            f"0=127.0.0.1:{self.offer(service)}", connect=f"tls:localhost:{way.port}"
        )
        way.target = impostor.getHost().port
        visitor, talk = await self.pair(port, service)
        await self.exchange(visitor, talk)
        moving = self.client.session.beside.moves
        await until(lambda: moving._blockedUntil > 0)
        await self.exchange(visitor, talk)
        self.assertEqual(bytes(heard), b"")
        self.assertFalse(self.newest.moves)


class HostileMoveTests(CarrierTestCase):
    """What a peer can do with tickets and moves; nothing of it is left behind."""

    def setUp(self) -> None:
        super().setUp()
        self.tickets: list[str] = []
        show = ClientMoves._show

        def note(moving: ClientMoves, ticket: str) -> Any:
            self.tickets.append(ticket)
            return show(moving, ticket)

        self.patch(ClientMoves, "_show", note)

    async def shown(self, ticket: object) -> Talk:
        talk = await self.visit(self.serverPort)
        talk.say(encodeHandshake({"tristunnel": {"ticket": ticket}}))
        return await talk.ended()

    async def nothingLeft(self) -> None:
        """Wait until no stream is left, and nothing of any."""
        ends: list[Any] = [
            self.client.session.confirmations,
            self.session.connection.confirmations,
        ]
        await until(lambda: self.session.streams() == 0)
        await until(lambda: self.client.session.streams() == 0)
        await until(lambda: not self.client.session.beside.moves._dialling)
        await until(lambda: not any(map(len, ends)))

    async def test_wrongTickets(self) -> None:
        """
        Hundreds of wrong tickets are refused, also one that differs from a good one
        in its secret, which stays good.
        """
        self.patch(ClientMoves, "_show", lambda moving, ticket: self.keep(ticket))
        await self.visit(await self.tunnel(Service()))
        await until(lambda: self.tickets)
        (good,) = self.tickets
        wrong: list[object] = [good[:-1], good + "x", good.partition(".")[0], "", "."]
        wrong += [None, 7, [good], {"": good}, "\ud800.x", "x" * 5000]
        for ticket in wrong + ["a.b"] * 200:
            talk = await self.shown(ticket)
            self.assertIn(b"refused", talk.data)
            talk.close()
        self.assertEqual(len(self.tunnels.tickets), 1)
        self.assertFalse(self.newest.moves)
        talk = await self.visit(self.serverPort)
        talk.say(encodeHandshake({"tristunnel": {"ticket": good}}))
        await talk.has(len(moves.ACCEPTED))
        self.assertTrue(self.newest.moves)

    def keep(self, ticket: str) -> Deferred[Any]:
        self.tickets.append(ticket)
        return Deferred(lambda cancelled: None)

    async def test_usedTicket(self) -> None:
        """A ticket is good once; whoever shows it again does the stream no harm."""
        service = Service(b"hello")
        visitor, talk = await self.pair(await self.tunnel(service), service)
        await self.moved()
        for _ in range(20):
            again = await self.shown(self.tickets[0])
            self.assertIn(b"refused", again.data)
            again.close()
        await self.exchange(visitor, talk)

    async def test_clientAsks(self) -> None:
        """Only the server may let a stream move; a client's word means nothing."""
        self.carrier = Carrier("session")
        service = Service(b"hello")
        visitor, talk = await self.pair(await self.tunnel(service), service)
        multiplexer = self.client.session.multiplexer
        for number in (*multiplexer.streams, 0, 1, 99):
            for payload in (b"", b"{}", b"nonsense"):
                for _ in range(500):
                    multiplexer.sendFrame(number, FrameType.MOVE, payload)
        await self.exchange(visitor, talk)
        self.assertEqual(len(self.tunnels.tickets), 0)
        self.assertFalse(self.newest.moves)

    async def test_serverAsks(self) -> None:
        """A server cannot have its client dial without end, nor say a key twice."""
        self.patch(ClientMoves, "_show", lambda moving, ticket: self.keep(ticket))
        service = Service()
        port = await self.tunnel(service)
        for _ in range(moves.AT_ONCE + 10):
            await self.pair(port, service)
        session, client = self.session, cast(Any, self.client.session)
        key = bytes(8)
        for _ in range(5):
            for number in session.multiplexer.streams:
                key = (int.from_bytes(key, "big") + 1).to_bytes(8, "big")
                offer = encodeObject({"ticket": "a.b", "key": key.hex()})
                session.multiplexer.sendFrame(number, FrameType.MOVE, offer)
        talk = await self.visit(port)
        await service.arrivals.get()
        talk.close()
        self.assertEqual(len(self.tickets), moves.AT_ONCE)
        self.assertEqual(len(client.beside.moves._dialling), moves.AT_ONCE)
        self.assertEqual(len(client.confirmations), moves.AT_ONCE)
        client.transport.abortConnection()
        await until(lambda: not client.beside.moves._dialling)

    async def test_sameKey(self) -> None:
        """A key that another stream has ends the session."""
        service = Service()
        port = await self.tunnel(service)
        await self.pair(port, service)
        await self.moved()
        session = self.session
        (known,) = session.connection.confirmations._endings
        session.moves.atOnce = False
        await self.pair(port, service)
        ((number, _),) = session.multiplexer.streams.items()
        offer = encodeObject({"ticket": "a.b", "key": known.hex()})
        session.multiplexer.sendFrame(number, FrameType.MOVE, offer)
        await until(lambda: self.seen.named("disconnected"))
        self.assertIn("protocol-error", str(self.seen.named("disconnected")))

    async def test_resetAtOnce(self) -> None:
        """
        A stream that is broken in the moment in which it moves is broken at both
        ends, whichever side does it, and nothing of it is left.
        """
        service = Service(b"hello")
        port = await self.tunnel(service)
        steps = ("moveTo", "allSent", "allPassed", "_settle", "sendMoved")
        for step, isServer, late in product(steps, (True, False), (True, False)):
            with self.subTest(step=step, isServer=isServer, late=late):
                await self.resetAt(step, isServer, late, port, service)

    async def resetAt(
        self, step: str, isServer: bool, late: bool, port: int, service: Service
    ) -> None:
        """
        Break a stream in one step of its move.

        @param isServer: On whose side.
        @param late: Whether after the step, and not before.
        """
        where: Any = ExtendedMultiplexer if step == "sendMoved" else MovableStream
        run = getattr(where, step)
        broken: list[Any] = []

        def breaking(self_: Any, *arguments: Any) -> None:
            stream = arguments[0] if step == "sendMoved" else self_
            ours = isServer == (stream._multiplexer is self.session.multiplexer)
            ready = stream.moves or step == "moveTo"
            if ours and not broken and ready and not late:
                broken.append(stream)
                stream.reset(TunnelError("reset", "broken while it moves"))
            run(self_, *arguments)
            if ours and not broken and stream.moves:
                broken.append(stream)
                stream.reset(TunnelError("reset", "broken while it moves"))

        # It may be seen as a failure of the way.
        self.client.session.beside.moves._blockedUntil = 0.0
        patched = self.patch(where, step, breaking)
        visitor = await self.visit(port)
        talk = await service.arrivals.get()
        if isServer:
            await talk.gone()
            visitor.abort()
        else:
            await visitor.gone()
            talk.abort()
        await visitor.gone()
        await talk.gone()
        patched.restore()
        self.assertEqual(len(broken), 1)
        await self.nothingLeft()
