"""
The programs that a benchmark runs, and what they cost.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["Failed", "Room", "cpuSeconds", "family", "freePort", "memory", "which"]

_TICKS = os.sysconf("SC_CLK_TCK")
_ELSEWHERE = os.pathsep.join(
    (
        str(Path(sys.executable).parent),
        str(Path.home() / ".cargo" / "bin"),
        "/usr/local/sbin",
        "/usr/sbin",
        "/sbin",
    )
)


class Failed(Exception):
    """Something could not be measured; the message says why."""


_PORTS = range(15000, 32000)
"""Below those that Linux gives to outgoing connections, of which there are
thousands."""

_given: set[int] = set()


def freePort() -> int:
    """Find a port that nobody uses now, another one each time."""
    for _ in range(1000):
        port = random.choice(_PORTS)
        if port in _given:
            continue
        try:
            with socket.create_server(("127.0.0.1", port)):
                pass
            if socket.has_dualstack_ipv6():
                # Some listen on everything.
                with socket.create_server(("::", port), family=socket.AF_INET6):
                    pass
        except OSError:
            continue
        _given.add(port)
        return port
    raise Failed("there is no free port")


def which(variable: str, *names: str) -> str | None:
    """
    Find a program.

    @param variable: An environment variable that may hold its path.
    @param names: What it is called on PATH, or in the directory of built programs
        that C{BENCH_PEERS} names.
    """
    given = os.environ.get(variable)
    if given:
        return given
    built = os.environ.get("BENCH_PEERS", "")
    for name in names:
        found = built and shutil.which(name, path=built)
        found = found or shutil.which(name) or shutil.which(name, path=_ELSEWHERE)
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
        for log in self.directory.glob("*.log"):
            # What another run said there would be taken for ours.
            log.unlink()
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

    def start(self, name: str, command: Sequence[str], keep: Sequence[int] = ()) -> int:
        """
        Start a program; what it says goes to C{name}.log.

        @param keep: Descriptors that it gets.
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
                pass_fds=keep,
            )
        self._running.append(child)
        return child.pid

    def said(self, name: str) -> str:
        """What a program has said so far."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def stop(self, pids: Iterable[int], how: int = signal.SIGTERM) -> None:
        """
        End programs and wait for that.

        @param pids: Ours, or what ours have started.
        """
        wanted = set(pids)
        ours = {child.pid for child in self._running}
        for pid in wanted - ours:
            with suppress(ProcessLookupError):
                os.kill(pid, how)
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

    def runs(self, pid: int) -> bool:
        """Whether one of our programs has not ended."""
        return any(child.pid == pid and child.poll() is None for child in self._running)

    def waitForPort(
        self, port: int, seconds: float = 20.0, host: str = "127.0.0.1"
    ) -> None:
        """
        Wait until something accepts connections.

        @raise Failed: With what the programs said.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((host, port)) == 0:
                    return
            if any(child.poll() is not None for child in self._running):
                break
            time.sleep(0.05)
        raise Failed(f"nothing listens on port {port}: {self._lastWords()}")

    def waitForText(self, name: str, text: str, seconds: float = 20.0) -> str:
        """
        Wait until a program has said C{text}.

        @return: The last such line.
        @raise Failed: With what the programs said.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in reversed(self.said(name).splitlines()):
                if text in line:
                    return line
            time.sleep(0.05)
        raise Failed(f"{name} never said {text!r}: {self._lastWords()}")

    def _lastWords(self) -> str:
        """The last line of each log."""
        words = []
        for path in sorted(self.directory.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            words.append(f"{path.stem}: {lines[-1] if lines else 'nothing'}")
        return "; ".join(words)


def cpuSeconds(pids: Iterable[int]) -> float:
    """User and system time that processes and their children have used."""
    total = 0
    for pid in pids:
        for each in family(pid):
            try:
                text = Path(f"/proc/{each}/stat").read_text()
            except OSError:
                continue
            fields = text.rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def memory(pids: Iterable[int]) -> int:
    """
    Bytes of memory that processes have asked for. What belongs to files is not
    counted: it changes when others map the same libraries.
    """
    total = 0
    for pid in pids:
        for each in family(pid):
            try:
                text = Path(f"/proc/{each}/smaps_rollup").read_text()
            except OSError:
                continue
            for line in text.splitlines():
                if line.startswith("Pss_Anon:"):
                    total += int(line.split()[1]) * 1024
    return total


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return found
    for child in children:
        found += family(int(child))
    return found
