"""
What is measured, and how.
"""

from __future__ import annotations

import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestant import DIRECT, Contestant, Route, Started
from benchmarks.meter import Meter
from benchmarks.outputs import (
    establishedAt,
    parseIperf,
    parsePull,
    parseWrk,
)
from benchmarks.path import LONG, SLOW
from benchmarks.processes import (
    Failed,
    Room,
    cpuSeconds,
    family,
    freePort,
    memory,
    which,
)

__all__ = ["LOADS", "Figures", "Load", "Run"]

Figures = dict[str, float]
"""What was measured, by the metric's name with its unit."""

_HERE = "127.0.0.1"
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Run:
    """
    One contestant's turn at one load.

    @ivar room: Where programs run.
    @ivar contestant: Who.
    @ivar seconds: What each figure takes, roughly.
    @ivar quick: Whether fewer visitors and clients will do.
    @ivar meter: Watches the contestant's programs.
    """

    room: Room
    contestant: Contestant
    seconds: float
    quick: bool
    meter: Meter


@dataclass(frozen=True)
class Load:
    """
    One thing to measure.

    @ivar name: How it is asked for.
    @ivar measure: Measures a contestant.
    @ivar needs: Programs.
    @ivar rounds: Rounds that are enough, whatever is asked for.
    """

    name: str
    measure: Callable[[Run], Figures]
    needs: tuple[str, ...] = ()
    rounds: int = 100


def _service(room: Room, *words: object, route: Route = DIRECT) -> int:
    """Start one of the programs of C{benchmarks.service}."""
    command = ["env", f"PYTHONPATH={_ROOT}", sys.executable, "-m"]
    name = f"service-{words[0]}"
    started = [*route.beside, *command, "benchmarks.service", *map(str, words)]
    return room.start(name, started)


def _serve(room: Room, kind: str = "serve", route: Route = DIRECT) -> int:
    """
    Start a service of ours.

    @return: Its port.
    """
    port = freePort()
    # Beyond a path, visitors without a tunnel must reach it too.
    host = _HERE if route is DIRECT else "0.0.0.0"
    _service(room, kind, port, host, route=route)
    room.waitForPort(port, host=route.client)
    return port


# 1. bulk, and 6. processor time per GiB


def _bulk(run: Run) -> Figures:
    """Iperf3, one and four streams, each direction; processor time per GiB."""
    service = freePort()
    run.room.start("iperf3", ["iperf3", "-s", "-p", str(service), "-B", _HERE])
    run.room.waitForPort(service)
    started = run.contestant.start(run.room, service)
    figures: Figures = {}
    server = client = moved = 0.0
    for way, flags in (("up", []), ("down", ["-R"])):
        for streams in (1, 4):
            with run.meter.during(f"{way} {streams}", started) as spent:
                rate, size = _iperf(started.port, streams, run.seconds, flags)
            server += spent.server
            client += spent.client
            moved += size
            figures[f"{way} {streams} Gbit/s"] = rate
    if started.servers:
        GiB = moved / 2**30
        figures["CPU s/GiB"] = (server + client) / GiB
        figures["server CPU s/GiB"] = server / GiB
        figures["client CPU s/GiB"] = client / GiB
    return figures


def _iperf(
    port: int, streams: int, seconds: float, flags: list[str]
) -> tuple[float, float]:
    """
    Run iperf3.

    @return: Gbit/s and bytes.
    """
    command = ["iperf3", "-c", _HERE, "-p", str(port), "-P", str(streams), "-J"]
    attempt = 0
    while True:
        attempt += 1
        done = subprocess.run(
            [*command, "-t", str(max(1, round(seconds))), *flags],
            capture_output=True,
            text=True,
            timeout=seconds + 20,
        )
        try:
            return parseIperf(done.stdout)
        except Failed:
            # Its server takes a moment to forget the last run.
            if attempt == 10:
                raise
            time.sleep(0.2)


# 2. requests, and 6. processor time per 10,000 of them

NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
events { worker_connections 9000; }
http { access_log off; keepalive_requests 100000000; keepalive_timeout 1h;
 client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp;
 uwsgi_temp_path tmp; scgi_temp_path tmp;
 server { listen 127.0.0.1:%d backlog=4096;
  location / { default_type text/plain; return 200 "%s"; } } }
"""


def _requests(run: Run) -> Figures:
    """Wrk against nginx over 32 connections, kept alive and new for each."""
    service, room = freePort(), run.room
    nginx = which("BENCH_NGINX", "nginx") or "nginx"
    room.write("nginx.conf", NGINX % (service, "x" * 1024))
    room.start("nginx", [nginx, "-p", f"{room.directory}/", "-c", "nginx.conf"])
    room.waitForPort(service)
    started = run.contestant.start(room, service)
    figures: Figures = {}
    for name, flags in (("kept", []), ("new", ["-H", "Connection: close"])):
        with run.meter.during(name, started) as spent:
            done = subprocess.run(
                [
                    *("wrk", "-t1", "-c32", f"-d{max(1, round(run.seconds))}s"),
                    *("--latency", *flags, f"http://{_HERE}:{started.port}/"),
                ],
                capture_output=True,
                text=True,
                timeout=run.seconds + 60,
            )
        found = parseWrk(done.stdout or done.stderr)
        figures[f"{name} req/s"] = found.rate
        for percent in (50, 99):
            if percent in found.percentiles:
                figures[f"{name} p{percent} ms"] = found.percentiles[percent]
        if started.servers:
            tenThousands = found.total / 10_000
            figures[f"{name} CPU s/10k"] = spent.both / tenThousands
            figures[f"{name} server CPU s/10k"] = spent.server / tenThousands
            figures[f"{name} client CPU s/10k"] = spent.client / tenThousands
        if found.errors:
            figures[f"{name} errors"] = float(found.errors)
    return figures


# 3. a small request beside bulk


def _beside(run: Run) -> Figures:
    """Echo 64 bytes every 10 ms while another visitor takes what it can."""
    started = run.contestant.start(run.room, _serve(run.room))
    _service(run.room, "pull", started.port, started.plan.host)
    time.sleep(1.0)
    took: list[float] = []
    with (
        run.meter.during("all", started),
        socket.create_connection(started.address) as connection,
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(10)
        connection.sendall(b"E")
        began = time.monotonic()
        while (now := time.monotonic()) < began + run.seconds:
            _echo(connection, 64)
            took.append((time.monotonic() - now) * 1e3)
            time.sleep(max(0.0, 0.01 - took[-1] / 1e3))
    if len(took) < 2:
        raise Failed("the small requests were not answered")
    ordered = statistics.quantiles(took, n=100, method="inclusive")
    return {
        "p50 ms": ordered[49],
        "p99 ms": ordered[98],
        "bulk Gbit/s": parsePull(run.room.said("service-pull"), began),
    }


def _echo(connection: socket.socket, size: int) -> None:
    """Send bytes and wait for all of them."""
    connection.sendall(b"x" * size)
    while size:
        data = connection.recv(size)
        if not data:
            raise Failed("the connection was closed")
        size -= len(data)


# 4. slow and long ways

_SETTLED = 3.0
_EVERY = 0.02


def _slow(run: Run) -> Figures:
    """
    64 bytes every 20 ms over 10 Mbit/s and 40 ms, alone, and beside another visitor who
    takes, and then sends, what the line carries.
    """
    figures: Figures = {}
    seconds = max(run.seconds, 4.0)
    with SLOW.laid(run.room) as route:
        started = run.contestant.start(run.room, _serve(run.room, route=route), route)
        with socket.create_connection(started.address) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(b"E")
            idle = _answers(connection, seconds)
            figures["idle p50 ms"] = idle[49]
            for way, what, taker in (
                ("down", "pull", "pull"),
                ("up", "push", "serve"),
            ):
                bulk = _service(run.room, what, started.port, started.plan.host)
                time.sleep(_SETTLED)
                with run.meter.during(way, started):
                    began = time.monotonic()
                    took = _answers(connection, seconds)
                rate = parsePull(run.room.said(f"service-{taker}"), began)
                run.room.stop([bulk])
                time.sleep(1.0)
                figures[f"{way} p50 ms"] = took[49]
                figures[f"{way} p99 ms"] = took[98]
                figures[f"{way} p99 over idle, ms"] = took[98] - idle[49]
                figures[f"{way} bulk Mbit/s"] = rate * 1e3
    return figures


def _answers(connection: socket.socket, seconds: float) -> list[float]:
    """
    Send 64 bytes again and again, whether the last ones have come back or not.

    @return: Milliseconds that they took, by percent.
    """
    sent: list[float] = []
    took: list[float] = []
    begun = time.monotonic()
    came = 0
    while came < len(sent) * 64 or time.monotonic() < begun + seconds:
        now = time.monotonic()
        due = begun + len(sent) * _EVERY
        if now >= due and now < begun + seconds:
            sent.append(now)
            connection.sendall(b"x" * 64)
            continue
        if now > begun + seconds + 20:
            raise Failed("the small requests were not answered")
        if select.select([connection], [], [], max(0.0, due - now))[0]:
            data = connection.recv(65536)
            if not data:
                raise Failed("the connection was closed")
            came += len(data)
            now = time.monotonic()
            while len(took) < came // 64:
                took.append((now - sent[len(took)]) * 1e3)
    return statistics.quantiles(took, n=100, method="inclusive")


def _long(run: Run) -> Figures:
    """One stream over 1 Gbit/s and 100 ms; the rate after the start is over."""
    with LONG.laid(run.room) as route:
        started = run.contestant.start(run.room, _serve(run.room, route=route), route)
        _service(run.room, "pull", started.port, started.plan.host)
        time.sleep(_SETTLED)
        began = time.monotonic()
        with run.meter.during("all", started):
            time.sleep(run.seconds)
        return {"Mbit/s": parsePull(run.room.said("service-pull"), began) * 1e3}


# 5. memory


def _idle(run: Run) -> Figures:
    """What idle visitors cost the server."""
    visitors = 1000 if run.quick else 5000
    started = run.contestant.start(run.room, _serve(run.room))
    if not started.servers:
        raise Failed("there is no server")
    with socket.create_connection(started.address) as connection:
        connection.sendall(b"E")
        _echo(connection, 10)
    _settle(started)
    before, waiting = memory(started.servers), []
    try:
        with run.meter.during("arriving", started):
            for _ in range(visitors):
                connection = socket.create_connection(started.address, 20)
                waiting.append(connection)
                connection.sendall(b"E")
                _echo(connection, 10)
        _settle(started)
        after = memory(started.servers)
    finally:
        for connection in waiting:
            connection.close()
    return {"KiB/visitor": (after - before) / 1024 / visitors}


def _clients(run: Run) -> Figures:
    """What idle clients, each with a tunnel, cost the server."""
    clients = 100 if run.quick else 1000
    room = run.room
    started = run.contestant.start(room, _serve(run.room))
    more = started.plan.clients
    if more is None:
        raise Failed("it has no more clients without another configuration")
    _settle(started)
    before = memory(started.servers)
    # The first client counts among them: some servers stop at 1,000.
    others = clients - 1
    with run.meter.during("arriving", started):
        if started.plan.together:
            room.start("more", more(others))
            room.waitForText("more", "all there", 180)
        else:
            for number in range(others):
                room.start(f"more{number % 20}", more(1))
                if number % 20 == 19:
                    _arrived(started, number - 20)
        _arrived(started, clients)
    _settle(started)
    return {"KiB/client": (memory(started.servers) - before) / 1024 / others}


def _arrived(started: Started, count: int) -> None:
    """Wait until so many clients are connected."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        present = sum(
            establishedAt(Path(f"/proc/net/{table}").read_text(), started.plan.control)
            for table in ("tcp", "tcp6")
        )
        if present >= count:
            return
        time.sleep(0.05)
    raise Failed(f"only {present} of {count} clients came")


def _settle(started: Started) -> None:
    """Wait until the server has nothing to do."""
    for _ in range(20):
        before = cpuSeconds(started.servers)
        time.sleep(0.5)
        if cpuSeconds(started.servers) - before <= 0.02:
            return


# 7. the first byte


def _first(run: Run) -> Figures:
    """From a visitor's connect to the first byte of a service that speaks first."""
    figures: Figures = {}
    for name, path, tries in (
        ("0 ms", nullcontext(DIRECT), 20),
        ("100 ms", LONG.laid(run.room), 10),
    ):
        inner = run.room.directory / name.replace(" ", "")
        with path as route, Room(inner) as room:
            service = _serve(room, "greet", route)
            started = run.contestant.start(room, service, route)
            time.sleep(0.5)
            with run.meter.during(name, started):
                took = [_firstByte(started) for _ in range(tries)]
            figures[f"at {name}, ms"] = statistics.median(took)
    return figures


def _firstByte(started: Started) -> float:
    """Milliseconds that a visitor waits for it."""
    began = time.monotonic()
    with socket.create_connection(started.address) as connection:
        connection.settimeout(5)
        try:
            connection.recv(6)
        except TimeoutError:
            raise Failed("a service that speaks first is not heard") from None
    took = (time.monotonic() - began) * 1e3
    time.sleep(took / 1e3 + 0.01)
    return took


# 8. coming back

_PATIENCE = 60.0


def _restart(run: Run) -> Figures:
    """From the server's start, after it was killed, to a visitor's success."""
    room = run.room
    started = run.contestant.start(room, _serve(run.room))
    if not started.servers:
        raise Failed("there is no server")
    everybody = [each for pid in started.servers for each in family(pid)]
    room.stop(everybody, signal.SIGKILL)
    time.sleep(1.0)
    began = time.monotonic()
    started.startServer()
    while time.monotonic() < began + _PATIENCE:
        if not all(map(room.runs, started.clients)):
            raise Failed("its client ends when the server does")
        try:
            started.port = started.look()
            with socket.create_connection(started.address, 1) as connection:
                connection.settimeout(1)
                connection.sendall(b"E")
                _echo(connection, 1)
                return {"s": time.monotonic() - began}
        except (OSError, Failed):
            pass
        time.sleep(0.02)
    raise Failed(f"no visitor succeeded within {_PATIENCE:.0f} s")


LOADS = [
    Load("bulk", _bulk, ("iperf3",)),
    Load("requests", _requests, ("nginx", "wrk")),
    Load("beside", _beside),
    Load("slow", _slow, rounds=1),
    Load("long", _long, rounds=1),
    Load("idle", _idle, rounds=1),
    Load("clients", _clients, rounds=1),
    Load("first", _first, rounds=1),
    Load("restart", _restart),
]
"""Everything, in the table's order."""
