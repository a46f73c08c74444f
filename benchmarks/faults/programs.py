"""
Our own programs, as a proof runs them.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.processes import Failed, Room

__all__ = ["QUICK", "Programs", "Server", "descriptors", "resident"]

_RUN = "from twisted.scripts.twistd import run; run()"
_ADDRESS = re.compile(r"^(?:tcp|tls|ws|wss)://\S+$", re.MULTILINE)
_LISTENING = re.compile(r"Listening for clients on [^\n]*?:(\d+)\b")

QUICK = {
    "tristunnel.dialects.framed.liveness": {"DEADLINE": 3.0, "PING_INTERVAL": 1.0},
    "tristunnel.dialects.framed.session": {"TICK": 0.25},
    "tristunnel.dialects.framed.moves": {"BLOCKED": 1.0, "PATIENCE": 1.0},
    "tristunnel.dialects.base.awaited": {"PATIENCE": 3.0},
    "tristunnel.dialects.base.client": {
        "LONGEST_DELAY": 0.5,
        "FIRST_DELAY": 0.5,
    },
    "tristunnel.dialects.zlayer.client_service": {
        "LONGEST_DELAY": 1.0,
        "FIRST_DELAY": 0.5,
    },
    "tristunnel.dataplane.endings": {
        "DEADLINE": 3.0,
        "TICK": 0.25,
        "SOON": 0.5,
        "ALONE": 6.0,
    },
}
"""Constants of our programs, by module, that make them give up in seconds where
they give up in a minute, so that a proof ends in minutes and not in hours."""


START = 60.0
"""Seconds in which a program must have started, on a machine that is busy."""


def resident(pid: int) -> float:
    """A process's memory, in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


class Programs:
    """
    Starts our programs.

    @param room: Where they run.
    @param constants: What is changed in them before they begin.
    @param before: Other code that runs first.
    """

    def __init__(
        self,
        room: Room,
        constants: dict[str, dict[str, float]] | None = None,
        before: str = "",
    ) -> None:
        self.room = room
        self._constants = constants or {}
        self._before = before

    def start(self, name: str, command: str, *options: str, before: str = "") -> int:
        """
        Start one.

        @param name: What its log is called.
        @param command: C{tunnel} or C{tunnel-client}.
        @param before: More code that runs first.
        @return: Its process id.
        """
        lines = [self._before, before]
        for module, values in self._constants.items():
            lines.append(f"import {module} as m")
            lines += [f"m.{key} = {value!r}" for key, value in values.items()]
        code = "\n".join([*lines, _RUN])
        state = self.room.directory / f"{name}-state"
        words = [sys.executable, "-c", code, "-n", "--pidfile=", command, *options]
        return self.room.start(name, [*words, f"--state-dir={state}"])

    def client(self, name: str, *options: str, before: str = "") -> tuple[int, str]:
        """
        Start a client and wait for its tunnel.

        @return: Its process id, and the address for visitors.
        """
        pid = self.start(name, "tunnel-client", *options, before=before)
        return pid, self.address(name)

    def address(self, name: str, seconds: float = START) -> str:
        """
        Wait for the last address that a client has printed.

        @raise Failed: If it prints none.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found: list[str] = _ADDRESS.findall(self.room.said(name))
            if found:
                return found[-1]
            time.sleep(0.05)
        raise Failed(f"{name} has no tunnel: {self.room.said(name)[-2000:]}")


class Server:
    """
    A server, and calls to it.

    @ivar pid: Its process id.
    @ivar ports: The ports where clients connect, in the order of the options.
    """

    def __init__(
        self, programs: Programs, name: str, ports: list[str], *options: str
    ) -> None:
        self.name = name
        self._room = programs.room
        where = [f"--port={port}" for port in ports]
        here = ["--interface=127.0.0.1", "--hostname=127.0.0.1"]
        self.pid = programs.start(name, "tunnel", *where, *here, *options)
        until = time.monotonic() + START
        while time.monotonic() < until:
            found = _LISTENING.findall(self._room.said(name))
            if len(found) >= len(ports):
                break
            time.sleep(0.05)
        else:
            raise Failed(f"{name} does not listen: {self._room.said(name)[-2000:]}")
        self.ports = [int(port) for port in found]

    def call(self, method: str, **params: object) -> Any:
        """
        Call a method over HTTP on the first port.

        @raise Failed: With what the server said.
        """
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[0]}/rpc",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            message = json.loads(answer.read())
        if "error" in message:
            raise Failed(f"{method}: {message['error']}")
        return message["result"]
