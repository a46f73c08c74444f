"""
C{python -m benchmarks}: the command line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.loads import LOADS, Figures, Load
from benchmarks.processes import Failed, Room, which

Results = dict[str, dict[str, list[Figures]]]
"""Figures of each round, by load and contestant."""


def _arguments() -> argparse.Namespace:
    """
    Read the command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare tristunnel with other tunnels over the loopback"
        " interface. Contestants take turns, round by round.",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    parser.add_argument("--quick", action="store_true", help="one round of 2 seconds")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument(
        "--only", default="", help="contestants, comma-separated; parts of names do"
    )
    parser.add_argument("--loads", default="", help="loads, comma-separated")
    parser.add_argument("--list", action="store_true", help="say who can take part")
    parser.add_argument("--keep", type=Path, help="leave logs in this directory")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, 2.0
    return chosen


def _present(wanted: str) -> list[Contestant]:
    """
    Choose who takes part.
    """
    parts = [part for part in wanted.split(",") if part]
    found = []
    for contestant in CONTESTANTS:
        if parts and not any(part in contestant.name for part in parts):
            continue
        missing = contestant.missing()
        if missing:
            print(f"{contestant.name}: not here ({missing})", file=sys.stderr)
        else:
            found.append(contestant)
    return found


def _loads(wanted: str) -> list[Load]:
    """
    Choose what is measured.
    """
    names = [name for name in wanted.split(",") if name]
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


def _medians(figures: list[Figures]) -> Figures:
    """
    Take the median of each metric over the rounds.
    """
    metrics = dict.fromkeys(metric for each in figures for metric in each)
    return {
        metric: statistics.median(each[metric] for each in figures if metric in each)
        for metric in metrics
    }


def _table(load: Load, results: dict[str, list[Figures]]) -> str:
    """
    Write a load's medians, and each one's ratio to the first contestant that
    is a tunnel.
    """
    medians = {name: _medians(figures) for name, figures in results.items()}
    metrics = list(dict.fromkeys(m for each in medians.values() for m in each))
    tunnels = [name for name in medians if name != "direct path" and medians[name]]
    base = medians[tunnels[0]] if tunnels else {}
    rows = [[load.name, *metrics]]
    for name, figures in medians.items():
        row = [name]
        for metric in metrics:
            if metric not in figures:
                row.append("-")
                continue
            text = (
                f"{figures[metric]:,.4g}"
                if figures[metric] < 1000
                else (f"{figures[metric]:,.0f}")
            )
            if base.get(metric):
                text += f" ({figures[metric] / base[metric]:.2f})"
            row.append(text)
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def main() -> None:
    """
    Measure and report.
    """
    chosen = _arguments()
    contestants, loads = _present(chosen.only), _loads(chosen.loads)
    if chosen.list:
        print("\n".join(contestant.name for contestant in contestants))
        return
    results: Results = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as temporary:
        place = chosen.keep or Path(temporary)
        for load in loads:
            for turn in range(chosen.rounds):
                for contestant in contestants:
                    where = f"{load.name}-{turn}-{contestant.name}".replace(" ", "_")
                    print(f"... {where}", file=sys.stderr)
                    try:
                        with Room((place / where).resolve()) as room:
                            figures = load.run(room, contestant, chosen.seconds)
                    except (Failed, OSError, ValueError) as failure:
                        print(f"{contestant.name}: {failure}", file=sys.stderr)
                    else:
                        results[load.name][contestant.name].append(figures)
            print(f"\n{_table(load, results[load.name])}\n", flush=True)
    if chosen.json:
        chosen.json.write_text(
            json.dumps(
                {
                    "machine": {
                        "processors": os.cpu_count(),
                        "kernel": platform.release(),
                        "python": platform.python_version(),
                    },
                    "rounds": chosen.rounds,
                    "seconds": chosen.seconds,
                    "figures": results,
                    "medians": {
                        load: {
                            name: _medians(figures)
                            for name, figures in contestants.items()
                        }
                        for load, contestants in results.items()
                    },
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
