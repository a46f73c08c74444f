"""
Numbers as people read them, and as pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["age", "amount", "count", "path", "plural", "rate"]

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def amount(size: float) -> str:
    """
    A number of bytes: C{1.5 MB}.
    """
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    digits = 1 if unit and size < 99.95 else 0
    return f"{size:.{digits}f} {_UNITS[unit]}"


def rate(size: float) -> str:
    """
    Bytes per second.
    """
    return f"{amount(size)}/s"


def count(number: int) -> str:
    """
    A number of things: C{5,000}.
    """
    return f"{number:,}"


def plural(number: int, one: str) -> str:
    """
    A number of things and their name.
    """
    return f"{count(number)} {one}" if number == 1 else f"{count(number)} {one}s"


def age(seconds: float) -> str:
    """
    A time that has passed, in its two greatest units: C{2 h 5 min}.
    """
    whole = max(0, int(seconds))
    days, hours = whole // 86400, whole // 3600 % 24
    minutes, rest = whole // 60 % 60, whole % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {rest} s"
    return f"{rest} s"


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
