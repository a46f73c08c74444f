"""
Numbers as people read them, and as pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tristunnel.util.words import age, amount, count, plural, rate

__all__ = ["age", "amount", "count", "path", "plural", "rate"]


def path(
    values: Sequence[float],
    most: float,
    width: int,
    height: int,
    slots: int,
    closed: bool = False,
) -> str:
    """
    Draw a line, for the C{d} of an SVG path.

    @param values: Oldest first; the newest is at the right edge.
    @param most: The value at the top.
    @param slots: How many values fill the width.
    @param closed: Whether to enclose the area below it.
    """
    values = values[-slots:]
    if len(values) < 2:
        return f"M0 {height}H{width}"
    step = width / (slots - 1)
    left = width - step * (len(values) - 1)

    def points() -> Iterable[str]:
        for index, value in enumerate(values):
            y = height - (min(value / most, 1.0) * (height - 1) if most else 0.0)
            yield f"{left + index * step:.1f} {y:.1f}"

    line = "M" + "L".join(points())
    return f"{line}V{height}H{left:.1f}Z" if closed else line
