"""Tests for L{tristunnel.demand}: real programs that are started for visitors."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from tests.support.loopback import LoopbackTestCase, Service, Talk
from tests.support.processes import freePort
from tristunnel.demand import endpoint
from tristunnel.demand.services import DemandServices
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.framed import client_service, credit
from tristunnel.forwards.demand import STREAM_WINDOW, DemandPlan, MagicPacket
from tristunnel.forwards.forward import Forward
from tristunnel.model.observer import ClientObserver, severalObservers

#: Tells the test that it runs, until it does not, and answers all with the same.
_PROGRAM = """
import asyncio, contextlib, sys
async def serve(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()
async def main(port, told):
    await asyncio.open_connection("127.0.0.1", told)
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()
asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""

_ASKS = b"GET / HTTP/1.1\r\nHost: blog\r\nAccept: text/html\r\n\r\n"
_POSTS = b"POST / HTTP/1.1\r\nHost: blog\r\nContent-Length: 0\r\n\r\n"


class _Packets(DatagramProtocol):
    def __init__(self, came: Any) -> None:
        self.came = came

    def datagramReceived(self, data: bytes, address: object) -> None:
        self.came(data)


class VisitTests(LoopbackTestCase):
    """A client, and services that do not run yet."""

    plan: DemandPlan

    def setUp(self) -> None:
        super().setUp()
        self.demand = DemandServices(self.reactor)
        self.addCleanup(self.demand.stop)
        self.told = Service()
        self.place = freePort()

    def arranged(self, forwards: Iterable[Forward]) -> list[Forward]:
        return self.demand.arrange(replace(each, demand=self.plan) for each in forwards)

    def observer(self) -> ClientObserver:
        followed = self.demand.follow(self.seen)
        return severalObservers(ClientObserver, self.seen, followed)

    async def open(self, **plan: Any) -> int:
        """Offer a service at a port for visitors."""
        if "wake" not in plan:
            told = self.offer(self.told)
            words = (sys.executable, "-c", _PROGRAM, str(self.place), str(told))
            plan = {"start": words, **plan}
        self.plan = DemandPlan(**plan)
        await self.startServer()
        (port,) = await self.startClient(f"0=127.0.0.1:{self.place}")
        return port

    async def test_first(self) -> None:
        """The first visitor waits, and what it said meanwhile is not lost."""
        port = await self.open()
        visitor = await self.visit(port)
        visitor.say(b"hello")
        await visitor.has(5)
        self.assertEqual(visitor.data, b"hello")
        again = await self.visit(port)
        again.say(b"again")
        await again.has(5)
        self.assertEqual(len(self.told.talks), 1)

    async def test_stopped(self) -> None:
        """It ends when its last visitor has left, and is started for the next one."""
        port = await self.open(idle=0.05)
        first, second = await self.visit(port), await self.visit(port)
        for each in (first, second):
            each.say(b"hello")
            await each.has(5)
        first.close()
        run: Talk = await self.told.arrivals.get()
        self.assertIsNone(run.lost)
        second.close()
        await run.ended()
        third = await self.visit(port)
        third.say(b"hello")
        await third.has(5)

    async def test_end(self) -> None:
        """It does not outlive the client."""
        port = await self.open()
        visitor = await self.visit(port)
        visitor.say(b"hello")
        await visitor.has(5)
        run = await self.told.arrivals.get()
        await self.demand.stop()
        await run.ended()

    async def test_browser(self) -> None:
        """A browser is told, and asks again; another program just waits."""
        port = await self.open()
        browser = await self.visit(port)
        browser.say(_ASKS)
        await browser.ended()
        page = bytes(browser.data)
        self.assertTrue(page.startswith(b"HTTP/1.1 503 "))
        self.assertIn(b"\r\nRefresh: ", page)
        self.assertIn(b"being started", page)
        other = await self.visit(port)
        other.say(_POSTS)
        await other.has(len(_POSTS))
        self.assertEqual(other.data, _POSTS)

    async def test_browserAlone(self) -> None:
        """Its first request, which comes with the connection, starts the service."""
        port = await self.open()
        browser = await self.visit(port)
        browser.say(_ASKS)
        await browser.ended()
        run = await self.told.arrivals.get()
        self.assertIsNone(run.lost)

    async def test_halfClosed(self) -> None:
        """Who says no more than its request still gets an answer."""
        port = await self.open()
        visitor = await self.visit(port)
        visitor.say(b"hello")
        visitor.finish()
        await visitor.gone()
        self.assertEqual(visitor.data, b"hello")

    async def test_many(self) -> None:
        """What visitors have to send waits with them, and does not crowd a session."""
        crowded = Limits(streamWindow=STREAM_WINDOW, sessionWindow=3 * 1024 * 1024)
        self.patch(client_service, "_WAITING", crowded)
        self.patch(credit, "PAUSE", 0.05)
        self.patch(endpoint, "LOOK", 0.5)
        port = await self.open()
        visitors = [await self.visit(port) for _ in range(25)]
        body = b"x" * 400_000
        posts = _POSTS.replace(b": 0", b": 400000") + body
        for each in visitors:
            each.say(posts)
        for each in visitors:
            await each.has(len(posts))

    async def test_fails(self) -> None:
        """Each is told in its own way that there is nothing to wait for."""
        port = await self.open(start=(sys.executable, "-c", "raise SystemExit(3)"))
        program = await self.visit(port)
        program.say(_POSTS)
        await program.ended()
        self.assertIn(b"could not be started", program.data)
        browser = await self.visit(port)
        browser.say(_ASKS)
        await browser.ended()
        self.assertIn(b"<h1>It did not start</h1>", browser.data)
        self.assertNotIn(b"Refresh", browser.data)
        other = await self.visit(port)
        other.say(b"\x00\x01")
        await other.ended()
        self.assertEqual(other.data, b"")

    async def test_late(self) -> None:
        port = await self.open(start=(sys.executable, "-c", "input()"), wait=0.01)
        visitor = await self.visit(port)
        visitor.say(_POSTS)
        await visitor.ended()
        self.assertIn(b" 503 ", visitor.data)

    async def test_wakes(self) -> None:
        """A machine is woken by a packet, and serves when it is up."""
        service = Service(b"up")

        def came(data: bytes) -> None:
            self.assertEqual(data, b"\xff" * 6 + b"123456" * 16)
            if not service.arrivals.pending and not ports:
                ports.append(
                    self.outside.listenTCP(self.place, service, interface="127.0.0.1")
                )

        ports: list[Any] = []
        packets = self.outside.listenUDP(0, _Packets(came), interface="127.0.0.1")
        self.addCleanup(packets.stopListening)
        number = packets.getHost().port
        port = await self.open(wake=MagicPacket(b"123456", "127.0.0.1", number))
        visitor = await self.visit(port)
        await visitor.has(2)
        self.assertEqual(visitor.data, b"up")
        await ports[0].stopListening()
        await self._endAll(service)

    async def test_leaves(self) -> None:
        """A visitor who does not wait leaves nothing behind."""
        port = await self.open()
        visitor = await self.visit(port)
        visitor.abort()
        run = await self.told.arrivals.get()
        self.assertIsNone(run.lost)

    async def test_meanwhile(self) -> None:
        """Whoever finds it up has it not started once more, and it still ends."""
        port = await self.open(idle=0.05)
        visitors = [await self.visit(port) for _ in range(5)]
        for each in visitors:
            each.say(b"hello")
        for each in visitors:
            await each.has(5)
        self.assertEqual(len(self.told.talks), 1)
        for each in visitors:
            each.close()
        await self.told.talks[0].ended()
