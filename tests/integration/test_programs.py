"""
Other people's programs: adapters with the C{websockets} package, a relay with
FastAPI, and vtunnel's own programs.

The directory with vtunnel's C{vtunnel-server} and C{vtunnel-client}, and those
of its early version (C{vtunnel-early-server}, C{vtunnel-early-client}), is
named by C{TRISTUNNEL_VTUNNEL}.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.dialects.relay import adapters
from tests.dialects.relay.test_relay import AdapterTestCase
from tests.dialects.vtunnel.test_vtunnel import _over, startVTunnel
from tests.support.loopback import Service, Talk
from tests.support.polling import until
from tests.support.processes import Program, freePort, startProgram
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

    async def echo(self, port: int, service: Service) -> None:
        visitor, at = await self.pair(port, service)
        await self.exchange(visitor, at)

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


class VTunnelTests(_ProgramTestCase):
    """vtunnel's own programs, of February's later version."""

    timeout = 60
    if not os.environ.get("TRISTUNNEL_VTUNNEL"):
        skip = "set TRISTUNNEL_VTUNNEL to the directory of vtunnel's programs"

    variant = ""
    vtunnelPorts: list[int]

    def program(self, end: str, *options: str) -> Program:
        directory = os.environ["TRISTUNNEL_VTUNNEL"]
        return self.start(end, f"{directory}/vtunnel{self.variant}-{end}", *options)

    async def realClient(self, *options: str, services: int = 1) -> list[Service]:
        """Start the real client at our server, for some services."""
        offered = [Service() for _ in range(services)]
        self.ports = [freePort() for _ in offered]
        forwards: list[str] = []
        for port, service in zip(self.ports, offered, strict=True):
            forwards += ["-forward", f"{port}=127.0.0.1:{self.offer(service)}"]
        self.real = self.program(
            "client", "-server", self.url("/tunnel"), *forwards, *options
        )
        await until(lambda: len(list(self.tunnels.here)) >= services)
        return offered

    async def test_client(self) -> None:
        """Their client at our server: four listeners, a hundred visitors."""
        await self.startServer()
        services = await self.realClient(services=4)
        for port, service in zip(self.ports, services, strict=True):
            await self.echo(port, service)
        await self.hundred(self.ports[0], services[0])

    async def hundred(self, port: int, service: Service) -> None:
        """A hundred visitors at once, each with its own question and answer."""
        visitors = [await self.visit(port) for _ in range(100)]
        for number, visitor in enumerate(visitors):
            visitor.say(b"%03d" % number)
        talks = [await service.arrivals.get() for _ in visitors]
        await gatherResults([talk.has(3) for talk in talks])
        for talk in talks:
            talk.say(bytes(talk.data))
            talk.close()
        await gatherResults([visitor.ended() for visitor in visitors])
        for number, visitor in enumerate(visitors):
            self.assertEqual(b"%03d" % number, bytes(visitor.data))

    async def test_pings(self) -> None:
        """Their client with pings and without."""
        await self.startServer(pingInterval=0.5)
        for options in (["-ping", "1s"], ["-ping", "-1s"]):
            (service,) = await self.realClient(*options)
            await deferLater(self.reactor, 2.5)
            await self.echo(self.ports[0], service)
            await self.real.kill()
            await until(lambda: not list(self.tunnels.here))

    async def test_server(self) -> None:
        """Our client at their server."""
        server = self.program("server", "-listen", "127.0.0.1:0")
        event = await server.waitForEvent("main-server-start")
        self.serverPort = event["port"]
        self.addCleanup(self._settle)
        service = Service()
        await startVTunnel(self, service)
        await self.echo(self.vtunnelPorts[0], service)
        await self.hundred(self.vtunnelPorts[0], service)


class VTunnelAuthTests(VTunnelTests):
    """The same where clients show a header."""

    users = MappingProxyType({"laptop": "secret"})

    async def realClient(self, *options: str, services: int = 1) -> list[Service]:
        header = "Authorization: Basic bGFwdG9wOnNlY3JldA=="
        return await super().realClient("-header", header, *options, services=services)

    async def test_server(self) -> None:
        """Our client at their server, with a token and without."""
        token = ["-token", "sesame"]
        server = self.program("server", "-listen", "127.0.0.1:0", *token)
        event = await server.waitForEvent("main-server-start")
        self.serverPort = event["port"]
        self.addCleanup(self._settle)
        from tristunnel.errors import TunnelError

        opening = Deferred.fromCoroutine(self.open("/tunnel"))
        error: Any = await self.assertFailure(opening, TunnelError)
        self.assertEqual("auth-refused", error.code.name)
        await self.open("/tunnel", {"Authorization": "Bearer sesame"})


class EarlyVTunnelTests(VTunnelTests):
    """
    The same with the early version, which answers no request, and whose pings
    are WebSocket's.
    """

    variant = "-early"
