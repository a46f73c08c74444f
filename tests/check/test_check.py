"""Tests for L{tristunnel.check.report} and what looks with it."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.listening import listenHere
from tests.tls.authority import certificateOf, makeAuthority
from tristunnel.check.client import ClientCheck
from tristunnel.check.report import (
    CheckService,
    Finding,
    Inquiry,
    certificateFinding,
    ok,
)
from tristunnel.check.server import ServerCheck
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.connect.route import ConnectOptions
from tristunnel.dialects.table import DIALECTS
from tristunnel.errors import TunnelError


async def _good() -> Finding:
    return ok("it is")


async def _bad() -> Finding:
    raise TunnelError("session-lost", "it is not; do something")


async def _broken() -> Finding:
    raise ZeroDivisionError


class InquiryTests(SynchronousTestCase):
    """L{Inquiry} and L{CheckService}."""

    def ask(self, *looks: Any) -> tuple[list[str], int]:
        """Make an inquiry as a program; its lines, and the exit status."""
        output = StringIO()
        statuses: list[int] = []
        reactor: Any = Clock()
        stopped: list[bool] = []
        reactor.callWhenRunning = lambda call: call()
        reactor.stop = lambda: stopped.append(True)
        service = CheckService(reactor, Inquiry(looks), output, statuses.append)
        service.startService()
        self.assertEqual(stopped, [True])
        (status,) = statuses
        return output.getvalue().splitlines(), status

    def test_good(self) -> None:
        """Where nothing is wrong the status is 0."""
        lines, status = self.ask(("good!", _good))
        self.assertEqual(lines, ["OK    good         it is"])
        self.assertEqual(status, 0)

    def test_bad(self) -> None:
        """What builds upon a failure is left out; the rest is looked at."""
        lines, status = self.ask(("first!", _bad), ("second!", _good), ("third", _good))
        self.assertEqual([line.split()[0] for line in lines], ["FAIL", "SKIP", "OK"])
        self.assertIn("do something", lines[0])
        self.assertEqual(status, 1)

    def test_broken(self) -> None:
        """A look that fails itself is a failure, and logged."""
        lines, status = self.ask(("odd", _broken))
        self.assertIn("FAIL  odd", lines[0])
        self.assertEqual(status, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_interrupted(self) -> None:
        """A check that is stopped says so, and takes what its own end does to
        connections for nothing else."""
        closing: Deferred[Finding] = Deferred(
            lambda it: it.errback(TunnelError("session-lost", "the connection ended"))
        )
        output = StringIO()
        reactor: Any = Clock()
        reactor.callWhenRunning = lambda call: call()
        for waiting in (Deferred(), closing):
            output.truncate(0)
            statuses: list[int] = []
            looks: Any = [
                ("good", _good),
                ("idle!", lambda it=waiting: it),
                ("x", _good),
            ]
            inquiry = Inquiry(looks)
            service = CheckService(reactor, inquiry, output, statuses.append)
            service.startService()
            service.stopService()
            first, last = output.getvalue().lstrip("\0").splitlines()
            self.assertIn("good", first)
            self.assertIn("stopped before it was finished", last)
            self.assertEqual(statuses, [1])

    def test_certificates(self) -> None:
        """A certificate should be renewed in time; one that is pinned need not."""
        end = datetime.now(UTC) + timedelta(days=100)
        pem, _ = makeAuthority().issue(["x"], notAfter=end)
        certificate = certificateOf(pem)
        for days, verdict in ((50, "OK"), (95, "WARN"), (101, "FAIL")):
            now = time.time() + days * 86400
            found = certificateFinding(certificate, "its", False, partial(float, now))
            self.assertEqual(found.verdict, verdict)
        pinned = certificateFinding(certificate, "its", True, lambda: 1e10)
        self.assertEqual(pinned.verdict, "OK")


class ClientCheckTests(TestCase):
    """L{ClientCheck}, what the programs' own tests do not show."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        here: Any = reactor
        self.reactor = here
        site: Any = Site(Resource())
        site.noisy = False
        self.port = listenHere(self, here, site)

    def look(
        self, connect: str = "", route: ConnectOptions | None = None, **more: Any
    ) -> Any:
        connect = connect or f"tcp:127.0.0.1:{self.port}"
        server = parseConnect(self.reactor, connect, Trust(), route)
        return ClientCheck(self.reactor, server, **more)

    async def failure(self, waiting: Any) -> str:
        error = await self.assertFailure(Deferred.fromCoroutine(waiting), TunnelError)
        return str(error)

    async def test_clock(self) -> None:
        """A clock that is wrong is told, and by how much."""
        self.assertEqual((await self.look().look("clock"))[0].verdict, "OK")
        wrong = self.look(now=lambda: time.time() - 7200)
        message = await self.failure(wrong.look("clock"))
        self.assertRegex(message, r"(7199|7200|7201) s behind")

    async def test_name(self) -> None:
        """A name that nobody knows is told."""

        def resolve(host: str) -> Deferred[list[str]]:
            if host == "good.example":
                return succeed(["192.0.2.1"])
            return fail(DNSLookupError("no such name"))

        good = self.look("tcp:good.example:9", resolve=resolve)
        self.assertIn("192.0.2.1", (await good.look("name"))[0].message)
        bad = self.look("tcp:bad.example:9", resolve=resolve)
        self.assertIn("check the spelling", await self.failure(bad.look("name")))

    async def test_idle(self) -> None:
        """Signs of life that are too rare for what is in between are told."""
        where = "ws://127.0.0.1:1/x"
        for interval, verdict in ((0.0, "WARN"), (25.0, "OK"), (55.0, "WARN")):
            route = ConnectOptions(pingInterval=interval)
            look = self.look(where, route, dialect=DIALECTS["vtunnel"])
            self.assertEqual((await look.look("idle"))[0].verdict, verdict)

    async def test_plain(self) -> None:
        """Without TLS to somewhere else there is a warning."""
        (found,) = await self.look("tcp:192.0.2.1:9").look("tls")
        self.assertEqual(found.verdict, "WARN")
        (found,) = await self.look().look("tls")
        self.assertEqual(found.verdict, "OK")

    async def test_capability(self) -> None:
        """Who serves a tunnel now is not displaced."""
        look = self.look()
        look.server = replace(look.server, capability={"id": "a", "secret": "b"})
        self.assertEqual((await look.look("credential"))[0].verdict, "SKIP")


class ServerCheckTests(TestCase):
    """L{ServerCheck}, what the programs' own tests do not show."""

    def check(self, **more: Any) -> ServerCheck:
        from twisted.internet import reactor

        return ServerCheck(reactor, [], None, **more)

    async def test_name(self) -> None:
        """A name leads here, elsewhere, or nowhere."""
        for addresses, verdict in ((["127.0.0.1"], "OK"), (["192.0.2.1"], "WARN")):
            check = self.check(
                hostname="x", resolve=lambda host, found=addresses: succeed(found)
            )
            self.assertEqual((await check.look("name"))[0].verdict, verdict)
        check = self.check(hostname="x", resolve=lambda host: fail(DNSLookupError()))
        await self.assertFailure(
            Deferred.fromCoroutine(check.look("name")), TunnelError
        )

    async def test_certificate(self) -> None:
        """A certificate that is for another name is told."""
        pem, _ = makeAuthority().issue(["other.example"])
        check = self.check(
            hostname="x.example", certificates=[("--certificate", certificateOf(pem))]
        )
        found = list(await check.look("certificate"))
        self.assertEqual(found[-1].verdict, "WARN")
        self.assertIn("other.example", found[-1].message)

    async def test_warnings(self) -> None:
        """What works and should not stay so is told."""
        check = self.check(checkers=0, memory=0)
        for subject in ("auth", "memory"):
            self.assertEqual((await check.look(subject))[0].verdict, "WARN")
        check = self.check(now=lambda: 5.0)
        await self.assertFailure(
            Deferred.fromCoroutine(check.look("clock")), TunnelError
        )
