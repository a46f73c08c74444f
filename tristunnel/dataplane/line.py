"""
How much may wait for a line. Nothing can overtake what waits in the kernel, so on a
slow line a keystroke would wait behind a download for seconds.

A fixed bound suits one speed only: 256 KiB take two milliseconds at a gigabit per
second, and two seconds at a megabit. So the bound follows the rate at which the kernel
takes bytes while there are more than it takes.
"""

from __future__ import annotations

__all__ = ["LEAST", "MOST", "UNKNOWN", "LineRate"]

WAIT = 0.01
"""Seconds' worth of bytes that may wait in the kernel."""

LEAST = 8 * 1024
"""Bytes that may wait there in any case: a few packets."""

MOST = 256 * 1024
"""The most bytes that may wait there."""

UNKNOWN = 64 * 1024
"""Bytes that may wait there before the rate is known."""

SAMPLE = 0.02
"""The least number of seconds over which the rate is measured."""

SLOW = MOST // 2
"""A line with a smaller bound is slow. The kernel fills a segment, which may have 64
KiB, before it checks the bound, so on such a line it must be given less at a time."""

GAP = 0.5
"""Seconds without a full kernel after which measuring begins anew, since the line was
not what held bytes back."""


class LineRate:
    """
    The rate of one connection.

    @ivar rate: Bytes per second; 0 while it is not known.
    @ivar most: Bytes that may wait in the kernel.
    """

    __slots__ = ("_last", "_mark", "_since", "most", "rate")

    def __init__(self) -> None:
        self.rate = 0.0
        self.most = UNKNOWN
        self._since = self._last = float("-inf")
        self._mark = 0

    @property
    def piece(self) -> int:
        """
        How many bytes of one stream go out in one piece, and may wait outside the
        kernel: more on a line that takes more in the same time.
        """
        return max(self.most, int(min(self.rate * WAIT, MOST * 4))) // 4

    @property
    def atOnce(self) -> int:
        """
        How many bytes may be given to the kernel before it next reports that it has
        room, which it does when half of L{most} is left.
        """
        return self.most // 2 if self.most < SLOW else MOST * MOST

    def full(self, now: float, taken: int) -> bool:
        """
        Note that the kernel takes no more for now.

        @param now: The time, in seconds.
        @param taken: Bytes that it has taken so far.
        @return: Whether L{most} has changed.
        """
        if now - self._last > GAP:
            self._since, self._mark = now, taken
        self._last = now
        passed = now - self._since
        if passed < SAMPLE:
            return False
        rate = (taken - self._mark) / passed
        self._since, self._mark = now, taken
        self.rate = (self.rate + rate) / 2 if self.rate else rate
        most = int(min(max(self.rate * WAIT, LEAST), MOST))
        if abs(most - self.most) * 4 <= self.most and LEAST < most < MOST:
            # Too small a change to be worth a system call.
            return False
        changed, self.most = most != self.most, most
        return changed
