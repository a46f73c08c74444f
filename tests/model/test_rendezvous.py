"""Tests for L{tristunnel.model.rendezvous}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.notes import ServerNotes
from tests.support.waiting import WaitingEnd
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.model.rendezvous import Rendezvous, WaitingRoom
from tristunnel.model.tunnel import Stream, Tunnel


class RendezvousTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.notes = ServerNotes()
        self.met: list[Stream] = []
        self.make(Rendezvous(self.clock, 60, None, 3, self.met.append))

    def make(self, side: Rendezvous) -> None:
        self.side = side
        self.tunnel = Tunnel(
            id="t",
            owner=Identity("somebody"),
            clientSide=side,
            observer=self.notes,
            seconds=self.clock.seconds,
        )

    def visit(self) -> WaitingEnd:
        visitor = WaitingEnd()
        self.tunnel.visitorArrived(visitor, "192.0.2.7:50000")
        return visitor

    def arrive(self) -> WaitingEnd:
        client = WaitingEnd()
        self.side.clientArrived(client)
        return client

    def assertJoined(self, client: WaitingEnd, visitor: WaitingEnd) -> None:
        self.assertIs(client.peer, visitor)
        self.assertIs(visitor.peer, client)

    def assertNobodyWaits(self) -> None:
        self.assertEqual((self.side.waitingVisitors, self.side.waitingClients), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sentAway(self) -> None:
        """A visitor who was sent away while it waited takes nobody's connection, and is
        gone once."""
        kicked, patient = self.visit(), self.visit()
        for stream in list(self.tunnel.streams):
            if stream.visitor is kicked:
                stream.reset(TunnelError("closed"))
        self.assertEqual(kicked.refused, "closed")
        self.assertJoined(self.arrive(), patient)
        self.assertNobodyWaits()
        self.assertEqual(len(self.notes.named("visitorGone")), 1)

    def test_connectedTooLate(self) -> None:
        """A client's end that is found too late for a visitor is broken."""
        self.visit()
        (stream,) = self.tunnel.streams
        stream.reset(TunnelError("closed"))
        client = WaitingEnd()
        stream.connect(client)
        self.assertEqual((client.refused, client.peer), ("closed", None))
        self.assertEqual(len(self.notes.named("visitorGone")), 1)
        self.side.close(TunnelError("closed"))

    def test_visitorFirst(self) -> None:
        """A visitor waits for a client's connection."""
        visitor = self.visit()
        self.assertEqual(self.side.waitingVisitors, 1)
        client = self.arrive()
        self.assertJoined(client, visitor)
        self.assertEqual(len(self.met), 1)
        self.assertNobodyWaits()

    def test_clientFirst(self) -> None:
        """A client's connection waits for a visitor, for as long as it takes."""
        client = self.arrive()
        self.assertEqual(self.side.waitingClients, 1)
        self.clock.advance(10 * 86400)
        visitor = self.visit()
        self.assertJoined(client, visitor)
        self.assertEqual(len(self.met), 1)
        self.assertNobodyWaits()

    def test_order(self) -> None:
        """Whoever waits is served in the order of arrival."""
        visitors = [self.visit() for _ in range(3)]
        clients = [self.arrive() for _ in range(5)]
        visitors += [self.visit() for _ in range(2)]
        for client, visitor in zip(clients, visitors, strict=True):
            self.assertJoined(client, visitor)
        self.assertNobodyWaits()

    def test_tooManyVisitors(self) -> None:
        """One visitor more than may wait is turned away; the others wait on."""
        visitors = [self.visit() for _ in range(4)]
        self.assertEqual([v.refused for v in visitors], ["", "", "", "limit-reached"])
        self.assertEqual(self.side.waitingVisitors, 3)
        self.assertEqual(len(self.tunnel.streams), 3)
        self.assertJoined(self.arrive(), visitors[0])

    def test_tooManyClients(self) -> None:
        """So is one client's connection more."""
        clients = [self.arrive() for _ in range(4)]
        self.assertEqual([c.refused for c in clients], ["", "", "", "limit-reached"])
        self.assertJoined(clients[0], self.visit())

    def test_sharedRoom(self) -> None:
        """Several meeting places can have a waiting room in common, which is as full as
        all of them."""
        shared = WaitingRoom(2)
        places = [Rendezvous(self.clock, 60, 5, shared=shared) for _ in range(2)]
        self.make(places[0])
        gone, late = self.arrive(), self.arrive()
        self.make(places[1])
        self.assertEqual(
            (self.visit().refused, self.arrive().refused), ("limit-reached",) * 2
        )
        gone.leave(None)
        visitor = self.visit()
        self.assertEqual((visitor.refused, shared.taken), ("", 2))
        self.assertJoined(self.arrive(), visitor)
        self.clock.advance(5)
        self.assertEqual((late.refused, shared.taken), ("expired", 0))
        self.visit()
        self.clock.advance(60)
        self.assertEqual(shared.taken, 0)
        self.visit()
        self.visit().leave(None)
        self.assertEqual(shared.taken, 1)
        self.side.close(TunnelError("closed"))
        self.assertEqual(shared.taken, 0)
        self.make(places[0])
        client = self.arrive()
        self.assertJoined(client, self.visit())
        self.assertEqual(shared.taken, 0)

    def test_patience(self) -> None:
        """A visitor waits for a limited time, each its own."""
        early = self.visit()
        self.clock.advance(30)
        late = self.visit()
        self.clock.advance(30)
        self.assertEqual((early.refused, late.refused), ("client-away", ""))
        self.assertEqual(len(self.tunnel.streams), 1)
        self.assertJoined(self.arrive(), late)
        self.assertNobodyWaits()

    def test_clientPatience(self) -> None:
        """A client's connection can be made to wait for a limited time, too."""
        self.make(Rendezvous(self.clock, clientPatience=5))
        early, late = self.arrive(), self.arrive()
        self.clock.advance(4)
        self.assertJoined(early, self.visit())
        self.clock.advance(1)
        self.assertEqual((early.refused, late.refused), ("", "expired"))
        self.assertNobodyWaits()

    def test_visitorLeaves(self) -> None:
        """A visitor that leaves while it waits is forgotten and counted as gone."""
        gone, stays = self.visit(), self.visit()
        gone.leave(None)
        self.assertEqual(self.notes.named("visitorGone"), [(0, 0, "reset")])
        self.assertJoined(self.arrive(), stays)
        self.assertNobodyWaits()

    def test_visitorBreaks(self) -> None:
        """So is one whose connection breaks, with the reason."""
        self.visit().leave(TunnelError("stalled"))
        self.assertEqual(self.notes.named("visitorGone"), [(0, 0, "stalled")])
        self.assertNobodyWaits()

    def test_clientLeaves(self) -> None:
        """A client's connection that leaves while it waits is forgotten."""
        gone, stays = self.arrive(), self.arrive()
        gone.leave(None)
        self.assertJoined(stays, self.visit())
        self.assertNobodyWaits()

    def test_close(self) -> None:
        """Who waits when it closes is told why, and so is who comes then."""
        ends = [self.visit(), self.visit()]
        self.side.tunnelClosed(self.tunnel, TunnelError("closed"))
        ends += [self.visit(), self.arrive()]
        self.assertEqual([end.refused for end in ends], ["closed"] * 4)
        self.assertEqual(self.tunnel.streams, set())
        self.assertNobodyWaits()

    def test_closeWithClients(self) -> None:
        """Clients' connections are broken off as well."""
        self.make(Rendezvous(self.clock, clientPatience=5))
        clients = [self.arrive(), self.arrive()]
        self.side.close(TunnelError("expired"))
        self.assertEqual([end.refused for end in clients], ["expired"] * 2)
        self.assertNobodyWaits()

    def test_tunnelClosesFirst(self) -> None:
        """A tunnel that closes takes its waiting visitors along, and leaves nothing
        behind in the meeting place."""
        visitor = self.visit()
        self.tunnel.close(TunnelError("expired"))
        self.side.tunnelClosed(self.tunnel, TunnelError("expired"))
        self.assertEqual(visitor.refused, "expired")
        self.assertEqual(len(self.notes.named("visitorGone")), 1)
        self.assertNobodyWaits()
