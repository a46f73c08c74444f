"""Tests for L{tristunnel.service.leases}."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.network import NetworkTestCase
from tests.dialects.framed.server_rig import call, hello
from tests.support.book import LateBook
from tristunnel.errors import TunnelError
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.observer import ServerObserver
from tristunnel.model.permissions import ANONYMOUS_IDENTITY, Identity
from tristunnel.model.record import Change, TunnelLimits, TunnelRecord
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.here import Held, Here
from tristunnel.service.leases import Lease, Leases

ANN, BOB = Identity("ann"), Identity("bob")


def makeTunnel(number: str) -> Tunnel:
    return Tunnel(
        number,
        ANN,
        None,
        ServerObserver(),
        Clock().seconds,
        uri=f"tunnel://host/{number}",
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


class LeasesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.changes: list[Change] = []
        self.book = MemoryBook(self.clock)
        self.here = Here()
        self.leases = Leases(self.clock, self.book, self.here, seconds=60.0)
        self.holder = Holder()
        self.lease, self.secret = self.grant(ANN, self.holder)
        self.tunnel = makeTunnel("a")
        self.tunnel.clientSide = self.holder
        self.keep(self.tunnel)
        self.successResultOf(self.book.watch(self.changes.append))

    def grant(self, owner: Identity, holder: Holder) -> tuple[Lease, str]:
        return self.successResultOf(self.leases.grant(owner, holder))

    def claim(
        self, lease: object, secret: object, owner: Identity, holder: Holder
    ) -> Lease | None:
        claimed = self.successResultOf(self.leases.claim(lease, secret, owner, holder))
        if claimed is None:
            return None
        self.assertEqual(claimed[1], [])
        return claimed[0]

    def keep(self, tunnel: Tunnel) -> None:
        record = TunnelRecord(tunnel.id, self.lease.place, self.lease.id)
        self.successResultOf(self.book.open(record, TunnelLimits()))
        self.here.add(Held(tunnel, record))
        self.lease.tunnels.append(tunnel)

    def test_shown(self) -> None:
        """
        A client has seen who had the lease last, even if the book has not; what it
        shows may be nonsense.
        """
        for shown, fence in (
            (40, 41),
            (7, 42),
            (2**60, 43),
            (-1, 44),
            ("90", 45),
            (None, 46),
        ):
            claiming = self.leases.claim(
                self.lease.id, self.secret, ANN, self.holder, shown
            )
            self.successResultOf(claiming)
            self.assertEqual(self.lease.place.fence, fence)

    @property
    def expired(self) -> list[str]:
        return [each.id for each in self.changes if each.kind == "expired"]

    def test_granted(self) -> None:
        """Each lease has its own id and secret; the secret is kept nowhere."""
        other, secret = self.grant(ANN, self.holder)
        self.assertNotEqual(other.id, self.lease.id)
        self.assertNotEqual(secret, self.secret)
        self.assertNotIn(self.secret, repr(vars(self.lease)))
        self.assertGreaterEqual(len(self.secret), 32)

    def test_displaced(self) -> None:
        """The rightful holder takes its tunnels over at once, from a session that still
        seems to live."""
        newer = Holder()
        self.assertIs(self.claim(self.lease.id, self.secret, ANN, newer), self.lease)
        self.assertEqual((self.holder.displacements, newer.displacements), (1, 0))
        self.assertIs(self.tunnel.clientSide, newer)
        self.leases.holderLost(self.lease, self.holder)
        self.assertIs(self.lease.holder, newer)
        self.assertIs(self.tunnel.clientSide, newer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_claimedTwice(self) -> None:
        """A session that claims its own lease displaces nobody."""
        self.claim(self.lease.id, self.secret, ANN, self.holder)
        self.assertEqual(self.holder.displacements, 0)

    def test_notClaimed(self) -> None:
        """Without id, secret and identity together nothing happens."""
        _, otherSecret = self.grant(ANN, Holder())
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
            self.assertIsNone(self.claim(number, secret, owner, Holder()))
        self.assertIs(self.lease.holder, self.holder)
        self.assertEqual(self.holder.displacements, 0)

    def test_comesBack(self) -> None:
        """A lease outlives its session for a while; its visitors may wait."""
        waiting = Holder()
        self.leases.meanwhile = lambda tunnel: waiting
        self.leases.holderLost(self.lease, self.holder)
        self.assertIsNone(self.tunnel.clientSide)
        self.assertIs(self.tunnel.meanwhile, waiting)
        self.clock.advance(59)
        newer = Holder()
        self.assertIs(self.claim(self.lease.id, self.secret, ANN, newer), self.lease)
        self.assertIs(self.tunnel.clientSide, newer)
        self.assertEqual(self.holder.displacements, 0)
        self.clock.advance(1000)
        self.assertEqual(self.expired, [])

    def test_expires(self) -> None:
        """Nobody comes back: whoever has to close its tunnels is told, once."""
        self.leases.holderLost(self.lease, self.holder)
        self.clock.advance(60)
        self.assertEqual(self.expired, [self.lease.id])
        self.assertEqual(self.lease.tunnels, [self.tunnel])
        self.assertIsNone(self.claim(self.lease.id, self.secret, ANN, Holder()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_timeBeginsAnew(self) -> None:
        """Each loss has the whole time."""
        self.leases.holderLost(self.lease, self.holder)
        self.clock.advance(59)
        newer = Holder()
        self.claim(self.lease.id, self.secret, ANN, newer)
        self.leases.holderLost(self.lease, newer)
        self.clock.advance(59)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual(self.expired, [self.lease.id])

    def test_lostTwice(self) -> None:
        """A session that is lost twice is lost once."""
        self.leases.holderLost(self.lease, self.holder)
        self.leases.holderLost(self.lease, self.holder)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_emptyLease(self) -> None:
        """A lease without tunnels ends with its session."""
        self.successResultOf(self.book.close("a", self.lease.place))
        self.leases.drop(self.lease.id, self.tunnel)
        self.leases.holderLost(self.lease, self.holder)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.claim(self.lease.id, self.secret, ANN, Holder()))

    def test_dropped(self) -> None:
        """
        With its last tunnel, a lease that no session has is over; one that a session
        has is not.
        """
        self.leases.drop("unknown", self.tunnel)
        other = makeTunnel("b")
        self.keep(other)
        for tunnel in (self.tunnel, other):
            self.assertIs(self.leases.find(self.lease.id), self.lease)
            self.assertIs(self.leases.of(tunnel), self.lease)
            self.leases.drop(self.lease.id, tunnel)
        self.assertIs(self.leases.find(self.lease.id), self.lease)
        self.lease.tunnels.append(other)
        self.leases.holderLost(self.lease, self.holder)
        self.leases.drop(self.lease.id, other)
        self.assertIsNone(self.leases.find(self.lease.id))

    def test_elsewhere(self) -> None:
        """
        Tunnels that another process had are told of, with the lease; that process has
        it no longer.
        """
        there = MemoryBook.ofMember(self.book, "there")
        leases = Leases(self.clock, there, Here())
        claimed = self.successResultOf(
            leases.claim(self.lease.id, self.secret, ANN, Holder())
        )
        assert claimed is not None
        lease, records = claimed
        self.assertEqual([each.id for each in records], ["a"])
        self.assertEqual((lease.tunnels, lease.place.member), ([], "there"))
        self.assertGreater(lease.place.fence, self.lease.place.fence)
        self.assertEqual(self.changes[-1].place, lease.place)

    def test_late(self) -> None:
        """
        What the book grants to somebody who is gone, nobody has: a new lease is over,
        and one that was claimed waits for its client.
        """
        for asked in (
            lambda: self.leases.grant(ANN, Holder()),
            lambda: self.leases.claim(self.lease.id, self.secret, ANN, Holder()),
        ):
            book = LateBook(self.clock, self.book, {"grant", "claim"})
            self.leases = Leases(self.clock, book, self.here, seconds=60.0)
            waiting = Deferred.fromCoroutine(asked())
            waiting.addErrback(lambda failure: failure.trap(CancelledError))
            waiting.cancel()
            book.answer()
        self.assertEqual(list(self.book._pages.leases), [self.lease.id])
        self.clock.advance(60.0)
        self.assertEqual(self.expired, [self.lease.id])

    def test_closed(self) -> None:
        """At the end, the book keeps them for the time that clients have."""
        self.grant(BOB, Holder())
        self.successResultOf(self.leases.close())
        self.assertIsNone(self.leases.find(self.lease.id))
        self.assertEqual([each.kind for each in self.changes], ["away"])
        self.clock.advance(60.0)
        self.assertEqual(self.expired, [self.lease.id])


class ElsewhereTests(NetworkTestCase):
    """Clients that come to another process of the server."""

    def test_moves(self) -> None:
        """
        A client's tunnels go where its session is, with their ports, names, URIs and
        what was asked of them; where it was, nothing is left.
        """
        first = self.service
        self.makeServer(book=self.book.ofMember("a"))
        self.service.entries.now = self.clock.seconds
        here, ports = self.service, self.listeners
        peer = self.dial(
            hello(), call(1, "openTunnel", name="shop", allow="192.0.2.0/24", ttl=600.0)
        )
        (tunnel,) = here.here
        address = tunnel.address
        lease = peer.handshake["tristunnel"]["lease"]
        offer = {"id": lease["id"], "secret": lease["secret"]}
        self.clock.advance(60)
        self.makeServer(book=self.book.ofMember("b"))
        self.service.now = self.clock.seconds
        back = self.dial(hello(lease=offer))
        self.assertEqual(back.handshake["tristunnel"]["tunnels"], [tunnel.uri])
        self.assertEqual((list(here.here), ports.open_), ([], {}))
        self.assertIsNotNone(peer.lost)
        (moved,) = self.service.here
        self.assertEqual(
            (moved.id, moved.uri, moved.name, moved.address, moved.policy),
            (tunnel.id, tunnel.uri, "shop", address, tunnel.policy),
        )
        self.assertEqual(moved.until, tunnel.until)
        self.assertEqual(len(first.here), 0)
        back.transport.loseConnection()
        self.settle()
        self.clock.advance(120)
        self.assertEqual((list(self.service.here), self.listeners.open_), ([], {}))

    def test_cannotMove(self) -> None:
        """A tunnel whose port cannot be had at the other process is over."""
        self.makeServer(book=self.book.ofMember("a"))
        peer = self.dial(hello(), call(1, "openTunnel", port=8080))
        lease = peer.handshake["tristunnel"]["lease"]
        self.makeServer(book=self.book.ofMember("b"))
        self.listeners.taken.add(8080)
        offer = {"id": lease["id"], "secret": lease["secret"]}
        back = self.dial(hello(lease=offer))
        self.assertEqual(back.handshake["tristunnel"]["tunnels"], [])
        self.assertEqual(self.book._pages.tunnels, {})
        (noted,) = self.notes.named("requestNoted")
        self.assertIn("and was refused: The port is in use", noted[1])

    def test_stopped(self) -> None:
        """
        When a process stops, its ports are closed, and the client finds its tunnels at
        another one.
        """
        self.makeServer(book=self.book.ofMember("a"))
        here, ports = self.service, self.listeners
        self.patch(self.book, "stop", lambda: succeed(None))
        peer = self.dial(hello(), call(1, "openTunnel", name="shop"))
        (tunnel,) = here.here
        lease = peer.handshake["tristunnel"]["lease"]
        closing = Deferred.fromCoroutine(here.close(TunnelError("shutting-down")))
        self.successResultOf(closing)
        self.sessions.close(TunnelError("shutting-down"))
        self.assertEqual((list(here.here), ports.open_), ([], {}))
        self.makeServer(book=self.book.ofMember("b"))
        offer = {"id": lease["id"], "secret": lease["secret"]}
        back = self.dial(hello(lease=offer))
        self.assertEqual(back.handshake["tristunnel"]["tunnels"], [tunnel.uri])

    def test_forgotten(self) -> None:
        """A tunnel that the book had to forget ends."""
        self.makeServer(book=self.book.ofMember("a"))
        self.dial(hello(), call(1, "openTunnel"))
        self.assertEqual(len(self.listeners.open_), 1)
        (tunnel,) = self.service.here
        place = self.service.here.get(tunnel.id).place
        self.successResultOf(self.book.close(tunnel.id, place))
        self.assertEqual(self.listeners.open_, {})
