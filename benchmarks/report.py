"""
Medians, ratios, tables, and what is to be reached.

C{python -m benchmarks.report RESULTS.json} writes the tables of a file that
C{python -m benchmarks --json} made.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contestant import HAPROXY, Contestant
from benchmarks.contestants import CONTESTANTS

__all__ = [
    "Check",
    "bestPeer",
    "checks",
    "medians",
    "moreIsBetter",
    "ratios",
    "report",
    "tables",
    "targets",
]

Figures = Mapping[str, float]
Medians = Mapping[str, Figures]
"""Figures by contestant."""

_RATES = ("bit/s", "req/s")

_BULK = ("up {} Gbit/s", "down {} Gbit/s")
_FULL = 950.0
"""Mbit/s of bytes on a line of 1 Gbit/s that is full."""


def moreIsBetter(metric: str) -> bool:
    """Tell rates from costs."""
    return metric.endswith(_RATES)


def medians(rounds: Sequence[Figures]) -> dict[str, float]:
    """Take the median of each metric over the rounds that have it."""
    metrics = dict.fromkeys(metric for each in rounds for metric in each)
    return {
        metric: statistics.median(each[metric] for each in rounds if metric in each)
        for metric in metrics
    }


def bestPeer(
    figures: Medians, metric: str, peers: Iterable[Contestant] = tuple(CONTESTANTS)
) -> tuple[str, float] | None:
    """
    Find the best of others at something.

    @param peers: Who counts; the limits and our own do not.
    @return: Its name and figure, if anybody was measured.
    """
    found = {
        each.name: figures[each.name][metric]
        for each in peers
        if each.kind == "peer" and metric in figures.get(each.name, {})
    }
    if not found:
        return None
    best = (max if moreIsBetter(metric) else min)(found, key=lambda name: found[name])
    return best, found[best]


def ratios(figures: Medians) -> dict[str, dict[str, dict[str, float]]]:
    """
    Divide every figure by the references'.

    @return: By contestant and metric, C{"haproxy"} and C{"best peer"}.
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name, metrics in figures.items():
        result[name] = {}
        for metric, value in metrics.items():
            found = {}
            limit = figures.get(HAPROXY, {}).get(metric)
            if limit:
                found["haproxy"] = value / limit
            peer = bestPeer(figures, metric)
            if peer and peer[1]:
                found["best peer"] = value / peer[1]
            result[name][metric] = found
    return result


def _number(value: float) -> str:
    """Write a figure with three or four digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.3g}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Align cells."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def tables(title: str, figures: Medians) -> str:
    """
    Write a load's medians, each with its ratio to the HAProxy chain and to the
    best peer: C{27,100 (0.84 h, 1.09 p)}. Processor time has a table of its own.
    """
    metrics = list(dict.fromkeys(m for each in figures.values() for m in each))
    if not metrics:
        return f"{title}: nothing was measured"
    costs = [metric for metric in metrics if "CPU" in metric]
    parts = [_table(title, figures, [m for m in metrics if m not in costs])]
    if costs:
        parts.append(_table(f"{title}, CPU", figures, costs))
    return "\n\n".join(parts)


def _table(title: str, figures: Medians, metrics: Sequence[str]) -> str:
    """Write some metrics of all who have any of them."""
    divided = ratios(figures)
    rows = [[title, *metrics]]
    for name, values in figures.items():
        if not any(metric in values for metric in metrics):
            continue
        row = [name]
        for metric in metrics:
            if metric not in values:
                row.append("-")
                continue
            parts = [
                f"{ratio:.2f} {reference[0]}"
                for reference, ratio in (
                    ("h", divided[name][metric].get("haproxy")),
                    ("p", divided[name][metric].get("best peer")),
                )
                if ratio is not None
            ]
            text = _number(values[metric])
            row.append(f"{text} ({', '.join(parts)})" if parts else text)
        rows.append(row)
    return _columns(rows)


# What is to be reached


@dataclass(frozen=True)
class Check:
    """
    Something that a mode is to reach.

    @ivar what: The row of the table.
    @ivar mode: Ours.
    @ivar measured: What it reached.
    @ivar wanted: What it was to reach, in the same unit.
    @ivar metric: Of which metric, the worst where there are several.
    @ivar against: Where C{wanted} comes from.
    """

    what: str
    mode: str
    measured: float
    wanted: float
    metric: str
    against: str

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        if moreIsBetter(self.metric):
            return self.measured >= self.wanted
        return self.measured <= self.wanted

    @property
    def share(self) -> float:
        """How far it is: 1 and above is reached."""
        if moreIsBetter(self.metric):
            return self.measured / self.wanted if self.wanted else 1.0
        return self.wanted / self.measured if self.measured else 1.0


def _named(*names: str) -> tuple[Contestant, ...]:
    """Find contestants by their names."""
    return tuple(each for each in CONTESTANTS if each.name in names)


_ALL = tuple(CONTESTANTS)
_SHARED = tuple(each for each in CONTESTANTS if each.multiplexes)
_WITH_TLS = _named("frp tls", "rathole tls", "chisel", "ssh -R")
_FRP_TLS, _RATHOLE = _named("frp tls"), _named("rathole")
_TLS_PEERS = _named("frp tls", "rathole tls")
_RATHOLE_TLS, _CHISEL = _named("rathole tls"), _named("chisel")
_WEB = _named("chisel", "wstunnel", "wstunnel wss")

_CONNECTIONS = ("tristunnel tcp", "tristunnel direct")
_SESSION = ("tristunnel session",)
_TLS, _WSS = ("tristunnel tls",), ("tristunnel wss",)
_OPEN = _CONNECTIONS + _SESSION
_EVERY = _OPEN + _TLS + _WSS
_BY_DEFAULT = ("tristunnel tcp", *_SESSION, *_TLS)

_BULK_ONE = tuple(each.format(1) for each in _BULK)
_BULK_FOUR = tuple(each.format(4) for each in _BULK)


@dataclass(frozen=True)
class _Target:
    """
    A wish: so much of a reference, for some modes.

    @ivar what: The row of the table.
    @ivar load: Where the metrics are.
    @ivar metrics: All of them are to reach it.
    @ivar modes: Ours that it concerns.
    @ivar factor: How much of the reference.
    @ivar reference: C{"haproxy"}, C{"one stream"}, C{"fixed"}, or peers: the
        best of them.
    """

    what: str
    load: str
    metrics: Sequence[str]
    modes: Sequence[str]
    factor: float
    reference: str | Sequence[Contestant]

    def check(self, mode: str, figures: Medians) -> Check | None:
        """
        Look at one mode.

        @param figures: The load's.
        @return: The worst metric's; nothing where something was not measured.
        """
        found = []
        for metric in self.metrics:
            measured = figures.get(mode, {}).get(metric)
            reference = self._reference(mode, metric, figures)
            if measured is None or reference is None:
                continue
            name, value = reference
            found.append(
                Check(self.what, mode, measured, self.factor * value, metric, name)
            )
        return min(found, key=lambda each: each.share) if found else None

    def _reference(
        self, mode: str, metric: str, figures: Medians
    ) -> tuple[str, float] | None:
        """Find what it is compared with, and that one's figure."""
        if self.reference == "fixed":
            return "fixed", 1.0
        if self.reference == "one stream":
            one = figures.get(mode, {}).get(metric.replace(" 4 ", " 1 "))
            return None if one is None else (f"{self.factor:g} of one stream", one)
        if self.reference == "haproxy":
            limit = figures.get(HAPROXY, {}).get(metric)
            return None if limit is None else (f"{self.factor:g} of HAProxy", limit)
        assert not isinstance(self.reference, str)
        best = bestPeer(figures, metric, self.reference)
        if best is None:
            return None
        return f"{self.factor:g} of {best[0]}", best[1]


_KEPT, _NEW, _P99, _MBITS = ("kept req/s",), ("new req/s",), ("p99 ms",), ("Mbit/s",)
_BOTH = _BULK_ONE + _BULK_FOUR
_CPU_EACH = ("kept CPU s/10k", "new CPU s/10k")
_CPU_GIB = ("CPU s/GiB",)

_BULK_WISH, _KEPT_WISH, _NEW_WISH = "bulk", "requests kept alive", "new connections"
_CPU_WISH, _GIB_WISH = "CPU per 10,000", "CPU per GiB"
_BESIDE_WISH = "request beside bulk, p99"
_SLOW_WISH = "the same on a slow line"
_OVER_IDLE = ("down p99 over idle, ms", "up p99 over idle, ms")
_MEMORY_WISH = "server memory"

TARGETS = [
    _Target(_KEPT_WISH, "requests", _KEPT, _OPEN, 0.9, "haproxy"),
    _Target(_KEPT_WISH, "requests", _KEPT, _CONNECTIONS, 1.0, _ALL),
    _Target(_KEPT_WISH, "requests", _KEPT, _TLS, 0.75, "haproxy"),
    _Target(_KEPT_WISH, "requests", _KEPT, _TLS, 1.4, _FRP_TLS),
    _Target(_KEPT_WISH, "requests", _KEPT, _TLS, 1.0, _RATHOLE_TLS),
    _Target(_KEPT_WISH, "requests", _KEPT, _WSS, 1.0, _WEB),
    _Target(_NEW_WISH, "requests", _NEW, _OPEN, 0.9, "haproxy"),
    _Target(_NEW_WISH, "requests", _NEW, _CONNECTIONS + _TLS, 1.0, _ALL),
    _Target(_NEW_WISH, "requests", _NEW, _TLS, 0.8, "haproxy"),
    _Target(_NEW_WISH, "requests", _NEW, _WSS, 1.0, _WEB),
    _Target(_CPU_WISH, "requests", _CPU_EACH, _OPEN, 1.0, _RATHOLE),
    _Target(_CPU_WISH, "requests", _CPU_EACH, _TLS, 0.5, _FRP_TLS),
    _Target(_CPU_WISH, "requests", _CPU_EACH, _WSS, 1.0, _CHISEL),
    _Target(_BULK_WISH, "bulk", _BOTH, _CONNECTIONS, 1.0, "haproxy"),
    _Target(_BULK_WISH, "bulk", _BOTH, _CONNECTIONS, 1.0, _ALL),
    _Target(_BULK_WISH, "bulk", _BOTH, _SESSION, 0.7, "haproxy"),
    _Target(_BULK_WISH, "bulk", _BOTH, _SESSION, 1.0, _SHARED),
    _Target(_BULK_WISH, "bulk", _BOTH, _TLS, 1.0, _WITH_TLS),
    _Target(_BULK_WISH, "bulk", _BOTH, _WSS, 1.0, _WEB),
    _Target(_BULK_WISH, "bulk", _BULK_FOUR, _EVERY, 0.9, "one stream"),
    _Target(_GIB_WISH, "bulk", _CPU_GIB, _CONNECTIONS, 0.8, "haproxy"),
    _Target(_GIB_WISH, "bulk", _CPU_GIB, _CONNECTIONS, 0.5, _ALL),
    _Target(_GIB_WISH, "bulk", _CPU_GIB, _SESSION, 1.0, _SHARED),
    _Target(_GIB_WISH, "bulk", _CPU_GIB, _TLS, 1.0, _TLS_PEERS),
    _Target(_GIB_WISH, "bulk", _CPU_GIB, _WSS, 1.0, _CHISEL),
    _Target(_BESIDE_WISH, "beside", _P99, _OPEN + _TLS, 5.0, "fixed"),
    _Target(_BESIDE_WISH, "beside", _P99, _WSS, 10.0, "fixed"),
    _Target(_SLOW_WISH, "slow", _OVER_IDLE, _BY_DEFAULT, 50.0, "fixed"),
    _Target(_SLOW_WISH, "slow", _OVER_IDLE, _WSS, 80.0, "fixed"),
    _Target("100 ms path", "long", _MBITS, _EVERY, _FULL, "fixed"),
    _Target(_MEMORY_WISH, "idle", ("KiB/visitor",), _EVERY, 3.0, "fixed"),
    _Target(_MEMORY_WISH, "clients", ("KiB/client",), _OPEN, 15.0, "fixed"),
    _Target(_MEMORY_WISH, "clients", ("KiB/client",), _TLS, 45.0, "fixed"),
    _Target(_MEMORY_WISH, "clients", ("KiB/client",), _WSS, 55.0, "fixed"),
]
"""What is to be reached, as ratios within one run."""


def checks(loads: Mapping[str, Medians]) -> list[Check]:
    """
    Look at everything that was measured.

    @param loads: Medians by load and contestant.
    """
    found = []
    for target in TARGETS:
        for mode in target.modes:
            check = target.check(mode, loads.get(target.load, {}))
            if check is not None:
                found.append(check)
    return found


def targets(found: Sequence[Check]) -> str:
    """Write what is met and what is missed."""
    rows = [["target", "mode", "", "measured", "wanted", "against", "metric"]]
    for check in found:
        rows.append(
            [
                check.what,
                check.mode.removeprefix("tristunnel "),
                "met" if check.met else f"MISSED ({check.share:.2f})",
                _number(check.measured),
                ("at least " if moreIsBetter(check.metric) else "at most ")
                + _number(check.wanted),
                "" if check.against == "fixed" else check.against,
                check.metric,
            ]
        )
    return _columns(rows)


def report(results: Mapping[str, Any]) -> str:
    """Write everything that is in a file of results."""
    machine, settings = results["machine"], results["settings"]
    most = max(
        (len(each) for load in results["figures"].values() for each in load.values()),
        default=0,
    )
    parts = [
        "{processors} processors ({processor}), Linux {kernel}, Python {python}".format(
            **machine
        )
        + f"\nmedians of up to {most} rounds, {settings['seconds']:g} s for each figure"
        + "\nin brackets: h, the ratio to two HAProxy processes in a row; p, to the"
        " best of the others"
    ]
    for load, figures in results["medians"].items():
        lines = [tables(load, figures)]
        for name, reason in results["failures"].get(load, {}).items():
            lines.append(f"{name}: {reason}")
        parts.append("\n".join(lines))
    parts.append(targets(checks(results["medians"])))
    return "\n\n".join(parts)


def main(words: Sequence[str]) -> None:
    """Write the tables."""
    if len(words) != 1:
        sys.exit("usage: python -m benchmarks.report RESULTS.json")
    try:
        print(report(json.loads(Path(words[0]).read_text())))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        sys.exit(f"{words[0]} is no file of figures: {problem}")


if __name__ == "__main__":
    main(sys.argv[1:])
