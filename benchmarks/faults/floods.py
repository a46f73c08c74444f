"""
Floods of unauthenticated peers at every door, while a tunnel is in use.

For each: the requests through the tunnel go on, none of them fails, and when
the peers have left the server has as many descriptors and timers as before,
and no more memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict

from benchmarks.faults.attackers import HARM, Orders, Outcome
from benchmarks.faults.programs import Programs, Server, descriptors, resident
from benchmarks.faults.proof import Options, Row
from benchmarks.faults.traffic import Counters, Service, Visitors, download
from benchmarks.processes import Failed, Room, freePort
from tests.tls.authority import makeAuthority

__all__ = ["prove"]

SLOWEST = 2.0
"""Seconds that a request of some kilobytes may take meanwhile."""

LEAST = 0.5
"""Which part of the requests of a quiet time there must be: the peers use
the same processors."""

GROWTH = 16.0
"""MiB that one flood may add to the server's memory, after the first."""

_SCANNED = 50
"""Tunnels that are swept over."""

_SCANS = 250.0
"""Connections of a sweep in a second."""

_WATCH = """
import pathlib, threading
from benchmarks.faults.watched import _watch
threading.Thread(target=_watch, args=(pathlib.Path({path!r}),), daemon=True).start()
"""

_FEW = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (400, 400))"

_DOORS = {
    "tcp": (
        "silence",
        "half a framed login",
        "half of HTTP's headers",
        "half of HTTP's body",
        "HTTP, then silence",
        "a WebSocket, then silence",
        "a WebSocket, then half a login",
        "zlayer without Auth",
    ),
    "ssl": ("silence", "half a TLS hello"),
    "haproxy": ("silence", "half a PROXY header"),
    "rpc": ("silence", "half of HTTP's headers"),
    "visitors over TLS": ("silence", "half a TLS hello"),
    "a raw tunnel's URI": ("silence",),
}
"""What is done at which door."""


class _Site:
    """
    A server with all its doors, and a tunnel in use.

    @param room: Where it runs.
    @param target: The port of the service.
    """

    def __init__(self, room: Room, target: int) -> None:
        authority = makeAuthority()
        certificate, key = authority.issue(["localhost"])
        pem = room.write("server.pem", (certificate + key).decode())
        self._seen = room.directory / "seen.json"
        programs = Programs(room, before=_WATCH.format(path=str(self._seen)))
        here, rpc = "interface=127.0.0.1", freePort()
        self.server = Server(
            programs,
            "server",
            [f"tcp:0:{here}", f"ssl:0:{here}", f"haproxy:tcp:0:{here}"],
            f"--rpc=tcp:{rpc}:{here}",
            f"--visitor-certificate={pem}",
            "--max-tunnels-per-caller=1000",
        )
        self.pid = self.server.pid
        tcp, ssl, haproxy = self.server.ports[:3]
        self.server.ports[0] = rpc
        clients = Programs(room)
        _, overTLS = clients.client(
            "tls", f"--connect=tcp:127.0.0.1:{tcp}", f"--forward=0=127.0.0.1:{target}"
        )
        uri = self.server.call("openTunnel", via="w3p", listener="tcp", visitors=0)
        address = self.server.call("getTunnelAddress", uri=uri)
        clients.start(
            "use", "tunnel-client", f"--tunnel={uri}", f"--to=127.0.0.1:{target}"
        )
        self.visitors = int(address.rpartition(":")[2])
        raw = self.server.call("openTunnel", via="tcp", listener="tcp", ttl=3600)
        self.doors = {
            "tcp": tcp,
            "ssl": ssl,
            "haproxy": haproxy,
            "rpc": rpc,
            "visitors over TLS": int(overTLS.rpartition(":")[2]),
            "a raw tunnel's URI": int(raw.rpartition(":")[2]),
        }

    def untilUsed(self) -> None:
        """Wait until the tunnel works."""
        tally = Counters()
        until = time.monotonic() + 20
        while not download(self.visitors, 1000, tally, 5.0):
            if time.monotonic() > until:
                raise Failed("the tunnel does not work")
            time.sleep(0.1)

    def timers(self) -> int:
        """How many timers the server has; asks until it has counted anew."""
        before = self._seen.stat().st_mtime_ns if self._seen.exists() else 0
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if self._seen.exists() and self._seen.stat().st_mtime_ns != before:
                break
            time.sleep(0.1)
        return int(json.loads(self._seen.read_text())["timers"])


def _settled(pid: int, wanted: int, seconds: float) -> tuple[int, float]:
    """
    Wait until a process has as many descriptors as before.

    @return: How many it has, and how many seconds that took.
    """
    began = time.monotonic()
    while descriptors(pid) > wanted and time.monotonic() < began + seconds:
        time.sleep(0.1)
    return descriptors(pid), time.monotonic() - began


def _attack(orders: Orders) -> subprocess.Popen[str]:
    """Begin an attack."""
    command = [sys.executable, "-m", "benchmarks.faults.attackers"]
    return subprocess.Popen(
        [*command, json.dumps(asdict(orders))], stdout=subprocess.PIPE, text=True
    )


def prove(options: Options) -> Iterator[Row]:
    """Flood every door."""
    seconds = options.number("seconds", 8, 3)
    count = int(options.number("count", 10_000, 200))
    tally = Counters()
    service = Service(tally)
    with Room(options.directory / "floods") as room:
        site = _Site(room, service.port)
        site.untilUsed()
        visitors = Visitors([site.visitors], tally, 4, 20_000, pause=0.05)
        try:
            yield from _floods(site, tally, seconds, count)
        finally:
            visitors.stop()
    yield from _scan(options, service.port, seconds, count)
    yield from _short(options)
    service.close()


def _quiet(tally: Counters, seconds: float) -> float:
    """
    Count the requests of a quiet time.

    @return: How many there are in a second.
    """
    tally.reset()
    time.sleep(seconds)
    return tally.reset()[0] / seconds


def _floods(site: _Site, tally: Counters, seconds: float, count: int) -> Iterator[Row]:
    """One door after the other."""
    # The first flood finds memory that was never used.
    for door in site.doors:
        orders = Orders("silence", [site.doors[door]], count, count, 2.0)
        _attack(orders).communicate()
    _settled(site.pid, 0, 12.0)
    usual = _quiet(tally, seconds)
    files, timers, size = descriptors(site.pid), site.timers(), resident(site.pid)
    yield Row(
        "the server in a quiet time",
        f"{usual:.0f} requests a second, {files} descriptors, {timers} timers,"
        f" {size:.0f} MiB",
    )
    for door, harms in _DOORS.items():
        for harm in harms:
            assert harm in HARM
            orders = Orders(harm, [site.doors[door]], count, count, seconds)
            before = resident(site.pid)
            yield _one(
                f"{door}: {harm}", site.pid, tally, orders, usual, files + 10, before
            )
    after, now = site.timers(), resident(site.pid)
    yield Row(
        "after all of them: timers and memory",
        f"{after} timers (before: {timers}), {now:.0f} MiB (before: {size:.0f})",
        after <= timers + 20 and now <= size + 2 * GROWTH,
    )


def _one(
    what: str,
    pid: int,
    tally: Counters,
    orders: Orders,
    usual: float,
    files: int,
    before: float,
) -> Row:
    """
    One flood.

    @param pid: The server.
    @param usual: Requests in a second of a quiet time.
    @param files: Descriptors that the server may have afterwards.
    @param before: Its memory before, in MiB.
    """
    tally.reset()
    began = time.monotonic()
    attack = _attack(orders)
    most, highest = 0, 0.0
    while attack.poll() is None:
        most = max(most, descriptors(pid))
        highest = max(highest, resident(pid))
        time.sleep(0.1)
    took = time.monotonic() - began
    whole, failed, refused, slowest = tally.reset()
    assert attack.stdout is not None
    outcome = Outcome(**json.loads(attack.stdout.read()))
    left, recovery = _settled(pid, files, 15.0)
    now = resident(pid)
    rate = whole / took
    wrong = failed + refused + len(tally.truncated)
    return Row(
        what,
        f"{outcome.opened} opened, {outcome.most} at once, {outcome.closed} closed;"
        f" {rate:.0f} requests/s ({rate / usual:.0%}), {wrong} failed, slowest"
        f" {slowest:.2f} s; {most} descriptors and {highest:.0f} MiB at the most,"
        f" {left} and {now:.0f} MiB {recovery:.1f} s after",
        not wrong
        and slowest < SLOWEST
        and rate > LEAST * usual
        and left <= files
        and now < before + GROWTH,
    )


def _scan(options: Options, target: int, seconds: float, count: int) -> Iterator[Row]:
    """A sweep over many visitors' ports, with a service behind each."""
    tally = Counters()
    with Room(options.directory / "scan") as room:
        seen = room.directory / "seen.json"
        programs = Programs(room, before=_WATCH.format(path=str(seen)))
        server = Server(programs, "server", ["tcp:0:interface=127.0.0.1"])
        # None that the kernel gives to anybody who connects.
        first = 23_000 + os.getpid() % 80 * 100
        ports = list(range(first, first + _SCANNED))
        Programs(room).start(
            "client",
            "tunnel-client",
            f"--connect=tcp:127.0.0.1:{server.ports[0]}",
            *(f"--forward={port}=127.0.0.1:{target}" for port in ports),
        )
        for port in ports:
            room.waitForPort(port)
        _attack(Orders("scan", ports, 300, 300, 2.0)).communicate()
        visitors = Visitors([ports[0]], tally, 4, 20_000, pause=0.05)
        usual = _quiet(tally, seconds)
        files, before = descriptors(server.pid) + 30, resident(server.pid)
        # Each is a whole visit: to the server, its client and the service.
        orders = Orders("scan", [*ports, *server.ports], count, count, seconds)
        orders.pace = _SCANS
        what = f"a sweep over {len(orders.ports)} ports: leave, reset, rubbish"
        yield _one(what, server.pid, tally, orders, usual, files, before)
        visitors.stop()


def _short(options: Options) -> Iterator[Row]:
    """
    Both kinds of a relay's ends, until a server has no descriptors left for
    them. Without C{--auth} anybody may open them; the operator has a port of
    its own.
    """
    seconds, tally = 5.0, Counters()
    service = Service(tally, 50e3)
    with Room(options.directory / "short") as room:
        programs = Programs(room, before=_FEW)
        here, rpc = "interface=127.0.0.1", freePort()
        server = Server(
            programs, "server", [f"tcp:0:{here}"], f"--rpc=tcp:{rpc}:{here}"
        )
        door, server.ports = server.ports[0], [rpc]
        _, address = Programs(room).client(
            "client",
            f"--connect=tcp:127.0.0.1:{door}",
            f"--forward=0=127.0.0.1:{service.port}",
        )
        port = int(address.rpartition(":")[2])
        for harm in ("a relay's hosts", "a relay's visitors"):
            files = descriptors(server.pid) + 10
            stream = threading.Thread(target=download, args=(port, 400_000, tally))
            stream.start()
            attack = _attack(Orders(harm, [door], 1000, 1000, seconds, pace=200.0))
            most, slowest = 0, 0.0
            while attack.poll() is None:
                began = time.monotonic()
                server.call("listTunnels")
                slowest = max(slowest, time.monotonic() - began)
                most = max(most, descriptors(server.pid))
                time.sleep(0.1)
            stream.join()
            whole = tally.reset()[0]
            left, recovery = _settled(server.pid, files, 15.0)
            later = download(port, 1000, tally)
            yield Row(
                f"a server with 400 descriptors: 1000 of {harm}",
                f"{most} descriptors at the most; calls answered in {slowest:.2f} s at"
                f" the most; the stream that was there: {whole} of 1 whole;"
                f" {left} descriptors {recovery:.1f} s after, next visitor served:"
                f" {later}",
                300 <= most < 390
                and slowest < 5
                and whole == 1
                and left <= files
                and later,
            )
            tally.reset()
    service.close()
