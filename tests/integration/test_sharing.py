"""Several clients at one place: C{share}, and the health of their services."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.error import ConnectError
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.listening import listenHere
from tests.support.loopback import LoopbackTestCase, Service, Talk
from tests.support.polling import until
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.forwards.health import HealthPlan, HealthRules
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.service.caller import Caller


class SharingTests(LoopbackTestCase):
    """Clients beside each other."""

    async def startBeside(self, spec: str, greeting: bytes) -> TunnelClientService:
        """
        Start a client whose service says who it is.

        @param spec: Its forward, without the target's place.
        """
        wanted, _, options = spec.partition(",")
        port = self.offer(Service(greeting))
        ports = await self.startClient(f"{wanted}=localhost:{port},{options}")
        self.port = ports[0]
        return self.client

    async def come(self, size: int = 1) -> tuple[Talk, bytes]:
        """Come as a visitor, and hear whose service it is."""
        visitor = await self.visit(self.port)
        await visitor.has(size)
        return visitor, bytes(visitor.data)

    async def heard(self, count: int) -> str:
        return "".join([(await self.come())[1].decode() for _ in range(count)])

    async def test_beside(self) -> None:
        """Visitors are divided among two clients; when one has left, the other one
        has them all, and when that has, the port is closed."""
        await self.startServer()
        first = await self.startBeside("0,share", b"a")
        second = await self.startBeside(f"{self.port},share", b"b")
        self.assertEqual(sorted(await self.heard(6)), list("aaabbb"))
        for leaver, other in ((first, "b"), (second, "")):
            leaver.forGood = True
            await leaver.stopService()
            await until(lambda other=other: len(self.tunnels.tunnels) == len(other))
            if other:
                self.assertEqual(await self.heard(3), other * 3)
        with self.assertRaises(ConnectError):
            await self.visit(self.port)

    async def test_alone(self) -> None:
        """Both have to ask for it."""
        await self.startServer()
        await self.startBeside("0,share", b"a")
        self.beginClient(f"{self.port}=localhost:1")
        await until(lambda: self.seen.named("tunnelFailed"))
        ((_, code),) = self.seen.named("tunnelFailed")
        self.assertEqual(code, "port-taken")

    async def test_later(self) -> None:
        """A client whose forward is changed to be shared lets others come, too."""
        await self.startServer()
        first = await self.startBeside("0,proxy=v1", b"a")
        (before,) = first.forwards
        spec = before.spec.replace("proxy=v1", "share")
        await first.changeForwards([parseForward(self.reactor, spec)])
        await until(lambda: self.tunnels.tunnels[0].group is not None)
        await self.startBeside(f"{self.port},share", b"b")
        self.assertEqual(sorted(await self.heard(4)), list("aabb"))

    async def test_named(self) -> None:
        """A name without a port is shared as well, and passed on."""
        await self.startServer()
        first = await self.startBeside("web,share=round-robin", b"a")
        await self.startBeside("web,share=round-robin", b"b")
        self.assertEqual(sorted(await self.heard(4)), list("aabb"))
        first.forGood = True
        await first.stopService()
        # The first one's tunnel ends with its visitors.
        await until(lambda: self.tunnels.tunnels[-1].name == "web")
        self.assertEqual(await self.heard(2), "bb")
        caller = Caller(ANONYMOUS_IDENTITY, "127.0.0.1")
        named = await self.tunnels.findNamed(caller, "web")
        self.assertIs(named, self.tunnels.tunnels[-1])

    async def test_away(self) -> None:
        """While a client is away whose lease is kept, the others have its visitors."""
        await self.startServer()
        first = await self.startBeside("0,share=round-robin", b"a")
        await self.startBeside(f"{self.port},share=round-robin", b"b")
        session: Any = first.session
        first._delay = lambda failures, hint: 3600.0
        session.transport.abortConnection()
        await until(
            lambda: any(each.clientSide is None for each in self.tunnels.tunnels)
        )
        self.assertEqual(await self.heard(4), "bbbb")

    async def test_deployment(self) -> None:
        """One client takes over from the other, and no request is lost, nor is one cut
        off that is under way."""
        await self.startServer()
        old = await self.startBeside("0,share", b"old")
        staying, said = await self.come(3)
        self.assertEqual(said, b"old")
        await self.startBeside(f"{self.port},share", b"new")
        old.forGood, old._grace = True, 10.0
        heard: list[bytes] = []
        stopping: Any = None
        while len(heard) < 60:
            if len(heard) == 10:
                stopping = old.stopService()
            visitors = [await self.visit(self.port) for _ in range(5)]
            for visitor in visitors:
                await visitor.has(3)
                heard.append(bytes(visitor.data))
                visitor.abort()
        self.assertEqual({b"old", b"new"}, set(heard))
        self.assertEqual(heard[-20:], [b"new"] * 20)
        self.assertIsNone(staying.lost)
        staying.abort()
        await stopping


class _Health(Resource):
    isLeaf = True
    code = 200

    def render_GET(self, request: Any) -> bytes:
        request.setResponseCode(self.code)
        return b"<>"


class HealthTests(LoopbackTestCase):
    """Services that a client looks after."""

    async def startWatched(self, page: _Health, port: int = 0) -> Any:
        """Start a client whose service a page speaks for."""
        number = listenHere(self, self.outside, Site(page))
        self.beginClient()
        forward = parseForward(self.reactor, f"{port}=localhost:{number},share")
        plan = HealthPlan("http:/up", HealthRules(0.02, 1, 1))
        await self.client.changeForwards([replace(forward, health=plan)])
        return self.client

    async def until(self, *well: bool) -> None:
        """Wait until the server knows how services are, in their order."""

        def found() -> list[bool]:
            healths = [tunnel.health for tunnel in self.tunnels.tunnels]
            return [health is not None and health.isWell for health in healths]

        await until(lambda: found() == [*well])

    async def test_rotation(self) -> None:
        """One that is not well leaves the rotation, and comes back; if none is well,
        visitors are refused at once."""
        await self.startServer()
        pages = [_Health(), _Health()]
        await self.startWatched(pages[0])
        await self.until(True)
        port = int(self.tunnels.tunnels[0].address.rpartition(":")[2])
        await self.startWatched(pages[1], port)
        await self.until(True, True)
        first, second = self.tunnels.tunnels
        pages[0].code = 503
        await self.until(False, True)
        for _ in range(3):
            await self.visit(port)
        await until(lambda: second.visitorCount >= 3)
        self.assertEqual(first.visitorCount, 0)
        pages[1].code = 500
        await self.until(False, False)
        visitor = await self.visit(port)
        await visitor.gone()
        refused = {**first.refusals, **second.refusals}
        self.assertEqual(refused, {"service-unreachable": 1})
        pages[0].code = pages[1].code = 204
        await self.until(True, True)
        self.assertIsNotNone(first.health and first.health.proven)

    async def test_reports(self) -> None:
        """A session speaks for its own tunnels only."""
        await self.startServer()
        await self.startWatched(_Health())
        await self.until(True)
        session: Any = self.client.session
        error = await self.assertFailure(
            session.call("reportHealth", uri="w3p://h/1", well=False), TunnelError
        )
        self.assertEqual(error.code.name, "unknown-tunnel")
