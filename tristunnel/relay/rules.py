"""
What slows a stream down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Rate", "Rule"]


class Rule(Protocol):
    """
    Told of every byte that an end reads, by whichever way it goes on.

    @ivar atOnce: Most bytes to read before asking again.
    """

    atOnce: int

    def charge(self, amount: int) -> float:
        """
        Count bytes that were read.

        @return: Seconds in which no more may be read; 0 to go on.
        """


class Rate:
    """
    So many bytes a second, on average.

    Several ends may share one. What is read at once may overdraw it, and is
    paid back by waiting.

    @param rate: Bytes per second.
    @param seconds: The clock.
    @param burst: Bytes that may come at once after a rest.
    """

    def __init__(
        self, rate: float, seconds: Callable[[], float], burst: int = 64 * 1024
    ) -> None:
        self.atOnce = burst
        self._rate = rate
        self._seconds = seconds
        self._left = float(burst)
        self._last = seconds()

    def charge(self, amount: int) -> float:
        """
        Count bytes that were read.
        """
        now = self._seconds()
        earned = (now - self._last) * self._rate
        self._last = now
        self._left = min(self._left + earned, float(self.atOnce)) - amount
        return max(0.0, -self._left / self._rate)
