"""Streams that move to a connection of their own while they pass bytes."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol

from tests.dialects.framed.moves_rig import CarrierTestCase
from tests.faults.way import Leg, Link
from tests.support.amounts import pattern
from tests.support.listening import listenHere
from tests.support.loopback import Service, Talk
from tests.support.polling import until
from tristunnel.dialects.framed import movable, moves
from tristunnel.dialects.framed.moves import Carrier, ClientMoves
from tristunnel.wire.framed import FrameType, encodeHandshake


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
        self.way.silent = True
        visitor, talk = await self.pair(self.port, self.service)
        await until(lambda: self.client.session.beside.moves._dialling)
        visitor.say(b"question")
        await talk.has(8)
        self.assertFalse(self.newest.hasMoved)
        self.way.speak()
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
        port = listenHere(self, self.outside, factory)
        self.way.target = port
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
                await until(lambda: self.client.session.beside.moves._blockedUntil > 0)
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
        moving = self.client.session.beside.moves
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
        self.patch(movable, "BUSY", 100_000)
        self.carrier = Carrier()
        await self.begin()
        chance = random.Random(9)
        broken = rounds = 0
        # On a busy machine most streams are over before they move.
        while rounds < 15 or (not broken and rounds < 150):
            rounds += 1
            self.client.session.beside.moves._blockedUntil = 0.0
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
