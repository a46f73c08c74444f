"""
Curves over time: as text for a terminal, and as a picture where matplotlib is
installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

__all__ = ["Curve", "drawn", "saved"]

WIDTH = 66
"""Columns of a plot, without its scale."""

HEIGHT = 7
"""Lines of a plot."""


@dataclass(frozen=True)
class Curve:
    """
    A figure as it went.

    @ivar name: What it is.
    @ivar unit: What it is counted in; empty for a number.
    @ivar seconds: When it was looked at.
    @ivar values: What was seen then.
    """

    name: str
    unit: str
    seconds: Sequence[float]
    values: Sequence[float]

    @property
    def title(self) -> str:
        """What stands above it."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


def drawn(curve: Curve) -> str:
    """
    Draw a curve with letters. Each column is the median of what falls into it;
    the scale begins at zero, so that flat looks flat.
    """
    first, last = curve.seconds[0], curve.seconds[-1]
    span = (last - first) or 1.0
    columns: list[list[float]] = [[] for _ in range(WIDTH)]
    for second, value in zip(curve.seconds, curve.values, strict=True):
        columns[min(WIDTH - 1, int((second - first) / span * WIDTH))].append(value)
    heights = [median(column) if column else None for column in columns]
    most = max(curve.values) or 1.0
    lines = [curve.title]
    for line in range(HEIGHT, 0, -1):
        scale = f"{most * line / HEIGHT:>10,.0f} |"
        marks = (
            " "
            if height is None or height <= most * (line - 1) / HEIGHT
            else ("." if height < most * (line - 0.5) / HEIGHT else ":")
            for height in heights
        )
        lines.append((scale + "".join(marks)).rstrip())
    lines.append(f"{0:>10} +" + "-" * WIDTH)
    lines.append(f"{'':>11} {'0 min':<{WIDTH - 8}}{span / 60:>5.1f} min")
    return "\n".join(lines)


def saved(curves: Sequence[Curve], path: Path) -> bool:
    """
    Draw all curves into a file.

    @param path: Its ending says which kind: C{.png} or C{.svg}.
    @return: Whether there is a matplotlib to do so.
    """
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(curves), 1, sharex=True, figsize=(9, 1.6 * len(curves)), squeeze=False
    )
    for axis, curve in zip(axes[:, 0], curves, strict=True):
        minutes = [second / 60 for second in curve.seconds]
        axis.plot(minutes, curve.values, linewidth=0.9)
        axis.set_ylim(0, 1.15 * max(*curve.values, 1.0))
        axis.set_title(curve.title, fontsize=8, loc="left")
    axes[-1, 0].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    return True
