"""
The service behind the tunnels, and programs that load them.

Run as C{python -m benchmarks.service}: C{serve PORT} does what a connection's
first byte asks for: C{E} echoes, C{B} sends without end, C{S} swallows, and says now
and then what time it is and how much has come. C{greet PORT} speaks first. C{pull PORT}
takes from a C{B} connection until it is killed, and says the same; C{push PORT} gives
to a C{S} connection. Behind the port may be a HOST.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable

_HERE = "127.0.0.1"
_CHUNK = bytes(256 * 1024)
_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do what the first byte asks for."""
    try:
        kind = await reader.readexactly(1)
        if kind == b"B":
            _sendWithoutEnd(writer.get_extra_info("socket").fileno())
            return
        count = _Count()
        while data := await reader.read(256 * 1024):
            if kind == b"E":
                writer.write(data)
                await writer.drain()
            else:
                count.add(len(data))
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def _sendWithoutEnd(descriptor: int) -> None:
    """
    Fill a connection from a process of its own, so that nobody who is served
    here waits for it.
    """
    if os.fork():
        return
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            # A reader behind a path that is gone says no goodbye.
            connection.settimeout(30)
            while True:
                connection.sendall(_CHUNK)
    except OSError:
        pass
    finally:
        os._exit(0)


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak first."""
    writer.write(b"hello\n")
    await reader.read()
    writer.close()


async def _listen(host: str, port: int, serve: _Serve) -> None:
    """Serve for ever."""
    server = await asyncio.start_server(serve, host, port, backlog=4096)
    await server.serve_forever()


class _Count:
    """Says now and then what time it is and how many bytes have come."""

    def __init__(self) -> None:
        self._total, self._told = 0, 0.0

    def add(self, size: int) -> None:
        """Bytes have come."""
        self._total += size
        if (now := time.monotonic()) > self._told + 0.1:
            self._told = now
            print(now, self._total, flush=True)


def _pull(host: str, port: int) -> None:
    """Take bytes."""
    buffer, count = bytearray(1024 * 1024), _Count()
    with socket.create_connection((host, port)) as connection:
        connection.sendall(b"B")
        while size := connection.recv_into(buffer):
            count.add(size)


def _push(host: str, port: int) -> None:
    """Give bytes."""
    with socket.create_connection((host, port)) as connection:
        connection.sendall(b"S")
        while True:
            connection.sendall(_CHUNK)


def main(words: list[str]) -> None:
    """Do what the command line says."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Children that send are not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    what, port, host = words[0], int(words[1]), (words[2:] or [_HERE])[0]
    if what == "serve":
        asyncio.run(_listen(host, port, _serve))
    elif what == "greet":
        asyncio.run(_listen(host, port, _greet))
    elif what == "pull":
        _pull(host, port)
    elif what == "push":
        _push(host, port)


if __name__ == "__main__":
    main(sys.argv[1:])
