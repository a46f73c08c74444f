"""
C{python -m benchmarks}: the command line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestant import Contestant
from benchmarks.contestants import CONTESTANTS
from benchmarks.loads import LOADS, Figures, Load, Run
from benchmarks.meter import TOOLS, Meter, Profiler
from benchmarks.processes import Failed, Room, which
from benchmarks.report import checks, medians, ratios, tables, targets


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare tristunnel with other tunnels over the loopback"
        " interface. Contestants take turns, round by round.",
    )
    parser.add_argument(
        "--peers", type=Path, help="look there first for built programs (BENCH_PEERS)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of a second each, with fewer visitors and clients",
    )
    parser.add_argument("--json", type=Path, help="keep all figures in this file")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="measure only what the file of --json does not have yet",
    )
    parser.add_argument(
        "--only", default="", help="contestants, comma-separated; parts of names do"
    )
    parser.add_argument("--without", default="", help="those not to measure")
    parser.add_argument("--loads", default="", help="loads, comma-separated")
    parser.add_argument("--list", action="store_true", help="say who can take part")
    parser.add_argument("--pictures", type=Path, help="draw pictures there")
    parser.add_argument(
        "--profile", type=Path, help="put profiles of servers and clients there"
    )
    parser.add_argument("--profile-with", choices=TOOLS, default=TOOLS[0])
    parser.add_argument("--keep", type=Path, help="leave logs in this directory")
    chosen = parser.parse_args(words)
    if chosen.peers:
        os.environ["BENCH_PEERS"] = str(chosen.peers.resolve())
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, 1.0
    if chosen.resume and not chosen.json:
        parser.error("--resume needs --json, the file to go on with")
    return chosen


def _present(wanted: str, unwanted: str) -> list[Contestant]:
    """Choose who takes part."""
    parts = [part for part in wanted.split(",") if part]
    others = [part for part in unwanted.split(",") if part]
    found = []
    for contestant in CONTESTANTS:
        if parts and not any(part in contestant.name for part in parts):
            continue
        if any(part in contestant.name for part in others):
            continue
        missing = contestant.missing()
        if missing:
            print(f"{contestant.name}: not here ({missing})", file=sys.stderr)
        else:
            found.append(contestant)
    return found


def _loads(wanted: str) -> list[Load]:
    """Choose what is measured."""
    names = [name for name in wanted.split(",") if name]
    for name in names:
        if name not in [load.name for load in LOADS]:
            raise Failed(
                f"no load {name}; there are {', '.join(x.name for x in LOADS)}"
            )
    found = []
    for load in LOADS:
        if names and load.name not in names:
            continue
        missing = [name for name in load.needs if which("", name) is None]
        if missing:
            print(f"{load.name}: needs {', '.join(missing)}", file=sys.stderr)
        else:
            found.append(load)
    return found


class Results:
    """
    What was measured so far, and the file that keeps it.

    @param path: The file, if any.
    @param settings: What figures of one file have in common.
    @param resume: Whether to go on with what is in the file.

    @ivar figures: Those of each round, by load and contestant.
    @ivar failures: Why something could not be measured, likewise.
    """

    def __init__(
        self, path: Path | None, settings: dict[str, object], resume: bool
    ) -> None:
        self._path = path
        self._settings = settings
        self.figures: dict[str, dict[str, list[Figures]]] = {}
        self.failures: dict[str, dict[str, str]] = {}
        if resume and path is not None and path.exists():
            former = json.loads(path.read_text())
            for name, value in settings.items():
                if former.get("settings", {}).get(name) != value:
                    raise Failed(f"{path} has figures of another --{name}")
            # What could not be measured is tried again.
            self.figures = former["figures"]

    def done(self, load: Load, contestant: Contestant) -> int:
        """Count the rounds that are over. A failure ends all of them."""
        if contestant.name in self.failures.get(load.name, {}):
            return sys.maxsize
        return len(self.figures.get(load.name, {}).get(contestant.name, ()))

    def add(self, load: Load, contestant: Contestant, figures: Figures) -> None:
        """Keep a round's figures."""
        ofLoad = self.figures.setdefault(load.name, {})
        ofLoad.setdefault(contestant.name, []).append(figures)
        self._write()

    def failed(self, load: Load, contestant: Contestant, reason: str) -> None:
        """Keep why there are none."""
        self.failures.setdefault(load.name, {})[contestant.name] = reason
        self._write()

    def medians(self) -> dict[str, dict[str, Figures]]:
        """The medians by load and contestant, in the order of the tables."""
        return {
            load.name: {
                each.name: medians(self.figures[load.name][each.name])
                for each in CONTESTANTS
                if each.name in self.figures[load.name]
            }
            for load in LOADS
            if load.name in self.figures
        }

    def _write(self) -> None:
        """Write the file."""
        if self._path is None:
            return
        found = self.medians()
        self._path.write_text(
            json.dumps(
                {
                    "machine": _machine(),
                    "settings": self._settings,
                    "figures": self.figures,
                    "failures": self.failures,
                    "medians": found,
                    "ratios": {load: ratios(each) for load, each in found.items()},
                    "targets": [
                        {**vars(check), "met": check.met} for check in checks(found)
                    ],
                },
                indent=1,
            )
        )


def _machine() -> dict[str, object]:
    """Describe where this runs."""
    processor = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return {
        "processors": os.cpu_count(),
        "processor": processor,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _measure(
    chosen: argparse.Namespace,
    loads: list[Load],
    contestants: list[Contestant],
    results: Results,
    place: Path,
) -> None:
    """Let everybody have their turns."""
    profiler = None
    if chosen.profile:
        profiler = Profiler(chosen.profile, chosen.profile_with)
    for load in loads:
        for turn in range(min(chosen.rounds, load.rounds)):
            for contestant in contestants:
                if results.done(load, contestant) > turn:
                    continue
                where = f"{load.name}-{turn}-{contestant.name}".replace(" ", "_")
                began = time.monotonic()
                meter = Meter(profiler, f"{contestant.name}-{load.name}")
                try:
                    with Room((place / where).resolve()) as room:
                        run = Run(room, contestant, chosen.seconds, chosen.quick, meter)
                        figures = load.measure(run)
                except (
                    Failed,
                    OSError,
                    ValueError,
                    subprocess.SubprocessError,
                ) as failure:
                    results.failed(load, contestant, str(failure))
                else:
                    results.add(load, contestant, figures)
                took = time.monotonic() - began
                print(f"... {where}: {took:.1f} s", file=sys.stderr)
        print(_loadTable(load, results), flush=True)


def _loadTable(load: Load, results: Results) -> str:
    """Write a load's table, and who is not in it."""
    lines = ["", tables(load.name, results.medians().get(load.name, {}))]
    for name, reason in results.failures.get(load.name, {}).items():
        lines.append(f"{name}: {reason}")
    return "\n".join([*lines, ""])


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    chosen = _arguments(words)
    # The same for everybody: some programs raise it themselves, some do not.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        contestants, loads = _present(chosen.only, chosen.without), _loads(chosen.loads)
        if chosen.list:
            print("\n".join(contestant.name for contestant in contestants))
            return
        settings: dict[str, Any] = {"seconds": chosen.seconds, "quick": chosen.quick}
        results = Results(chosen.json, settings, chosen.resume)
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as temporary:
            place = chosen.keep or Path(temporary)
            _measure(chosen, loads, contestants, results, place)
        print(f"\n{targets(checks(results.medians()))}")
        if chosen.pictures:
            from benchmarks.pictures import draw

            draw(results.medians(), chosen.pictures)
    except Failed as failure:
        sys.exit(f"benchmarks: {failure}")


if __name__ == "__main__":
    main()
