"""
Feed what is nearly right to everything that reads a stranger's bytes.

C{python -m benchmarks.faults.fuzz --seconds 300}, or C{--inputs 10000000}.
Exit status 1 if anything broke; the input is printed, and C{--seed} repeats it.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.targets import SEEDS, TARGETS, Broken, Doors, mutate

SLOW = 1.0
"""Seconds that one input may take."""

GROWTH = 16 * 1024 * 1024
"""Bytes by which memory may grow in all, after the warming up."""

_ROUND = 500


def _resident() -> int:
    """
    How much memory this process has, in bytes.
    """
    gc.collect()
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


@dataclass
class _Result:
    """
    What came of one target.
    """

    inputs: int = 0
    accepted: int = 0
    size: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    broken: list[str] = field(default_factory=list)


def _feed(
    target: Callable[[bytes], bool],
    seeds: Sequence[bytes],
    chance: random.Random,
    count: int,
    result: _Result,
) -> None:
    """
    Feed a target.
    """
    clock = time.perf_counter
    for _ in range(count):
        data = mutate(seeds, chance)
        began = clock()
        try:
            accepted = target(data)
        except Broken as problem:
            result.broken.append(f"{problem}: {data!r}")
            accepted = False
        except Exception as error:
            result.broken.append(f"{error!r}: {data!r}")
            accepted = False
        took = clock() - began
        if took > SLOW:
            result.broken.append(f"took {took:.1f} s: {data[:300]!r}")
        result.inputs += 1
        result.accepted += accepted
        result.size += len(data)
        result.seconds += took
        result.slowest = max(result.slowest, took)


def main(arguments: Sequence[str]) -> int:
    """
    Run, and print the table.

    @return: The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--inputs", type=int, default=0, help="instead of seconds")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)
    doors = Doors()
    targets: dict[str, Callable[[bytes], bool]] = {**TARGETS, "doors": doors}
    results = {name: _Result() for name in targets}
    for name, target in targets.items():
        _feed(target, SEEDS[name], chance, _ROUND, _Result())
    before = _resident()
    began, done = time.monotonic(), 0
    while (
        done < options.inputs
        if options.inputs
        else time.monotonic() - began < options.seconds
    ):
        for name, target in targets.items():
            _feed(target, SEEDS[name], chance, _ROUND, results[name])
            done += _ROUND
        if sum(len(result.broken) for result in results.values()) > 20:
            break
    took, growth = time.monotonic() - began, _resident() - before
    print(
        f"{'target':<10} {'inputs':>10} {'accepted':>9} {'bytes':>13}"
        f" {'inputs/s':>9} {'slowest ms':>10} {'broken':>6}"
    )
    for name, result in results.items():
        print(
            f"{name:<10} {result.inputs:>10,} {result.accepted / result.inputs:>9.1%}"
            f" {result.size:>13,} {result.inputs / result.seconds:>9,.0f}"
            f" {result.slowest * 1000:>10.1f} {len(result.broken):>6}"
        )
    print(
        f"{done:,} inputs in {took:.0f} s ({done / took:,.0f} a second), seed"
        f" {options.seed}; memory grew by {growth / 2**20:.1f} MiB"
    )
    broken = [problem for result in results.values() for problem in result.broken]
    for problem in broken[:20]:
        print(f"BROKEN {problem}")
    return 1 if broken or growth > GROWTH else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
