"""
Feed what is nearly right to everything that reads an unauthenticated peer's bytes.

C{python -m benchmarks.faults --only fuzz}, with C{--set inputs=10000000} for the
framed, WebSocket, JSON-RPC and zlayer parsers together, C{--set others=200000}
for each of the rest, C{--set servers=100000} for each whole server, and C{--set
targets=NAME+NAME} for some alone.

Where atheris is installed (C{pip install tristunnel[fuzz]}), inputs that reach
lines of ours that none has reached before are kept and changed further; where
it is not, the seeds alone are changed. Each target runs in a process of its
own. An input breaks a target if it raises, logs an error, takes more than a
second of processor time, or leaves anything behind; memory must not grow.
"""

from __future__ import annotations

import gc
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.faults.proof import Options, Row

__all__ = ["prove"]

SLOW = 1.0
"""Seconds of processor time that one input may take."""

BLOCKS = 20_000
"""Objects that there may be more of at the end than after the warming up: the
gate remembers a few addresses, and caches fill."""

GROWTH = 64.0
"""MiB by which memory may grow, with what the fuzzer keeps for itself."""

NAMED = ("handshake", "frames", "zlayer", "vtunnel", "jsonrpc")
"""The parsers that share C{inputs}: the framed protocol's two, zlayer's, that of
the WebSocket dialect, and JSON-RPC's."""

LONGEST = 8192
"""Bytes of an input."""

_WARM = 2000
_BROKEN = 20


@dataclass
class Result:
    """What came of one target."""

    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    growth: float = 0.0
    blocks: int = 0
    guided: bool = False
    broken: list[str] = field(default_factory=list)


def _resident() -> float:
    """How much memory this process has, in MiB."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE") / 2**20


class Feeding:
    """
    Feeds a target and notes what comes of it.

    @param target: What is fed.
    @param count: With how many inputs.
    @param report: Where to write what came of it.
    @param guided: Whether somebody looks at the lines that are reached.
    """

    def __init__(
        self, target: Callable[[bytes], bool], count: int, report: Path, guided: bool
    ) -> None:
        self.result = Result(guided=guided)
        self._target = target
        self._count = count
        self._report = report
        self._warm = min(_WARM, count // 2)
        self._began = time.monotonic()
        self._blocks, self._memory = 0, 0.0

    def __call__(self, data: bytes) -> None:
        """Feed an input. After the last one the process ends."""
        result = self.result
        clock = time.process_time
        began = clock()
        try:
            result.accepted += self._target(data)
        except Exception as problem:
            result.broken.append(f"{problem!r}: {data[:600]!r}")
        took = clock() - began
        if took > SLOW:
            result.broken.append(f"took {took:.1f} s: {data[:600]!r}")
        result.slowest = max(result.slowest, took)
        result.inputs += 1
        if result.inputs == self._warm:
            gc.collect()
            self._blocks, self._memory = sys.getallocatedblocks(), _resident()
        if result.inputs >= self._count or len(result.broken) >= _BROKEN:
            self._end()

    def _end(self) -> None:
        """Say what came of it, and leave libFuzzer's loop, which has no end."""
        result = self.result
        result.seconds = time.monotonic() - self._began
        gc.collect()
        result.blocks = sys.getallocatedblocks() - self._blocks
        result.growth = _resident() - self._memory
        self._report.write_text(json.dumps(asdict(result)))
        sys.stderr.flush()
        os._exit(0)


def _targets() -> tuple[Any, Any]:
    """
    Import what is fed, with an eye on the lines that are reached.

    @return: The module of targets, and atheris or C{None}.
    """
    try:
        import atheris
    except ImportError:
        from tests.fuzz import targets

        return targets, None
    # It names every module that it reads.
    with (
        redirect_stderr(StringIO()),
        atheris.instrument_imports(
            include=["tristunnel", "autobahn.websocket", "twisted.protocols.haproxy"]
        ),
    ):
        from tests.fuzz import targets
    return targets, atheris


def _child(
    targets: Any, atheris: Any, name: str, count: int, seed: int, directory: Path
) -> None:
    """Feed one target in this process, which does not return."""
    make = targets.SERVERS.get(name)
    target = targets.PARSERS[name] if make is None else make()
    seeds = targets.SEEDS[name]
    feed = Feeding(target, count, directory / "result", atheris is not None)
    chance = random.Random(seed)
    if atheris is None:
        while True:
            feed(targets.mutate(seeds, chance))

    def change(data: bytes, longest: int, seed: int) -> bytes:
        # libFuzzer knows bytes, and we know what protocols are made of.
        if seed % 2:
            return bytes(atheris.Mutate(data, longest))
        return bytes(targets.mutate([data, *seeds], random.Random(seed))[:longest])

    corpus = directory / "corpus"
    corpus.mkdir()
    for number, each in enumerate(seeds):
        (corpus / str(number)).write_bytes(each)
    atheris.Setup(
        [
            "fuzz",
            str(corpus),
            f"-seed={seed}",
            f"-max_len={LONGEST}",
            "-timeout=60",
            f"-artifact_prefix={directory}/",
            "-len_control=0",
        ],
        feed,
        custom_mutator=change,
    )
    atheris.Fuzz()


def _row(name: str, result: Result, said: str) -> Row:
    """
    Say what came of a target.

    @param said: What the fuzzer said.
    """
    reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", said)
    told = (
        f"{result.inputs:,} inputs ({result.inputs / result.seconds:,.0f} a second),"
        f" {result.accepted / result.inputs:.1%} accepted, slowest"
        f" {result.slowest * 1000:.1f} ms, {result.growth:+.1f} MiB,"
        f" {result.blocks:+,} objects"
    )
    if reached:
        reach, _, kept = map(int, reached[-1])
        first = int(reached[0][0])
        told += f"; {reach:,} places reached ({first:,} by the seeds), {kept:,} kept"
    elif not result.guided:
        told += "; unguided, as there is no atheris"
    if result.broken:
        told += f"; BROKEN {len(result.broken)}"
    good = not result.broken and result.blocks < BLOCKS and result.growth < GROWTH
    return Row(name, told, good)


def _feed(targets: Any, atheris: Any, name: str, count: int, options: Options) -> Row:
    """Feed one target in a process of its own."""
    directory = options.directory / name
    directory.mkdir()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        # Forked, since importing everything again takes longer than a
        # thousand inputs; what the fuzzer says is no row.
        with open(directory / "said", "wb") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        try:
            _child(targets, atheris, name, count, options.seed, directory)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    text = (directory / "said").read_text("utf-8", "replace")
    try:
        result = Result(**json.loads((directory / "result").read_text()))
    except FileNotFoundError:
        print(text[-4000:], file=sys.stderr)
        return Row(name, f"ended with status {status}", False)
    for problem in result.broken:
        print(f"{name} BROKEN {problem}", file=sys.stderr)
    return _row(name, result, text)


def prove(options: Options) -> Iterator[Row]:
    """Feed them all."""
    targets, atheris = _targets()
    inputs = int(options.number("inputs", 10_000_000, 20_000))
    others = int(options.number("others", 200_000, 2_000))
    servers = int(options.number("servers", 100_000, 1_000))
    counts = {
        name: inputs // len(NAMED) if name in NAMED else others
        for name in targets.PARSERS
    }
    counts.update(dict.fromkeys(targets.SERVERS, servers))
    chosen = [name for name in options.words.get("targets", "").split("+") if name]
    unknown = [name for name in chosen if name not in counts]
    if unknown:
        raise SystemExit(f"no such target: {', '.join(unknown)}; {', '.join(counts)}")
    for name in chosen or counts:
        yield _feed(targets, atheris, name, counts[name], options)
