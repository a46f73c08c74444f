"""Who may share with whom, L{tristunnel.service.sharing}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.model.test_tunnel import PlainEnd, Side
from tristunnel.errors import TunnelError
from tristunnel.listeners.names import NameListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.permissions import (
    ANONYMOUS_IDENTITY,
    Grant,
    Identity,
    Permissions,
)
from tristunnel.model.ports import PortRange, Reserve
from tristunnel.names.public import PublicNames
from tristunnel.service.caller import Caller
from tristunnel.service.tunnel_service import TunnelService


class _Listener:
    address = ("tcp", "", 8080)
    isOpen = True

    async def close(self) -> None:
        self.isOpen = False


class _Listeners:
    """Opens port 8080, once."""

    def __init__(self) -> None:
        self.made: list[_Listener] = []

    async def open(self, options: Any, arrived: Any, reserve: Reserve) -> _Listener:
        await reserve("tcp", 8080)
        if any(each.isOpen for each in self.made):
            raise TunnelError("port-taken", "port 8080 is in use")
        self.made.append(_Listener())
        return self.made[-1]


def _holder(name: str, *may: str, **more: Any) -> Identity:
    grant = Grant(Permissions(may=frozenset(("open", *may)), **more))
    return Identity(name, grant=grant)


class SharingTests(SynchronousTestCase):
    """Tunnels that ask for the same place."""

    def setUp(self) -> None:
        self.tcp, self.names = _Listeners(), PublicNames()
        clock = Clock()
        self.book = MemoryBook(clock)
        self.service = TunnelService(
            clock,
            self.book,
            {"tcp": self.tcp, "http": NameListeners("http", self.names)},
        )
        self.service.hosts.change(["t.example"], "")

    def open(self, identity: Identity = ANONYMOUS_IDENTITY, **options: Any) -> Any:
        caller = Caller(identity, "t.example", clientSide=Side())
        opening = self.service.open(caller, {"share": "least-busy", **options})
        return self.successResultOf(Deferred.fromCoroutine(opening))

    def named(self, name: str) -> Any:
        record = self.successResultOf(self.book.holder(f"name:{name}"))
        return None if record is None else self.service.here.live(record)

    def refused(self, identity: Identity = ANONYMOUS_IDENTITY, **options: Any) -> str:
        caller = Caller(identity, "t.example", clientSide=Side())
        opening = self.service.open(caller, {"share": "least-busy", **options})
        failure = self.failureResultOf(Deferred.fromCoroutine(opening), TunnelError)
        return str(failure.value.code.name)

    def test_owners(self) -> None:
        """The same owner may, and tokens that both may share; nobody else."""
        self.open(_holder("alice"), port=8080)
        self.open(_holder("alice"), port=8080)
        self.assertEqual(self.refused(_holder("bob", "share"), port=8080), "port-taken")
        self.assertEqual(self.refused(port=8080), "port-taken")
        self.setUp()
        self.open(_holder("alice", "share"), port=8080)
        self.open(_holder("bob", "share"), port=8080)
        self.assertEqual(self.refused(_holder("carol"), port=8080), "port-taken")
        issued = Identity("x", issued=True)
        self.setUp()
        self.open(issued, port=8080)
        self.assertEqual(self.refused(issued, port=8080), "port-taken")

    def test_ports(self) -> None:
        """A token's ports are its ports, also where another one has opened them."""
        self.open(_holder("alice", "share"), port=8080)
        ports = PortRange(((9000, 9001),))
        bob = _holder("bob", "share", ports=ports)
        self.assertEqual(self.refused(bob, port=8080), "port-not-permitted")

    def test_inherited(self) -> None:
        """
        Who is left has the port and the name, in the book too; when the last one is
        gone, or has no visitors any more, nobody has.
        """
        first, second, third = (self.open(port=8080, name="web") for _ in range(3))
        for leaving, heir in ((first, second), (second, third), (third, None)):
            self.service.discard([leaving], TunnelError("closed"))
            record = self.successResultOf(self.book.holder("tcp:8080"))
            self.assertEqual(record and record.id, heir and heir.id)
            self.assertIs(self.named("web"), heir)
        first, second = (self.open(port=8080, name="web") for _ in range(2))
        caller = Caller(ANONYMOUS_IDENTITY, "t.example")
        first.visitorArrived(PlainEnd(), "192.0.2.1:1")
        self.successResultOf(self.service.closeTunnel(caller, first.uri, True))
        self.assertIs(self.named("web"), second)
        self.service.discard([first, second], TunnelError("closed"))
        self.assertEqual(self.book._pages.reserved, {})

    def test_agreement(self) -> None:
        """Both have to say so, and to mean the same kind of place."""
        first = self.open(port=8080, name="web")
        self.assertEqual(self.refused(port=8080, share=""), "port-taken")
        self.assertEqual(self.refused(name="web", private=True), "name-taken")
        second = self.open(name="web", share="sticky")
        self.assertIs(first.group, second.group)
        self.assertEqual(first.group.balance, "sticky")
        self.assertEqual(second.address, first.address)
        self.assertEqual(self.refused(share="best", port=1), "bad-option")
        self.assertEqual(self.refused(health=True, via="w3p"), "bad-option")

    def test_private(self) -> None:
        """A name without a port is shared, and passed on to who is left."""
        first = self.open(name="db", private=True)
        second = self.open(name="db", private=True)
        named = self.named("db")
        self.assertIs(named, first)
        for _ in range(2):
            named.visitorArrived(PlainEnd(), "192.0.2.1:1")
        self.assertEqual([len(first.streams), len(second.streams)], [1, 1])
        self.service.discard([first], TunnelError("closed"))
        named = self.named("db")
        self.assertIs(named, second)
        third = self.open(name="db", private=True)
        self.service.discard([second, third], TunnelError("closed"))
        self.assertIsNone(self.named("db"))
        self.assertIsNot(self.open(name="db", private=True).group, third.group)

    def test_hosts(self) -> None:
        """A host is shared with its path; the route stays as long as anybody."""
        first = self.open(_holder("alice"), listener="http", name="blog", path="/api")
        second = self.open(_holder("alice"), listener="http", name="blog", path="/api")
        bob = _holder("bob", "share")
        refusal = self.refused(bob, listener="http", name="blog", path="/api")
        self.assertEqual(refusal, "name-taken")
        other = self.open(_holder("alice"), listener="http", name="blog")
        self.assertIsNot(other.group, first.group)
        route = self.names.table.find("http", "blog.t.example", "/api/x")
        assert route is not None
        for _ in range(4):
            route.arrived(PlainEnd(), "192.0.2.1:1")
        self.assertEqual([len(first.streams), len(second.streams)], [2, 2])
        self.assertEqual(second.address, first.address)
        self.service.discard([first], TunnelError("closed"))
        route.arrived(PlainEnd(), "192.0.2.1:1")
        self.assertEqual(len(second.streams), 3)
        self.service.discard([second], TunnelError("closed"))
        found = self.names.table.find("http", "blog.t.example", "/api/x")
        self.assertIsNot(found, route)

    def test_place(self) -> None:
        """The place is open as long as one of them is, and free then."""
        first, second = self.open(port=8080), self.open(port=8080)
        self.service.discard([first], TunnelError("closed"))
        self.assertTrue(self.tcp.made[0].isOpen)
        third = self.open(port=8080)
        self.assertIs(third.group, second.group)
        self.service.discard([second, third], TunnelError("closed"))
        self.assertFalse(self.tcp.made[0].isOpen)
        self.assertIsNot(self.open(port=8080).group, third.group)
