"""
Tests with a server and a client in processes of their own, one of which is somebody
else's program.
"""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred, gatherResults

from tests.support.amounts import Source
from tests.support.loopback import LoopbackTestCase, Service, Talk, untilOpen
from tests.support.polling import until
from tests.support.processes import Program, startProgram, startTristunnel

__all__ = ["AMOUNT", "CROWD", "LONG", "ProgramsTestCase"]

LONG = bool(os.environ.get("TRISTUNNEL_LONG"))
CROWD = 100
AMOUNT = 1 << 30


class ProgramsTestCase(LoopbackTestCase):
    """A test with a server and a client in processes of their own."""

    timeout = 120

    def run_(self, name: str, *command: str) -> Program:
        program = startProgram(self.outside, name, command, self.directory)
        self.addCleanup(program.stop)
        return program

    def ours(self, command: str, *options: str) -> Program:
        state = ("--state-dir", str(self.directory / command))
        program = startTristunnel(
            self.outside, command, [*options, *state], self.directory
        )
        self.addCleanup(program.stop)
        return program

    async def server(self, *options: str, at: int = 0) -> int:
        """
        Start our server.

        @param at: Its port; 0 for any.
        @return: The same.
        """
        port = f"tcp:{at}:interface=127.0.0.1"
        self.program = self.ours("tunnel", "--port", port, *options)
        found = await self.program.says(r"Listening for clients on 127.0.0.1:(\d+)")
        return int(found[1])

    async def passes(self, port: int, service: Service) -> None:
        """Have a crowd of visitors, each of whom says something and is answered."""
        before = len(service.talks)
        visitors = await gatherResults([self._come(port) for _ in range(CROWD)])
        for number, visitor in enumerate(visitors):
            visitor.say(b"%04d" % number)

        def heard() -> list[Talk]:
            return [talk for talk in service.talks[before:] if len(talk.data) == 4]

        await until(lambda: len(heard()) >= CROWD)
        for talk in heard():
            talk.say(bytes(talk.data) * 50_000)
        await gatherResults([visitor.has(200_000) for visitor in visitors])
        for number, visitor in enumerate(visitors):
            self.assertEqual(b"%04d" % number * 50_000, bytes(visitor.data))
            visitor.close()
        await gatherResults([visitor.gone() for visitor in visitors])

    def _come(self, port: int) -> Deferred[Talk]:
        return Deferred.fromCoroutine(self.visit(port))

    async def comesBack(
        self, at: int, visitors: int, service: Service, *options: str
    ) -> None:
        """Have the server be killed, and see its client come back to the next one."""
        await self.program.kill()
        await self.server(*options, at=at)
        await untilOpen(self.outside, visitors)
        await self.passes(visitors, service)

    async def passesMuch(self, port: int, service: Source) -> None:
        visitor, talk = await self.pair(port, service)
        self.assertEqual(service.whole, await service.passesTo(visitor, talk))
