"""Tests for L{tristunnel.cluster.service}."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tristunnel.cluster.address import parseEngine
from tristunnel.cluster.redis_book import Times
from tristunnel.cluster.service import KNOWING, ClusterService, ClusterSettings
from tristunnel.errors import TunnelError
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.service.tunnel_service import TunnelService


@implementer(IStreamServerEndpoint)
class Taken:
    """An endpoint that somebody else has."""

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return fail(CannotListenError("10.0.0.1", 9001, OSError(98, "in use")))


class ServiceTests(SynchronousTestCase):
    """A member of a cluster."""

    def begin(self) -> tuple[MemoryReactorClock, ClusterService, list[TunnelError]]:
        """
        Have a member begin.

        @return: Tells time; the member; and why it cannot be one.
        """
        reactor = MemoryReactorClock()
        settings = ClusterSettings(
            parseEngine("redis://10.0.0.5"),
            Taken(),
            "tcp:9001:interface=10.0.0.1",
            "tcp:10.0.0.1:9001",
            b"a secret of the cluster",
            Times(),
            8.0,
            True,
        )
        cluster = ClusterService(reactor, settings, 0.0)
        listeners = {"tcp": TCPListeners(reactor, "127.0.0.1")}
        cluster.serve(TunnelService(reactor, cluster.book, listeners))
        failures: list[TunnelError] = []
        cluster.failed = failures.append
        return reactor, cluster, failures

    def test_unlike(self) -> None:
        """
        One that finds a book of another version does not begin; when it serves already,
        it says so once.
        """
        reason = TunnelError("protocol-error", "unlike")
        troubles: list[str] = []
        for seconds, told in ((0.0, ["unlike"]), (KNOWING, [])):
            reactor, cluster, failures = self.begin()
            reactor.advance(seconds)
            cluster.book._engine.whenTroubled = troubles.append
            for _ in range(3):
                cluster.book.unlike(reason)
            self.assertEqual([each.message for each in failures], told)
        self.assertEqual(troubles, ["unlike", "unlike"])

    def test_taken(self) -> None:
        """A server that the others cannot reach is no member, and says why."""
        _, cluster, failures = self.begin()
        cluster.startService()
        (reason,) = failures
        self.assertEqual(reason.code.name, "port-taken")
        self.assertIn(
            "--cluster-listen tcp:9001:interface=10.0.0.1 cannot be listened on",
            reason.message,
        )
