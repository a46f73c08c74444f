"""
A GiB through every dialect, and a reader that stands still before one: only
with C{TRISTUNNEL_LONG=1}. The server is a process of its own, whose memory is
printed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from tests.support.listening import listenHere
from tests.support.loopback import LoopbackTestCase, Talk
from tests.support.polling import until
from tests.support.processes import Program, freePort, startTristunnel

GIB = 1 << 30

_BLOCK = bytes(range(256)) * 256


class _Source(Protocol):
    """Sends a GiB as fast as it may, and closes."""

    transport: Any

    def connectionMade(self) -> None:
        cast(Any, self.factory).sources.append(self)
        self.sent = 0
        self._paused = True
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        while not self._paused and self.sent < GIB:
            self.transport.write(_BLOCK)
            self.sent += len(_BLOCK)
        if self.sent >= GIB:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True


class _Sink(Talk):
    """Hashes what comes, and keeps none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.hash = hashlib.sha256()
        self.size = 0

    def dataReceived(self, data: bytes) -> None:
        self.hash.update(data)
        self.size += len(data)


def memoryOf(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) >> 10


class GiBTests(LoopbackTestCase):
    """One GiB, by every dialect."""

    timeout = 300
    if not os.environ.get("TRISTUNNEL_LONG"):
        skip = "set TRISTUNNEL_LONG=1 to send GiBs about"

    def start(self, command: str, *options: str) -> Program:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        program = startTristunnel(
            self.reactor, command, [*options, "--state-dir", str(directory)], directory
        )
        self.addCleanup(program.stop)
        return program

    async def begin(self) -> None:
        self.serverPort = freePort()
        self.server = self.start(
            "tunnel", "--port", f"tcp:{self.serverPort}:interface=127.0.0.1"
        )
        await self.server.says("Listening for clients")
        self.factory = cast(Any, Factory.forProtocol(_Source))
        self.factory.noisy = False
        self.factory.sources = []
        self.service = listenHere(self, self.reactor, self.factory)
        self.addCleanup(self._endSources)

    def _endSources(self) -> None:
        for source in self.factory.sources:
            source.transport.abortConnection()

    async def byFramed(self) -> int:
        port = freePort()
        client = self.client("--forward", f"{port}=127.0.0.1:{self.service}")
        await client.says("reach")
        return port

    async def byVTunnel(self) -> int:
        port = freePort()
        client = self.client(
            "--dialect", "vtunnel", "--forward", f"{port}=127.0.0.1:{self.service}"
        )
        await client.says("reach")
        return port

    async def byRelay(self) -> int:
        port = freePort()
        host = self.client(
            "--dialect", "relay", "--forward", f"=127.0.0.1:{self.service}", path="host"
        )
        await host.says("reach")
        visitors = self.client(
            "--listen", f"tcp:{port}:interface=127.0.0.1", path="client"
        )
        await visitors.says("reach")
        return port

    def client(  # type: ignore[override] # it has parameters of its own
        self, *options: str, path: str = "tunnel"
    ) -> Program:
        url = f"ws://127.0.0.1:{self.serverPort}/{path}"
        return self.start("tunnel-client", "--connect", url, *options)

    async def sink(self, port: int) -> _Sink:
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
        sink: _Sink = await connectProtocol(endpoint, _Sink())
        self._talks.append(sink)
        return sink

    async def transfer(self, way: Callable[[], Any]) -> None:
        """Fetch a GiB, then offer one to a visitor who does not read."""
        await self.begin()
        port = await way()
        transport: Any = self.server.transport
        before = memoryOf(transport.pid)
        began = time.monotonic()
        sink = await self.sink(port)
        await sink.ended()
        took = time.monotonic() - began
        expected = hashlib.sha256()
        for _ in range(GIB // len(_BLOCK)):
            expected.update(_BLOCK)
        self.assertEqual(GIB, sink.size)
        self.assertEqual(expected.hexdigest(), sink.hash.hexdigest())
        after = memoryOf(transport.pid)
        sink.close()
        lazy = await self.sink(port)
        lazy.transport.pauseProducing()
        await until(lambda: len(self.factory.sources) >= 2)
        source, sent = self.factory.sources[1], -1
        while source.sent != sent:
            sent = source.sent
            await deferLater(self.reactor, 1.0)
        held = memoryOf(transport.pid)
        sys.__stdout__.write(
            f"\n{way.__name__}: 1 GiB in {took:.1f} s,"
            f" {GIB * 8 / took / 1e9:.2f} Gbit/s, SHA-256 as expected; the server's RSS"
            f" {before} MiB before, {after} MiB after; a reader that stands still:"
            f" {sent >> 20} MiB of 1024 left the service, RSS {held} MiB\n"
        )
        self.assertLess(sent, GIB // 8)
        self.assertLess(held, before + 64)
        lazy.abort()

    async def test_framed(self) -> None:
        """The framed protocol by WebSocket."""
        await self.transfer(self.byFramed)

    async def test_vtunnel(self) -> None:
        """vtunnel's dialect."""
        await self.transfer(self.byVTunnel)

    async def test_relay(self) -> None:
        """Raw WebSockets."""
        await self.transfer(self.byRelay)
