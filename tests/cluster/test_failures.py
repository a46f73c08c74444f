"""
What becomes of visitors when something of a cluster is lost: two members, an engine, a
client and visitors on machines of their own.

Each test prints how many visitors came in at each of the members, how many of them were
refused, and the longest time in which nobody was answered.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.cluster import visitors
from tests.support.networks import ECHO, Network, whyNoNetworks
from tests.support.processes import Program
from tests.support.redis import RedisServer, SentinelServer
from tristunnel.util.words import plural

PORT = 30001
MEMBERS = "ab"

if not os.environ.get("TRISTUNNEL_LONG"):
    skip = "set TRISTUNNEL_LONG=1 to lose machines of a cluster"
elif whyNoNetworks():
    skip = whyNoNetworks()
elif not RedisServer.isThere():
    skip = "redis-server is not installed"


class FailureTestCase(TestCase):
    """
    A cluster: members C{a} and C{b}, engines C{e} and C{f}, the client's machine C{k},
    and the visitors' machine C{v}.
    """

    timeout = 180

    async def begin(self, *options: str, lease: str = "60", ways: str = "") -> None:
        """
        Start all, with the client at C{a}.

        @param options: More of the client's.
        @param lease: How long tunnels are kept for it.
        @param ways: The engine's URL.
        """
        self.reactor: Any = _reactor
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        (self.directory / "member").write_text("a secret of the cluster")
        self.network = Network(self.reactor, self.directory, "abefkv")
        self.addCleanup(self.network.end)
        self.network.begin()
        self.network.call("k", "t.example", "a")
        self.engine = self.redis("e")
        if not ways:
            self.engine.start()
            ways = f"redis://{self.network.addresses['e']}/0"
        else:
            self.failover()
        self.members = {name: self.member(name, lease, ways) for name in MEMBERS}
        for member in self.members.values():
            await member.says("This is member")
        echo = self.network.run("k", "echo", ["-c", ECHO])
        self.addCleanup(echo.kill)
        await echo.says("echo is ready")
        self.client = self.network.twistd(
            *("k", "tunnel-client", "--connect", "tcp:t.example:9000"),
            *("--forward", f"{PORT}=127.0.0.1:80", *options),
        )
        self.addCleanup(self.client.kill)
        await self.client.says("Visitors of")
        self.network.call("k", "t.example", *MEMBERS)
        self.visitors = {name: self.visit(name) for name in MEMBERS}
        for name in MEMBERS:
            await self.reached(name)

    def redis(self, name: str, *options: str) -> RedisServer:
        """An engine on a machine; it is not started."""
        server = RedisServer(
            *("--port", "6379", "--bind", self.network.addresses[name], "127.0.0.1"),
            *("--protected-mode", "no", *options),
            prefix=self.network.within(name),
        )
        self.addCleanup(server.stop)
        return server

    def failover(self) -> None:
        """Have another engine follow the first one, and a Sentinel see to both."""
        self.engine.start()
        first = self.network.addresses["e"]
        self.follower = self.redis("f", "--replicaof", first, "6379")
        self.follower.start()
        self.sentinel = SentinelServer(
            first, 6379, 1, self.network.within("k"), self.network.addresses["k"], 26379
        )
        self.addCleanup(self.sentinel.stop)
        self.sentinel.start()

    def member(self, name: str, lease: str, engine: str) -> Program:
        address = self.network.addresses[name]
        program = self.network.twistd(
            *(name, "tunnel", "--port", "tcp:9000", "--hostname", "t.example"),
            *("--cluster", engine, "--cluster-listen", f"tcp:{address}:9001"),
            *("--cluster-token-file", str(self.directory / "member")),
            *("--lease", lease),
        )
        self.addCleanup(program.kill)
        return program

    def visit(self, name: str) -> Program:
        program = self.network.run(
            "v",
            f"visitors of {name}",
            [str(Path(visitors.__file__)), self.network.addresses[name], str(PORT)],
        )
        self.addCleanup(program.kill)
        return program

    async def reports(self) -> dict[str, dict[str, Any]]:
        """What became of visitors since the last time, by where they came in."""
        found = {}
        for name, program in self.visitors.items():
            since = len(program.lines)
            program.order("report")
            found[name] = await program.waitForEvent("visitors", since)
        return found

    async def reached(self, name: str) -> None:
        """Wait until all visitors get through at a machine again."""
        program = self.visitors[name]
        while True:
            await deferLater(self.reactor, 0.5)
            since = len(program.lines)
            program.order("report")
            report = await program.waitForEvent("visitors", since)
            if report["came"] and not report["refused"] and report["longest"] < 1.0:
                return

    async def through(
        self,
        fault: Callable[[], object],
        seconds: float,
        mended: Callable[[], object] | None = None,
        lost: str = "",
    ) -> dict[str, dict[str, Any]]:
        """
        Let something fail, and print what became of visitors.

        @param seconds: For how long.
        @param mended: Ends it.
        @param lost: The machines that are not there afterwards.
        @return: What was told, by where visitors came in.
        """
        await self.reports()
        fault()
        await deferLater(self.reactor, seconds)
        during = await self.reports()
        if mended is not None:
            mended()
        kept = [name for name in MEMBERS if name not in lost]
        for name in kept:
            # The same port, or this does not end.
            await self.reached(name)
        await deferLater(self.reactor, 2.0)
        after = await self.reports()
        for name in kept:
            one, other = during[name], after[name]
            refused = one["refused"] + other["refused"]
            print(
                f"\n{self.id().rpartition('.')[2]}: at {name},"
                f" {plural(one['came'] + other['came'], 'visitor')}, {refused} refused,"
                f" longest gap {max(one['gap'], other['gap']):.2f} s, ports lost: 0"
                f" {one['why'] or ''}",
                file=sys.stderr,
            )
            one["refused"] = refused
        return during

    def assertNoneRefused(self, told: dict[str, dict[str, Any]], names: str) -> None:
        """Make sure that nobody was refused at some machines."""
        for name in names:
            self.assertGreater(told[name]["came"], 0)
            self.assertEqual(told[name]["refused"], 0, told[name])


class MemberTests(FailureTestCase):
    """The machine that has the client is lost."""

    async def test_memberKilled(self) -> None:
        """Its process is killed: the client comes to the other machine at once."""
        await self.begin()
        told = await self.through(
            lambda: self.members["a"].signal("KILL"), 8.0, lost="a"
        )
        self.assertNoneRefused(told, "b")

    async def test_machineVanishes(self) -> None:
        """
        Nothing comes from it any more; a client with C{--standby} is served by the
        other machine within eight seconds.
        """
        await self.begin("--standby", "1")
        await self.client.says("tand")
        told = await self.through(lambda: self.network.cut("a"), 15.0, lost="a")
        self.assertLess(told["b"]["gap"], 8.0)

    async def test_machineVanishesAlone(self) -> None:
        """Without it, the client has to notice by itself."""
        await self.begin()
        await self.through(lambda: self.network.cut("a"), 60.0, lost="a")


class EngineTests(FailureTestCase):
    """The engine is lost, and nobody notices."""

    async def test_engineKilled(self) -> None:
        """It is killed, and comes back empty."""
        await self.begin()
        told = await self.through(self.engine.kill, 10.0, self.engine.start)
        self.assertNoneRefused(told, "ab")

    async def test_engineHangs(self) -> None:
        """It is there, and does not answer."""
        await self.begin()
        told = await self.through(
            lambda: self.engine.signal(signal.SIGSTOP),
            10.0,
            lambda: self.engine.signal(signal.SIGCONT),
        )
        self.assertNoneRefused(told, "ab")

    async def test_enginePartitioned(self) -> None:
        """Nobody reaches it, for longer than a lease."""
        await self.begin(lease="5")
        told = await self.through(
            lambda: self.network.cut("e"), 15.0, lambda: self.network.mend("e")
        )
        self.assertNoneRefused(told, "ab")

    async def test_failover(self) -> None:
        """Another engine takes its place, which has missed the last writes."""
        first = "redis+sentinel://10.214.0.5/book/0"
        await self.begin(ways=first)
        self.network.part("e", "f")
        # What is written now the other one does not get.
        late = self.network.twistd(
            *("k", "tunnel-client", "--connect", "tcp:t.example:9000"),
            *("--forward", f"{PORT + 1}=127.0.0.1:80"),
            *("--state-dir", str(self.directory / "late")),
        )
        self.addCleanup(late.kill)
        await late.says("Visitors of")
        told = await self.through(lambda: self.network.cut("e"), 15.0)
        self.assertNoneRefused(told, "ab")
        for name in MEMBERS:
            await self.members[name].says("book is there", 0)


class LinkTests(FailureTestCase):
    """Machines that are there do not reach each other."""

    async def test_memberWithoutEngine(self) -> None:
        """
        The machine that has the client does not reach the engine, and the others take
        it for dead; but its visitors get through.
        """
        await self.withoutEngine("60")

    async def test_memberWithoutEngineForLong(self) -> None:
        """The same, for longer than a lease."""
        await self.withoutEngine("3")

    async def withoutEngine(self, lease: str) -> None:
        """Cut the client's machine off from the engine."""
        await self.begin(lease=lease)
        told = await self.through(
            lambda: self.network.part("a", "e"),
            15.0,
            lambda: self.network.rejoin("a", "e"),
        )
        self.assertNoneRefused(told, "a")

    async def test_membersApart(self) -> None:
        """
        Both have the engine, and do not reach each other: who comes in where the client
        is gets through; others wait for five seconds and are refused.
        """
        await self.begin()
        told = await self.through(
            lambda: self.network.part("a", "b"),
            12.0,
            lambda: self.network.rejoin("a", "b"),
        )
        self.assertNoneRefused(told, "a")

    async def test_partition(self) -> None:
        """
        The client and its machine are on one side, the other machine and the engine on
        the other: its visitors get through all that time, and after it all do.
        """
        await self.begin()

        def part(do: Callable[[str, str], None]) -> None:
            for here in "ak":
                for there in "be":
                    do(here, there)

        told = await self.through(
            lambda: part(self.network.part), 15.0, lambda: part(self.network.rejoin)
        )
        self.assertNoneRefused(told, "a")
