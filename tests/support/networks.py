"""
Machines of a test: network namespaces, joined by a switch, and cables that are cut.

They need root, and C{ip} of iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tristunnel
from tests.support.processes import TWISTD, Program

__all__ = ["ECHO", "IP", "ROOT", "Network", "ip", "whyNoNetworks"]

IP = shutil.which("ip") or ""

ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256
with Server(("127.0.0.1", 80), Echo) as server:
    print("echo is ready", flush=True)
    server.serve_forever()
"""
"""A service at port 80 that says C{echo is ready}."""

ROOT = str(Path(tristunnel.__file__).parent.parent)
"""Where C{tristunnel} is imported from."""

_NOBODY = "02:00:00:00:00:01"


def whyNoNetworks() -> str:
    """Say why there can be no namespaces here, or nothing."""
    if os.geteuid() or not IP:
        return "network namespaces need root and iproute2's ip"
    return ""


def ip(*words: str) -> None:
    """Run C{ip}."""
    subprocess.run([IP, *words], check=True, timeout=10)


def _port(name: str) -> str:
    """What the switch calls the cable of a machine."""
    return f"to-{name}"


class Network:
    """
    Machines at a switch.

    @param reactor: Starts programs.
    @param directory: Where they run.
    @param names: What the machines are called: a letter each. The first one has the
        address 10.214.0.1, and so on.
    """

    def __init__(self, reactor: Any, directory: Path, names: str) -> None:
        self._reactor = reactor
        self._directory = directory
        self._spaces = {name: f"tt{os.getpid()}{name}" for name in names}
        self._switch = f"tt{os.getpid()}switch"
        self.addresses = {
            name: f"10.214.0.{number}" for number, name in enumerate(names, 1)
        }

    def begin(self) -> None:
        """Make them."""
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self._switch, "link", "set", "switch", "up")
        for name, space in self._spaces.items():
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
            ip(
                *("-n", space, "link", "add", "cable", "type", "veth"),
                *("peer", "name", _port(name), "netns", self._switch),
            )
            where = f"{self.addresses[name]}/24"
            ip("-n", space, "address", "add", where, "dev", "cable")
            ip("-n", space, "link", "set", "cable", "up")
            ip(
                *("-n", self._switch, "link", "set", "dev", _port(name)),
                *("master", "switch", "up"),
            )

    def end(self) -> None:
        """Take them apart."""
        for space in (*self._spaces.values(), self._switch):
            subprocess.run([IP, "netns", "delete", space], timeout=10, check=False)
            shutil.rmtree(f"/etc/netns/{space}", ignore_errors=True)

    def call(self, name: str, host: str, *machines: str) -> None:
        """Have a machine know others by a name, all of them."""
        place = Path("/etc/netns") / self._spaces[name]
        place.mkdir(parents=True, exist_ok=True)
        lines = [f"{self.addresses[each]} {host}\n" for each in machines]
        (place / "hosts").write_text("127.0.0.1 localhost\n" + "".join(lines))

    def within(self, name: str) -> tuple[str, ...]:
        """What to run a program by that is to run on a machine."""
        return IP, "netns", "exec", self._spaces[name]

    def cut(self, name: str) -> None:
        """Pull a machine's cable, at the switch: it notices nothing."""
        ip("-n", self._switch, "link", "set", "dev", _port(name), "down")

    def mend(self, name: str) -> None:
        """Put it back."""
        ip("-n", self._switch, "link", "set", "dev", _port(name), "up")

    def part(self, one: str, other: str) -> None:
        """Have two machines hear no more of each other, and of all others they do."""
        for here, there in ((one, other), (other, one)):
            ip(
                *("-n", self._spaces[here], "neigh", "replace"),
                *(self.addresses[there], "lladdr", _NOBODY, "dev", "cable"),
                *("nud", "permanent"),
            )

    def rejoin(self, one: str, other: str) -> None:
        """End that."""
        for here, there in ((one, other), (other, one)):
            ip(
                *("-n", self._spaces[here], "neigh", "delete"),
                *(self.addresses[there], "dev", "cable"),
            )

    def run(self, name: str, what: str, arguments: Sequence[str]) -> Program:
        """
        Start a program of Python's on a machine.

        @param what: What to call it.
        """
        program = Program(what)
        self._reactor.spawnProcess(
            program,
            IP,
            [*self.within(name), sys.executable, "-u", *arguments],
            env={**os.environ, "PYTHONPATH": ROOT},
            path=str(self._directory),
        )
        return program

    def twistd(self, name: str, command: str, *options: str) -> Program:
        """Start one of our own commands on a machine."""
        state = str(self._directory / f"{command}-{name}")
        return self.run(
            name,
            f"{command} at {name}",
            ["-c", TWISTD, "-n", "--pidfile=", command, *options, "--state-dir", state],
        )
