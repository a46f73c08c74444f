"""
Moments as HTTP names them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from tristunnel.errors import boundedHint

__all__ = ["retryAfter"]


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
