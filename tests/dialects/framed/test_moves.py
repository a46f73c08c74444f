"""
Streams that move to a connection of their own, through a server and a client of
ours.
"""

from __future__ import annotations

import random
from itertools import product
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol

from tests.faults.way import Leg, Link
from tests.support.loopback import LoopbackTestCase, Service, Talk
from tests.support.polling import until
from tests.tls.authority import makeAuthority
from tristunnel.dataplane.tls import tlsOverEndpoint
from tristunnel.dialects.base import stream as streaming
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.framed import client_service as clientService
from tristunnel.dialects.framed import moves
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.moves import Carrier, ClientMoves
from tristunnel.errors import TunnelError
from tristunnel.model.policy import VisitorPolicy
from tristunnel.service.caller import Caller
from tristunnel.service.listing import Listing
from tristunnel.wire.framed import FrameType, encodeHandshake, encodeObject

MUCH = 3_000_000
"""Bytes that prove a stream busy."""


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes in which a lost or doubled piece shows."""
    return random.Random(seed).randbytes(size)


class CarrierTestCase(LoopbackTestCase):
    """
    A test with a client of one carrier.

    @cvar carrier: How its streams travel.
    """

    carrier = Carrier("direct")

    def setUp(self) -> None:
        super().setUp()
        self.patch(clientService, "Carrier", lambda: self.carrier)

    @property
    def session(self) -> Any:
        """The server's side of the only session."""
        (session,) = [s for s in self.sessions.sessions if s.multiplexer is not None]
        return session

    @property
    def newest(self) -> Any:
        """The client's end of the newest stream."""
        (tunnel,) = self.session.lease.tunnels
        return max(tunnel.streams, key=lambda stream: stream.number).client

    async def moved(self) -> None:
        """Wait until the newest stream has left the session."""
        await until(lambda: self.newest.hasMoved)

    async def exchange(self, visitor: Talk, talk: Talk, size: int = MUCH) -> None:
        """Say much in both directions, and check it."""
        await visitor.has(5)
        there, back = len(talk.data), len(visitor.data)
        visitor.say(pattern(size, 1))
        talk.say(pattern(size, 2))
        await talk.has(there + size)
        await visitor.has(back + size)
        self.assertTrue(talk.data[there:] == pattern(size, 1))
        self.assertTrue(visitor.data[back:] == pattern(size, 2))


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
        self.session.transport.abortConnection()
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
        self.assertEqual(client._receivedHere, offsets[False])
        self.assertEqual(client._sentBefore, offsets[True])
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
        service = Service()
        await self.startServer()
        port = self.outside.listenTCP(0, service, interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        (public,) = await self.startClient(f"0=127.0.0.1:{number}")
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
        moving = self.client.session._moves
        await until(lambda: moving._blockedUntil > 0)
        await self.exchange(visitor, talk)
        self.assertEqual(bytes(heard), b"")
        self.assertFalse(self.newest.moves)


class SecondConnectionTests(CarrierTestCase):
    """A second connection that will not do."""

    async def begin(self) -> None:
        """Start everything, with a way between client and server."""
        await self.startServer()
        self.way = Link(self.outside, self.serverPort)
        self.addCleanup(self.way.stop)
        self.service = Service(b"hello")
        scheme, host = ("tls", "localhost") if self.tls else ("tcp", "127.0.0.1")
        (self.port,) = await self.startClient(
            f"0=127.0.0.1:{self.offer(self.service)}",
            connect=f"{scheme}:{host}:{self.way.port}",
        )

    async def stays(self) -> None:
        """The stream goes on in the session, with every byte, and so do others."""
        for _ in range(2):
            visitor, talk = await self.pair(self.port, self.service)
            await self.exchange(visitor, talk)
            self.assertFalse(self.newest.hasMoved)
            visitor.close()
            talk.close()
            await until(lambda: self.session.streams() == 0)

    async def test_refused(self) -> None:
        """One that is refused changes nothing, and is not tried again soon."""
        await self.begin()
        tried = []
        show = ClientMoves._show

        def note(moving: ClientMoves, ticket: str) -> Any:
            tried.append(ticket)
            return show(moving, ticket)

        self.patch(ClientMoves, "_show", note)
        self.way.refusing = True
        await self.stays()
        self.assertEqual(len(tried), 1)

    async def test_silent(self) -> None:
        """Nor does one that is accepted by something that never answers."""
        self.patch(moves, "PATIENCE", 0.2)
        await self.begin()
        self.way.silent = True
        await self.stays()
        self.way.clear()

    async def test_slow(self) -> None:
        """One that takes its time is used when it is there."""
        await self.begin()
        self.way.delay = 0.2
        visitor, talk = await self.pair(self.port, self.service)
        visitor.say(b"question")
        await talk.has(8)
        self.assertFalse(self.newest.hasMoved)
        self.way.delay = 0.0
        await self.moved()
        await self.exchange(visitor, talk)

    async def answeredBy(self, answer: bytes) -> Talk:
        """
        Have somebody else answer second connections.

        @return: The visitor of a stream to be moved.
        """
        await self.begin()

        class Impostor(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(answer)

        factory: Any = Factory.forProtocol(Impostor)
        factory.noisy = False
        port = self.outside.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.way.target = port.getHost().port
        return await self.visit(self.port)

    async def test_somebodyElse(self) -> None:
        """An answer that is no acceptance changes nothing."""
        for answer in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"W3PTUNL" + bytes(20),
            encodeHandshake({"tristunnel": {"refused": {"code": "expired"}}}),
        ):
            with self.subTest(answer=answer):
                visitor = await self.answeredBy(answer)
                await visitor.has(5)
                await until(lambda: self.client.session._moves._blockedUntil > 0)
                talk = await self.service.arrivals.get()
                await self.exchange(visitor, talk)
                visitor.abort()
                await visitor.gone()
                await self.client.stopService()

    async def test_thief(self) -> None:
        """
        Who accepts a ticket in the server's place has the stream broken, at both
        ends.
        """
        visitor = await self.answeredBy(moves.ACCEPTED)
        talk = await self.service.arrivals.get()
        await visitor.gone()
        await talk.gone()
        for each in (visitor, talk):
            assert each.lost is not None
            self.assertIsNone(each.lost.check(ConnectionDone))

    async def test_visitorLeaves(self) -> None:
        """A visitor who leaves while the client dials leaves nothing behind."""
        self.patch(moves, "PATIENCE", 1.0)
        await self.begin()
        self.way.silent = True
        visitor, talk = await self.pair(self.port, self.service)
        moving = self.client.session._moves
        await until(lambda: moving._dialling)
        visitor.abort()
        await talk.gone()
        await until(lambda: self.session.streams() == 0)
        await until(lambda: self.client.session.streams() == 0)
        self.way.clear()
        await until(lambda: not moving._dialling)
        # It tells nothing of the way, so the next one may move.
        self.way.silent = False
        visitor, talk = await self.pair(self.port, self.service)
        await self.moved()

    async def test_cut(self) -> None:
        """
        A cut of the second connection, whenever it comes, loses no byte without
        both ends seeing a break; before anybody has changed over it is none.
        """
        self.patch(streaming, "BUSY", 100_000)
        self.carrier = Carrier()
        await self.begin()
        chance = random.Random(9)
        broken = rounds = 0
        # On a busy machine most streams are over before they move.
        while rounds < 15 or (not broken and rounds < 150):
            rounds += 1
            self.client.session._moves._blockedUntil = 0.0
            at = self.way.passed + chance.randrange(100_000, 2_000_000)
            self.way.moment = (at, self._cutNewest)
            visitor, talk = await self.pair(self.port, self.service)
            visitor.say(pattern(700_000, 1))
            talk.say(pattern(700_000, 2))
            visitor.finish()
            talk.finish()
            await visitor.gone()
            await talk.gone()
            for each, said in (
                (visitor, b"hello" + pattern(700_000, 2)),
                (talk, pattern(700_000, 1)),
            ):
                self.assertTrue(said.startswith(each.data))
                if each.eof:
                    self.assertEqual(len(each.data), len(said))
            broken += not (visitor.eof and talk.eof)
            self.way.moment = None
            await until(lambda: self.session.streams() == 0)
        self.assertGreater(broken, 0)

    def _cutNewest(self) -> None:
        legs = self.way.ups()
        if len(legs) > 1:
            self.way.some(legs[1:], Leg.abort)


class SecondTLSConnectionTests(SecondConnectionTests):
    """The same over TLS, where nobody else can answer."""

    tls = True

    async def test_thief(self) -> None:
        """Who cannot prove to be the server gets no ticket."""
        visitor = await self.answeredBy(moves.ACCEPTED)
        talk = await self.service.arrivals.get()
        await self.exchange(visitor, talk)
        self.assertFalse(self.newest.moves)


class LateMoveTests(CarrierTestCase):
    """What frames about moves can do at the wrong time."""

    async def test_refusedTicket(self) -> None:
        """A wrong ticket is refused, with a reason."""
        await self.startServer()
        endpoint = TCP4ClientEndpoint(self.outside, "127.0.0.1", self.serverPort)
        talk = await connectProtocol(endpoint, Talk())
        talk.say(encodeHandshake({"tristunnel": {"ticket": "a.b"}}))
        await talk.ended()
        self.assertIn(b"refused", talk.data)
        talk.close()
        await talk.gone()

    async def test_wrongOffset(self) -> None:
        """A side that says it moved elsewhere than it did has the session ended."""
        self.carrier = Carrier("session")
        service = Service(b"hello")
        visitor = await self.visit(await self.tunnel(service))
        await visitor.has(5)
        multiplexer = self.client.session.multiplexer
        ((number, _),) = multiplexer.streams.items()
        multiplexer.sendFrame(number, FrameType.MOVED, (4).to_bytes(8, "big"))
        await visitor.gone()
        await until(lambda: self.notes.named("clientGone"))
        self.assertEqual(
            self.notes.named("clientGone"), [("anonymous", "protocol-error")]
        )

    async def test_withoutConnection(self) -> None:
        """Who says that it has moved, without a connection, has the stream broken."""
        service = Service(b"hello")
        self.patch(moves, "dial", lambda *a: Deferred())
        visitor = await self.visit(await self.tunnel(service))
        await visitor.has(5)
        multiplexer = self.client.session.multiplexer
        ((number, _),) = multiplexer.streams.items()
        multiplexer.sendFrame(number, FrameType.MOVED, (5).to_bytes(8, "big"))
        await visitor.gone()
        await service.talks[0].gone()
        self.assertIsNotNone(self.client.session)


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
        """Show a ticket, and wait for the answer."""
        talk = await self.visit(self.serverPort)
        talk.say(encodeHandshake({"tristunnel": {"ticket": ticket}}))
        return await talk.ended()

    async def nothingLeft(self) -> None:
        """Wait until no stream is left, and nothing of any."""
        ends: list[Any] = [
            self.client.session._confirmations,
            self.session._confirmations,
        ]
        await until(lambda: self.session.streams() == 0)
        await until(lambda: self.client.session.streams() == 0)
        await until(lambda: not self.client.session._moves._dialling)
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
        """Keep a ticket, and show it to nobody."""
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
        self.assertEqual(len(client._moves._dialling), moves.AT_ONCE)
        self.assertEqual(len(client._confirmations), moves.AT_ONCE)
        client.transport.abortConnection()
        await until(lambda: not client._moves._dialling)

    async def test_sameKey(self) -> None:
        """A key that another stream has ends the session."""
        service = Service()
        port = await self.tunnel(service)
        await self.pair(port, service)
        await self.moved()
        session = self.session
        (known,) = session._confirmations._endings
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
        steps = ("moveTo", "switch", "_follow", "_settle", "sendMoved")
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
        where: Any = ExtendedMultiplexer if step == "sendMoved" else SessionStream
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
        self.client.session._moves._blockedUntil = 0.0
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
