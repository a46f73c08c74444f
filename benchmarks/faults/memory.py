"""
Visitors who read nothing, and how much memory the server has for them.

Several clients offer a service that never stops sending; many visitors connect
and take nothing. The same twice, without a bound and with C{--max-memory}; one
visitor in each run reads all it gets, and must go on getting it. C{--set
visitors=1200}, C{--set clients=6}, C{--set seconds=15}, C{--set bound=64} in MiB.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator

from benchmarks.faults.programs import Programs, Server, resident
from benchmarks.faults.proof import Options, Row
from benchmarks.processes import Room

__all__ = ["prove"]

BESIDE = 64
"""MiB that the server may need beside what it counts: for Python's own objects,
and for 1,200 connections."""


def _serve(listening: socket.socket) -> None:
    """Send to everybody, for ever."""

    def pour(connection: socket.socket) -> None:
        data = bytes(65536)
        try:
            while True:
                connection.sendall(data)
        except OSError:
            connection.close()

    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=pour, args=(connection,), daemon=True).start()


def _run(options: Options, room: Room, bound: int) -> Row:
    """
    Run once.

    @param bound: In MiB; 0 for none.
    """
    clients = int(options.number("clients", 6, 2))
    visitors = int(options.number("visitors", 1200, 200))
    seconds = options.number("seconds", 15, 5)
    programs = Programs(room)
    with socket.socket() as service:
        service.bind(("127.0.0.1", 0))
        service.listen(1024)
        threading.Thread(target=_serve, args=(service,), daemon=True).start()
        server = Server(
            programs,
            f"server{bound}",
            ["tcp:0:interface=127.0.0.1"],
            f"--max-memory={bound}MiB" if bound else "--max-memory=0",
        )
        running, ports = [server.pid], []
        for number in range(clients + 1):
            pid, address = programs.client(
                f"client{bound}-{number}",
                f"--connect=tcp:127.0.0.1:{server.ports[0]}",
                f"--forward=0=127.0.0.1:{service.getsockname()[1]}",
                "--carrier=session",
            )
            running.append(pid)
            ports.append(int(address.rpartition(":")[2]))
        before = resident(server.pid)
        reader = socket.create_connection(("127.0.0.1", ports[0]))
        idle = []
        for number in range(visitors):
            visitor = socket.socket()
            visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            visitor.connect(("127.0.0.1", ports[number % clients + 1]))
            idle.append(visitor)
        late, most, looked = 0, before, 0.0
        until = time.monotonic() + seconds
        reader.settimeout(10.0)
        alive = True
        while alive and time.monotonic() < until:
            try:
                size = len(reader.recv(1 << 20))
            except (TimeoutError, ConnectionResetError):
                size = 0
            alive = bool(size)
            now = time.monotonic()
            if now > until - seconds / 4:
                late += size
            if now > looked + 0.1:
                looked, most = now, max(most, resident(server.pid))
        said = room.said(f"server{bound}")
        shed = sum(int(n) for n in re.findall(r"the (\d+) greediest", said))
        for each in (reader, *idle):
            each.close()
        room.stop(running)
    grown = most - before
    return Row(
        f"{visitors} stalled visitors, " + (f"{bound} MiB" if bound else "no bound"),
        f"{grown:.0f} MiB more, {shed} streams shed,"
        f" {late / 2**20 / (seconds / 4):.0f} MiB/s in the end for who reads",
        alive and late > 0 and (not bound or grown < bound + BESIDE),
    )


def prove(options: Options) -> Iterator[Row]:
    """Run, and say what came of it."""
    with Room(options.directory) as room:
        for bound in (0, int(options.number("bound", 64, 16))):
            yield _run(options, room, bound)
