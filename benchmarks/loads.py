"""
What is measured, and how.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contestants import Contestant, Started, direct
from benchmarks.processes import (
    Failed,
    Room,
    cpuSeconds,
    freePort,
    memory,
    which,
)

__all__ = ["LOADS", "Figures", "Load"]

Figures = dict[str, float]
"""What was measured, by the metric's name with its unit."""

_HERE = "127.0.0.1"
_ROOT = Path(__file__).parent.parent
_WAY = 0.05
_GIGABIT = 125_000_000.0


@dataclass(frozen=True)
class Load:
    """
    One thing to measure.

    @ivar name: How it is asked for.
    @ivar run: Measures a contestant in a room; the number is of seconds to
        take, roughly.
    @ivar more: Metrics of which more is better.
    @ivar needs: Programs.
    """

    name: str
    run: Callable[[Room, Contestant, float], Figures]
    more: frozenset[str] = field(default_factory=frozenset)
    needs: tuple[str, ...] = ()


def _service(room: Room, *words: object) -> int:
    """
    Start one of the programs of C{benchmarks.service}.
    """
    command = ["env", f"PYTHONPATH={_ROOT}", sys.executable, "-m"]
    name = f"service-{words[0]}"
    return room.start(name, [*command, "benchmarks.service", *map(str, words)])


def _longWay(room: Room) -> Callable[[int], int]:
    """
    Make the route of 100 ms there and back.
    """

    def route(port: int) -> int:
        ours = freePort()
        _service(room, "delay", ours, port, _WAY, _GIGABIT)
        room.waitForPort(ours)
        return ours

    return route


# 1. bulk


def _bulk(room: Room, contestant: Contestant, seconds: float) -> Figures:
    """
    Iperf3, one and four streams, each direction; processor time per GiB.
    """
    service = freePort()
    room.start("iperf3", ["iperf3", "-s", "-p", str(service), "-B", _HERE])
    room.waitForPort(service)
    started = contestant.start(room, service, direct)
    figures: Figures = {}
    everybody = [*started.servers, *started.clients]
    spent = moved = 0.0
    for direction, flags in (("up", []), ("down", ["-R"])):
        for streams in (1, 4):
            before = cpuSeconds(everybody)
            rate, size = _iperf(started.port, streams, seconds, flags)
            spent += cpuSeconds(everybody) - before
            moved += size
            figures[f"{direction} {streams} Gbit/s"] = rate
    if everybody and moved:
        figures["CPU s/GiB"] = spent / (moved / 2**30)
    return figures


def _iperf(
    port: int, streams: int, seconds: float, flags: list[str]
) -> tuple[float, float]:
    """
    Run iperf3.

    @return: Gbit/s and bytes.
    """
    command = ["iperf3", "-c", _HERE, "-p", str(port), "-P", str(streams), "-J"]
    for _ in range(10):
        done = subprocess.run(
            [*command, "-t", str(max(1, round(seconds))), *flags],
            capture_output=True,
            text=True,
            timeout=seconds + 20,
        )
        result = json.loads(done.stdout or "{}")
        if "error" not in result and "end" in result:
            end = result["end"]["sum_received"]
            return end["bits_per_second"] / 1e9, end["bytes"]
        # Its server takes a moment to forget the last run.
        time.sleep(0.2)
    raise Failed(f"iperf3: {result.get('error', 'no result')}")


# 2. requests

_NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
events { worker_connections 20000; }
http { access_log off; keepalive_requests 100000000; keepalive_timeout 1h;
 client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp;
 uwsgi_temp_path tmp; scgi_temp_path tmp;
 server { listen 127.0.0.1:%d backlog=4096;
  location / { default_type text/plain; return 200 "%s"; } } }
"""

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def _requests(room: Room, contestant: Contestant, seconds: float) -> Figures:
    """
    Wrk against nginx over 32 connections, kept alive and new for each.
    """
    service = freePort()
    nginx = which("BENCH_NGINX", "nginx") or "nginx"
    room.write("nginx.conf", _NGINX % (service, "x" * 1024))
    room.start("nginx", [nginx, "-p", f"{room.directory}/", "-c", "nginx.conf"])
    room.waitForPort(service)
    started = contestant.start(room, service, direct)
    everybody = [*started.servers, *started.clients]
    figures: Figures = {}
    for name, flags in (("kept", []), ("new", ["-H", "Connection: close"])):
        before = cpuSeconds(everybody)
        done = subprocess.run(
            [
                *("wrk", "-t1", "-c32", f"-d{max(1, round(seconds))}s", "--latency"),
                *flags,
                f"http://{_HERE}:{started.port}/",
            ],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
        spent = cpuSeconds(everybody) - before
        rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        if rate is None or float(rate[1]) == 0:
            raise Failed(f"wrk: {done.stdout or done.stderr}")
        figures[f"{name} req/s"] = float(rate[1])
        for percent in ("50", "99"):
            took = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)\b", done.stdout)
            if took:
                figures[f"{name} p{percent} ms"] = float(took[1]) * _UNITS[took[2]]
        total = re.search(r"(\d+) requests in", done.stdout)
        if everybody and total:
            figures[f"{name} CPU s/10k"] = spent / int(total[1]) * 10_000
        errors = re.search(r"Socket errors: (.*)", done.stdout)
        if errors:
            figures[f"{name} errors"] = float(
                sum(map(int, re.findall(r"\d+", errors[1])))
            )
    return figures


# 3. a small request beside bulk


def _beside(room: Room, contestant: Contestant, seconds: float) -> Figures:
    """
    Echo 64 bytes every 10 ms while another visitor takes what it can.
    """
    service = freePort()
    _service(room, "serve", service)
    room.waitForPort(service)
    started = contestant.start(room, service, direct)
    _service(room, "pull", started.port)
    time.sleep(1.0)
    took: list[float] = []
    with socket.create_connection((_HERE, started.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(10)
        connection.sendall(b"E")
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            _echo(connection, 64)
            took.append((time.monotonic() - now) * 1e3)
            time.sleep(max(0.0, 0.01 - took[-1] / 1e3))
    ordered = statistics.quantiles(took, n=100)
    return {"p50 ms": ordered[49], "p99 ms": ordered[98]}


def _echo(connection: socket.socket, size: int) -> None:
    """
    Send bytes and wait for all of them.
    """
    connection.sendall(b"x" * size)
    while size:
        data = connection.recv(size)
        if not data:
            raise Failed("the connection was closed")
        size -= len(data)


# 4. a long way


def _long(room: Room, contestant: Contestant, seconds: float) -> Figures:
    """
    One stream over 100 ms; the rate after the start is over.
    """
    service = freePort()
    _service(room, "serve", service)
    room.waitForPort(service)
    if contestant.name == "direct path":
        started = Started(_longWay(room)(service))
    else:
        started = contestant.start(room, service, _longWay(room))
    with socket.create_connection((_HERE, started.port)) as connection:
        connection.settimeout(20)
        connection.sendall(b"B")
        settled = time.monotonic() + 3.0
        until = settled + seconds
        total, buffer = 0, bytearray(1024 * 1024)
        while (now := time.monotonic()) < until:
            count = connection.recv_into(buffer)
            if not count:
                raise Failed("the connection was closed")
            if now >= settled:
                total += count
    return {"Mbit/s": total * 8 / seconds / 1e6}


# 5. memory


def _idle(room: Room, contestant: Contestant, seconds: float) -> Figures:
    """
    What idle visitors cost the server.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    visitors = 5000 if seconds >= 3 else 1000
    service = freePort()
    _service(room, "serve", service)
    room.waitForPort(service)
    started = contestant.start(room, service, direct)
    if not started.servers:
        return {}
    with socket.create_connection((_HERE, started.port)) as connection:
        connection.sendall(b"E")
        _echo(connection, 10)
    before, waiting = memory(started.servers), []
    try:
        for _ in range(visitors):
            connection = socket.create_connection((_HERE, started.port), timeout=20)
            connection.sendall(b"E")
            waiting.append(connection)
            if len(waiting) % 100 == 0:
                for each in waiting[-100:]:
                    _echo(each, 10)
        after = memory(started.servers)
    finally:
        for connection in waiting:
            connection.close()
    return {"KiB/visitor": (after - before) / 1024 / visitors}


# 7. the first byte


def _first(room: Room, contestant: Contestant, seconds: float) -> Figures:
    """
    From a visitor's connect to the first byte of a service that speaks first.
    """
    service = freePort()
    _service(room, "greet", service)
    room.waitForPort(service)
    figures: Figures = {}
    for name, way in (("0 ms", False), ("100 ms", True)):
        with Room(room.directory / name.replace(" ", "")) as inner:
            route = _longWay(inner) if way else direct
            if contestant.name == "direct path":
                started = Started(route(service))
            else:
                started = contestant.start(inner, service, route)
            time.sleep(0.5)
            took = []
            for _ in range(20):
                began = time.monotonic()
                with socket.create_connection((_HERE, started.port)) as connection:
                    connection.settimeout(10)
                    connection.recv(6)
                took.append((time.monotonic() - began) * 1e3)
                time.sleep(0.15 if way else 0.01)
            figures[f"at {name}, ms"] = statistics.median(took)
    return figures


# 8. coming back


def _restart(room: Room, contestant: Contestant, seconds: float) -> Figures:
    """
    From the server's start, after it was killed, to a visitor's success.
    """
    service = freePort()
    _service(room, "greet", service)
    room.waitForPort(service)
    started = contestant.start(room, service, direct)
    if started.restart is None:
        return {}
    room.stop(started.servers, signal.SIGKILL)
    time.sleep(1.0)
    began = time.monotonic()
    started.restart()
    while time.monotonic() < began + 90:
        try:
            with socket.create_connection((_HERE, started.port), 1) as connection:
                connection.settimeout(1)
                if connection.recv(6):
                    return {"s": time.monotonic() - began}
        except OSError:
            pass
        time.sleep(0.02)
    raise Failed("no visitor succeeded within 90 s")


LOADS = [
    Load(
        "bulk",
        _bulk,
        frozenset(
            f"{way} {count} Gbit/s" for way in ("up", "down") for count in (1, 4)
        ),
        ("iperf3",),
    ),
    Load(
        "requests", _requests, frozenset({"kept req/s", "new req/s"}), ("nginx", "wrk")
    ),
    Load("beside", _beside),
    Load("long", _long, frozenset({"Mbit/s"})),
    Load("idle", _idle),
    Load("first", _first),
    Load("restart", _restart),
]
"""Everything, in the table's order."""
