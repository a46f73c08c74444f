"""Tests for L{tristunnel.service.siblings}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase

from tristunnel.dataplane.reactor import ourReactor
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Grant, Identity, Permissions
from tristunnel.processes.channel import pair
from tristunnel.processes.link import Link
from tristunnel.service import siblings as module
from tristunnel.service.caller import Caller
from tristunnel.service.siblings import Siblings, callerAsDict, callerFrom, everywhere

ANN = Identity("ann")


class Member:
    """What L{Siblings} asks of a membership."""

    def __init__(self, index: int) -> None:
        self.index, self.name, self.key = index, str(index), "key"
        self.answers: dict[str, Any] = {}
        self.siblings: dict[int, Link] = {}


class SiblingsTests(TestCase):
    """Two processes that ask each other."""

    def setUp(self) -> None:
        reactor = ourReactor()
        members: list[Any] = [Member(0), Member(1)]
        for member, end, other in zip(members, pair(), reversed(members), strict=True):
            link = Link(reactor, end, member.answers.get, index=other.index)
            member.siblings[other.index] = link
            self.addCleanup(link.close)
        self.members = members
        self.one, self.other = (Siblings(member) for member in members)
        self.caller = Caller(ANN, "server.example", 9000)

    def methods(self, mine: str) -> dict[str, Any]:
        """The methods of a process that has one tunnel."""

        def closeTunnel(caller: Caller, uri: str, finish: bool = False) -> str:
            if uri == "locked":
                raise TunnelError("not-permitted" if mine == "b" else "unknown-tunnel")
            if uri != mine:
                raise TunnelError("unknown-tunnel")
            return f"{caller.identity.name} closed {mine}, {finish}"

        unused: dict[str, Any] = {}
        for name in (*module.GATHERED, *module.OWNERS):
            unused[name] = lambda caller: []
        return {
            **unused,
            "listTunnels": lambda caller: succeed([{"uri": mine}]),
            "closeTunnel": closeTunnel,
            "other": lambda caller: mine,
        }

    def both(self) -> dict[str, Any]:
        """What somebody calls who has come to the first process."""
        everywhere(self.methods("b"), self.other)
        return everywhere(self.methods("a"), self.one)

    async def test_gathered(self) -> None:
        """A list has the entries of both, and says which is whose."""
        found = await self.both()["listTunnels"](self.caller)
        self.assertEqual(
            found, [{"uri": "a", "member": "0"}, {"uri": "b", "member": "1"}]
        )

    async def test_missing(self) -> None:
        """Whoever does not answer in time is missing, and nothing else."""
        self.patch(module, "PATIENCE", 0.01)
        methods = self.both()
        never: Deferred[Any] = Deferred()
        self.other.publish("listTunnels", lambda caller: never)
        found = await methods["listTunnels"](self.caller)
        self.assertEqual(found, [{"uri": "a", "member": "0"}])

    async def test_owner(self) -> None:
        """What names a tunnel is answered by whoever has it, also with a refusal."""
        close = self.both()["closeTunnel"]
        self.assertEqual(await close(self.caller, "a"), "ann closed a, False")
        self.assertEqual(
            await close(self.caller, "b", finish=True), "ann closed b, True"
        )
        for uri, code in (("c", "unknown-tunnel"), ("locked", "not-permitted")):
            error = await self.assertFailure(close(self.caller, uri), TunnelError)
            self.assertEqual(error.code.name, code)

    async def test_gone(self) -> None:
        """Without the other process, there is what is here."""
        methods = self.both()
        self.members[0].siblings[1].close()
        found = await methods["listTunnels"](self.caller)
        self.assertEqual(found, [{"uri": "a", "member": "0"}])
        asked = methods["closeTunnel"](self.caller, "b")
        error = await self.assertFailure(asked, TunnelError)
        self.assertEqual(error.code.name, "session-lost")

    async def test_heeded(self) -> None:
        """Whoever is waited for may be late, refuse, or know nothing of it."""
        asked: Deferred[str] = Deferred()
        self.other.publish("show", lambda caller, tunnel: asked.callback(tunnel))
        await self.one.heed("show", "a tunnel", patience=60.0)
        self.assertEqual(self.successResultOf(asked), "a tunnel")
        await self.one.heed("unknown", patience=60.0)
        self.other.publish("late", lambda caller: Deferred())
        await self.one.heed("late", patience=0.01)

    def test_alone(self) -> None:
        """What concerns one process only is as it was."""
        self.assertEqual(self.both()["other"](self.caller), "a")

    async def test_told(self) -> None:
        """What is told comes to the other one."""
        came: Deferred[tuple[str, int]] = Deferred()
        self.other.publish("news", lambda *news: came.callback(news))
        self.one.tell("news", "clients", 3)
        self.assertEqual(await came, ("clients", 3))
        self.assertEqual(self.one.names, {"1"})


class CallerTests(TestCase):
    """A caller whom another process vouches for."""

    def test_same(self) -> None:
        """It is the same one, and may do the same with tunnels and services."""
        permissions = Permissions(
            may=frozenset(("admin", "access")), services=("db*",), servicesOf="bob"
        )
        for identity in (
            ANN,
            Identity("ann", True, None, False, "laptop"),
            Identity("ann", False, Grant(permissions), True),
        ):
            caller = Caller(
                identity,
                "server.example",
                9000,
                address="192.0.2.1",
                secure=True,
                certificate="ann",
            )
            again = callerFrom(callerAsDict(caller))
            self.assertEqual(again, caller)
            self.assertEqual(again.identity.claimed, identity.claimed)
            if identity.grant is None:
                self.assertIsNone(again.identity.grant)
            else:
                assert again.identity.grant is not None
                self.assertEqual(again.identity.grant.permissions, permissions)
