"""
What a tunnel's programs cost while something is measured, and where their time
goes.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.processes import Failed, cpuSeconds, which

__all__ = ["TOOLS", "Meter", "Profiler", "Running", "Spent", "stacks", "table"]

TOOLS = ("py-spy", "perf")
"""The programs that can take profiles."""

_PERF_COLUMNS = re.compile(r"^\s*([\d.]+)%\s+(.*\S)\s*$")


class Running(Protocol):
    """
    A tunnel that runs.

    @ivar servers: Process ids at the public side.
    @ivar clients: Process ids beside the service.
    """

    servers: list[int]
    clients: list[int]


@dataclass
class Spent:
    """
    Processor time, filled in when the measurement is over.

    @ivar server: Seconds, user and system, of the public side.
    @ivar client: The same beside the service.
    """

    server: float = 0.0
    client: float = 0.0

    @property
    def both(self) -> float:
        """Seconds of both sides."""
        return self.server + self.client


class Meter:
    """
    Watches a tunnel's programs during a part of a load.

    @param profiler: Takes profiles, where they are wanted.
    @param name: What is measured, the first part of the profiles' names.
    """

    def __init__(self, profiler: Profiler | None = None, name: str = "") -> None:
        self._profiler = profiler
        self._name = name

    @contextmanager
    def during(self, phase: str, tunnel: Running) -> Iterator[Spent]:
        """
        Measure for as long as the context lasts.

        @param phase: Which part of the load this is.
        """
        spent = Spent()
        sides = {"server": tunnel.servers, "client": tunnel.clients}
        before = {side: cpuSeconds(pids) for side, pids in sides.items()}
        if self._profiler is None:
            yield spent
        else:
            with self._profiler.take(f"{self._name}-{phase}", sides):
                yield spent
        spent.server = cpuSeconds(tunnel.servers) - before["server"]
        spent.client = cpuSeconds(tunnel.clients) - before["client"]


class Profiler:
    """
    Takes profiles of processes.

    @param directory: Where they go, with a table beside each one.
    @param tool: One of L{TOOLS}. py-spy shows Python's functions, perf those
        of C and of the kernel.
    @param rate: Samples per second.
    """

    def __init__(self, directory: Path, tool: str = "py-spy", rate: int = 250) -> None:
        self._directory = directory.resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._tool = tool
        self._rate = rate
        program = which(f"BENCH_{tool.replace('-', '').upper()}", tool)
        if program is None:
            raise Failed(f"no {tool} to take profiles with; see docs/performance.rst")
        self._program = program
        self.written: list[Path] = []

    @contextmanager
    def take(self, name: str, sides: dict[str, list[int]]) -> Iterator[None]:
        """
        Take profiles for as long as the context lasts.

        @param sides: Process ids by the side's name. A side of several
            processes is shown by the first.
        """
        taking = []
        for side, pids in sides.items():
            if not pids:
                continue
            path = self._directory / f"{name}-{side}".replace(" ", "_")
            with open(f"{path}.log", "wb") as log:
                taking.append(
                    (
                        path,
                        subprocess.Popen(
                            self._command(path, pids[0]),
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=log,
                        ),
                    )
                )
        try:
            yield
        finally:
            for _, program in taking:
                program.send_signal(signal.SIGINT)
            for path, program in taking:
                try:
                    program.wait(20)
                except subprocess.TimeoutExpired:
                    program.kill()
                    program.wait()
                self._summarize(path)

    def _command(self, path: Path, pid: int) -> list[str]:
        """The command that takes one process's profile until it is interrupted."""
        if self._tool == "perf":
            return [
                *(self._program, "record", "-q", "-g", "-e", "cpu-clock"),
                *("-F", str(self._rate), "-o", f"{path}.data", "-p", str(pid)),
            ]
        return [
            *(self._program, "record", "-f", "raw", "-r", str(self._rate)),
            *("-d", "unlimited", "-o", f"{path}.raw", "-p", str(pid)),
        ]

    def _summarize(self, path: Path) -> None:
        """Write the table of a profile."""
        if self._tool == "perf":
            text = self._perf(path)
        else:
            raw = Path(f"{path}.raw")
            text = table(raw.read_text().splitlines()) if raw.exists() else ""
        result = Path(f"{path}.txt")
        if not text:
            text = f"no samples: {Path(f'{path}.log').read_text(errors='replace')}"
        result.write_text(f"{path.name}, by {self._tool}\n\n{text}")
        self.written.append(result)

    def _perf(self, path: Path) -> str:
        """Have perf write its table: first whole libraries, then functions."""
        parts = []
        for columns in ("dso", "dso,symbol"):
            done = subprocess.run(
                [
                    *(self._program, "report", "--stdio", "--no-children"),
                    *("-g", "none", "-s", columns, "-i", f"{path}.data"),
                ],
                capture_output=True,
                text=True,
            )
            lines = [
                f"{float(found[1]):6.1f}%  {found[2]}"
                for line in done.stdout.splitlines()
                if (found := _PERF_COLUMNS.match(line))
            ]
            if lines:
                parts.append("\n".join([f"by {columns}", *lines[:40], ""]))
        return "\n".join(parts)


def stacks(lines: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    """
    Read py-spy's raw format.

    @param lines: C{OUTER (FILE:LINE);...;INNER (FILE:LINE) SAMPLES}.
    @return: Frames, outermost first, and how often they were seen.
    """
    for line in lines:
        text, _, count = line.rpartition(" ")
        if text and count.isdecimal():
            yield text.split(";"), int(count)


def table(lines: Iterable[str], most: int = 40) -> str:
    """
    Write where the time of a profile went.

    @param lines: py-spy's raw format.
    @param most: Rows of each part.
    @return: Three parts: functions by their own time, lines by their own time,
        and functions by the time within them. Empty without samples.
    """
    own: Counter[str] = Counter()
    ownLine: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for frames, count in stacks(lines):
        names = [_function(frame) for frame in frames]
        total += count
        own[names[-1]] += count
        ownLine[_short(frames[-1])] += count
        for name in set(names):
            within[name] += count
    if not total:
        return ""
    # What is always there, the start of the program, says nothing.
    for name in [name for name, count in within.items() if count >= total * 0.99]:
        del within[name]
    parts = []
    for title, counted in (
        ("own time, by function", own),
        ("own time, by line (a call into C counts for the line)", ownLine),
        ("time within, with everything it calls", within),
    ):
        rows = [
            f"{100 * count / total:6.1f}%  {name}"
            for name, count in counted.most_common(most)
        ]
        parts.append("\n".join([title, *rows, ""]))
    return "\n".join([f"{total} samples", "", *parts])


def _short(frame: str) -> str:
    """Take the way to site-packages or the checkout off a frame's file."""
    return re.sub(r"\((?:.*/)?(?:site-packages|lib/python[\d.]+)/", "(", frame)


def _function(frame: str) -> str:
    """Take the line off a frame."""
    return re.sub(r":\d+\)$", ")", _short(frame))
