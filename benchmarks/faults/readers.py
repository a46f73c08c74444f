"""
Visitors who read nothing, and how much memory the server has for them.

C{python -m benchmarks.faults.readers}: several clients offer a service that
never stops sending; many visitors connect and take nothing. The same twice, with
and without C{--max-memory}; one visitor in each run reads all it gets, and must
go on getting it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_TWISTD = "from twisted.scripts.twistd import run; run()"


def _free() -> int:
    """
    Find a port that is free.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(log: Path, *options: str) -> subprocess.Popen[bytes]:
    """
    Start one of our programs.
    """
    command = [sys.executable, "-c", _TWISTD, "-n", "--pidfile=", f"--logfile={log}"]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE)


def _resident(process: subprocess.Popen[bytes]) -> float:
    """
    A process's memory, in MiB.
    """
    pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096 / 2**20


def _serve(listening: socket.socket) -> None:
    """
    Send to everybody, for ever.
    """

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


def _run(bound: str, clients: int, visitors: int, seconds: float) -> list[str]:
    """
    Run once.

    @return: The row of the table.
    """
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as directory, socket.socket() as service:
        service.bind(("127.0.0.1", 0))
        service.listen(1024)
        threading.Thread(target=_serve, args=(service,), daemon=True).start()
        port, log = _free(), Path(directory, "server.log")
        try:
            server = _start(
                log,
                "tunnel",
                f"--port=tcp:{port}:interface=127.0.0.1",
                "--interface=127.0.0.1",
                f"--max-memory={bound}",
                f"--state-dir={directory}/server",
            )
            running.append(server)
            time.sleep(2.0)
            addresses = []
            for number in range(clients + 1):
                client = _start(
                    Path(directory, f"client{number}.log"),
                    "tunnel-client",
                    f"--connect=tcp:127.0.0.1:{port}",
                    f"--forward=0=127.0.0.1:{service.getsockname()[1]}",
                    "--carrier=session",
                    f"--state-dir={directory}/client{number}",
                )
                running.append(client)
                assert client.stdout is not None
                line = client.stdout.readline().decode()
                addresses.append(int(line.rpartition(":")[2]))
            before = _resident(server)
            reader = socket.create_connection(("127.0.0.1", addresses[0]))
            idle = []
            for number in range(visitors):
                visitor = socket.socket()
                visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                visitor.connect(("127.0.0.1", addresses[number % clients + 1]))
                idle.append(visitor)
            taken, most, until = 0, 0.0, time.monotonic() + seconds
            late = 0
            reader.settimeout(2.0)
            while time.monotonic() < until:
                try:
                    size = len(reader.recv(1 << 20))
                except (TimeoutError, ConnectionResetError):
                    break
                if not size:
                    break
                taken += size
                if time.monotonic() > until - seconds / 4:
                    late += size
                most = max(most, _resident(server)) if taken % 64 == 0 else most
            most = max(most, _resident(server))
            text = log.read_text("utf-8", "replace")
            shed = sum(int(n) for n in re.findall(r"the (\d+) greediest", text))
            stalled = text.count("[stalled]")
            for each in (reader, *idle):
                each.close()
            return [
                bound,
                f"{before:.0f}",
                f"{most - before:.0f}",
                str(shed),
                str(stalled),
                f"{taken / 2**20 / seconds:.0f}",
                f"{late / 2**20 / (seconds / 4):.0f}",
            ]
        finally:
            for process in reversed(running):
                process.send_signal(signal.SIGKILL)
                process.wait()


def main(arguments: Sequence[str]) -> int:
    """
    Run, and print the table.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--visitors", type=int, default=1200)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--bound", default="64MiB")
    options = parser.parse_args(arguments)
    os.environ["PYTHONPATH"] = os.getcwd()
    head = ["--max-memory", "RSS before", "growth MiB", "shed", "stalled"]
    head += ["reader MiB/s", "at the end"]
    print("  ".join(f"{word:>12}" for word in head))
    for bound in ("0", options.bound):
        row = _run(bound, options.clients, options.visitors, options.seconds)
        print("  ".join(f"{word:>12}" for word in row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
