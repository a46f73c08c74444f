"""
Streams through a server and a client of ours, over real sockets.
"""

from __future__ import annotations

import os
from hashlib import sha256
from itertools import product
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo

from tests.support.amounts import pattern
from tests.support.loopback import LoopbackTestCase, Service, Talk
from tests.support.polling import until
from tests.support.processes import freePort
from tests.support.short import shortDirectory
from tristunnel.auth.checkers import checkingCallable
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.dialects.framed.moves import Carrier

_MANY = int(os.environ.get("TRISTUNNEL_VISITORS", "200"))
"""Idle visitors; 2,000 for the whole truth."""


class StreamTests(LoopbackTestCase):
    """What a stream carries, and how it ends."""

    async def test_bothWays(self) -> None:
        """Bytes arrive whole and in order in both directions at once."""
        service = Service()
        port = await self.tunnel(service)
        visitor, answering = await self.pair(port, service)
        there, back = pattern(3_000_000, 1), pattern(2_000_000, 2)
        visitor.say(there)
        answering.say(back)
        await visitor.has(len(back))
        await answering.has(len(there))
        self.assertEqual(bytes(visitor.data), back)
        self.assertEqual(bytes(answering.data), there)

    async def test_speaksFirst(self) -> None:
        """A visitor who says nothing hears a service that speaks first."""
        service = Service(b"SSH-2.0-OpenSSH_9.2\r\n")
        visitor = await self.visit(await self.tunnel(service))
        await visitor.has(21)
        self.assertEqual(bytes(visitor.data), service.greeting)

    async def test_visitorFinishes(self) -> None:
        """
        A service that answers only after it has read the end gets it, and its
        answer arrives.
        """
        service = Service()
        port = await self.tunnel(service)
        visitor, answering = await self.pair(port, service)
        question, answer = pattern(500_000, 3), pattern(600_000, 4)
        visitor.say(question)
        visitor.finish()
        await answering.ended()
        self.assertIsNone(answering.lost)
        self.assertEqual(bytes(answering.data), question)
        answering.say(answer)
        answering.close()
        await visitor.gone()
        self.assertEqual(bytes(visitor.data), answer)

    async def test_serviceFinishes(self) -> None:
        """A service that has said all still hears the visitor."""
        service = Service()
        port = await self.tunnel(service)
        visitor, answering = await self.pair(port, service)
        answering.say(b"that was all")
        answering.finish()
        await visitor.ended()
        self.assertIsNone(visitor.lost)
        self.assertEqual(bytes(visitor.data), b"that was all")
        visitor.say(pattern(300_000))
        visitor.close()
        await answering.gone()
        self.assertEqual(bytes(answering.data), pattern(300_000))

    async def test_everyOrderOfClosing(self) -> None:
        """
        However the two sides close, each has heard all that the other said
        before it.
        """
        service = Service()
        port = await self.tunnel(service)
        said = pattern(400_000)
        for first, how in product(("visitor", "service"), ("finish", "close")):
            visitor, answering = await self.pair(port, service)
            ends = {"visitor": visitor, "service": answering}
            one = ends.pop(first)
            (other,) = ends.values()
            if how == "finish":
                # Both speak; the one ends its direction, then the other does.
                one.say(said)
                one.finish()
                other.say(said[::-1])
                await other.ended()
                self.assertEqual(bytes(other.data), said)
                other.finish()
                await one.gone()
                self.assertEqual(bytes(one.data), said[::-1])
                await other.gone()
            else:
                # The one speaks and is gone; nothing of it is lost.
                one.say(said)
                one.close()
                await other.ended()
                self.assertEqual(bytes(other.data), said)
                other.close()
                await other.gone()
                await one.gone()

    async def test_bothCloseAtOnce(self) -> None:
        """Both speak and close without waiting for each other."""
        service = Service()
        port = await self.tunnel(service)
        for _ in range(5):
            visitor, answering = await self.pair(port, service)
            visitor.say(b"v" * 1000)
            answering.say(b"s" * 1000)
            visitor.finish()
            answering.finish()
            await visitor.gone()
            await answering.gone()
            self.assertEqual(bytes(visitor.data), b"s" * 1000)
            self.assertEqual(bytes(answering.data), b"v" * 1000)

    async def test_visitorResets(self) -> None:
        """A visitor's reset is a reset for the service."""
        service = Service()
        port = await self.tunnel(service)
        visitor, answering = await self.pair(port, service)
        visitor.say(b"?")
        await answering.has(1)
        visitor.abort()
        await answering.gone()
        assert answering.lost is not None
        self.assertIsNone(answering.lost.check(ConnectionDone))
        self.assertFalse(answering.eof)

    async def test_serviceResets(self) -> None:
        """A service's reset is a reset for the visitor."""
        service = Service()
        port = await self.tunnel(service)
        visitor, answering = await self.pair(port, service)
        visitor.say(b"?")
        await answering.has(1)
        answering.abort()
        await visitor.gone()
        assert visitor.lost is not None
        self.assertIsNone(visitor.lost.check(ConnectionDone))
        self.assertFalse(visitor.eof)

    async def test_noService(self) -> None:
        """Where nothing listens, the visitor is reset, and the client says so."""
        await self.startServer()
        target = f"127.0.0.1:{freePort()}"
        (port,) = await self.startClient(f"0={target}")
        visitor = await self.visit(port)
        await visitor.gone()
        assert visitor.lost is not None
        self.assertIsNone(visitor.lost.check(ConnectionDone))
        self.assertEqual(
            self.seen.named("serviceFailed"), [(target, "service-refused")]
        )

    async def test_counted(self) -> None:
        """The server tells how many bytes went each way."""
        service = Service()
        port = await self.tunnel(service)
        visitor, answering = await self.pair(port, service)
        visitor.say(b"12345")
        await answering.has(5)
        answering.say(b"123")
        answering.close()
        await visitor.ended()
        visitor.close()
        await visitor.gone()
        await until(lambda: self.notes.named("visitorGone"))
        self.assertEqual(self.notes.named("visitorGone"), [(5, 3, "")])

    async def test_unixService(self) -> None:
        """A service on a UNIX socket is reached."""
        service = Service(b"hello from a socket")
        path = str(shortDirectory(self) / "s")
        listening = self.outside.listenUNIX(path, service)
        self.addCleanup(listening.stopListening)
        self.addCleanup(self._endAll, service)
        await self.startServer()
        (port,) = await self.startClient(f"0=unix:{path}")
        visitor = await self.visit(port)
        await visitor.has(19)
        self.assertEqual(bytes(visitor.data), service.greeting)


class StreamTLSTests(StreamTests):
    """The same over TLS."""

    tls = True


class StreamInSessionTests(StreamTests):
    """The same where streams stay in the session."""

    carrier = Carrier("session")


class StreamMovingTests(StreamTests):
    """The same where streams leave the session as soon as they can."""

    carrier = Carrier("direct")


class StreamMovingTLSTests(StreamMovingTests):
    """And over TLS."""

    tls = True


class StreamStockTests(StreamTests):
    """The same over Twisted's own transports."""

    stock = True


class StreamStockTLSTests(StreamStockTests):
    """And over TLS in Twisted's memory."""

    tls = True


class CrowdTests(LoopbackTestCase):
    """Many visitors at once."""

    async def test_stalledVisitor(self) -> None:
        """
        A visitor that stops reading holds nobody up, and what is kept for it
        is bounded.
        """
        service = Service()
        port = await self.tunnel(service)
        stalled, flooding = await self.pair(port, service)
        stalled.transport.pauseProducing()
        offered = 0
        piece = pattern(1 << 20)
        flooding.transport.bufferSize = 1 << 16

        class Flood:
            """Offers bytes as fast as they are taken."""

            def resumeProducing(self) -> None:
                nonlocal offered
                offered += len(piece)
                flooding.transport.write(piece)

            def stopProducing(self) -> None:
                """Enough."""

        flooding.transport.registerProducer(Flood(), False)

        async def work(number: int) -> None:
            visitor, answering = await self.pair(port, service)
            said = pattern(100_000, number)
            visitor.say(said)
            await answering.has(len(said))
            answering.say(said)
            answering.finish()
            await visitor.ended()
            visitor.close()
            await visitor.gone()

        before = 0
        while offered != before:
            # Until nothing moves any more but for the fifty.
            before = offered
            for number in range(10):
                await work(number)
        self.assertLess(offered, 64 << 20)
        stalled.transport.resumeProducing()
        await stalled.has(8 << 20)
        self.assertEqual(
            sha256(stalled.data[: 1 << 20]).digest(), sha256(piece).digest()
        )
        stalled.abort()
        await flooding.gone()

    async def test_idleVisitors(self) -> None:
        """Many visitors who say nothing are all still there afterwards."""
        service = Service()
        port = await self.tunnel(service)
        visitors = [await self.visit(port) for _ in range(_MANY)]
        for _ in range(_MANY):
            await service.arrivals.get()
        self.assertEqual(self.sessions.streams(), _MANY)
        for number, visitor in enumerate(visitors):
            visitor.say(b"%d" % number)
        await gatherResults([talk.has(1) for talk in service.talks])
        for talk in service.talks:
            talk.say(bytes(talk.data))
            talk.close()
        await gatherResults([visitor.ended() for visitor in visitors])
        self.assertEqual(
            sorted(int(visitor.data) for visitor in visitors), list(range(_MANY))
        )

    async def test_manyAtWork(self) -> None:
        """Fifty visitors at once each get their own bytes."""
        echo: Any = Factory.forProtocol(Echo)
        port = await self.tunnel(echo)

        async def work(number: int) -> None:
            visitor: Talk = await self.visit(port)
            said = pattern(200_000, number)
            visitor.say(said)
            await visitor.has(len(said))
            self.assertEqual(bytes(visitor.data), said)
            visitor.close()
            await visitor.gone()

        await gatherResults([Deferred.fromCoroutine(work(n)) for n in range(50)])


class CrowdTLSTests(CrowdTests):
    """The same over TLS."""

    tls = True


class RefusedTests(LoopbackTestCase):
    """Clients that are turned away."""

    async def test_refused(self) -> None:
        """Client and server are rid of the connection at once."""
        self.timeout = 5
        await self.startServer()
        self.sessions.authenticator = Authenticator(
            portalFor([checkingCallable(lambda fields: False)])
        )
        gaveUp: Deferred[None] = Deferred()

        def told(event: tuple[object, ...]) -> None:
            if event[0] == "gaveUp":
                gaveUp.callback(None)

        self.seen.listeners.append(told)
        self.beginClient("0=localhost:1")
        await gaveUp
        await until(lambda: not (self.sessions.sessions or self.closing()))

    def closing(self) -> list[object]:
        """What waits to cut off a peer that does not go; it would take 10 s."""
        return [
            call
            for call in self.reactor.getDelayedCalls()
            if "abortConnection" in str(call)
        ]


class RefusedTLSTests(RefusedTests):
    """The same over TLS."""

    tls = True
