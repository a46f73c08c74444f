"""
localtunnel's own client at our server. It runs if C{TRISTUNNEL_LONG=1} is set,
C{TRISTUNNEL_LOCALTUNNEL} names its C{lt.js}, and there is a C{node}.
"""

from __future__ import annotations

import os
import shutil

from twisted.internet.defer import Deferred, gatherResults

from tests.interop.rig import AMOUNT, CROWD, LONG, ProgramsTestCase
from tests.support.amounts import Source
from tests.support.loopback import Service, Talk
from tests.support.processes import Program

LT = os.environ.get("TRISTUNNEL_LOCALTUNNEL", "")
NODE = shutil.which("node") or ""


class LocaltunnelTests(ProgramsTestCase):
    """localtunnel's program."""

    if not (LONG and LT and NODE):
        skip = (
            "set TRISTUNNEL_LONG=1 and TRISTUNNEL_LOCALTUNNEL to lt.js of localtunnel"
        )
    timeout = 300

    async def lt(self, server: int, target: int) -> tuple[Program, int]:
        """
        Start it.

        @return: It, and the visitors' port.
        """
        url = f"http://127.0.0.1:{server}"
        command = (NODE, LT, "--host", url, "--port", str(target))
        program = self.run_("lt", *command, "--local-host", "127.0.0.1")
        found = await program.says(r"your url is: http://.*:(\d+)")
        return program, int(found[1])

    async def test_crowd(self) -> None:
        """A crowd is served by ten connections, each visitor in its turn."""
        server = await self.server("--interface", "127.0.0.1")
        service = Service()
        _, port = await self.lt(server, self.offer(service))
        answering = Deferred.fromCoroutine(self._answer(service))
        visits = [Deferred.fromCoroutine(self._ask(port, n)) for n in range(CROWD)]
        self.assertEqual([None] * CROWD, await gatherResults(visits))
        await answering

    async def _answer(self, service: Service) -> None:
        for _ in range(CROWD):
            talk: Talk = await service.arrivals.get()
            heard = talk.until(lambda each: b"\r\n\r\n" in each.data)
            heard.addCallback(self._say)

    @staticmethod
    def _say(talk: Talk) -> None:
        number = bytes(talk.data).split()[1]
        talk.say(b"HTTP/1.0 200 OK\r\n\r\n" + number * 50_000)
        talk.close()

    async def _ask(self, port: int, number: int) -> None:
        visitor = await self.visit(port)
        visitor.say(b"GET /%04d HTTP/1.0\r\nHost: x\r\n\r\n" % number)
        await visitor.ended()
        body = bytes(visitor.data).partition(b"\r\n\r\n")[2]
        self.assertEqual(b"/%04d" % number * 50_000, body)
        visitor.close()

    async def test_amount(self) -> None:
        """A gigabyte comes whole."""
        server = await self.server("--interface", "127.0.0.1")
        source = Source(AMOUNT)
        _, port = await self.lt(server, self.offer(source))
        visitor = await self.visit(port)
        visitor.say(b"GET / HTTP/1.0\r\n\r\n")
        talk = await source.arrivals.get()
        self.assertEqual(source.whole, await source.passesTo(visitor, talk))

    async def test_returns(self) -> None:
        """It ends with the server, and finds one that is back."""
        server = await self.server("--interface", "127.0.0.1")
        program, _ = await self.lt(server, self.offer(Service()))
        await self.program.kill()
        await program.whenEnded()
        server = await self.server("--interface", "127.0.0.1")
        await self.lt(server, self.offer(Service()))

    async def test_tokens(self) -> None:
        """Where tokens are asked for it is off: nobody could say who they are."""
        (self.directory / "clients").write_text("laptop:secret\n")
        await self.server("--auth", "clients:clients")
        spoken = await self.program.says("Clients may speak (.*)")
        self.assertNotIn("localtunnel", spoken[1])
