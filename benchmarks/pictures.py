"""
Pictures of the figures: C{python -m benchmarks.pictures RESULTS.json DIRECTORY}.

They have no background and colours of middle brightness, to be read on a light
page and on a dark one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contestants import CONTESTANTS
from benchmarks.processes import Failed
from benchmarks.report import moreIsBetter

__all__ = ["PICTURES", "draw"]

Medians = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Figures by load and contestant."""

_TEXT = "#747d88"
_GRID = "#747d8844"
_COLOURS = {"ours": "#3f86e0", "peer": "#c98a2e", "limit": "#8f979f"}
_KINDS = {"ours": "tristunnel", "peer": "others", "limit": "no tunnel"}
_ROW = 0.23
"""Inches for each bar."""


@dataclass(frozen=True)
class Panel:
    """
    One set of bars.

    @ivar title: Above it.
    @ivar load: Where its figures are.
    @ivar parts: Metrics; the second is drawn below the first, paler.
    @ivar labels: What each of two metrics is called.
    @ivar logarithmic: Whether figures differ by orders of magnitude.
    """

    title: str
    load: str
    parts: Sequence[str]
    labels: Sequence[str] = ()
    logarithmic: bool = False


_WAYS = ("to the service", "from the service")

PICTURES: dict[str, Sequence[Panel]] = {
    "bulk": (
        Panel("one stream, Gbit/s", "bulk", ("up 1 Gbit/s", "down 1 Gbit/s"), _WAYS),
        Panel("four streams, Gbit/s", "bulk", ("up 4 Gbit/s", "down 4 Gbit/s"), _WAYS),
    ),
    "requests": (
        Panel("requests/s, kept alive", "requests", ("kept req/s",)),
        Panel("requests/s, a new connection each", "requests", ("new req/s",)),
    ),
    "waiting": (
        Panel(
            "a small request beside bulk, ms",
            "beside",
            ("p50 ms", "p99 ms"),
            ("median", "99th percentile"),
            logarithmic=True,
        ),
        Panel(
            "first byte, ms",
            "first",
            ("at 0 ms, ms", "at 100 ms, ms"),
            ("on this machine", "over 100 ms"),
            logarithmic=True,
        ),
    ),
    "processor": (
        Panel("processor seconds per GiB", "bulk", ("CPU s/GiB",), logarithmic=True),
        Panel(
            "processor seconds per 10,000 requests",
            "requests",
            ("kept CPU s/10k", "new CPU s/10k"),
            ("kept alive", "a new connection each"),
            logarithmic=True,
        ),
    ),
    "memory": (
        Panel("server memory per idle visitor, KiB", "idle", ("KiB/visitor",)),
        Panel(
            "server memory per idle client, KiB",
            "clients",
            ("KiB/client",),
            logarithmic=True,
        ),
    ),
    "ways": (
        Panel("one stream over 100 ms, Mbit/s", "long", ("Mbit/s",)),
        Panel("seconds until a restarted server serves", "restart", ("s",)),
    ),
}
"""The panels of each picture, side by side."""


def draw(medians: Medians, directory: Path) -> list[Path]:
    """
    Draw everything that was measured.

    @param medians: Figures by load and contestant.
    @param directory: Where the SVG files go.
    @return: The files.
    @raise Failed: Without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise Failed(
            "pictures need matplotlib: pip install 'tristunnel[benchmarks]'"
        ) from None
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    settings: Any = {
        # The same figures make the same file.
        "svg.hashsalt": "tristunnel",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": _TEXT,
        "axes.labelcolor": _TEXT,
        "axes.edgecolor": _GRID,
        "xtick.color": _TEXT,
        "ytick.color": _TEXT,
    }
    with matplotlib.rc_context(settings):
        for name, panels in PICTURES.items():
            chosen = [panel for panel in panels if _rows(panel, medians)]
            if not chosen:
                continue
            most = max(len(_rows(panel, medians)) for panel in chosen)
            figure: Any = Figure(
                figsize=(5.0 * len(chosen), 0.95 + _ROW * 1.35 * most),
                layout="constrained",
            )
            axes = figure.subplots(1, len(chosen), squeeze=False)[0]
            for panel, each in zip(chosen, axes, strict=True):
                _panel(panel, medians, each)
            figure.legend(
                handles=_legend(),
                loc="outside lower center",
                ncols=len(_KINDS),
                frameon=False,
            )
            path = directory / f"benchmark-{name}.svg"
            figure.savefig(
                path, format="svg", transparent=True, metadata={"Date": None}
            )
            written.append(path)
    return written


def _legend() -> list[Any]:
    """Say what the colours mean."""
    from matplotlib.patches import Patch

    return [Patch(color=_COLOURS[kind], label=name) for kind, name in _KINDS.items()]


def _rows(panel: Panel, medians: Medians) -> list[tuple[str, str, Mapping[str, float]]]:
    """
    Take who has any of a panel's figures, in the order of the tables.

    @return: Names, kinds and figures.
    """
    figures = medians.get(panel.load, {})
    return [
        (each.name, each.kind, figures[each.name])
        for each in CONTESTANTS
        if any(part in figures.get(each.name, {}) for part in panel.parts)
    ]


def _panel(panel: Panel, medians: Medians, axes: Any) -> None:
    """Draw one set of bars."""
    rows = _rows(panel, medians)
    height = 0.8 / len(panel.parts)
    for row, (_, kind, figures) in enumerate(rows):
        for number, part in enumerate(panel.parts):
            if part not in figures:
                continue
            value, where = figures[part], row - 0.4 + height * (number + 0.5)
            axes.barh(
                where,
                value,
                height * 0.92,
                color=_COLOURS[kind],
                alpha=1.0 if number == 0 else 0.55,
            )
            axes.annotate(
                _short(value),
                (value, where),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7 if len(panel.parts) > 1 else 8,
            )
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.invert_yaxis()
    if panel.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.margins(x=0.12)
    more = "more" if moreIsBetter(panel.parts[0]) else "less"
    title = f"{panel.title} ({more} is better)"
    if panel.labels:
        title += f"\nabove {panel.labels[0]}, below {panel.labels[1]}"
    axes.set_title(title, fontsize=9, loc="left")
    axes.grid(axis="x", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _short(value: float) -> str:
    """Write a figure beside its bar."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def main(words: Sequence[str]) -> None:
    """Draw the pictures of a file that C{--json} wrote."""
    if len(words) != 2:
        sys.exit("usage: python -m benchmarks.pictures RESULTS.json DIRECTORY")
    try:
        medians = json.loads(Path(words[0]).read_text())["medians"]
        for path in draw(medians, Path(words[1])):
            print(path)
    except (OSError, ValueError, KeyError) as problem:
        sys.exit(f"{words[0]} is no file of figures: {problem}")
    except Failed as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main(sys.argv[1:])
