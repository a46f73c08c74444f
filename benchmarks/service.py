"""
The service behind the tunnels, and programs that load them.

Run as C{python -m benchmarks.service}: C{serve PORT} does what a connection's
first byte asks for: C{E} echoes, C{B} sends without end, C{S} swallows.
C{greet PORT} speaks first. C{pull PORT} takes from a C{B} connection until it
is killed, and says now and then what time it is and how much has come.
C{delay PORT TARGET SECONDS RATE HOST} is a long way of RATE bytes per second
from HOST to the target here.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections import deque

_HERE = "127.0.0.1"
_CHUNK = bytes(256 * 1024)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do what the first byte asks for."""
    try:
        kind = await reader.readexactly(1)
        if kind == b"B":
            _sendWithoutEnd(writer.get_extra_info("socket").fileno())
            return
        while data := await reader.read(256 * 1024):
            if kind == b"E":
                writer.write(data)
                await writer.drain()
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
            connection.setblocking(True)
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


async def _listen(port: int, serve: object) -> None:
    """Serve for ever."""
    server = await asyncio.start_server(serve, _HERE, port, backlog=4096)  # type: ignore[arg-type]
    await server.serve_forever()


def _pull(port: int) -> None:
    """Take bytes."""
    buffer = bytearray(1024 * 1024)
    total, told = 0, 0.0
    with socket.create_connection((_HERE, port)) as connection:
        connection.sendall(b"B")
        while count := connection.recv_into(buffer):
            total += count
            if (now := time.monotonic()) > told + 0.1:
                told = now
                print(now, total, flush=True)


def _delay(port: int, target: int, seconds: float, rate: float, host: str) -> None:
    """Pass connections on, each byte so many seconds late."""
    listening = socket.create_server((host, port), backlog=4096)
    while True:
        one, _ = listening.accept()
        # A new connection costs a round trip, as it would on the real way.
        threading.Thread(
            target=_late, args=(one, target, seconds, rate), daemon=True
        ).start()


def _late(one: socket.socket, target: int, seconds: float, rate: float) -> None:
    """Serve one connection of the long way."""
    time.sleep(2 * seconds)
    try:
        other = socket.create_connection((_HERE, target))
    except OSError:
        one.close()
        return
    for source, sink in ((one, other), (other, one)):
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(
            target=_oneWay, args=(source, sink, seconds, rate), daemon=True
        ).start()


def _oneWay(
    source: socket.socket, sink: socket.socket, seconds: float, rate: float
) -> None:
    """
    Read now, write later; what is under way is bounded by rate and delay, as
    on a wire.
    """
    waiting: deque[tuple[float, bytes]] = deque()
    changed = threading.Condition()
    most, held = int(rate * seconds) + 1024 * 1024, 0

    def write() -> None:
        nonlocal held
        sent = time.monotonic()
        while True:
            with changed:
                while not waiting:
                    changed.wait()
                due, data = waiting[0]
            wait = max(due, sent) - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            with changed:
                waiting.popleft()
                held -= len(data)
                changed.notify_all()
            try:
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
            except OSError:
                source.close()
                return
            sent = max(sent, due) + len(data) / rate

    threading.Thread(target=write, daemon=True).start()
    while True:
        try:
            data = source.recv(256 * 1024)
        except OSError:
            data = b""
        with changed:
            while held > most:
                changed.wait()
            waiting.append((time.monotonic() + seconds, data))
            held += len(data)
            changed.notify_all()
        if not data:
            return


def main(words: list[str]) -> None:
    """Do what the command line says."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Children that send are not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    what, port = words[0], int(words[1])
    if what == "serve":
        asyncio.run(_listen(port, _serve))
    elif what == "greet":
        asyncio.run(_listen(port, _greet))
    elif what == "pull":
        _pull(port)
    elif what == "delay":
        _delay(port, int(words[2]), float(words[3]), float(words[4]), words[5])


if __name__ == "__main__":
    main(sys.argv[1:])
