"""Tests for L{tristunnel.service.registry}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tristunnel.errors import TunnelError
from tristunnel.model.observer import ServerObserver
from tristunnel.model.permissions import ANONYMOUS_IDENTITY, Identity
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.registry import ITunnelRegistry, Lease, Leases, MemoryRegistry

ANN, BOB = Identity("ann"), Identity("bob")


def makeTunnel(number: str, name: str = "", owner: Identity = ANN) -> Tunnel:
    return Tunnel(
        number,
        owner,
        None,
        ServerObserver(),
        Clock().seconds,
        uri=f"tunnel://host/{number}",
        name=name,
    )


class Holder:
    """
    A session, as leases know it.

    @ivar displacements: How often it was told that another one took over.
    """

    def __init__(self) -> None:
        self.displacements = 0

    def serve(self, stream: Stream) -> None:
        pass

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        pass

    def displaced(self) -> None:
        self.displacements += 1


class MemoryRegistryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = MemoryRegistry()

    def test_interface(self) -> None:
        """It is a registry."""
        self.assertTrue(verifyObject(ITunnelRegistry, self.registry))

    def test_found(self) -> None:
        """Tunnels are found by URI and by id, and listed by age."""
        first, second = makeTunnel("a"), makeTunnel("b", "name")
        for tunnel in (first, second):
            self.assertIsNone(self.successResultOf(self.registry.add(tunnel)))
        for key in ("tunnel://host/b", "b"):
            self.assertIs(self.successResultOf(self.registry.find(key)), second)
        self.assertEqual(self.successResultOf(self.registry.tunnels()), [first, second])

    def test_notFound(self) -> None:
        """Others are unknown."""
        failure = self.failureResultOf(self.registry.find("b"), TunnelError)
        self.assertEqual(failure.value.code.name, "unknown-tunnel")

    def test_nameTaken(self) -> None:
        """A name belongs to one tunnel at a time; many have none."""
        first, second = makeTunnel("a", "www"), makeTunnel("b", "www")
        self.successResultOf(self.registry.add(first))
        failure = self.failureResultOf(self.registry.add(second), TunnelError)
        self.assertEqual(failure.value.code.name, "name-taken")
        self.assertIn("'www'", failure.value.message)
        self.failureResultOf(self.registry.find("b"), TunnelError)
        self.successResultOf(self.registry.remove(first))
        self.successResultOf(self.registry.add(second))
        for number in ("c", "d"):
            self.successResultOf(self.registry.add(makeTunnel(number)))

    def test_removed(self) -> None:
        """A tunnel is forgotten once; that does nothing to a newer one."""
        first, second = makeTunnel("a", "www"), makeTunnel("a", "www")
        self.successResultOf(self.registry.add(first))
        self.successResultOf(self.registry.remove(first))
        self.successResultOf(self.registry.remove(first))
        self.successResultOf(self.registry.add(second))
        self.successResultOf(self.registry.remove(first))
        self.assertEqual(self.successResultOf(self.registry.tunnels()), [second])


class LeasesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[Lease] = []
        self.leases = Leases(self.clock, self.expired.append, seconds=60.0)
        self.holder = Holder()
        self.lease, self.secret = self.leases.grant(ANN, self.holder)
        self.tunnel = makeTunnel("a")
        self.tunnel.clientSide = self.holder
        self.lease.tunnels.append(self.tunnel)

    def test_granted(self) -> None:
        """Each lease has its own id and secret; the secret is kept nowhere."""
        other, secret = self.leases.grant(ANN, self.holder)
        self.assertNotEqual(other.id, self.lease.id)
        self.assertNotEqual(secret, self.secret)
        self.assertNotIn(self.secret, repr(vars(self.lease)))
        self.assertGreaterEqual(len(self.secret), 32)

    def test_displaced(self) -> None:
        """The rightful holder takes its tunnels over at once, from a session that still
        seems to live."""
        newer = Holder()
        self.assertIs(
            self.leases.claim(self.lease.id, self.secret, ANN, newer), self.lease
        )
        self.assertEqual((self.holder.displacements, newer.displacements), (1, 0))
        self.assertIs(self.tunnel.clientSide, newer)
        self.leases.holderLost(self.lease, self.holder)
        self.assertIs(self.lease.holder, newer)
        self.assertIs(self.tunnel.clientSide, newer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_claimedTwice(self) -> None:
        """A session that claims its own lease displaces nobody."""
        self.leases.claim(self.lease.id, self.secret, ANN, self.holder)
        self.assertEqual(self.holder.displacements, 0)

    def test_notClaimed(self) -> None:
        """Without id, secret and identity together nothing happens."""
        _, otherSecret = self.leases.grant(ANN, Holder())
        for number, secret, owner in (
            (self.lease.id, "wrong", ANN),
            (self.lease.id, "", ANN),
            (self.lease.id, otherSecret, ANN),
            (self.lease.id, self.secret + "x", ANN),
            (self.lease.id, "\ud800", ANN),
            (self.lease.id, None, ANN),
            (self.lease.id, 5, ANN),
            (self.lease.id, self.secret, BOB),
            (self.lease.id, self.secret, ANONYMOUS_IDENTITY),
            ("nothing", self.secret, ANN),
            ("", "", ANN),
            (None, None, ANN),
            ([], {}, ANN),
        ):
            self.assertIsNone(self.leases.claim(number, secret, owner, Holder()))
        self.assertIs(self.lease.holder, self.holder)
        self.assertEqual(self.holder.displacements, 0)

    def test_comesBack(self) -> None:
        """A lease outlives its session for a while."""
        self.leases.holderLost(self.lease, self.holder)
        self.assertIsNone(self.tunnel.clientSide)
        self.clock.advance(59)
        newer = Holder()
        self.assertIs(
            self.leases.claim(self.lease.id, self.secret, ANN, newer), self.lease
        )
        self.assertIs(self.tunnel.clientSide, newer)
        self.assertEqual(self.holder.displacements, 0)
        self.clock.advance(1000)
        self.assertEqual(self.expired, [])

    def test_expires(self) -> None:
        """Nobody comes back: whoever has to close its tunnels is told, once."""
        self.leases.holderLost(self.lease, self.holder)
        self.clock.advance(60)
        self.assertEqual(self.expired, [self.lease])
        self.assertEqual(self.expired[0].tunnels, [self.tunnel])
        self.assertIsNone(self.leases.claim(self.lease.id, self.secret, ANN, Holder()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_timeBeginsAnew(self) -> None:
        """Each loss has the whole time."""
        self.leases.holderLost(self.lease, self.holder)
        self.clock.advance(59)
        newer = Holder()
        self.leases.claim(self.lease.id, self.secret, ANN, newer)
        self.leases.holderLost(self.lease, newer)
        self.clock.advance(59)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual(self.expired, [self.lease])

    def test_lostTwice(self) -> None:
        """A session that is lost twice is lost once."""
        self.leases.holderLost(self.lease, self.holder)
        self.leases.holderLost(self.lease, self.holder)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_emptyLease(self) -> None:
        """A lease without tunnels ends with its session."""
        self.lease.tunnels.clear()
        self.leases.holderLost(self.lease, self.holder)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.leases.claim(self.lease.id, self.secret, ANN, Holder()))

    def test_released(self) -> None:
        """A lease that was released cannot be claimed, and does not expire."""
        self.leases.holderLost(self.lease, self.holder)
        self.leases.release(self.lease)
        self.leases.release(self.lease)
        self.assertIsNone(self.leases.claim(self.lease.id, self.secret, ANN, Holder()))
        self.clock.advance(1000)
        self.assertEqual(self.expired, [])

    def test_closed(self) -> None:
        """At the end all are forgotten, and no timer is left."""
        self.leases.grant(BOB, Holder())
        self.leases.holderLost(self.lease, self.holder)
        self.leases.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.expired, [])
