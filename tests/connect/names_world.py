"""
A machine of its own for L{tests.connect.test_names_real}: its network, its hosts
file and its name server are not ours.

It is run by C{unshare -m -n}, and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_TWISTD = "from twisted.scripts.twistd import run; run()"
_IPV6 = ("--port", r"tcp:9001:interface=\:\:1")
_STUCK = 30


def sh(*words: str) -> None:
    subprocess.run(words, check=True)


def echo(address: str, port: int, greeting: bytes) -> Callable[[], None]:
    """
    Serve: a greeting, and then what comes.

    @return: Stops it.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((address, port))
    listening.listen()

    def serve() -> None:
        while True:
            try:
                visitor, _ = listening.accept()
            except OSError:
                return
            visitor.sendall(greeting)
            visitor.close()

    threading.Thread(target=serve, daemon=True).start()

    def stop() -> None:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()

    return stop


def visit(port: int, says: bytes = b"") -> bytes:
    got = b""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as visitor:
            visitor.sendall(says)
            while piece := visitor.recv(100):
                got += piece
    except OSError as error:
        got += type(error).__name__.encode()
    return got


class Program:
    """
    A program, and the lines that it has said.

    @param home: Its directory; the lines are in C{log} there, too.
    """

    def __init__(self, home: Path, *words: str) -> None:
        home.mkdir()
        self.process = subprocess.Popen(
            words, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._lines: list[str] = []
        self._more = threading.Condition()
        threading.Thread(target=self._read, args=(home / "log",), daemon=True).start()

    def _read(self, path: Path) -> None:
        assert self.process.stdout is not None
        with path.open("wb", buffering=0) as log:
            for line in self.process.stdout:
                log.write(line)
                with self._more:
                    self._lines.append(line.decode(errors="replace"))
                    self._more.notify_all()

    def says(self, pattern: str, count: int = 1) -> None:
        """Wait until it has said something so many times."""
        with self._more:
            self._more.wait_for(
                lambda: (
                    sum(bool(re.search(pattern, each)) for each in self._lines) >= count
                )
            )


class Programs:
    def __init__(self, directory: Path, forwards: Sequence[str], where: str) -> None:
        self.running: list[Program] = []
        server = self.start(
            directory / "server", "tunnel", "--port", "tcp:9000", *_IPV6
        )
        server.says("Listening for clients on .*:9000 ")
        words = [word for each in forwards for word in ("--forward", each)]
        self.client = self.start(
            directory / "client", "tunnel-client", "--connect", where, *words
        )

    def start(self, home: Path, *words: str) -> Program:
        program = Program(
            home,
            *(sys.executable, "-c", _TWISTD, "-n", "--pidfile=", *words),
            *("--state-dir", str(home)),
        )
        self.running.append(program)
        return program

    def forwarding(self, port: int) -> None:
        self.client.says(f"^tcp://.*:{port}$")

    def stop(self) -> float:
        """Stop the client, and then the others; the seconds that the client took."""
        began = time.monotonic()
        self.client.process.send_signal(signal.SIGINT)
        self.client.process.wait()
        took = time.monotonic() - began
        for program in self.running:
            program.process.terminate()
            program.process.wait()
        return took


def stuck(directory: Path) -> dict[str, object]:
    """A name server that never answers."""
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 53))
    echo("127.0.0.1", 3000, b"hello")
    forwards = [
        *(f"{7001 + each}=stuck_{each}.test:80" for each in range(_STUCK)),
        "6001=localhost:3000",
        "6002=my_db--1:3000",
        "6003=127.0.0.1:3000",
    ]
    programs = Programs(directory, forwards, "tcp:My_Server:9000")
    programs.forwarding(6003)
    for each in range(_STUCK):
        socket.create_connection(("127.0.0.1", 7001 + each)).sendall(b"x")
    took = []
    for port in (6001, 6002, 6003):
        began = time.monotonic()
        took.append((visit(port).decode(), time.monotonic() - began))
    return {"visits": took, "stop": programs.stop()}


def moved(directory: Path) -> dict[str, object]:
    """A service that moves to another address, known by a real name server."""
    hosts = directory / "names"
    hosts.write_text("127.0.0.2 a_b--c.test\n")
    server = Program(
        directory / "dnsmasq",
        *("dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts"),
        *("--listen-address=127.0.0.1", "--bind-interfaces", "--local-ttl=0"),
        *("--user=root", f"--addn-hosts={hosts}", "--pid-file="),
        "--log-facility=-",
    )
    server.says(f"read {hosts}")
    programs = Programs(directory, ["6001=a_b--c.test:3000"], "ws://[::1]:9001/tunnel")
    programs.forwarding(6001)
    stop = echo("127.0.0.2", 3000, b"old")
    visits = [visit(6001).decode()]
    addresses = (("127.0.0.3", b"new"), ("127.0.0.4", b"newer"))
    for times, (address, greeting) in enumerate(addresses, 2):
        since = time.monotonic()
        hosts.write_text(f"{address} a_b--c.test\n")
        server.process.send_signal(signal.SIGHUP)
        if greeting == b"new":
            # The first one is gone, the second one stays where it was.
            stop()
        echo(address, 3000, greeting)
        server.says(f"read {hosts}", times)
        while time.monotonic() < since + 1:
            # An answer is given again for less than that.
            visit(6001)
        visits += [visit(6001).decode() for _ in range(3)]
    server.process.terminate()
    programs.stop()
    return {"visits": visits}


def itself(directory: Path) -> dict[str, object]:
    """A service that is down, at a port from which the kernel makes connections."""
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40063\n")
    forwards = [
        "6001=127.0.0.1:40001",
        "6002=tcp:127.0.0.1:40003:timeout=3",
        "6003=localhost:40005",
    ]
    programs = Programs(directory, forwards, "tcp:127.0.0.1:9000")
    for port in (6001, 6002, 6003):
        programs.forwarding(port)
    said = {visit(port, b"ping") for port in (6001, 6002, 6003) for _ in range(150)}
    echo("127.0.0.1", 40001, b"back")
    back = visit(6001)
    programs.stop()
    return {"said": sorted(each.decode() for each in said), "back": back.decode()}


def main(kind: str, where: str) -> None:
    directory = Path(where)
    sh("ip", "link", "set", "lo", "up")
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (directory / "hosts").write_text(
        "127.0.0.1 localhost My_Server my_db--1\n::1 localhost\n"
    )
    for name in ("resolv.conf", "hosts"):
        sh("mount", "--bind", str(directory / name), f"/etc/{name}")
    os.environ["PYTHONUNBUFFERED"] = "1"
    worlds = {"stuck": stuck, "moved": moved, "itself": itself}
    print(json.dumps(worlds[kind](directory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
