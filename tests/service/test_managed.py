"""Tunnels that a server's operator gives to managed clients."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.model.test_tunnel import Side
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import (
    ANONYMOUS_IDENTITY,
    Grant,
    Identity,
    Permissions,
)
from tristunnel.service import managed as managedModule
from tristunnel.service.caller import Caller
from tristunnel.service.clients import ConnectedClients
from tristunnel.service.managed import ManagedForwards
from tristunnel.service.siblings import Gathered


class _Side(Side):
    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def managedChanged(self) -> None:
        self.changes += 1


class _Sibling:
    """
    The other members: one.

    @param managed: What it knows.
    """

    def __init__(self, managed: ManagedForwards) -> None:
        self._managed = managed

    def publish(self, name: str, function: object) -> None:
        """It is called below."""

    async def gather(self, name: str, caller: Caller) -> Gathered:
        return Gathered([("other", self._managed.listed(caller))], {})


class ManagedTests(SynchronousTestCase):
    """Giving, keeping, taking away."""

    def setUp(self) -> None:
        self.path = str(Path(os.path.abspath(self.mktemp())) / "managed.toml")
        self.clients = ConnectedClients(Clock().seconds)
        grant = Grant(Permissions(may=frozenset({"admin"})))
        self.admin = Caller(Identity("admin", grant=grant), "t.example")
        self.side = _Side()
        laptop = Identity("laptop")
        self.clients.enter(laptop, "", "framed", lambda reason: None, self.side)
        self.laptop = Caller(laptop, "t.example", clientSide=self.side)
        self.managed = ManagedForwards(self.path, self.clients)

    def add(self, **more: Any) -> dict[str, Any]:
        wanted = {"client": "laptop", "to": "localhost:3000", **more}
        return self.managed.add(self.admin, **wanted)[0]

    def test_add(self) -> None:
        """A tunnel is kept, its client is told, and asks what it is."""
        made = self.add(port=8080)
        self.assertEqual(self.side.changes, 1)
        (asked,) = self.managed.forClient(self.laptop, ["localhost:*"])
        self.assertEqual(asked["id"], made["id"])
        (listed,) = self.managed.listed(self.admin)
        self.assertEqual(listed["consent"], ["localhost:*"])
        self.assertEqual((listed["connected"], listed["refused"]), (True, ""))

    def test_restart(self) -> None:
        """It is there after a restart, until it is taken away."""
        made = self.add(name="web", udp=True)
        again = ManagedForwards(self.path, self.clients)
        (asked,) = again.forClient(self.laptop)
        self.assertEqual({"client": "laptop", **asked}, made)
        again.remove(self.admin, str(made["id"]))
        self.assertEqual(
            ManagedForwards(self.path, self.clients).forClient(self.laptop), []
        )
        self.assertRaises(TunnelError, again.remove, self.admin, str(made["id"]))

    def test_names(self) -> None:
        """A name that visitors ask for is kept like any other, with options."""
        for name in ("http/blog/api", "http/", "tls/a.example", "unix/app.sock"):
            made = self.add(name=name, to="localhost:3000,share")
            self.assertEqual((made["name"], made["port"]), (name, 0))
        again = ManagedForwards(self.path, self.clients).listed(self.admin)
        self.assertEqual(again[1]["name"], "http/")
        self.assertEqual(again[1]["to"], "localhost:3000,share")

    def test_range(self) -> None:
        """A range of ports is a tunnel for each; not if they would be too many."""
        ports = {"port": "6000-6002", "to": "localhost:7000-7002"}
        self.add(**ports)
        asked = self.managed.forClient(self.laptop)
        self.assertEqual(
            [(each["port"], each["to"]) for each in asked],
            [(6000 + n, f"localhost:{7000 + n}") for n in range(3)],
        )
        self.assertRaises(TunnelError, self.add, **ports, name="web")
        many = {"port": "6000-6098", "to": "localhost:7000-7098"}
        self.assertRaises(TunnelError, self.add, **many)
        self.assertEqual(len(self.managed.forClient(self.laptop)), 3)
        entry = '[[tunnel]]\nclient = "laptop"\nto = "h:1-2"\nports = "8-9"\n'
        Path(self.path).write_text(entry)
        asked = self.managed.forClient(self.laptop)
        self.assertEqual([each["port"] for each in asked], [8, 9])
        self.assertEqual(len({each["id"] for each in asked}), 2)

    def test_edited(self) -> None:
        """The file may be edited; what is wrong with it changes nothing."""
        self.add()
        text = Path(self.path).read_text()
        entry = '[[tunnel]]\nclient = "laptop"\nto = "localhost:22"\n'
        Path(self.path).write_text(text + entry)
        self.managed.refresh()
        self.assertEqual(self.side.changes, 2)
        first = self.managed.forClient(self.laptop)
        self.assertEqual(
            [each["to"] for each in first], ["localhost:3000", "localhost:22"]
        )
        # It has the same id the next time.
        again = ManagedForwards(self.path, self.clients)
        self.assertEqual(again.forClient(self.laptop), first)
        Path(self.path).write_text(text + entry + "to = nonsense")
        self.managed.refresh()
        self.assertEqual(self.managed.forClient(self.laptop), first)
        self.assertRaises(TunnelError, self.add)
        self.assertIn("nonsense", Path(self.path).read_text())

    def test_refused(self) -> None:
        """What a client refuses is shown with its reason, cleaned and bounded."""
        made = self.add()
        reasons = {made["id"]: "no \x1b[31m", **{str(n): "x" * 900 for n in range(999)}}
        self.managed.forClient(self.laptop, ["a\nb", 3], reasons)
        (listed,) = self.managed.listed(self.admin)
        self.assertEqual(listed["refused"], "no ?[31m")
        self.assertEqual(listed["consent"], ["a?b"])

    def test_members(self) -> None:
        """
        What a client says at one of a server's processes is shown by all of them; the
        file of one machine is not changed for all of them.
        """
        made = self.add()
        there = ConnectedClients(Clock().seconds)
        other = ManagedForwards(self.path, there)
        for managed, sibling in ((self.managed, other), (other, self.managed)):
            managed.shareWith(cast("Any", _Sibling(sibling)))
        self.managed.forClient(self.laptop, ["localhost:*"], {made["id"]: "no"})
        for managed in (self.managed, other):
            (listed,) = self.successResultOf(managed.listedByAll(self.admin))
            self.assertEqual((listed["connected"], listed["refused"]), (True, "no"))
        other.machines = True
        error = self.assertRaises(TunnelError, other.remove, self.admin, made["id"])
        self.assertIn("each of them", error.message)
        self.assertIn(made["id"], Path(self.path).read_text())

    def test_others(self) -> None:
        """Nobody but an admin gives, and a client learns its own only."""
        self.add()
        for call in (
            lambda: self.managed.add(self.laptop, "laptop", "localhost:1"),
            lambda: self.managed.remove(self.laptop, "x"),
            lambda: self.managed.listed(self.laptop),
            lambda: self.managed.forClient(self.admin),
            lambda: self.managed.forClient(
                Caller(ANONYMOUS_IDENTITY, "t.example", clientSide=self.side)
            ),
        ):
            error = self.assertRaises(TunnelError, call)
            self.assertEqual(error.code.name, "not-permitted")
        other = Caller(Identity("other"), "t.example", clientSide=self.side)
        self.assertEqual(self.managed.forClient(other), [])

    def test_wrong(self) -> None:
        """What cannot be is refused."""
        for more in (
            {"to": "nowhere"},
            {"to": "localhost:0"},
            {"client": ""},
            {"port": 70000},
            {"name": "a b"},
            {"name": "123"},
            {"name": "ftp/a"},
            {"name": "http/a b"},
            {"name": "http/a", "port": 80},
            {"name": "tls/a", "udp": True},
        ):
            error = self.assertRaises(TunnelError, self.add, **more)
            self.assertEqual(error.code.name, "bad-option", more)

    def test_most(self) -> None:
        """There is a bound for each client."""
        self.patch(managedModule, "MOST", 3)
        for _ in range(3):
            self.add()
        error = self.assertRaises(TunnelError, self.add)
        self.assertEqual(error.code.name, "limit-reached")
        self.add(client="other")
