"""
A busy day in little: visitors, clients and peers of every kind that come
and go without end.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import connect as openWebSocket

from tristunnel.wire.framed import encodeHandshake

__all__ = ["Churn", "Cutter", "Target", "echo", "echoDatagrams"]

HERE = "127.0.0.1"

PATIENCE = 30.0
"""Seconds after which something that ought to happen counts as lost."""

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Target:
    """
    A tunnel that is always there.

    @ivar name: What to call it.
    @ivar port: Where visitors come.
    @ivar cut: Whether its session is cut now and then, so that a visit may
        break.
    """

    name: str
    port: int
    cut: bool = False


@asynccontextmanager
async def _connected(port: int, source: str = HERE) -> AsyncIterator[Pair]:
    """A connection from an address of this machine, gone at the end."""
    reader, writer = await asyncio.open_connection(HERE, port, local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def echo() -> asyncio.Server:
    """A service that says what it hears, half-close included."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, HERE, 0, backlog=1024)


class _EchoDatagrams(asyncio.DatagramProtocol):
    """The same for datagrams."""

    def connection_made(self, transport: Any) -> None:
        """Remember where to answer."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer."""
        self.transport.sendto(data, addr)


async def echoDatagrams() -> int:
    """
    A UDP service that says what it hears.

    @return: Its port.
    """
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        _EchoDatagrams, local_addr=(HERE, 0)
    )
    return int(transport.get_extra_info("sockname")[1])


class Cutter:
    """
    A way to the server that can be cut.

    @param port: Where the server is.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    async def start(self) -> int:
        """
        @return: The port where the way begins.
        """
        self._server = await asyncio.start_server(self._serve, HERE, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: Any, writer: Any) -> None:
        """Pass on both ways."""
        try:
            thence, thither = await asyncio.open_connection(HERE, self._port)
        except OSError:
            writer.close()
            return
        self._open |= {writer, thither}
        try:
            await asyncio.gather(
                self._pass(reader, thither), self._pass(thence, writer)
            )
        except asyncio.CancelledError:
            # The end of the program, which asyncio would print.
            return
        finally:
            self._open -= {writer, thither}
            writer.close()
            thither.close()

    @staticmethod
    async def _pass(reader: Any, writer: Any) -> None:
        """Pass on one way."""
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    def cut(self) -> None:
        """Break every connection, without a farewell."""
        self.cuts += 1
        for writer in list(self._open):
            writer.transport.abort()


@dataclass
class Churn:
    """
    What comes and goes.

    @ivar server: The server's port.
    @ivar targets: Tunnels for visitors over TCP.
    @ivar datagrams: The port of a tunnel for visitors over UDP.
    @ivar cutter: The way that is cut.
    @ivar login: Id and secret of a client.
    @ivar newcomer: Starts a client, has it visited, and ends it.
    @ivar chance: Decides.
    @ivar done: What went well, by kind.
    @ivar lost: What did not though it should have, by kind.
    @ivar broken: What broke as it may: visits to the tunnel that is cut.
    @ivar why: An example of what was lost, by kind.
    """

    server: int
    targets: list[Target]
    datagrams: int
    cutter: Cutter
    login: tuple[str, str]
    newcomer: Callable[[], Awaitable[None]]
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    why: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._addresses = itertools.count(1)
        self._running: set[asyncio.Task[None]] = set()

    def start(self, pace: float) -> list[asyncio.Task[None]]:
        """
        Begin.

        @param pace: How much of it: 1 is about 20 visits a second.
        @return: What to cancel at the end.
        """
        kinds: list[tuple[str, float, Callable[[], Awaitable[None]]]] = [
            ("small requests", 0.07, self.small),
            ("bulk", 4.0, self.bulk),
            ("lingering visitors", 0.7, self.linger),
            ("UDP flows", 0.5, self.flow),
            ("raw tunnels", 3.0, self.raw),
            ("WebSocket tunnels", 3.0, self.webSocket),
            ("WebSocket rooms", 5.0, self.room),
            ("refused logins", 1.0, self.refused),
            ("refused calls", 2.0, self.refusedCall),
            ("noise", 1.0, self.noise),
            ("plain clients", 2.0, self.plainClient),
            ("new clients", 20.0, self.newcomer),
            ("cuts", 20.0, self.cut),
            ("pages", 5.0, self.page),
        ]
        return [
            asyncio.create_task(self._endless(name, every / pace, what))
            for name, every, what in kinds
        ]

    async def _endless(
        self, name: str, every: float, what: Callable[[], Awaitable[None]]
    ) -> None:
        """Do something again and again, whether or not it is over by then."""
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / every))
            if len(self._running) > 400:
                continue
            task = asyncio.create_task(self._once(name, what))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _once(self, name: str, what: Callable[[], Awaitable[None]]) -> None:
        """Do it, and count what came of it."""
        try:
            await asyncio.wait_for(what(), PATIENCE)
        except asyncio.CancelledError:
            raise
        except _MayBreak:
            self.broken[name] += 1
        except Exception as error:
            self.lost[name] += 1
            self.why[name] = f"{type(error).__name__}: {error}"[:200]
        else:
            self.done[name] += 1

    async def finish(self) -> None:
        """Wait for what is under way."""
        while self._running:
            await asyncio.wait(self._running)

    # What comes and goes

    def somewhere(self) -> str:
        """An address that nobody has had for long."""
        number = next(self._addresses) % 60000
        return (
            f"127.{1 + number // 250 // 250}.{number // 250 % 250}.{number % 250 + 1}"
        )

    def target(self) -> Target:
        """Choose a tunnel."""
        return self.chance.choice(self.targets)

    async def small(self) -> None:
        """A visitor with a small question."""
        await self._visit(self.target(), 200)

    async def bulk(self) -> None:
        """A visitor with much to say."""
        await self._visit(self.target(), self.chance.randrange(1 << 20, 8 << 20))

    async def _visit(self, target: Target, size: int) -> None:
        """Have something echoed, and compare."""
        try:
            await self._echoed(target.port, size)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, _Wrong) as error:
            if not target.cut:
                raise OSError(f"{target.name}: {error!r}") from error
            raise _MayBreak from None

    async def _echoed(self, port: int, size: int) -> None:
        """
        Send bytes, finish, and expect them back.

        @raise _Wrong: They came otherwise.
        """
        piece = self.chance.randbytes(min(size, 65536))
        async with _connected(port) as (reader, writer):

            async def send() -> None:
                left = size
                while left:
                    writer.write(piece[:left])
                    left -= len(piece[:left])
                    await writer.drain()

            sending = asyncio.create_task(send())
            try:
                heard, expected, left = hashlib.sha256(), hashlib.sha256(), size
                while left:
                    expected.update(piece[:left])
                    heard.update(await reader.readexactly(len(piece[:left])))
                    left -= len(piece[:left])
                await sending
            finally:
                sending.cancel()
                with suppress(OSError, asyncio.CancelledError):
                    await sending
            if heard.digest() != expected.digest():
                raise _Wrong("other bytes came back")

    async def linger(self) -> None:
        """A visitor who comes and says little, and leaves, perhaps rudely."""
        with suppress(OSError):
            async with _connected(self.target().port) as (_, writer):
                await asyncio.sleep(self.chance.uniform(0, 20))
                writer.write(b"x" * self.chance.randrange(1, 100))
                if self.chance.random() < 0.5:
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )

    async def flow(self) -> None:
        """A visitor over UDP."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as visitor:
            visitor.setblocking(False)
            visitor.connect((HERE, self.datagrams))
            for _ in range(5):
                await loop.sock_sendall(visitor, b"question")
                with suppress(TimeoutError):
                    # Datagrams may be lost; five in a row should not.
                    if await asyncio.wait_for(loop.sock_recv(visitor, 2048), 2.0):
                        return
        raise OSError("no datagram came back")

    async def call(self, method: str, **params: object) -> Any:
        """Call the server by JSON-RPC."""
        body = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        )
        status, answer = await self.http("POST", "/rpc", body, self.login)
        if status != 200 or "error" in answer:
            raise OSError(f"{method}: {status} {answer[:200]}")
        return json.loads(answer)["result"]

    async def http(
        self,
        method: str,
        path: str,
        body: str = "",
        login: tuple[str, str] | None = None,
        source: str = HERE,
    ) -> tuple[int, str]:
        """
        Make a request.

        @return: Status and body.
        """
        host = f"Host: {HERE}:{self.server}"
        lines = [f"{method} {path} HTTP/1.1", host, "Connection: close"]
        if login is not None:
            encoded = base64.b64encode(":".join(login).encode()).decode()
            lines.append(f"Authorization: Basic {encoded}")
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        async with _connected(self.server, source) as (reader, writer):
            writer.write(("\r\n".join([*lines, "", ""]) + body).encode())
            answer = (await reader.read()).decode("latin-1")
        head, _, rest = answer.partition("\r\n\r\n")
        return int(head.split()[1]), rest

    async def raw(self) -> None:
        """A tunnel of two raw connections."""
        uri = await self.call("openTunnel", via="tcp", listener="tcp")
        address = await self.call("getTunnelAddress", uri=uri)
        inner, outer = (int(text.rpartition(":")[2]) for text in (uri, address))
        async with _connected(inner) as client, _connected(outer) as visitor:
            visitor[1].write(b"ping")
            if await client[0].readexactly(4) != b"ping":
                raise _Wrong("other bytes came")
            client[1].write(b"pong")
            if await visitor[0].readexactly(4) != b"pong":
                raise _Wrong("other bytes came")

    async def webSocket(self) -> None:
        """A tunnel of two WebSockets."""
        uri = await self.call("openTunnel", via="ws", listener="ws")
        address = await self.call("getTunnelAddress", uri=uri)
        async with (
            openWebSocket(uri, compression=None) as client,
            openWebSocket(address, compression=None) as visitor,
        ):
            await self._twoWays(client, visitor)

    async def room(self) -> None:
        """A host and a visitor of a relay's room."""
        name = f"room{self.chance.randrange(1 << 30)}"
        encoded = base64.b64encode(":".join(self.login).encode()).decode()
        headers = {"Authorization": f"Basic {encoded}"}
        where = f"ws://{HERE}:{self.server}"
        async with (
            openWebSocket(
                f"{where}/host/{name}", compression=None, additional_headers=headers
            ) as client,
            openWebSocket(
                f"{where}/client/{name}", compression=None, additional_headers=headers
            ) as visitor,
        ):
            await self._twoWays(client, visitor)

    @staticmethod
    async def _twoWays(client: Any, visitor: Any) -> None:
        """Say something from end to end, and back."""
        for one, other in ((visitor, client), (client, visitor)):
            await one.send(b"word")
            if await other.recv() != b"word":
                raise _Wrong("other bytes came")

    async def refused(self) -> None:
        """A client with a wrong secret."""
        async with _connected(self.server, self.somewhere()) as (reader, writer):
            writer.write(encodeHandshake({"id": self.login[0], "secret": "guess"}))
            if b'"port"' in await reader.read():
                raise _Wrong("it was let in")

    async def refusedCall(self) -> None:
        """A caller with a wrong secret."""
        wrong = (self.login[0], "guess")
        status, _ = await self.http("POST", "/rpc", "{}", wrong, self.somewhere())
        if status != 401:
            raise _Wrong(f"the answer was {status}")

    async def noise(self) -> None:
        """A peer who talks nonsense, or nothing, and perhaps hangs on."""
        beginnings = (b"W3PTUNL\0\0\0\x40{", b"GET /tunnel HTTP/1.1\r\nHo", b"\x16\x03")
        with suppress(OSError, TimeoutError):
            async with _connected(self.server, self.somewhere()) as (reader, writer):
                writer.write(self.chance.choice((b"", *beginnings)))
                writer.write(self.chance.randbytes(self.chance.randrange(50)))
                if self.chance.random() < 0.3:
                    await asyncio.wait_for(reader.read(), PATIENCE / 2)

    async def plainClient(self) -> None:
        """A client of the base protocol, which serves one visitor and leaves."""
        hello = {"id": self.login[0], "secret": self.login[1]}
        async with _connected(self.server) as (reader, writer):
            writer.write(encodeHandshake(hello))
            head = await reader.readexactly(11)
            answer = json.loads(
                await reader.readexactly(int.from_bytes(head[7:], "big"))
            )
            async with _connected(answer["port"]) as (thence, thither):
                thither.write(b"question")
                said = b""
                while not said:
                    size = int.from_bytes(await reader.readexactly(4), "big")
                    message = await reader.readexactly(size)
                    said = message[5:] if message[4] == 1 else b""
                number = message[:4]
                writer.write(struct.pack("!I", 11) + number + b"\x01answer")
                if said != b"question" or await thence.readexactly(6) != b"answer":
                    raise _Wrong("other bytes came")

    async def cut(self) -> None:
        """Cut the way of one client."""
        self.cutter.cut()

    async def page(self) -> None:
        """Somebody looks at the dashboard."""
        status, _ = await self.http("GET", "/", login=self.login)
        if status != 200:
            raise _Wrong(f"the answer was {status}")


class _Wrong(Exception):
    """Something else came than should have."""


class _MayBreak(Exception):
    """A visit broke that may."""
