"""
Three servers in networks of their own, and one whose cable is cut: nothing is reset,
and whatever is sent there vanishes.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.cluster import load
from tests.support.networks import ECHO, Network, whyNoNetworks
from tests.support.processes import Program
from tests.support.redis import RedisServer
from tristunnel.tls.certificates import fingerprintOfFile, selfSigned

PORT = 30_000

if not os.environ.get("TRISTUNNEL_LONG"):
    skip = "set TRISTUNNEL_LONG=1 to cut a machine of a cluster off"
elif whyNoNetworks():
    skip = whyNoNetworks()


class LostTests(TestCase):
    """Machines 1 to 3, and C{c}, which has the engine, the client and the visitors."""

    timeout = 180

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.network = Network(reactor, self.directory, "123c")
        self.addCleanup(self.network.end)
        self.network.begin()

    def run_(self, name: str, *arguments: str) -> Program:
        program = self.network.run("c", name, arguments)
        self.addCleanup(program.kill)
        return program

    def twistd(self, where: str, command: str, *options: str) -> Program:
        program = self.network.twistd(where, command, *options)
        self.addCleanup(program.kill)
        return program

    async def begin(self, port: str, connect: str, *options: str) -> Program:
        engine = RedisServer(
            *("--port", "6379", "--bind", "10.214.0.4", "--protected-mode", "no"),
            prefix=self.network.within("c"),
        )
        self.addCleanup(engine.stop)
        engine.start()
        (self.directory / "member").write_text("a secret of the cluster")
        servers = [
            self.twistd(
                str(number),
                "tunnel",
                *("--port", port, "--port", "tcp:9080", "--hostname", "t.example"),
                *("--cluster", "redis://10.214.0.4/0"),
                *("--cluster-listen", f"tcp:10.214.0.{number}:9001"),
                *("--cluster-token-file", "member"),
            )
            for number in (1, 2, 3)
        ]
        for each in servers:
            await each.says("Listening for clients on")
        await self.run_("echo", "-c", ECHO).says("echo is ready")
        await deferLater(reactor, 4.5)
        self.client = self.twistd(
            "c",
            "tunnel-client",
            *("--connect", connect, "--forward", f"{PORT}=127.0.0.1:80", *options),
        )
        await self.client.says("Visitors of")
        if "--standby" in options:
            await self.client.says("stands by")
        # At the machines that are left: a balancer has found out about the other one.
        visiting = self.run_(
            *("load", str(load.__file__), str(PORT)),
            *("10.214.0.2:9080", "10.214.0.3:9080"),
        )
        await visiting.says(r"healthy \S+ \S+")
        await deferLater(reactor, 2.0)
        return visiting

    async def lose(self, visiting: Program, seconds: float) -> dict[str, Any]:
        """Cut machine 1 off, and say how visits were after that."""
        since = len(self.client.lines)
        began = time.monotonic()
        self.network.cut("1")
        visiting.order("lost")
        await self.client.says("takes over|Connected to", since)
        print(f"another machine has it after {time.monotonic() - began:.2f} s")
        await deferLater(reactor, seconds)
        visiting.order("end")
        said = await visiting.says(r"load (\{.*\})")
        print(said[1])
        found: dict[str, Any] = json.loads(said[1])
        return found

    async def test_standby(self) -> None:
        """
        Visitors are through again within eight seconds, and those who come meanwhile
        wait: nobody is refused.
        """
        visiting = await self.begin("tcp:9000", "tcp:10.214.0.1:9000", "--standby", "1")
        found = await self.lose(visiting, 10.0)
        self.assertLess(found["longest"], 8.0)
        self.assertEqual(found["refused"], [])

    async def test_pinned(self) -> None:
        """The same over TLS: the pin and the name hold at each member's address."""
        path = selfSigned(self.directory, ["t.example"])
        visiting = await self.begin(
            f"ssl:9000:privateKey={path}:certKey={path}",
            "tls:10.214.0.1:9000",
            *("--pin", fingerprintOfFile(path), "--standby", "1"),
        )
        found = await self.lose(visiting, 10.0)
        self.assertLess(found["longest"], 8.0)
        self.assertEqual(found["refused"], [])
