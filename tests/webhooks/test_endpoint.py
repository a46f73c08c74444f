"""Tests for L{tristunnel.webhooks.endpoint}: through real tunnels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from tests.inspect.streams import aRecord
from tests.support.loopback import LoopbackTestCase, Service, Talk
from tests.support.processes import freePort
from tests.webhooks.test_visitor import SECRET, aRequest
from tristunnel.demand.services import DemandServices
from tristunnel.forwards.demand import DemandPlan
from tristunnel.forwards.forward import Forward
from tristunnel.inspect.replay import Edits, Replays
from tristunnel.inspect.watched import watch
from tristunnel.webhooks.endpoint import verified

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class LoopbackTests(LoopbackTestCase):
    """A server, a client, and a service that takes only what is signed."""

    plan: DemandPlan | None = None

    def setUp(self) -> None:
        super().setUp()
        path = self.directory / "secret"
        path.write_bytes(SECRET)
        os.chmod(path, 0o600)
        self.option = f"verify=github:{path}"
        self.record = aRecord()
        self.demand = DemandServices(self.reactor)
        self.addCleanup(self.demand.stop)

    def arranged(self, forwards: Iterable[Forward]) -> list[Forward]:
        made = self.demand.arrange(replace(each, demand=self.plan) for each in forwards)
        return [watch(verified(self.reactor, each), self.record) for each in made]

    async def open(self, place: int, more: str = "") -> int:
        await self.startServer()
        spec = f"0=127.0.0.1:{place},{self.option}{more}"
        (port,) = await self.startClient(spec)
        return port

    async def told(self, port: int, request: bytes) -> Talk:
        visitor = await self.visit(port)
        visitor.say(request)
        return await visitor.ended()

    async def test_both(self) -> None:
        """Good ones pass and others do not; all of them are shown."""
        service = Service()
        port = await self.open(self.offer(service))
        refused = await self.told(port, aRequest(isGood=False))
        self.assertIn(b"401 Unauthorized", refused.data)
        self.assertEqual(service.talks, [])
        big = aRequest(b"x" * 1_000_000, 10_000)
        visitor = await self.visit(port)
        visitor.say(big)
        served = await service.arrivals.get()
        await served.has(len(big))
        self.assertEqual(served.data, big)
        served.say(_OK)
        await visitor.has(len(_OK))
        visitor.say(aRequest(isGood=False))
        await visitor.ended()
        self.assertTrue(visitor.data.startswith(_OK + b"HTTP/1.1 401"))
        self.assertEqual(served.data, big)
        shown = [
            each.response.head.status
            for each in self.record.exchanges.values()
            if each.response is not None
        ]
        self.assertEqual(shown, [401, 200, 401])

    async def test_again(self) -> None:
        """What its owner sends again, edited too, needs no signature."""
        service = Service()
        port = await self.open(self.offer(service))
        await self.told(port, aRequest(isGood=False))
        shown = next(iter(self.record.exchanges.values()))
        replaying = Replays(self.reactor, self.record).send(shown, Edits(body="new"))
        served = await service.arrivals.get()
        await served.until(lambda talk: talk.data.endswith(b"\r\n\r\nnew"))
        served.say(_OK)
        made = await replaying
        assert made.response is not None
        self.assertEqual(made.response.head.status, 200)

    async def test_refusedUpload(self) -> None:
        """A visitor that goes on sending reads why it was refused."""
        port = await self.open(self.offer(Service()))
        request = aRequest(b"x" * 2_000_000).replace(b"X-Hub", b"X-Other")
        refused = await self.told(port, request)
        self.assertIn(b"there must be one X-Hub-Signature-256", refused.data)

    async def test_proxied(self) -> None:
        """A service that expects it is told who comes."""
        service = Service()
        port = await self.open(self.offer(service), ",proxy=v1")
        visitor = await self.visit(port)
        visitor.say(aRequest())
        served = await service.arrivals.get()
        await served.until(lambda talk: talk.data.endswith(aRequest()))
        self.assertTrue(served.data.startswith(b"PROXY TCP4 127.0.0.1 "))

    async def test_demand(self) -> None:
        """A request that is refused starts nothing."""
        marks = self.directory / "started"
        self.plan = DemandPlan(start=("touch", str(marks)), wait=0.5)
        port = await self.open(freePort())
        refused = await self.told(port, aRequest(isGood=False))
        self.assertIn(b"401 Unauthorized", refused.data)
        self.assertFalse(marks.exists())
        answered = await self.told(port, aRequest())
        self.assertIn(b"503 ", answered.data)
        self.assertTrue(marks.exists())
