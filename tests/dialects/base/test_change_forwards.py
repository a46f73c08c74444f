"""
Offering something else while a client runs,
L{TunnelClientService.changeForwards}.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.base.client_rig import ClientServiceTestCase
from tests.dialects.framed.network import MemoryService
from tests.tls.files import FileTestCase
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.moves import Carrier
from tristunnel.forwards.changes import matched
from tristunnel.forwards.forward import Forward
from tristunnel.model.policy import VisitorPolicy, parseNetworks


def offer(spec: str, private: bool = False, service: Any = None) -> Forward:
    """Make a forward of C{PORT=TARGET} or C{NAME=TARGET}."""
    wanted, _, target = spec.partition("=")
    port = int(wanted) if wanted.isdecimal() else 0
    name = "" if wanted.isdecimal() else wanted
    return Forward(
        spec, port, name, target, service or MemoryService(), private=private
    )


class MatchedTests(SynchronousTestCase):
    """Which forward has become which."""

    def match(self, before: str, after: str) -> str:
        pairs = matched(
            [offer(spec) for spec in before.split()],
            [offer(spec) for spec in after.split()],
        )
        return " ".join(f"{old.spec if old else '-'}>{new.spec}" for old, new in pairs)

    def test_matched(self) -> None:
        """
        By text, by port or name, and by place in the list where any port will
        do.
        """
        for before, after, wanted in (
            ("", "", ""),
            ("1=a", "1=a", "1=a>1=a"),
            ("1=a n=b", "n=c 1=d", "n=b>n=c 1=a>1=d"),
            ("0=a 0=b", "0=b", "0=b>0=b"),
            ("0=a 0=b", "0=a 0=c", "0=a>0=a 0=b>0=c"),
            ("0=a", "0=b 0=a", "->0=b 0=a>0=a"),
            ("0=a 1=x", "1=x 0=b", "1=x>1=x ->0=b"),
            ("1=a", "2=a", "->2=a"),
            ("1=a", "0=a", "->0=a"),
        ):
            self.assertEqual(self.match(before, after), wanted)


class ChangeTests(ClientServiceTestCase):
    """A client's forwards change, with our own server."""

    def change(self, client: TunnelClientService, *forwards: Forward) -> list[str]:
        changing = client.changeForwards(forwards)
        self.settle()
        told: list[str] = self.successResultOf(changing)
        return told

    def tunnelNames(self) -> list[str]:
        return [t.name for t in list(self.service.here)]

    def policies(self) -> list[VisitorPolicy]:
        """What is asked of the visitors of the server's tunnels."""
        return [t.policy for t in list(self.service.here)]

    def uris(self) -> list[str]:
        return [t.uri for t in list(self.service.here)]

    def test_nothing(self) -> None:
        """The same forwards, made anew, are the same: nothing is told or called."""
        client = self.client(self.forward(name="a"), self.forward(name="b"))
        events, before = list(self.seen.events), client.forwards
        told = self.change(client, self.forward(name="a"), self.forward(name="b"))
        self.assertEqual(told, [])
        self.assertEqual(self.seen.events, events)
        self.assertTrue(
            all(a is b for a, b in zip(before, client.forwards, strict=True))
        )

    def test_addRemove(self) -> None:
        """
        A new forward gets a tunnel, one that is gone loses it and its visitors,
        and one that stays keeps its own.
        """
        client = self.client(self.forward(name="stays"), self.forward(name="goes"))
        visitors = [each.visit() for each in self.listeners.open_.values()]
        self.settle()
        told = self.change(client, self.forward(name="stays"), self.forward(name="new"))
        self.assertEqual(
            told, ["forward new=new added", "forward goes=goes removed"], told
        )
        self.settle()
        self.assertEqual(self.tunnelNames(), ["stays", "new"])
        visitors[0].say(b"still here")
        self.settle()
        self.assertIsNone(visitors[0].broken)
        assert visitors[1].broken is not None
        self.assertEqual(visitors[1].broken.code.name, "closed")

    def test_retarget(self) -> None:
        """
        A tunnel that leads elsewhere is the same; who is in stays with the
        former service, who comes reaches the new one.
        """
        old, new = self.web, MemoryService()
        client = self.client(offer("n=old", service=old))
        uris = self.uris()
        first = self.listeners.only().visit()
        self.settle()
        told = self.change(client, offer("n=new", service=new))
        self.assertEqual(told, ["forward n=old leads to new"])
        self.assertEqual(self.uris(), uris)
        self.listeners.only().visit()
        self.settle()
        new.settle()
        first.say(b"to the old one")
        self.settle()
        self.assertEqual(len(old.visits), 1)
        self.assertEqual(len(new.visits), 1)
        self.assertEqual(old.visits[0].data, b"to the old one")

    def test_policy(self) -> None:
        """
        Other rules hold for the same tunnel, and hold no longer when they are
        taken back.
        """
        client = self.client(self.forward(name="n"))
        uris = self.uris()
        policy = VisitorPolicy(parseNetworks(["10.0.0.0/8"]), maxVisitors=3)
        told = self.change(client, replace(self.forward(name="n"), policy=policy))
        self.assertEqual(told, ["forward n=n has new limits on visitors"])
        self.settle()
        self.assertEqual(self.policies(), [policy])
        self.change(client, replace(self.forward(name="n"), policy=VisitorPolicy()))
        self.settle()
        self.assertEqual(self.policies(), [VisitorPolicy()])
        self.assertEqual(self.uris(), uris)
        self.assertEqual(len(self.seen.named("tunnelReady")), 1)

    def test_private(self) -> None:
        """A tunnel that gets a port, or loses it, is another one."""
        client = self.client(self.forward(name="n"))
        (before,) = self.uris()
        self.change(client, replace(self.forward(name="n"), private=True))
        self.settle()
        (after,) = self.uris()
        self.assertNotEqual(before, after)
        self.assertEqual(list(self.listeners.open_), [])

    def test_whileAway(self) -> None:
        """
        What changes while there is no session is put in force when there is one
        again: tunnels that the lease has kept are gone on with or closed.
        """
        client = self.client(self.forward(name="stays"), self.forward(name="goes"))
        uris = dict(zip(self.tunnelNames(), self.uris(), strict=True))
        self.way.away = True
        self.wires[-1].cut()
        self.change(
            client, offer("stays=elsewhere", service=self.web), self.forward(name="new")
        )
        self.assertEqual(self.tunnelNames(), ["stays", "goes"])
        self.way.away = False
        self.advance(3)
        self.settle()
        self.assertEqual(sorted(self.tunnelNames()), ["new", "stays"])
        self.assertIn(uris["stays"], self.uris())

    def test_adapt(self) -> None:
        """
        Other credentials are used when the client connects again; one that waits
        to try again does so at once.
        """
        client = self.client(self.forward(name="a"))
        server = client._server
        client.adapt(server, {"id": "other"}, Carrier(), 1.0)
        self.settle()
        self.assertEqual(self.way.attempts, 1)
        self.way.away = True
        self.wires[-1].cut()
        self.settle()
        self.advance(3)
        attempts = self.way.attempts
        self.way.away = False
        client.adapt(server, {"id": "third"}, Carrier(), 1.0)
        self.clock.advance(0)
        self.settle()
        self.assertEqual(self.way.attempts, attempts + 1)
        self.assertIsNotNone(client.session)
        # The delay that was cut short does not come a second time.
        self.advance(10)
        self.assertEqual(self.way.attempts, attempts + 1)

    def test_stopWhileWaiting(self) -> None:
        """A client that waits to try again can be stopped."""
        self.way.away = True
        client = self.client(self.forward(name="a"))
        attempts = self.way.attempts
        self.stop(client)
        self.advance(100)
        self.assertEqual(self.way.attempts, attempts)

    def test_whileRefused(self) -> None:
        """
        A client that waits to try a refused tunnel again opens a new one at
        once, and forgets the refused one.
        """
        self.listeners.taken.add(7)
        client = self.client(self.forward(7))
        self.assertEqual(len(self.seen.named("tunnelFailed")), 1)
        self.change(client, self.forward(name="new"))
        self.settle()
        self.assertEqual(self.tunnelNames(), ["new"])
        self.advance(100)
        self.assertEqual(self.tunnelNames(), ["new"])

    def test_whileOpening(self) -> None:
        """A change waits for a tunnel that is just being opened."""
        client = self.makeClient(self.forward(name="a"))
        client.startService()
        changing = client.changeForwards([self.forward(name="b")])
        self.settle()
        self.settle()
        self.successResultOf(changing)
        self.assertEqual(self.tunnelNames(), ["b"])

    def test_notExtended(self) -> None:
        """A client that was never started can be changed, too."""
        client = self.makeClient(self.forward(name="a"))
        self.assertEqual(
            self.successResultOf(client.changeForwards([self.forward(name="b")])),
            ["forward b=b added", "forward a=a removed"],
        )
        self.assertEqual([f.name for f in client.forwards], ["b"])


class LeaseTests(FileTestCase):
    """The lease's file goes along with the forwards."""

    def test_moveTo(self) -> None:
        """After a move it is found by what is offered now, and not by what was."""
        lease = ClientLease.forClient(self.directory, "s", ["1=a"])
        lease.id, lease.secret = "id", "secret"
        lease.opened("1=a", "w3p://x", 1)
        lease.renamed("1=a", "1=b")
        lease.moveTo(self.directory, "s", ["1=b"])
        lease.close()
        again = ClientLease.forClient(self.directory, "s", ["1=b"])
        self.assertEqual((again.id, again.uris), ("id", {"1=b": "w3p://x"}))
        self.assertEqual(again.ports, {"1=b": 1})
        again.close()
        former = ClientLease.forClient(self.directory, "s", ["1=a"])
        self.assertEqual(former.id, "")
        former.close()

    def test_moveToTaken(self) -> None:
        """
        Where another client is already, the lease is kept in memory, and the
        other one's is left alone.
        """
        other = ClientLease.forClient(self.directory, "s", ["2=b"])
        other.id = "other"
        other.save()
        lease = ClientLease.forClient(self.directory, "s", ["1=a"])
        lease.id = "mine"
        lease.moveTo(self.directory, "s", ["2=b"])
        lease.save()
        self.assertEqual(lease.id, "mine")
        lease.close()
        other.close()
        again = ClientLease.forClient(self.directory, "s", ["2=b"])
        self.assertEqual(again.id, "other")
        again.close()

    def test_moveNowhere(self) -> None:
        """The same place is no move, and memory has none."""
        lease = ClientLease.forClient(self.directory, "s", ["1=a"])
        lease.id = "id"
        lease.save()
        lease.moveTo(self.directory, "s", ["1=a"])
        lease.save()
        lease.close()
        ClientLease().moveTo(self.directory, "s", ["1=a"])
        again = ClientLease.forClient(self.directory, "s", ["1=a"])
        self.assertEqual(again.id, "id")
        again.close()
