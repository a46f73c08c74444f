"""
Half an hour of coming and going; memory, descriptors and timers stay flat.

C{python -m benchmarks.faults --only soak}, with C{--set minutes=30}, C{--set
pace=1} and C{--set plot=FILE.png}. A server with C{--auth}; clients that stay:
one that dials visitors directly and has a UDP service, one whose connection is
cut every now and then, one of vtunnel's dialect, one of zlayer's, one over two
sessions; around them L{benchmarks.faults.churn}.

After a warm-up of a sixth of the time the rest is cut in three. What a process
has in the median of the last third is compared with the first. At the end all
load stops, and what a process has then is compared with what it had at rest
before.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.faults.churn import Churn, Cutter, Target, echo, echoDatagrams
from benchmarks.faults.plot import Curve, drawn, saved
from benchmarks.faults.proof import Options, Row
from benchmarks.processes import Failed, Room, freePort

__all__ = ["prove"]

INTERVAL = 5.0
"""Seconds between two looks, at the most."""

LEASE = 10
"""Seconds for which the server keeps what a client had that is gone."""

REST = 45.0
"""Seconds until nothing is left of what has come to an end: leases, UDP
visitors, descriptors that closing connections hold."""

_LOGIN = ("soak", "not-a-secret-at-all")


@dataclass(frozen=True)
class Figure:
    """
    Something that should be flat.

    @ivar unit: What it is counted in.
    @ivar share: By which part of itself it may differ.
    @ivar few: How much is nothing: what chance does in a third of a run.
    """

    unit: str
    share: float
    few: float


FIGURES = {
    "memory": Figure("MiB", 0.05, 4.0),
    "descriptors": Figure("", 0.10, 12.0),
    "timers": Figure("", 0.10, 12.0),
    "objects": Figure("", 0.05, 3000.0),
}


@dataclass
class Watched:
    """
    A process under watch.

    @ivar name: What to call it.
    @ivar pid: Its process id.
    @ivar report: Where L{benchmarks.faults.watched} writes.
    @ivar seconds: When it was looked at.
    @ivar seen: What was seen then, by figure.
    """

    name: str
    pid: int
    report: Path
    seconds: list[float] = field(default_factory=list)
    seen: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in FIGURES}
    )

    def look(self) -> dict[str, float]:
        """See what it has."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        found = {
            "memory": int(pages) * os.sysconf("SC_PAGESIZE") / 2**20,
            "descriptors": len(os.listdir(f"/proc/{self.pid}/fd")),
            **json.loads(self.report.read_text()),
        }
        return {name: float(found[name]) for name in FIGURES}

    def note(self, second: float) -> None:
        """See, and remember."""
        self.seconds.append(second)
        for name, value in self.look().items():
            self.seen[name].append(value)


class _World:
    """
    Server, clients and services.

    @param room: Where they run.
    @param chance: Decides.
    """

    def __init__(self, room: Room, chance: random.Random) -> None:
        self.room = room
        self.chance = chance
        self.port = freePort()
        self.watched: list[Watched] = []
        self._names = itertools.count()

    def _start(self, name: str, *words: str) -> Watched:
        """Start a program of ours under watch."""
        report = self.room.directory / f"{name}.json"
        pid = self.room.start(
            name,
            [
                sys.executable,
                "-m",
                "benchmarks.faults.watched",
                str(report),
                "-n",
                "--pidfile=",
                *words,
                f"--state-dir={self.room.directory / name}",
            ],
        )
        return Watched(name, pid, report)

    def _client(self, name: str, connect: str, *words: str) -> Watched:
        """Start a client."""
        return self._start(
            name,
            "tunnel-client",
            f"--connect={connect}",
            f"--credentials-file={self.room.directory / 'credentials'}",
            *words,
        )

    async def _port(self, name: str, kind: str = "tcp") -> int:
        """Wait for a client to say its address."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            for line in self.room.said(name).splitlines():
                if line.startswith(f"{kind}://"):
                    return int(line.rpartition(":")[2])
            await asyncio.sleep(0.2)
        raise Failed(f"{name} has no address: {self.room.said(name)[-500:]}")

    async def build(self) -> Churn:
        """Start everything that stays."""
        room = self.room
        name, secret = _LOGIN
        accounts = room.write("clients", f"{name}:{secret}\n")
        room.write("credentials", json.dumps({"id": name, "secret": secret}))
        os.chmod(room.directory / "credentials", 0o600)
        self._service = await echo()
        service = self._service.sockets[0].getsockname()[1]
        datagrams = await echoDatagrams()
        server = self._start(
            "server",
            "tunnel",
            f"--port=tcp:{self.port}:interface=127.0.0.1",
            "--interface=127.0.0.1",
            "--hostname=127.0.0.1",
            f"--auth=clients:{accounts}",
            f"--lease={LEASE}",
            "--udp-idle=10",
            "--direct-udp",
        )
        room.waitForPort(self.port)
        cutter = Cutter(self.port)
        broken = await cutter.start()
        here, forward = f"tcp:127.0.0.1:{self.port}", f"--forward=0=127.0.0.1:{service}"
        stay = {
            "direct": (here, forward, f"--forward=udp/0=127.0.0.1:{datagrams}"),
            "cut": (f"tcp:127.0.0.1:{broken}", forward, "--carrier=session"),
            "two": (here, forward, "--carrier=session", "--sessions=2"),
            "vtunnel": (
                f"ws://127.0.0.1:{self.port}/tunnel",
                "--dialect=vtunnel",
                f"--header=Authorization=Bearer {name}:{secret}",
                f"--forward={freePort()}=127.0.0.1:{service}",
            ),
            "zlayer": (
                f"ws://127.0.0.1:{self.port}/tunnel/v1",
                "--dialect=zlayer",
                f"--token-file={room.write('token', f'{name}:{secret}')}",
                f"--forward={_zlayerPort()}=127.0.0.1:{service}",
            ),
        }
        os.chmod(room.directory / "token", 0o600)
        for each, (connect, *words) in stay.items():
            self.watched.append(self._client(each, connect, *words))
        self.watched.insert(0, server)
        targets = []
        for each, (_, *words) in stay.items():
            if each in ("vtunnel", "zlayer"):
                # These dialects have no answer that says where visitors come.
                port = int(words[-1].partition("=")[2].partition("=")[0])
                room.waitForPort(port)
            else:
                port = await self._port(each)
            targets.append(Target(each, port, each == "cut"))
        return Churn(
            self.port,
            targets,
            await self._port("direct", "udp"),
            cutter,
            _LOGIN,
            self.newcomer,
            self.chance,
        )

    async def newcomer(self) -> None:
        """A client that comes, is visited, and goes: in order, or killed."""
        name = f"newcomer{next(self._names)}"
        service = self._service.sockets[0].getsockname()[1]
        here, forward = f"tcp:127.0.0.1:{self.port}", f"--forward=0=127.0.0.1:{service}"
        process = self._client(name, here, forward)
        try:
            port = await self._port(name)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            heard = await reader.readexactly(5)
            writer.close()
            if heard != b"hello":
                raise OSError("other bytes came back")
        finally:
            how = self.chance.choice((15, 9))
            await asyncio.to_thread(self.room.stop, [process.pid], how)
            with suppress(FileNotFoundError):
                (self.room.directory / f"{name}.log").unlink()

    def note(self, second: float) -> None:
        """Look at everybody."""
        for each in self.watched:
            each.note(second)

    def tracebacks(self) -> list[str]:
        """What was logged that nobody should see."""
        return [
            each.name
            for each in self.watched
            if "Traceback (most recent call last)" in self.room.said(each.name)
        ]


def _zlayerPort() -> int:
    """Find a free port among those that zlayer's clients get."""
    for port in range(30000, 31001):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise Failed("no port from 30000 to 31000 is free")


async def _until(world: _World, seconds: float, began: float) -> None:
    """Let time pass, and look now and then."""
    ends = time.monotonic() + seconds
    interval = min(INTERVAL, seconds / 20)
    while (left := ends - time.monotonic()) > 0:
        await asyncio.sleep(min(interval, left))
        world.note(time.monotonic() - began)


async def _soak(
    world: _World, minutes: float, pace: float
) -> tuple[Churn, list[dict[str, float]], list[dict[str, float]], tuple[float, float]]:
    """
    Do it.

    @return: What came and went, what everybody had at rest before and after,
        and when the load began and ended.
    """
    churn = await world.build()
    began = time.monotonic()

    async def load(seconds: float) -> None:
        running = churn.start(pace)
        await _until(world, seconds, began)
        for task in running:
            task.cancel()
        await churn.finish()

    # Once through everything, so that what is made once is there.
    await load(min(60.0, minutes * 6))
    await _until(world, REST, began)
    before = [each.look() for each in world.watched]
    start = time.monotonic() - began
    await load(minutes * 60)
    end = time.monotonic() - began
    await _until(world, REST, began)
    after = [each.look() for each in world.watched]
    return churn, before, after, (start, end)


def _thirds(
    each: Watched, figure: str, span: tuple[float, float]
) -> tuple[float, float]:
    """The medians of the first and the last third, after the warm-up."""
    start, end = span
    start += (end - start) / 6
    third = (end - start) / 3
    pairs = list(zip(each.seconds, each.seen[figure], strict=True))
    first = [value for second, value in pairs if start <= second < start + third]
    last = [value for second, value in pairs if end - third < second <= end]
    return median(first), median(last)


def _isFlat(figure: Figure, first: float, last: float) -> bool:
    """Whether something has not grown."""
    return last - first <= max(figure.few, figure.share * first)


def prove(options: Options) -> Iterator[Row]:
    """Run, draw and judge."""
    minutes = options.number("minutes", 30.0, 1.0)
    pace = options.number("pace", 1.0, 1.0)
    os.environ["PYTHONPATH"] = os.getcwd()
    with Room(options.directory) as room:
        world = _World(room, random.Random(options.seed))
        churn, before, after, span = asyncio.run(_soak(world, minutes, pace))
        tracebacks = world.tracebacks()
        for name in tracebacks:
            text = room.said(name)
            at = text.find("Traceback (most recent call last)")
            print(f"{name}: {text[max(0, at - 300) : at + 3000]}", file=sys.stderr)
    server = world.watched[0]
    curves = [
        Curve(f"{each.name}: {name}", figure.unit, each.seconds, each.seen[name])
        for each in world.watched
        for name, figure in FIGURES.items()
    ]
    for curve in curves[: len(FIGURES)]:
        print(f"\n{drawn(curve)}", file=sys.stderr)
    kinds = sorted({*churn.done, *churn.lost, *churn.broken})
    for kind in kinds:
        told = f"{churn.done[kind]:,} done, {churn.lost[kind]} lost"
        if churn.broken[kind]:
            told += f", {churn.broken[kind]} broke by a cut"
        if kind in churn.why:
            told += f" ({churn.why[kind]})"
        yield Row(kind, told, churn.lost[kind] == 0)
    for each, was, is_ in zip(world.watched, before, after, strict=True):
        for name, figure in FIGURES.items():
            first, last = _thirds(each, name, span)
            digits = 1 if name == "memory" else 0
            unit = f" {figure.unit}" if figure.unit else ""
            yield Row(
                f"{each.name}: {name}",
                f"first third {first:,.{digits}f}{unit}, last third"
                f" {last:,.{digits}f}{unit}; at rest {was[name]:,.{digits}f}{unit}"
                f" before, {is_[name]:,.{digits}f}{unit} after",
                _isFlat(figure, first, last) and _isFlat(figure, was[name], is_[name]),
            )
    yield Row("tracebacks in the logs", ", ".join(tracebacks) or "none", not tracebacks)
    yield Row(
        "how long",
        f"{minutes:g} minutes, {len(server.seconds)} looks, {churn.cutter.cuts} cuts",
    )
    picture = options.words.get("plot")
    if picture:
        done = saved(curves, Path(picture))
        yield Row("picture", picture if done else "needs matplotlib")
