"""
Tests for L{tristunnel.server.gate}.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.server.gate import PENALTY, PENALTY_FREE, Gate, sourceOf


def _from(host: str) -> IPv4Address:
    return IPv4Address("TCP", host, 1234)


class GateTests(SynchronousTestCase):
    """
    Strangers are counted, and those whose logins fail have to wait.
    """

    def setUp(self) -> None:
        """
        A gate for three strangers, two from one address.
        """
        self.clock = Clock()
        self.gate = Gate(self.clock.seconds, perAddress=2, total=3)

    def refusal(self, host: str) -> TunnelError:
        """
        Be turned away.
        """
        return self.assertRaises(TunnelError, self.gate.enter, _from(host))

    def test_perAddress(self) -> None:
        """
        One address cannot take all places, and its places come back.
        """
        first = self.gate.enter(_from("10.0.0.1"))
        self.gate.enter(_from("10.0.0.1"))
        self.assertEqual(self.refusal("10.0.0.1").code.name, "limit-reached")
        self.gate.enter(_from("10.0.0.2"))
        first.known()
        first.known()
        self.assertEqual(self.gate.strangers, 2)
        self.gate.enter(_from("10.0.0.1"))

    def test_total(self) -> None:
        """
        There is a bound for all together.
        """
        for number in range(3):
            self.gate.enter(_from(f"10.0.0.{number}"))
        self.assertIn("3 connections", self.refusal("10.0.0.9").message)

    def test_penalty(self) -> None:
        """
        Failed logins add up to a wait that ends by itself, for that address
        alone.
        """
        failures = int(PENALTY_FREE / PENALTY) + 1
        for _ in range(failures):
            stranger = self.gate.enter(_from("10.0.0.1"))
            stranger.failed()
            stranger.known()
        refusal = self.refusal("10.0.0.1")
        self.assertEqual(refusal.retryAfter, PENALTY)
        self.gate.enter(_from("10.0.0.2"))
        self.clock.advance(PENALTY)
        self.gate.enter(_from("10.0.0.1"))

    def test_localSocketsAreNotPenalized(self) -> None:
        """
        A UNIX socket has no address to hold against anybody.
        """
        for _ in range(100):
            stranger = self.gate.enter(UNIXAddress(b"/tmp/x"))
            stranger.failed()
            stranger.known()
        self.assertEqual(self.gate.strangers, 0)

    def test_behindBalancer(self) -> None:
        """
        A stranger whose address is known later is counted by that, and only
        once.
        """
        first = self.gate.enter(None)
        first.comesFrom(_from("10.0.0.1"))
        self.gate.enter(None).comesFrom(_from("10.0.0.1"))
        self.assertEqual(self.gate.strangers, 2)
        third = self.gate.enter(None)
        error = self.assertRaises(TunnelError, third.comesFrom, _from("10.0.0.1"))
        self.assertEqual(error.code.name, "limit-reached")
        third.known()
        first.known()
        self.assertEqual(self.gate.strangers, 1)
        self.gate.enter(None).comesFrom(_from("10.0.0.1"))


class SourceTests(SynchronousTestCase):
    """
    What strangers are counted by.
    """

    def test_sources(self) -> None:
        """
        IPv4 by address, also on a dual-stack socket; IPv6 by network.
        """
        for host, source in (
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::ffff:2", "2001:db8::/64"),
            ("fe80::1%eth0", "fe80::/64"),
        ):
            self.assertEqual(sourceOf(IPv6Address("TCP", host, 1)), source)
        self.assertEqual(sourceOf(_from("192.0.2.1")), "192.0.2.1")
        self.assertEqual(sourceOf(None), "")
