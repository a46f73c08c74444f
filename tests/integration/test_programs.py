"""
Other people's programs: adapters with the C{websockets} package, and a relay with
FastAPI.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys

from tests.dialects.relay import adapters
from tests.dialects.relay.test_relay import AdapterTestCase
from tests.dialects.vtunnel.test_vtunnel import _over
from tests.support.loopback import Service, Talk
from tests.support.processes import Program, startProgram
from tests.websocket.rig import WebSocketTestCase

DATA = os.urandom(3_000_000)

_MISSING = [
    name
    for name in ("websockets", "fastapi", "uvicorn")
    if importlib.util.find_spec(name) is None
]


class _ProgramTestCase(WebSocketTestCase):
    """A test with child processes."""

    def start(self, name: str, *command: str) -> Program:
        program = startProgram(self.reactor, name, command, self.directory)
        self.addCleanup(program.kill)
        return program

    def adapter(self, *arguments: str) -> Program:
        command = [sys.executable, adapters.__file__, *arguments]
        return self.start(arguments[0], *command)

    async def portOf(self, program: Program) -> int:
        found = await program.says(r"^port (\d+)$")
        return int(found[1])

    async def exchange(self, visitor: Talk, at: Talk) -> None:
        visitor.say(DATA)
        await at.has(len(DATA))
        at.say(bytes(at.data[::-1]))
        await visitor.has(len(DATA))
        self.assertEqual(
            hashlib.sha256(DATA[::-1]).digest(), hashlib.sha256(visitor.data).digest()
        )
        visitor.close()
        await at.until(_over)


class WebSocketsTests(_ProgramTestCase):
    """Existing adapters at our relay, unchanged."""

    # They fill the kernel's buffers with empty messages first.
    timeout = 60

    if "websockets" in _MISSING:
        skip = "the package websockets is not installed"

    async def test_adapters(self) -> None:
        """Both adapters, and one visitor after another."""
        await self.startServer()
        service = Service()
        port = self.offer(service)
        self.adapter("host", self.url("/host"), str(port))
        client = self.adapter("client", self.url("/client"))
        visitors = await self.portOf(client)
        at: Talk = await service.arrivals.get()
        for number in range(4):
            visitor = await self.visit(visitors)
            if number % 2:
                visitor.say(b"bye")
                await at.has(3)
                at.close()
                await visitor.ended()
                visitor.close()
            elif number:
                # Half a close passes the adapter, and the answer comes back.
                visitor.say(b"question")
                visitor.finish()
                await at.has(8)
                at.say(DATA)
                await visitor.has(len(DATA))
                visitor.close()
            else:
                await self.exchange(visitor, at)
            # The adapter connects to the service again, at once.
            at = await service.arrivals.get()


class FastAPITests(AdapterTestCase, _ProgramTestCase):
    """Our adapters at a relay of FastAPI's."""

    if _MISSING:
        skip = f"these packages are not installed: {', '.join(_MISSING)}"

    async def test_ourAdapters(self) -> None:
        """
        Its hosts do not learn when a visitor is there, so the service is
        connected at once and may speak first.
        """
        relay = self.adapter("relay")
        self.serverPort = await self.portOf(relay)
        self.addCleanup(self._settle)
        service = Service(b"banner")
        await self.host(service)
        at: Talk = await service.arrivals.get()
        visitors = self.listen()
        visitor = await self.visit(visitors)
        await visitor.has(6)
        visitor.say(DATA)
        await at.has(len(DATA))
        self.assertTrue(bytes(at.data) == DATA)
        at.say(DATA)
        at.close()
        await visitor.ended()
        self.assertTrue(bytes(visitor.data) == b"banner" + DATA)

    async def test_theirHost(self) -> None:
        """
        A relay hands on how another host's adapter ends: our visitors learn of
        it too.
        """
        relay = self.adapter("relay")
        self.serverPort = await self.portOf(relay)
        self.addCleanup(self._settle)
        service = Service(b"banner")
        self.adapter("host", self.url("/host"), str(self.offer(service)))
        at: Talk = await service.arrivals.get()
        visitor = await self.visit(self.listen())
        await visitor.has(6)
        at.close()
        await visitor.ended()
