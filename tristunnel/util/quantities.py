"""
Durations, rates, sizes and moments, as people and HTTP write them: C{30d},
C{10MB/s}, C{2GiB}.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from tristunnel.errors import badOption, boundedHint

__all__ = [
    "LONGEST",
    "formatDuration",
    "formatRate",
    "parseDuration",
    "parseRate",
    "parseSize",
    "retryAfter",
]


LONGEST = 100 * 365 * 86400.0
"""The longest duration, in seconds: a hundred years."""

_FASTEST = 10**15

_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([wdhms])")
_PLAIN = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_RATE = re.compile(
    r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([kKMG]i?)?(B|bit)?(?:/s)?", re.ASCII
)
_PREFIXES = dict(zip("kKMG", (10**3, 10**3, 10**6, 10**9), strict=True))
_PREFIXES |= {"": 1, "ki": 2**10, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def parseDuration(text: str) -> float:
    """
    Read C{45s}, C{90m}, C{12h}, C{30d}, C{2w}, several of them after each
    other (C{1h30m}), or a plain number of seconds.

    @return: Seconds; more than 0.
    @raise TunnelError: C{bad-option}.
    """
    written = text.strip()
    total, position = 0.0, 0
    if _PLAIN.fullmatch(written):
        total, position = float(written), len(written)
    while position < len(written):
        part = _PART.match(written, position)
        if part is None:
            total = 0.0
            break
        total += float(part[1]) * _SECONDS[part[2]]
        position = part.end()
    if not 0 < total <= LONGEST:
        raise badOption(
            f"{_shown(text)} is not a duration; write for example 45s, 90m, 12h, 30d or"
            " 1h30m, up to 100 years"
        )
    return total


def formatDuration(seconds: float) -> str:
    """Write a duration in its two largest units, for people."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in _SECONDS.items():
        if unit != "w" and left >= size:
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts[:2]) or "0s"


def parseRate(text: str) -> int:
    """
    Read C{10MB/s}, C{512KiB/s}, C{80Mbit/s}, or a plain number of bytes per
    second.

    @return: Bytes per second; at least 1.
    @raise TunnelError: C{bad-option}.
    """
    match = _RATE.fullmatch(text.strip())
    bits = _bytesIn(match)
    rate = round(bits / 8 if match is not None and match[3] == "bit" else bits)
    return _within(
        rate,
        f"{_shown(text)} is not a rate; write for example 500kB/s, 10MB/s or 80Mbit/s",
    )


def parseSize(text: str) -> int:
    """
    Read C{512MiB}, C{2GB}, or a plain number of bytes.

    @return: Bytes; at least 1.
    @raise TunnelError: C{bad-option}.
    """
    match = _RATE.fullmatch(text.strip())
    isSize = match is not None and match[3] != "bit" and not match[0].endswith("/s")
    return _within(
        int(_bytesIn(match)) if isSize else 0,
        f"{_shown(text)} is not a size; write for example 512MiB or 2GB",
    )


def _bytesIn(match: re.Match[str] | None) -> float:
    return 0.0 if match is None else float(match[1]) * _PREFIXES[match[2] or ""]


def _within(number: int, wrong: str) -> int:
    if not 1 <= number <= _FASTEST:
        raise badOption(wrong)
    return number


def formatRate(rate: float) -> str:
    """Write a rate for people, so that L{parseRate} reads nearly the same."""
    for prefix in ("G", "M", "k"):
        if rate >= _PREFIXES[prefix]:
            return f"{rate / _PREFIXES[prefix]:.4g}{prefix}B/s"
    return f"{rate:.0f}B/s"


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:40] + "...")


def retryAfter(text: str, now: Callable[[], float] = time.time) -> float | None:
    """
    Read what C{Retry-After} says: seconds, or a date (RFC 9110, 10.2.3).

    @param now: The time of day.
    @return: Seconds, within bounds; C{None} where it says nothing of use.
    """
    text = text.strip()
    if text.isascii() and text.isdecimal():
        # Before int() it is short: that takes quadratic time.
        return boundedHint(float(text[:12]))
    try:
        return boundedHint(parsedate_to_datetime(text).timestamp() - now())
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
