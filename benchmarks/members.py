"""
C{python -m benchmarks.members}: requests by the number of the server's processes.

Several clients have a tunnel each, to one nginx. Wrk loads all of them at the same
time. Whether more processes answer more requests depends on how many processors are
free beside the clients, nginx and wrk; what a request costs the server does not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.loads import NGINX
from benchmarks.outputs import parseWrk
from benchmarks.processes import Room, cpuSeconds, freePort, which

_HERE = "127.0.0.1"
_ROOT = Path(__file__).parent.parent
_TWISTD = (
    *("env", f"PYTHONPATH={_ROOT}", sys.executable),
    *("-c", "from twisted.scripts.twistd import run; run()"),
)


def _measure(room: Room, processes: int, tunnels: int, seconds: int) -> str:
    """
    Load a server.

    @return: A line of figures.
    """
    service, port = freePort(), freePort()
    nginx = which("BENCH_NGINX", "nginx") or "nginx"
    room.write("nginx.conf", NGINX % (service, "x" * 1024))
    room.start("nginx", [nginx, "-p", f"{room.directory}/", "-c", "nginx.conf"])
    state = ("--state-dir", str(room.directory))
    command = (*_TWISTD, "-n", "--pidfile=")
    server = room.start(
        "server",
        [
            *(*command, "tunnel", "--port", f"tcp:{port}:interface={_HERE}", *state),
            *("--interface", _HERE, "--processes", str(processes)),
        ],
    )
    room.waitForPort(service)
    room.waitForPort(port)
    ports = [freePort() for _ in range(tunnels)]
    for each in ports:
        forward = f"{each}={_HERE}:{service}"
        connect = ("--connect", f"tcp:{_HERE}:{port}", "--forward", forward)
        room.start(f"client-{each}", [*command, "tunnel-client", *connect, *state])
    for each in ports:
        room.waitForPort(each)
    before, began = cpuSeconds([server]), time.monotonic()
    loads = [
        subprocess.Popen(
            [
                *("wrk", "-t1", "-c16", f"-d{seconds}s", "--latency"),
                f"http://{_HERE}:{each}/",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for each in ports
    ]
    found = [parseWrk(each.communicate()[0]) for each in loads]
    spent, passed = cpuSeconds([server]) - before, time.monotonic() - began
    rate, total = sum(each.rate for each in found), sum(each.total for each in found)
    return (
        f"{processes:9} {tunnels:7} {rate:10,.0f} {spent / total * 10_000:17.3f}"
        f" {spent / passed:15.2f} {sum(each.errors for each in found):6}"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.members")
    parser.add_argument("--tunnels", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args(words)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{os.cpu_count()} processors, load before: {load}")
    print("processes tunnels requests/s  server CPU s/10k processors used errors")
    for _ in range(chosen.rounds):
        for processes in chosen.processes:
            with tempfile.TemporaryDirectory() as place, Room(Path(place)) as room:
                print(
                    _measure(room, processes, chosen.tunnels, chosen.seconds),
                    flush=True,
                )


if __name__ == "__main__":
    main()
