"""Tests for L{tristunnel.model.quota}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.model import quota
from tristunnel.model.quota import TunnelQuota, defaultTotal


class TunnelQuotaTests(SynchronousTestCase):
    def test_total(self) -> None:
        """A process has so many and no more; the refusal names the option."""
        tunnels = TunnelQuota(0, 3)
        tunnels.check(2)
        error = self.assertRaises(TunnelError, tunnels.check, 3)
        self.assertEqual(error.code.name, "limit-reached")
        self.assertIn("--max-tunnels", error.message.split())

    def test_unlimited(self) -> None:
        """0 is no limit."""
        TunnelQuota(0, 0).check(1_000_000)

    def test_ports(self) -> None:
        """What has no port goes on where what has one does not."""
        tunnels = TunnelQuota(0, 10, 3)
        tunnels.checkPorts(2)
        tunnels.check(9)
        error = self.assertRaises(TunnelError, tunnels.checkPorts, 3)
        self.assertIn("3 tunnels with ports;", error.message)

    def test_asked(self) -> None:
        """A number that was asked for counts all tunnels, whatever they are."""
        self.patch(quota, "descriptorLimit", lambda: 1024)
        self.assertEqual(TunnelQuota.of(7, 0), TunnelQuota(7, 20_000, 256))
        self.assertEqual(TunnelQuota.of(7, 500), TunnelQuota(7, 500, 0, 500))

    def test_default(self) -> None:
        """The default leaves descriptors over."""
        for limit, total in ((1024, 256), (2, 1), (0, 20_000)):
            self.patch(quota, "descriptorLimit", lambda limit=limit: limit)
            self.assertEqual(defaultTotal(), total)
