"""Tests for L{tristunnel.service.preauth}."""

from __future__ import annotations

from functools import partial

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.service.preauth import (
    PATIENCE,
    PENALTY,
    PENALTY_FREE,
    REMEMBERED,
    ROOMS,
    AcceptRateLimiter,
    PreauthLimiter,
    sourceOf,
)


def _from(host: str) -> IPv4Address:
    return IPv4Address("TCP", host, 1234)


class GateTests(SynchronousTestCase):
    """Unauthenticated peers are counted, and those whose logins fail have to wait."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.limiter = PreauthLimiter(self.clock.seconds, perAddress=2, total=3)

    def refusal(self, host: str) -> TunnelError:
        return self.assertRaises(TunnelError, self.limiter.enter, _from(host))

    def test_perAddress(self) -> None:
        """One address cannot take all places, and its places come back."""
        first = self.limiter.enter(_from("10.0.0.1"))
        self.limiter.enter(_from("10.0.0.1"))
        self.assertEqual(self.refusal("10.0.0.1").code.name, "limit-reached")
        self.limiter.enter(_from("10.0.0.2"))
        first.known()
        first.known()
        self.assertEqual(self.limiter.unauthenticated, 2)
        self.limiter.enter(_from("10.0.0.1"))

    def test_awaited(self) -> None:
        """So many more may come from an address as somebody awaits there."""
        awaited = {"10.0.0.1": 1}
        limiter = PreauthLimiter(self.clock.seconds, 2, 5)
        limiter.awaited = [lambda source: awaited.get(source, 0)] * 2
        for _ in range(4):
            limiter.enter(_from("10.0.0.1"))
        self.assertRaises(TunnelError, limiter.enter, _from("10.0.0.1"))
        awaited.clear()
        self.assertRaises(TunnelError, limiter.enter, _from("10.0.0.1"))
        limiter.enter(_from("10.0.0.2"))
        # The bound for all stays.
        awaited["10.0.0.1"] = 100
        self.assertRaises(TunnelError, limiter.enter, _from("10.0.0.1"))

    def test_again(self) -> None:
        """Who was known and waits once more counts once more, and may take half of the
        places."""
        first = self.limiter.enter(_from("10.0.0.1"))
        first.known()
        first.again()
        first.again()
        self.assertEqual(self.limiter.unauthenticated, 1)
        other = self.limiter.enter(_from("10.0.0.2"))
        other.known()
        self.assertRaises(TunnelError, other.again)
        first.known()
        other.again()
        self.assertEqual(self.limiter.unauthenticated, 1)
        other.known()
        self.assertEqual(self.limiter.unauthenticated, 0)

    def test_againWithoutRoom(self) -> None:
        """Who was never known and finds no place to wait for more is counted until it
        leaves, and is in the way of others until then."""
        first, other = (self.limiter.enter(_from("10.0.0.1")) for _ in range(2))
        self.assertRaises(TunnelError, first.again)
        self.assertTrue(first.waiting)
        self.refusal("10.0.0.1")
        first.known()
        other.known()
        self.assertEqual(self.limiter.unauthenticated, 0)

    def test_proxy(self) -> None:
        """A proxy's connections are many people's: there is no bound for them but the
        one for all, and nobody has to wait for another's failures."""
        limiter = PreauthLimiter(self.clock.seconds, 1, 3, {"10.0.0.1"}.__contains__)
        for _ in range(3):
            limiter.enter(_from("10.0.0.1")).failed()
        limiter.loginFailed(_from("10.0.0.1"))
        self.assertRaises(TunnelError, limiter.enter, _from("10.0.0.1"))
        limiter.check(_from("10.0.0.1"))

    def test_makesRoom(self) -> None:
        """When all places are taken, the one who has been unauthenticated longest has
        to leave for somebody new, unless that is not long yet."""
        left: list[int] = []
        for number in range(3):
            pending = self.limiter.enter(_from(f"10.0.0.{number}"))
            pending.leave = partial(left.append, number)
            self.clock.advance(PATIENCE / 2)
        self.limiter.enter(_from("10.0.1.1"))
        self.assertEqual(left, [0])
        self.assertEqual(self.limiter.unauthenticated, 3)
        self.refusal("10.0.1.2")
        self.clock.advance(1 / ROOMS)
        self.limiter.enter(_from("10.0.1.2"))
        self.assertEqual(left, [0, 1])
        self.clock.advance(1 / ROOMS)
        self.assertEqual(self.limiter.unauthenticated, 3)

    def test_waitersMakeNoRoom(self) -> None:
        """Nobody has to leave for one who waits with the next request."""
        waiter = self.limiter.enter(_from("10.0.0.1"))
        waiter.known()
        other = self.limiter.enter(_from("10.0.0.2"))
        other.leave = self.fail
        self.clock.advance(PATIENCE)
        self.assertRaises(TunnelError, waiter.again)

    def test_refusedIsForgotten(self) -> None:
        """Who is turned away costs no memory, however many addresses it has."""
        for number in range(3):
            self.limiter.enter(_from(f"10.0.0.{number}"))
        for number in range(50):
            self.refusal(f"10.0.1.{number}")
        self.assertEqual(len(self.limiter._pending), 3)

    def test_total(self) -> None:
        """There is a bound for all together."""
        for number in range(3):
            self.limiter.enter(_from(f"10.0.0.{number}"))
        self.assertIn("3 connections", self.refusal("10.0.0.9").message)

    def test_penalty(self) -> None:
        """Failed logins add up to a wait that ends by itself, for that address
        alone."""
        failures = int(PENALTY_FREE / PENALTY) + 1
        for _ in range(failures):
            pending = self.limiter.enter(_from("10.0.0.1"))
            pending.failed()
            pending.known()
        refusal = self.refusal("10.0.0.1")
        self.assertEqual(refusal.retryAfter, PENALTY)
        self.limiter.enter(_from("10.0.0.2"))
        self.clock.advance(PENALTY)
        self.limiter.enter(_from("10.0.0.1"))

    def test_penaltyWithManyAddresses(self) -> None:
        """Failed logins from more addresses than are remembered do not end the
        counting: who guesses next has to wait as well, and the oldest penalty is the
        one that is forgotten."""
        failures = int(PENALTY_FREE / PENALTY) + 1
        for host in ("10.0.0.1", "10.0.0.2"):
            for _ in range(failures):
                self.limiter.loginFailed(_from(host))
        for number in range(REMEMBERED - 2):
            self.limiter.penalize(str(number))
        # The first one fails again, so the second is the oldest now.
        self.limiter.loginFailed(_from("10.0.0.1"))
        for _ in range(failures):
            self.limiter.loginFailed(_from("10.0.0.3"))
        for host in ("10.0.0.1", "10.0.0.3"):
            self.assertEqual(self.refusal(host).code.name, "limit-reached")
        self.limiter.enter(_from("10.0.0.2"))

    def test_localSocketsAreNotPenalized(self) -> None:
        """A UNIX socket has no address to hold against anybody."""
        for _ in range(100):
            pending = self.limiter.enter(UNIXAddress(b"/tmp/x"))
            pending.failed()
            pending.known()
        self.assertEqual(self.limiter.unauthenticated, 0)

    def test_behindBalancer(self) -> None:
        """A peer whose address is known later is counted by that, and only once."""
        first = self.limiter.enter(None)
        first.comesFrom(_from("10.0.0.1"))
        self.limiter.enter(None).comesFrom(_from("10.0.0.1"))
        self.assertEqual(self.limiter.unauthenticated, 2)
        third = self.limiter.enter(None)
        error = self.assertRaises(TunnelError, third.comesFrom, _from("10.0.0.1"))
        self.assertEqual(error.code.name, "limit-reached")
        third.known()
        first.known()
        self.assertEqual(self.limiter.unauthenticated, 1)
        self.limiter.enter(None).comesFrom(_from("10.0.0.1"))


class SourceTests(SynchronousTestCase):
    """What unauthenticated peers are counted by."""

    def test_sources(self) -> None:
        """IPv4 by address, also on a dual-stack socket; IPv6 by network."""
        for host, source in (
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::ffff:2", "2001:db8::/64"),
            ("fe80::1%eth0", "fe80::/64"),
        ):
            self.assertEqual(sourceOf(IPv6Address("TCP", host, 1)), source)
        self.assertEqual(sourceOf(_from("192.0.2.1")), "192.0.2.1")
        self.assertEqual(sourceOf(None), "")


class AcceptRateTests(SynchronousTestCase):
    """How many clients may come in at once."""

    def test_rateSetLater(self) -> None:
        """A rate that is set when nobody was counted yet lets that many come."""
        clock = Clock()
        limiter = AcceptRateLimiter(clock.seconds, 0)
        limiter.check()
        limiter.rate = 100
        for _ in range(100):
            limiter.check()
        self.assertRaises(TunnelError, limiter.check)
        clock.advance(0.02)
        limiter.check()
