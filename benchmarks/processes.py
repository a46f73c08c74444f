"""
The programs that a benchmark runs, and what they cost.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["Failed", "Room", "freePort", "which"]

_TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """
    Something could not be measured; the message says why.
    """


def freePort() -> int:
    """
    Find a port that nobody uses now.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def which(variable: str, *names: str) -> str | None:
    """
    Find a program.

    @param variable: An environment variable that may hold its path.
    @param names: What it is called on PATH.
    """
    given = os.environ.get(variable)
    if given:
        return given
    for name in names:
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if found:
            return found
    return None


class Room:
    """
    A directory, and the programs that run in it until it is left.

    @param directory: Where logs and configurations go.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop(child.pid for child in self._running)

    def write(self, name: str, text: str) -> str:
        """
        Write a file.

        @return: Its path.
        """
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def start(self, name: str, command: Sequence[str]) -> int:
        """
        Start a program; what it says goes to C{name}.log.

        @return: Its process id.
        """
        with open(self.directory / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(child)
        return child.pid

    def said(self, name: str) -> str:
        """
        What a program has said so far.
        """
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def stop(self, pids: Iterable[int], how: int = signal.SIGTERM) -> None:
        """
        End programs and wait for that.
        """
        wanted = set(pids)
        leaving = [child for child in self._running if child.pid in wanted]
        for child in leaving:
            if child.poll() is None:
                child.send_signal(how)
        for child in leaving:
            try:
                child.wait(3)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdin is not None:
                child.stdin.close()
            self._running.remove(child)

    def waitForPort(self, port: int, seconds: float = 20.0) -> None:
        """
        Wait until something accepts connections.

        @raise Failed: With what the programs said.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if any(child.poll() is not None for child in self._running):
                break
            time.sleep(0.05)
        raise Failed(f"nothing listens on port {port}: {self._lastWords()}")

    def waitForText(self, name: str, text: str, seconds: float = 20.0) -> str:
        """
        Wait until a program has said C{text}.

        @return: The line.
        @raise Failed: With what the programs said.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in self.said(name).splitlines():
                if text in line:
                    return line
            time.sleep(0.05)
        raise Failed(f"{name} never said {text!r}: {self._lastWords()}")

    def _lastWords(self) -> str:
        """
        The last line of each log.
        """
        words = []
        for path in sorted(self.directory.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            words.append(f"{path.stem}: {lines[-1] if lines else 'nothing'}")
        return "; ".join(words)


def cpuSeconds(pids: Iterable[int]) -> float:
    """
    User and system time that processes and their children have used.
    """
    total = 0
    for pid in pids:
        for each in _family(pid):
            try:
                text = Path(f"/proc/{each}/stat").read_text()
            except OSError:
                continue
            fields = text.rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def memory(pids: Iterable[int]) -> int:
    """
    Bytes of memory that processes use for themselves.
    """
    total = 0
    for pid in pids:
        for each in _family(pid):
            try:
                text = Path(f"/proc/{each}/smaps_rollup").read_text()
            except OSError:
                continue
            for line in text.splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def _family(pid: int) -> list[int]:
    """
    A process and its descendants.
    """
    found = [pid]
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return found
    for child in children:
        found += _family(int(child))
    return found
