"""Whether a service is well, L{tristunnel.forwards.health}."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.listening import listenHere
from tests.support.processes import freePort
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.forwards.health import HealthCheck, HealthRules, parseHealth

reactor: Any = _reactor


class CheckTests(SynchronousTestCase):
    """When a service counts as well."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[bool, str]] = []
        self.answer: Any = None
        self.asked = 0
        rules = HealthRules(10.0, 3, 2)
        self.check = HealthCheck(
            self.clock, rules, self.probe, lambda *told: self.told.append(told)
        )

    def probe(self) -> Deferred[None]:
        self.asked += 1
        if self.answer is None:
            return Deferred()
        return succeed(None) if self.answer is True else fail(self.answer)

    def see(self, *answers: object) -> list[bool]:
        for self.answer in answers:
            self.clock.advance(10)
        found = [told[0] for told in self.told[-len(answers) :]]
        return found

    def test_thresholds(self) -> None:
        """The first check decides alone, then several in a row."""
        self.answer = True
        self.check.start()
        self.assertEqual(self.told, [(True, "")])
        bad = ConnectionRefusedError()
        self.assertEqual(self.see(bad, bad, True, bad, bad), [True] * 5)
        self.assertEqual(self.see(bad, True, bad, True, True), [False] * 4 + [True])
        self.assertEqual(self.asked, 11)
        self.check.stop()
        self.clock.advance(100)
        self.assertEqual(self.asked, 11)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_why(self) -> None:
        """The reason is in a few words."""
        self.answer = ConnectionRefusedError()
        self.check.start()
        self.assertEqual(self.told, [(False, "nothing listens there")])

    def test_slow(self) -> None:
        """Who does not answer in time is not well; a check that is under way when it
        is stopped tells nothing."""
        self.check.start()
        self.clock.advance(5)
        self.assertEqual(self.told, [(False, "it did not answer in time")])
        self.clock.advance(10)
        self.check.stop()
        self.assertEqual(len(self.told), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wrong(self) -> None:
        """What is no check is refused."""
        for text in ("http", "http:", "http://h/", "http:/a b", "udp", "http:x"):
            error = self.assertRaises(TunnelError, parseHealth, text)
            self.assertIn("http:/healthz", error.message)


class _Page(Resource):
    isLeaf = True
    asked: Any = None

    def render_GET(self, request: Any) -> bytes:
        self.asked = request.getHeader("Host"), request.getHeader("User-Agent")
        request.setResponseCode(int(request.path[1:]))
        return b"x" * 100_000


class ProbeTests(TestCase):
    """Asking services that are there."""

    async def ask(self, text: str, port: int) -> str:
        """Ask once; why it is not well, or nothing."""
        endpoint: Any = parseForward(reactor, f"0=127.0.0.1:{port}").endpoint
        told: Deferred[str] = Deferred()
        check = HealthCheck(
            reactor,
            HealthRules(),
            lambda: parseHealth(text)(reactor, endpoint, f"127.0.0.1:{port}"),
            lambda isWell, reason: told.callback("" if isWell else reason),
        )
        check.start()
        reason = await told
        check.stop()
        return reason

    async def test_http(self) -> None:
        """The status of the answer tells."""
        page = _Page()
        number = listenHere(self, reactor, Site(page))
        for status, reason in (
            (200, ""),
            (302, ""),
            (404, "it answers 404"),
            (503, "it answers 503"),
        ):
            self.assertEqual(await self.ask(f"http:/{status}", number), reason)
        self.assertEqual(page.asked[0], f"127.0.0.1:{number}")
        self.assertIn("health check", page.asked[1])

    async def test_tcp(self) -> None:
        """A connection is enough, or not even that is there."""
        factory = Factory.forProtocol(Protocol)
        port = listenHere(self, reactor, factory)
        self.assertEqual(await self.ask("tcp", port), "")
        for text in ("tcp", "http:/"):
            reason = await self.ask(text, freePort())
            self.assertEqual(reason, "nothing listens there")
