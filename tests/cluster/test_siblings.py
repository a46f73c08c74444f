"""Tests for names of tunnels that other processes of the machine have."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.processes.fakes import FakeReactor
from tristunnel.cluster.entries import Entries
from tristunnel.cluster.siblings import SiblingWays
from tristunnel.listeners.names import NameListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.record import Place, TunnelLimits, TunnelRecord, reservedFor
from tristunnel.names.public import PublicNames
from tristunnel.processes.channel import pair
from tristunnel.processes.link import Link
from tristunnel.service.here import Here
from tristunnel.service.host_rules import HostRules


class Member:
    """What L{SiblingWays} asks of a membership."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.answers: dict[str, Any] = {}
        self.siblings: dict[int, Link] = {}


class PassedNamesTests(SynchronousTestCase):
    """The second process of a server knows which names the first one has."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        book = MemoryBook(self.reactor)
        self.first, second = book.ofMember("0"), book.ofMember("1")
        self.names = PublicNames()
        self.member: Any = Member(1)
        here = Here()
        ways = SiblingWays(None, self.member, here.served)  # type: ignore[arg-type]
        self.entries = Entries(
            self.reactor,
            second,
            {"http": NameListeners("http", self.names)},
            here,
            ways,
            HostRules(),
        )
        self.entries.near = ways
        self.successResultOf(self.entries.begin())
        self.meet()

    def meet(self) -> None:
        """Have a first process begin, whose names nothing is known of."""
        ends = pair()
        self.addCleanup(ends[1].close)
        link = Link(self.reactor, ends[0], self.member.answers.get, index=0)
        self.addCleanup(link.close)
        self.member.siblings[0] = link

    def passedTo(self, name: str) -> int | None:
        """
        Open a tunnel in the first process.

        @return: To whom its visitors are passed.
        """
        host = f"{name}.t.example"
        place = self.successResultOf(self.first.grant(f"of {name}", "hash", "ann"))
        record = TunnelRecord(
            name,
            place,
            f"of {name}",
            address=f"http://{host}",
            reserved=(reservedFor("http", host),),
            options=f'{{"name": "{host}"}}',
        )
        self.successResultOf(self.first.open(record, TunnelLimits()))
        return self.route(name)

    def route(self, name: str) -> int | None:
        """To whom the visitors of a name are passed."""
        route = self.names.table.find("http", f"{name}.t.example")
        assert route is not None
        return route.member

    def test_leaves(self) -> None:
        """
        Nothing is passed to a process that stops, also not for a tunnel that comes to
        it at the last moment; its successor has everything passed again.
        """
        self.assertEqual(self.passedTo("before"), 0)
        self.entries.memberLeaves(None, "0")
        self.assertIsNone(self.route("before"))
        self.assertIsNone(self.passedTo("late"))
        place = self.successResultOf(
            self.first.claim("of before", "hash", "ann", 0)
        ).place
        self.assertEqual(place, Place("0", 2))
        self.assertIsNone(self.route("before"))
        self.meet()
        self.assertEqual(self.passedTo("again"), 0)
