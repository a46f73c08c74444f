"""Tests for L{tristunnel.check.cluster}, with a real engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support.polling import untilClosed
from tests.support.processes import freePort
from tests.support.redis import RedisServer
from tristunnel.check.cluster import ClusterCheck
from tristunnel.cluster.address import parseEngine
from tristunnel.cluster.redis_book import Times
from tristunnel.cluster.service import ClusterService, ClusterSettings
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.service.tunnel_service import TunnelService

reactor = ourReactor()


class ClusterCheckTests(TestCase):
    """What is looked at before a member is started."""

    if not RedisServer.isThere():
        skip = "redis-server is not installed"

    def settings(self, secret: bytes = b"a secret of the cluster") -> ClusterSettings:
        """A member of a cluster that only this test knows."""
        port = freePort()
        path = RedisServer.shared().path
        return ClusterSettings(
            parseEngine(f"redis+unix:{path}?name={self.id()[-40:].replace(' ', '')}"),
            TCP4ServerEndpoint(reactor, port, interface="127.0.0.1"),
            f"tcp:{port}",
            f"tcp:127.0.0.1:{port}",
            secret,
            Times(beat=0.05),
            5.0,
            True,
        )

    async def look(self, settings: ClusterSettings, **more: Any) -> list[str]:
        check = ClusterCheck(reactor, settings, **more)
        return [f"{each.verdict} {each.message}" for each in await check.look()]

    async def test_alone(self) -> None:
        """An engine that is there, a port that is free, and an address that is none."""
        secret = Path(self.mktemp())
        secret.write_text("a secret of the cluster")
        secret.chmod(0o644)
        settings = replace(self.settings(), advertise="tcp:127.0.0.1:1")
        found = await self.look(settings, tokenFile=str(secret), now=lambda: 0.0)
        verdicts = [each.partition(" ")[0] for each in found]
        self.assertEqual(verdicts, ["WARN", "OK", "WARN", "OK", "WARN", "OK"])
        engine = f"the engine is {RedisServer.kind()} "
        for part, line in zip(
            ("chmod 600", engine, "clock", "is free", "does not lead here", "first"),
            found,
            strict=True,
        ):
            self.assertIn(part, line)

    async def test_others(self) -> None:
        """Another member that is reached, and one that has another secret."""
        settings = self.settings()
        cluster = ClusterService(reactor, settings, 0.0)
        listeners = {"tcp": TCPListeners(reactor, "127.0.0.1")}
        tunnels = TunnelService(reactor, cluster.book, listeners)
        cluster.serve(tunnels)
        cluster.startService()
        engine = settings.engine.connection(reactor, 1.0)
        engine.start()
        beats = engine.key("beats")
        while not (engine.isUp and await engine.command("ZCARD", beats)):
            await deferLater(reactor, 0.01)
        for secret, verdict in (
            (settings.secret, "OK"),
            (b"another secret of it", "FAIL"),
        ):
            other = replace(self.settings(secret), engine=settings.engine)
            found = await self.look(other)
            self.assertIn(verdict, found[-1])
            self.assertIn(settings.advertise, found[-1])
        # Its own port is in use.
        self.assertTrue(
            any(each.startswith("FAIL") for each in await self.look(settings))
        )
        await cluster.stopService()
        await cluster.book.stop()
        await engine.stop()
        await untilClosed()

    async def test_away(self) -> None:
        """An engine that is not there."""
        settings = replace(self.settings(), engine=parseEngine("redis://127.0.0.1:1"))
        found = await self.look(settings)
        self.assertIn("FAIL the engine cannot be used", found[0])
        self.assertEqual(len(found), 3)
