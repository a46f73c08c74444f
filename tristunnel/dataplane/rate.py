"""
What slows a stream down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["CombinedRateLimiter", "RateLimiter", "TokenBucket"]


class RateLimiter(Protocol):
    """
    Is told of every byte that an end reads, whichever way it is passed on.
    """

    @property
    def atOnce(self) -> int:
        """The most bytes to read before asking again."""

    def charge(self, amount: int) -> float:
        """
        Count bytes that were read.

        @return: For how many seconds no more may be read; 0 to go on.
        """


class TokenBucket:
    """
    Limits bytes per second, on average.

    Several ends may share one. Reading may overdraw it; the debt is paid back by
    waiting.

    @param rate: Bytes per second; 0 for any number.
    @param seconds: The clock.
    @param burst: Bytes that may come at once after a pause.
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
        """Count bytes that were read."""
        now, rate = self._seconds(), self._rate
        if not rate:
            return 0.0
        earned = (now - self._last) * rate
        self._last = now
        self._left = min(self._left + earned, float(self.atOnce)) - amount
        return max(0.0, -self._left / rate)

    def take(self) -> bool:
        """
        Take one token, for things that are refused instead of delayed.

        @return: Whether there was one.
        """
        self.charge(0)
        taken = self._left >= 1 or not self._rate
        self._left -= taken
        return taken

    def change(self, rate: float, burst: int) -> None:
        """
        Change the rate. A debt from the old one is forgiven: at a slower rate it could
        take forever to pay back.
        """
        self.atOnce = burst
        self._left = min(max(self._left, 0.0), float(burst))
        self._last = self._seconds()
        self._rate = rate


class CombinedRateLimiter:
    """Two rate limiters for one end, of which the slower one counts."""

    def __init__(self, one: RateLimiter, other: RateLimiter) -> None:
        self._rules = (one, other)

    @property
    def atOnce(self) -> int:
        """Most bytes to read before asking again."""
        return min(rule.atOnce for rule in self._rules)

    def charge(self, amount: int) -> float:
        """Count bytes that were read, for both."""
        return max(rule.charge(amount) for rule in self._rules)
