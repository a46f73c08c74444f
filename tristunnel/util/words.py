"""
Numbers, times and other people's text, as people read them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tristunnel.errors import badOption, printable

__all__ = [
    "HYPHENS",
    "age",
    "amount",
    "checkChoice",
    "count",
    "isName",
    "nearest",
    "plural",
    "printableIn",
    "rate",
]

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def isName(text: str) -> bool:
    """
    Whether a text can name a tunnel, a channel or a node: at most 64 letters,
    digits, C{-}, C{_} and C{.}.
    """
    return len(text) <= 64 and all(c.isalnum() or c in "-_." for c in text)


def amount(size: float) -> str:
    """A number of bytes: C{1.5 MB}."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    digits = 1 if unit and size < 99.95 else 0
    return f"{size:.{digits}f} {_UNITS[unit]}"


def rate(size: float) -> str:
    """Bytes per second."""
    return f"{amount(size)}/s"


def count(number: int) -> str:
    """A number of things: C{5,000}."""
    return f"{number:,}"


def plural(number: int, one: str) -> str:
    """A number of things and their name."""
    return f"{count(number)} {one}" if number == 1 else f"{count(number)} {one}s"


def age(seconds: float) -> str:
    """A time that has passed, in its two greatest units: C{2 h 5 min}."""
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


HYPHENS = ("-", "\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2212")
"""What options begin with, and what word processors and web pages make of that."""


def nearest(
    word: str, known: Iterable[str], prefix: str = "", lists: bool = True
) -> str:
    """
    Say which of the right words a wrong one may have been meant for: those that
    it begins, else the one that looks most like it, else all of a few.

    @param prefix: What messages put in front of each.
    @param lists: Whether to tell all of a few, if none is like it.
    @return: The end of a message: C{"; did you mean X?"}, or empty.
    """
    words = sorted(known)
    like = word[:64].lower().replace("_", "-")
    begun = [each for each in words if like and each.startswith(like)]
    begun = [like] if like in begun else begun
    alike = difflib.get_close_matches(like, words, 1, 0.6)
    # Of a few letters, two are the same soon.
    close = begun[:4] or [w for w in alike if len(like) > 3 or w[:1] == like[:1]]
    if close:
        return f"; did you mean {' or '.join(prefix + each for each in close)}?"
    few = ", ".join(prefix + each for each in words)
    return f"; there is {few}" if lists and 0 < len(words) <= 12 else ""


def checkChoice(option: str, told: str, known: Iterable[str]) -> None:
    """
    @raise TunnelError: C{bad-option}, if an option has a value that is none of the
        known ones, with the nearest of those.
    """
    choices = list(known)
    if told not in choices:
        raise badOption(
            f"unknown --{option} {printable(told, 60)!r}{nearest(told, choices)}"
        )


def printableIn(value: object, depth: int = 64) -> object:
    """
    Parsed JSON with all its text, keys included, as L{printable} leaves it, and
    nothing cut off.

    @param depth: How many arrays and objects within each other are looked into;
        what lies deeper is left out.
    """
    if not depth:
        return None
    if isinstance(value, str):
        return printable(value, len(value))
    if isinstance(value, list):
        return [printableIn(each, depth - 1) for each in value]
    if isinstance(value, dict):
        return {
            printable(key, len(key)): printableIn(each, depth - 1)
            for key, each in value.items()
        }
    return value
