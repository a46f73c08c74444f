"""
Attacks on memory and descriptors: what a peer does not read, or sends before
anybody has asked who it is.

Each line of L{ATTACKS} has a process of its own to attack. Its memory and its
descriptors are measured before, during and after; C{--set attacks=NAME,NAME}
runs some of them. To add one, write a function that takes a L{Victim}, does its
harm and returns what must stay open, and give it a line.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.faults.programs import Programs, Server, descriptors, resident
from benchmarks.faults.proof import Options, Row
from benchmarks.processes import Room

__all__ = ["ATTACKS", "Attack", "Victim", "prove"]

MEMORY = 64.0
"""MiB that an attack may add to a process."""

PATIENCE = 60.0
"""Seconds after which the connections of an attack must be gone."""

_SPARE = 10
"""Descriptors that a process may have more than before."""


@dataclass
class Victim:
    """
    Who is attacked.

    @ivar room: Where it runs, and where other programs may be started.
    @ivar options: How to run: C{quick} and C{words}.
    @ivar pid: The process that is measured; an attack on a client that it has
        started itself puts the client's process id here.
    @ivar port: Where clients connect to the server.
    """

    room: Room
    options: Options
    pid: int
    port: int

    def connect(self, source: str = "127.0.0.1", receive: int = 0) -> socket.socket:
        """
        Connect to the server.

        @param source: The address to come from.
        @param receive: Bytes of the receive buffer, 0 for the usual.
        """
        made = socket.socket()
        if receive:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        made.settimeout(10.0)
        made.bind((source, 0))
        made.connect(("127.0.0.1", self.port))
        return made


Open = list[socket.socket]


@dataclass(frozen=True)
class Attack:
    """
    One attack.

    @ivar what: What is done, for the table.
    @ivar run: Does it, and returns the connections that it holds open.
    @ivar server: Options of the server; C{{room}} stands for its directory, in
        which C{clients} is a file for C{--auth}.
    @ivar memory: MiB that it may add to the victim.
    @ivar gone: Whether the connections must be gone within L{PATIENCE} although
        the attacker does not close them.
    """

    what: str
    run: Callable[[Victim], Open]
    server: tuple[str, ...] = ("--auth=clients:{room}/clients",)
    memory: float = MEMORY
    gone: bool = True


class _Meter:
    """
    The most memory and descriptors that a process has, until it is stopped.
    """

    def __init__(self, victim: Victim) -> None:
        self.memory, self.files = 0.0, 0
        self._victim = victim
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)
        self._thread.start()

    def _measure(self) -> None:
        while not self._over.wait(0.05):
            with suppress(OSError):
                self.memory = max(self.memory, resident(self._victim.pid))
                self.files = max(self.files, descriptors(self._victim.pid))

    def stop(self) -> None:
        """
        Stop measuring.
        """
        self._over.set()
        self._thread.join()


def _one(name: str, attack: Attack, options: Options) -> Row:
    """
    Start a server, attack it, and say what came of it.
    """
    directory = options.directory / name
    with Room(directory) as room:
        room.write("clients", "victim: v\n")
        words = [word.format(room=directory) for word in attack.server]
        server = Server(Programs(room), "server", ["tcp:0:interface=127.0.0.1"], *words)
        victim = Victim(room, options, server.pid, server.ports[0])
        # An answer before the first measurement, for what is made only then.
        with suppress(OSError), victim.connect() as first:
            first.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            first.recv(1024)
        before, files = resident(victim.pid), descriptors(victim.pid)
        meter = _Meter(victim)
        began = time.monotonic()
        connections = attack.run(victim)
        took = time.monotonic() - began
        if victim.pid != server.pid:
            before, files = meter.memory, meter.files
        held = descriptors(victim.pid)
        until = time.monotonic() + PATIENCE
        while attack.gone and time.monotonic() < until:
            if descriptors(victim.pid) <= files + _SPARE:
                break
            time.sleep(0.2)
        waited = time.monotonic() - began - took
        stayed = descriptors(victim.pid)
        meter.stop()
        for connection in connections:
            connection.close()
        until = time.monotonic() + 10
        while descriptors(victim.pid) > files + _SPARE and time.monotonic() < until:
            time.sleep(0.1)
        after, left = resident(victim.pid), descriptors(victim.pid)
    grown = meter.memory - before
    return Row(
        attack.what,
        f"{before:.0f} MiB before, {meter.memory:.0f} during, {after:.0f} after;"
        f" {files} descriptors before, {meter.files} during, {stayed} after"
        f" {waited:.0f} s ({held} at the end of the attack, {took:.0f} s), {left} after"
        " it left",
        grown <= attack.memory
        and left <= files + _SPARE
        and (not attack.gone or stayed <= files + _SPARE),
    )


def _unread(last: bytes) -> Callable[[Victim], Open]:
    """
    Ask for the same page again and again, and never read an answer.

    @param last: The last request, after which the server wants to close.
    """
    page = b"GET /dashboard/style.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def run(victim: Victim) -> Open:
        connections = []
        for _ in range(20 if victim.options.quick else 60):
            connection = victim.connect(receive=2048)
            with suppress(OSError):
                connection.sendall(page * 200 + last)
            connections.append(connection)
            time.sleep(0.05)
        return connections

    return run


def _bodies(head: bytes) -> Callable[[Victim], Open]:
    """
    Send bodies of nearly 1 MiB, from several addresses, without a login.

    @param head: The request's line and what it has of its own.
    """
    head += b"Host: 127.0.0.1\r\nContent-Length: 1048576\r\n\r\n"

    def run(victim: Victim) -> Open:
        connections = []
        for source in range(2, 4 if victim.options.quick else 8):
            for _ in range(64):
                with suppress(OSError):
                    connection = victim.connect(f"127.0.0.{source}")
                    connections.append(connection)
                    connection.settimeout(2.0)
                    connection.sendall(head + bytes(2**20 - 16))
        return connections

    return run


_OPEN: tuple[str, ...] = ()

ATTACKS: dict[str, Attack] = {
    "unread": Attack(
        "answers that nobody reads, the last with Connection: close",
        _unread(
            b"GET /dashboard/style.css HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ),
    ),
    "unread10": Attack(
        "answers that nobody reads, the last of HTTP/1.0",
        _unread(b"GET /dashboard/style.css HTTP/1.0\r\n\r\n"),
    ),
    "unreadkept": Attack("answers that nobody reads, kept alive", _unread(b"")),
    "bodies": Attack(
        "HTTP bodies for /rpc without a login",
        _bodies(b"POST /rpc HTTP/1.1\r\nContent-Type: application/json\r\n"),
    ),
    "bodiesxml": Attack(
        "HTTP bodies for /RPC2 with a wrong password",
        _bodies(
            b"POST /RPC2 HTTP/1.1\r\nContent-Type: text/xml\r\n"
            b"Authorization: Basic bm9ib2R5Om5vdGhpbmc=\r\n"
        ),
    ),
    "bodiesopen": Attack(
        "HTTP bodies for a server that asks nobody who they are",
        _bodies(b"POST /rpc HTTP/1.1\r\nContent-Type: application/json\r\n"),
        _OPEN,
    ),
}
"""The attacks, by name."""


def prove(options: Options) -> Iterator[Row]:
    """
    Run them, one after the other.
    """
    wanted = options.words.get("attacks", "")
    for name in wanted.split(",") if wanted else ATTACKS:
        yield _one(name, ATTACKS[name], options)
