"""
Streams that move to a connection of their own, through a server and a client of
ours.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from tests.faults.way import Leg, Link
from tests.support.loopback import LoopbackTestCase, Service, Talk
from tests.tls.authority import makeAuthority
from tristunnel.dataplane.tls import tlsOverEndpoint
from tristunnel.dialects.base import stream as streaming
from tristunnel.dialects.framed import client_service as clientService
from tristunnel.dialects.framed import moves
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.moves import Carrier, ClientMoves
from tristunnel.errors import TunnelError
from tristunnel.model.policy import VisitorPolicy
from tristunnel.service.caller import Caller
from tristunnel.service.listing import Listing
from tristunnel.wire.framed import FrameType, encodeHandshake

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
        await self.turn(lambda: self.newest.hasMoved)

    async def turn(self, condition: Any) -> None:
        """Let the reactor work until C{condition} holds."""
        while not condition():
            await deferLater(self.reactor, 0.005)

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
        await self.turn(lambda: visitor.lost is not None)

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
        (tunnel,) = self.tunnels._quota
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
        await self.turn(lambda: self.client.session.streams() == 0)


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
        await self.turn(lambda: moving._blockedUntil > 0)
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
            await self.turn(lambda: self.session.streams() == 0)

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
                await self.turn(lambda: self.client.session._moves._blockedUntil > 0)
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
        await self.begin()
        self.way.silent = True
        visitor, talk = await self.pair(self.port, self.service)
        moving = self.client.session._moves
        await self.turn(lambda: moving._dialling)
        visitor.abort()
        await talk.gone()
        await self.turn(lambda: self.session.streams() == 0)
        await self.turn(lambda: self.client.session.streams() == 0)
        self.way.clear()
        await self.turn(lambda: not moving._dialling)

    async def test_cut(self) -> None:
        """
        A cut of the second connection, whenever it comes, loses no byte without
        both ends seeing a break; before anybody has changed over it is none.
        """
        self.patch(streaming, "BUSY", 100_000)
        self.carrier = Carrier()
        await self.begin()
        chance = random.Random(9)
        broken = 0
        for _ in range(15):
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
            await self.turn(lambda: self.session.streams() == 0)
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
        await self.turn(lambda: self.notes.named("clientGone"))
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
