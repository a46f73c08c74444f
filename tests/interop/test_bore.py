"""
bore's own client at our server. It runs if C{TRISTUNNEL_LONG=1} is set and
C{TRISTUNNEL_BORE} names the program.
"""

from __future__ import annotations

import os
import random

from twisted.internet.task import deferLater

from tests.interop.rig import AMOUNT, LONG, ProgramsTestCase
from tests.support.amounts import Source
from tests.support.loopback import Service
from tests.support.polling import until
from tests.support.processes import Program, freePort

BORE = os.environ.get("TRISTUNNEL_BORE", "")


class BoreTests(ProgramsTestCase):
    """bore's program, which knows one port only: each test has an address."""

    if not (LONG and BORE):
        skip = "set TRISTUNNEL_LONG=1 and TRISTUNNEL_BORE to bore's program"
    timeout = 300

    def setUp(self) -> None:
        super().setUp()
        numbers = [random.randrange(1, 255) for _ in range(3)]
        self.address = "127." + ".".join(map(str, numbers))

    async def serve(self, *options: str) -> None:
        where = f"tcp:7835:interface={self.address}"
        here = ("--interface", "127.0.0.1")
        await self.server("--port", where, *here, *options)
        await self.program.says(f"Listening for clients on {self.address}")

    def bore(self, target: int, *options: str) -> Program:
        command = (BORE, "local", str(target), "--to", self.address, *options)
        return self.run_("bore", *command)

    async def test_client(self) -> None:
        """With a secret: a crowd, and a gigabyte; and a client that leaves."""
        (self.directory / "clients").write_text("laptop:secret\n")
        await self.serve("--auth", "clients:clients")
        service, visitors = Service(), freePort()
        named = ("--secret", "secret", "--port", str(visitors))
        client = self.bore(self.offer(service), *named)
        await client.says("listening at")
        await self.passes(visitors, service)
        source, more = Source(AMOUNT), freePort()
        other = ("--secret", "secret", "--port", str(more))
        await self.bore(self.offer(source), *other).says("listening at")
        await self.passesMuch(more, source)

    async def test_processes(self) -> None:
        """At a server of several processes, connections come to any of them."""
        (self.directory / "clients").write_text("laptop:secret\n")
        for more in ((), ("--auth", "clients:clients")):
            await self.serve("--processes", "3", *more)
            listening = f"Listening for clients on {self.address}"
            await until(
                lambda listening=listening: (
                    sum(listening in line for line in self.program.lines) >= 3
                )
            )
            service, visitors = Service(), freePort()
            secret = ("--secret", "secret") if more else ()
            client = self.bore(self.offer(service), "--port", str(visitors), *secret)
            await client.says("listening at")
            for _ in range(3):
                await self.passes(visitors, service)
            await self.program.stop()

    async def test_refused(self) -> None:
        """With another secret, with none, and with a port that is taken."""
        (self.directory / "clients").write_text("laptop:secret\n")
        await self.serve("--auth", "clients:clients")
        await self.bore(1, "--secret", "wrong").says("did not accept these credentials")
        await self.bore(1).says("requires authentication")
        taken = self.offer(Service())
        client = self.bore(1, "--secret", "secret", "--port", str(taken))
        await client.says(f"port {taken}")

    async def test_returns(self) -> None:
        """Who starts it again gets its port back, also from a server that was away."""
        (self.directory / "clients").write_text("laptop:secret\n")
        await self.serve("--auth", "clients:clients")
        service, visitors = Service(), freePort()
        target = self.offer(service)
        named = ("--secret", "secret", "--port", str(visitors))
        client = self.bore(target, *named)
        await client.says("listening at")
        await client.kill()
        client = self.bore(target, *named)
        await client.says("listening at")
        await self.passes(visitors, service)
        await self.program.kill()
        await client.whenEnded()
        await self.serve("--auth", "clients:clients")
        while True:
            # As a person would, or a supervisor.
            client = self.bore(target, *named)
            await client.says("listening at|Error")
            if not any("Error" in line for line in client.lines):
                break
            await deferLater(self.outside, 0.2)
        await self.passes(visitors, service)
