"""Tests for L{tristunnel.model.quota}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.model import quota
from tristunnel.model.observer import ServerObserver
from tristunnel.model.permissions import Identity
from tristunnel.model.quota import TunnelQuota, defaultTotal
from tristunnel.model.tunnel import Tunnel


def makeTunnel() -> Tunnel:
    return Tunnel(
        id="t",
        owner=Identity("x"),
        clientSide=None,
        observer=ServerObserver(),
        seconds=lambda: 0.0,
    )


class TunnelQuotaTests(SynchronousTestCase):
    def assertRefused(self, tunnels: TunnelQuota, caller: str, option: str) -> None:
        error = self.assertRaises(TunnelError, tunnels.count, makeTunnel(), caller)
        self.assertEqual(error.code.name, "limit-reached")
        self.assertIn(f"--{option}", error.message.split())

    def test_perCaller(self) -> None:
        """A caller has so many and no more; others are not concerned."""
        tunnels = TunnelQuota(2)
        first = makeTunnel()
        tunnels.count(first, "a")
        tunnels.count(makeTunnel(), "a")
        self.assertRefused(tunnels, "a", "max-tunnels-per-caller")
        tunnels.count(makeTunnel(), "b")
        tunnels.forget(first)
        tunnels.forget(first)
        tunnels.count(makeTunnel(), "a")
        self.assertRefused(tunnels, "a", "max-tunnels-per-caller")
        self.assertEqual(len(tunnels), 3)

    def test_total(self) -> None:
        """All callers together have so many and no more."""
        tunnels = TunnelQuota(0, 3)
        opened = [makeTunnel() for _ in range(3)]
        for number, tunnel in enumerate(opened):
            tunnels.count(tunnel, f"caller {number}")
        self.assertRefused(tunnels, "another", "max-tunnels")
        self.assertEqual(list(tunnels), opened)
        tunnels.forget(opened[1])
        tunnels.count(makeTunnel(), "another")

    def test_unlimited(self) -> None:
        """0 is no limit."""
        tunnels = TunnelQuota(0, 0)
        for _ in range(2000):
            tunnels.count(makeTunnel(), "a")
        self.assertEqual(len(tunnels), 2000)

    def test_default(self) -> None:
        """The default leaves descriptors over."""
        for limit, total in ((1024, 256), (2, 1), (0, 20_000)):
            self.patch(quota, "descriptorLimit", lambda limit=limit: limit)
            self.assertEqual(defaultTotal(), total)
