"""Tunnels that share their public side, L{tristunnel.model.group}."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.model.test_tunnel import PlainEnd, Side
from tristunnel.errors import TunnelError
from tristunnel.model.group import BALANCES, Group, SharedListener
from tristunnel.model.health import Health
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.model.tunnel import Tunnel, VisitorObserver


class Visitor(PlainEnd):
    """An end that notes why it was broken."""

    broken: TunnelError

    def reset(self, reason: TunnelError) -> None:
        self.broken = reason
        super().reset(reason)


class _Listener:
    uri = ""
    host = "blog.example"
    address = ("tcp", "", 8080)
    closed = False

    def close(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)


class GroupTests(SynchronousTestCase):
    """Which tunnel a visitor is for."""

    def setUp(self) -> None:
        self.group = Group()
        self.tunnels = [self.tunnel(str(number)) for number in range(3)]

    def tunnel(self, identifier: str) -> Tunnel:
        made = Tunnel(
            identifier, ANONYMOUS_IDENTITY, Side(), VisitorObserver(), lambda: 0.0
        )
        self.group.enter(made, self.group.balance)
        return made

    def come(self, address: str = "192.0.2.1:1") -> Any:
        """Come to the first tunnel, which may be for another one."""
        visitor = Visitor()
        self.tunnels[0].visitorArrived(visitor, address)
        return visitor

    def counts(self) -> list[int]:
        return [len(tunnel.streams) for tunnel in self.tunnels]

    def test_leastBusy(self) -> None:
        """The one with the fewest visitors has the next; of equals, each in turn."""
        for _ in range(6):
            self.come()
        self.assertEqual(self.counts(), [2, 2, 2])
        for stream in list(self.tunnels[1].streams):
            stream.reset(TunnelError("reset"))
        self.come()
        self.come()
        self.assertEqual(self.counts(), [2, 2, 2])

    def test_roundRobin(self) -> None:
        """Each in turn, however busy."""
        self.group.balance = "round-robin"
        for _ in range(4):
            self.come()
        self.assertEqual(sorted(self.counts()), [1, 1, 2])
        busy = self.counts().index(2)
        for stream in list(self.tunnels[busy].streams):
            stream.reset(TunnelError("reset"))
        self.come()
        self.come()
        self.assertEqual(self.counts()[busy], 0)

    def test_sticky(self) -> None:
        """An address stays where it was; when one leaves, only its own move."""
        self.group.balance = "sticky"
        hosts = [f"192.0.2.{number}" for number in range(100)]

        def chosen() -> dict[str, Tunnel | None]:
            return {host: self.group.chosen(f"{host}:{len(host)}") for host in hosts}

        before = chosen()
        self.assertGreater(min(Counter(before.values()).values()), 15)
        self.assertEqual({h: self.group.chosen(f"{h}:9") for h in hosts}, before)
        gone = self.tunnels[1]
        self.group.leave(gone)
        for host, tunnel in chosen().items():
            if before[host] is not gone:
                self.assertIs(tunnel, before[host])

    def test_notReady(self) -> None:
        """Nobody comes to one whose client is away, leaves, or has a service that is
        not well, as long as there is another; then visitors are told what is wrong."""
        for balance in BALANCES:
            self.group.balance = balance
            first, second, third = self.tunnels
            first.clientSide = None
            second.health = Health()
            for number in range(4):
                self.assertIs(self.group.chosen(f"192.0.2.{number}:1"), third)
            leaving: Any = third.clientSide
            leaving.takesVisitors = False
            second.health.told(True, "", 5.0)
            for number in range(4):
                self.assertIs(self.group.chosen(f"192.0.2.{number}:1"), second)
            leaving.takesVisitors = True
            second.health.told(False, "it answers 500", 6.0)
            third.health = Health(False, "nothing listens there")
            visitor = self.come()
            self.assertEqual(visitor.broken.code.name, "service-unreachable")
            self.assertEqual(visitor.broken.message, "nothing listens there")
            third.health = None

    def test_listener(self) -> None:
        """What is shared is closed with the last."""
        listener = _Listener()
        self.group.listener = listener
        shared: list[Any] = [SharedListener(self.group, t) for t in self.tunnels]
        self.assertEqual(shared[0].address, listener.address)
        self.assertEqual(shared[0].host, "blog.example")
        for each in (*shared[:2], shared[0]):
            each.close()
        self.assertFalse(listener.closed)
        self.assertIs(self.group.chosen("192.0.2.1:1"), self.tunnels[2])
        shared[2].close()
        self.assertTrue(listener.closed)
        self.assertIsNone(self.group.chosen("192.0.2.1:1"))


class HealthTests(SynchronousTestCase):
    """What a client says of its service."""

    def test_alone(self) -> None:
        """Without others a service that is not well turns visitors away at once, and
        one that is well does not."""
        tunnel = Tunnel("1", ANONYMOUS_IDENTITY, Side(), VisitorObserver(), lambda: 7.5)
        tunnel.setChecked(True)
        health = tunnel.health
        assert health is not None
        visitor = Visitor()
        tunnel.visitorArrived(visitor, "192.0.2.1:1")
        self.assertIn("has not passed a check yet", str(visitor.broken))
        self.assertEqual(tunnel.refusals, {"service-unreachable": 1})
        health.told(True, "", 5.0)
        tunnel.visitorArrived(Visitor(), "192.0.2.1:1")
        self.assertEqual(len(tunnel.streams), 1)
        self.assertEqual(
            tunnel.healthNow(), {"health": {"well": True, "reason": "", "proven": 2.5}}
        )
        tunnel.setChecked(True)
        self.assertTrue(health.isWell, "a client that comes back changes nothing")
        tunnel.setChecked(False)
        self.assertIsNone(tunnel.health)
