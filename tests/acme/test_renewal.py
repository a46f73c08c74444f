"""When certificates are asked for, and how often; without any authority."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase
from tristunnel.acme import renewal
from tristunnel.acme.order import Issued
from tristunnel.acme.problems import AuthorityProblem
from tristunnel.acme.renewal import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    NEW_A_WEEK,
    AutomaticCertificates,
)
from tristunnel.acme.store import Renewal, Store

NAME = "blog.test.example"


class FakeOrders:
    """Gives certificates of three days, or fails."""

    def __init__(self, now: Any) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.turns: list[int] = []
        self.problem: Exception | None = None
        self.provesDomains = False
        self.waiting: Deferred[None] | None = None
        self._now = now
        self._authority = makeAuthority()

    async def obtain(self, names: Sequence[str], turn: int = 0) -> Issued:
        self.asked.append(tuple(names))
        self.turns.append(turn)
        if self.waiting is not None:
            await self.waiting
        if self.problem is not None:
            raise self.problem
        start = datetime.fromtimestamp(self._now(), UTC)
        until = start + timedelta(days=3)
        return Issued(*self._authority.issue(list(names), until, notBefore=start))


class RenewalTests(FileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.orders = FakeOrders(self.now)
        self.store = Store(self.directory)
        self.service = self.make()

    def now(self) -> float:
        return 1_800_000_000 + self.clock.seconds()

    def make(self, **more: Any) -> AutomaticCertificates:
        orders: Any = self.orders
        made = AutomaticCertificates(
            self.clock, orders, self.store, now=self.now, **more
        )
        made.startService()
        self.addCleanup(made.stopService)
        return made

    def pass_(self, seconds: float) -> None:
        # An hour at a time, as it looks again.
        self.clock.pump([min(3600.0, seconds)] * max(1, round(seconds / 3600)))

    def test_twoThirds(self) -> None:
        """A certificate is renewed after two thirds of its time, and not before."""
        self.service.want(NAME)
        self.pass_(1)
        self.assertEqual(self.orders.asked, [(NAME,)])
        self.pass_(47 * 3600)
        self.assertEqual(len(self.orders.asked), 1)
        self.pass_(3 * 3600)
        self.assertEqual(len(self.orders.asked), 2)

    def test_released(self) -> None:
        """A name that nobody holds any more is not renewed; one of two remains."""
        self.service.want(NAME)
        self.service.want(NAME)
        self.pass_(1)
        self.service.release(NAME)
        self.assertEqual(len(self.service.states()), 1)
        self.service.release(NAME)
        self.assertEqual(self.service.states(), [])
        self.pass_(60 * 3600)
        self.assertEqual(len(self.orders.asked), 1)

    def test_backOff(self) -> None:
        """Each pause after a failure is twice the one before, up to a day."""
        self.orders.problem = AuthorityProblem("not today")
        with self.problems() as lines:
            self.service.want(NAME)
            pauses: list[float] = []
            while len(pauses) < 12:
                self.clock.advance(60)
                if len(self.orders.asked) > len(pauses):
                    pauses.append(self.service.states()[0].next - self.now())
        self.assertEqual(pauses[:2], [FIRST_PAUSE, 2 * FIRST_PAUSE])
        self.assertEqual(pauses[-1], LONGEST_PAUSE)
        self.assertEqual(self.orders.turns[:3], [0, 1, 2])
        self.assertIn("not today; the one that there is stays in use", lines[0])

    def test_restart(self) -> None:
        """A restart shortens no pause, and forgets no reason."""
        self.orders.problem = AuthorityProblem("too many", 7200.0)
        with self.problems():
            self.service.want(NAME)
            self.pass_(1)
            self.service.stopService()
            again = self.make()
            again.want(NAME)
            self.pass_(3600)
        self.assertEqual(len(self.orders.asked), 1)
        (state,) = again.states()
        self.assertEqual(state.error, "too many")

    def test_trouble(self) -> None:
        """A failed renewal leaves the certificate that there is in use."""
        self.service.want(NAME)
        self.pass_(1)
        self.orders.problem = AuthorityProblem("closed")
        with self.problems():
            self.pass_(60 * 3600)
        self.assertIsNotNone(self.service.certificates.find(NAME))
        self.assertEqual(self.service.states()[0].error, "closed")

    def test_bug(self) -> None:
        """A fault of our own is a failure like any other."""
        self.orders.problem = ZeroDivisionError("oh")
        self.service.want(NAME)
        self.pass_(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("internal error", self.service.states()[0].error)

    def test_asked(self) -> None:
        """
        The authority may want a renewal sooner (RFC 9773), and is asked twice a day;
        a refusal to say so does not matter.
        """
        asked: list[float] = []
        soon = datetime.fromtimestamp(self.now() + 20 * 3600, UTC)

        class Telling:
            problem: AuthorityProblem | None = None

            def call(self, request: Any) -> Any:
                asked.append(0.0)
                if self.problem is not None:
                    raise self.problem
                return soon, soon

        self.patch(renewal, "inThread", lambda reactor, call: maybeDeferred(call))
        telling = Telling()
        service = self.make(account=telling)
        service.want(NAME)
        self.pass_(15 * 3600)
        self.assertEqual(len(self.orders.asked), 1)
        self.assertIn(len(asked), (2, 3))
        telling.problem = AuthorityProblem("no")
        self.pass_(7 * 3600)
        self.assertEqual(len(self.orders.asked), 2)

    def test_stopped(self) -> None:
        """A stop in the middle is no failure, and is not held against the name."""
        self.orders.waiting = Deferred()
        self.service.want(NAME)
        self.pass_(1)
        self.service.stopService()
        self.assertEqual(self.orders.asked, [(NAME,)])
        self.assertEqual(self.store.renewal(NAME), Renewal())
        self.orders.waiting = None
        self.make().want(NAME)
        self.pass_(1)
        self.assertEqual(len(self.orders.asked), 2)

    def test_pace(self) -> None:
        """One domain gets so many first certificates in a week, and no more."""
        with self.store.order("x"):
            pass
        for number in range(NEW_A_WEEK):
            self.store.remember(f"n{number}.test.example", Renewal(first=self.now()))
        with self.problems() as lines:
            self.service.want(NAME)
            self.service.want("blog.other.example")
            self.pass_(1)
        self.assertEqual(self.orders.asked, [("blog.other.example",)])
        self.assertIn("use a wildcard", lines[0])
        self.pass_(8 * 86400)
        self.assertIn((NAME,), self.orders.asked)

    def test_noOrder(self) -> None:
        """Nothing is asked for what no authority certifies, or what is there."""
        service = self.make(hasOwn=lambda name: name == "own.example.org")
        names = ("localhost", "192.0.2.1", "*.example.org", "own.example.org", "a b")
        for name in names:
            service.want(name)
            service.release("never.example.org")
        self.pass_(1)
        self.assertEqual(self.orders.asked, [])

    def test_wildcard(self) -> None:
        """Where a domain is proved, its names need no certificates of their own."""
        self.orders.provesDomains = True
        self.service.wantDomains(["test.example"])
        self.service.want(NAME)
        self.pass_(1)
        self.assertEqual(self.orders.asked, [("test.example", "*.test.example")])
        self.assertIsNotNone(self.service.certificates.find(NAME))
        self.assertIsNone(self.service.certificates.find("a." + NAME))

    def test_heldWildcard(self) -> None:
        """A tunnel's wildcard gets a certificate that serves the names below."""
        self.orders.provesDomains = True
        self.service.want("*.shop.example")
        self.pass_(1)
        self.assertEqual(self.orders.asked, [("*.shop.example",)])
        self.assertIsNotNone(self.service.certificates.find("b.shop.example"))
        self.pass_(3 * 86400)
        self.assertEqual(self.orders.asked, [("*.shop.example",)] * 2)
        self.service.release("*.shop.example")
        self.pass_(3 * 86400)
        self.assertEqual(len(self.orders.asked), 2)

    def test_elsewhere(self) -> None:
        """While another process of the machine orders, this one does not."""
        with self.store.order(NAME) as alone:
            self.assertTrue(alone)
            self.service.want(NAME)
            self.pass_(1)
        self.assertEqual(self.orders.asked, [])
        self.pass_(61)
        self.assertEqual(len(self.orders.asked), 1)

    def test_unwritable(self) -> None:
        """A state directory that cannot be written to is told of in one line."""
        store = Store(Path("/proc/nowhere"))
        service = AutomaticCertificates(self.clock, self.orders, store, now=self.now)  # type: ignore[arg-type] # a fake
        service.startService()
        self.addCleanup(service.stopService)
        with self.problems() as lines:
            service.want(NAME)
            self.pass_(1)
        self.assertIn("/proc/nowhere", lines[0])
        self.assertEqual(self.orders.asked, [])
