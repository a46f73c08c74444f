"""
OpenSSH's own client at our server. Gigabytes and crowds run with
C{TRISTUNNEL_LONG=1}.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.dialects.ssh.rig import SSH, SSHTestCase
from tests.support.amounts import Source
from tests.support.loopback import Service
from tests.support.polling import until
from tests.support.processes import Program
from tristunnel.dialects.conch import key_exchange

LONG = bool(os.environ.get("TRISTUNNEL_LONG"))
AMOUNT = 1 << (30 if LONG else 23)
CROWD = 100 if LONG else 10


class OpenSSHTests(SSHTestCase):
    """The real program."""

    if SSH is None:
        skip = "there is no ssh program here"
    timeout = 300 if LONG else 60

    async def portOf(self, program: Program) -> int:
        """Wait for the port that the server has given."""
        found = await program.says(r"Allocated port (\d+) for remote forward")
        return int(found[1])

    async def test_conversation(self) -> None:
        """
        A service speaks first and answers; each direction ends by itself, and the
        host key is the one whose fingerprint the server shows.
        """
        await self.startServer()
        service = Service(b"220 ready\r\n")
        program = self.ssh("-N", "-R", f"0:127.0.0.1:{self.offer(service)}")
        visitor, talk = await self.pair(await self.portOf(program), service)
        await visitor.has(11)
        visitor.say(b"question")
        visitor.finish()
        await talk.ended()
        self.assertEqual(b"question", bytes(talk.data))
        talk.say(b"answer")
        talk.finish()
        await visitor.ended()
        self.assertEqual(b"220 ready\r\nanswer", bytes(visitor.data))

    async def test_ourKeys(self) -> None:
        """So it does if it is the server that wants new keys."""
        self.patch(key_exchange, "REKEY_BYTES", AMOUNT // 8)
        await self.test_amount("1G")

    async def test_amount(self, limit: str = "64M" if LONG else "1M") -> None:
        """What is long comes whole, also while keys are exchanged on the way."""
        await self.startServer()
        service = Source(AMOUNT)
        program = self.ssh(
            "-N",
            "-o",
            f"RekeyLimit={limit}",
            "-R",
            f"0:127.0.0.1:{self.offer(service)}",
        )
        visitor, talk = await self.pair(await self.portOf(program), service)
        self.assertEqual(service.whole, await service.passesTo(visitor, talk))

    async def test_crowd(self) -> None:
        """Many visitors at once are served side by side."""
        await self.startServer()
        service = Service()
        program = self.ssh("-N", "-R", f"0:127.0.0.1:{self.offer(service)}")
        port = await self.portOf(program)
        visitors = await gatherResults([self._visit(port) for _ in range(CROWD)])
        for number, visitor in enumerate(visitors):
            visitor.say(b"%04d" % number)
        await until(lambda: sum(len(talk.data) >= 4 for talk in service.talks) == CROWD)
        for talk in service.talks:
            talk.say(bytes(talk.data))
        await gatherResults([visitor.has(4) for visitor in visitors])
        self.assertEqual(
            [b"%04d" % number for number in range(CROWD)],
            [bytes(visitor.data) for visitor in visitors],
        )

    def _visit(self, port: int) -> Any:
        return Deferred.fromCoroutine(self.visit(port))

    async def test_refused(self) -> None:
        """A port that is taken is refused, and ssh ends with it if it is told to."""
        await self.startServer()
        program = self.ssh(
            "-N",
            "-o",
            "ExitOnForwardFailure=yes",
            "-R",
            f"{self.serverPort}:127.0.0.1:1",
        )
        await program.says("remote port forwarding failed for listen port")
        await program.whenEnded()
        self.assertEqual(255, program.status)

    async def test_stops(self) -> None:
        """A server that stops tells the client why."""
        server = await self.startServer()
        program = self.ssh("-N", "-R", "0:127.0.0.1:1")
        await self.portOf(program)
        await server.stopService()
        await program.says("the server is shutting down|The server is shutting down")
        await program.whenEnded()
