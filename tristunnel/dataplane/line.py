"""
How much may wait for a line: what waits in the kernel can be overtaken by nothing,
so that on a slow line a keystroke would stand for seconds behind a download.

A fixed bound suits one speed only: 256 KiB are two milliseconds of a gigabit a
second, and two seconds of a megabit. So it follows the rate at which the kernel
takes bytes while there are more than it takes.
"""

from __future__ import annotations

__all__ = ["LEAST", "MOST", "UNKNOWN", "LineRate"]

WAIT = 0.01
"""Seconds' worth of bytes that may wait in the kernel."""

LEAST = 16 * 1024
"""Bytes that may wait there in any case: a whole TLS record."""

MOST = 256 * 1024
"""Bytes that may wait there at the most."""

UNKNOWN = 64 * 1024
"""Bytes that may wait there before the rate is known."""

SAMPLE = 0.02
"""Seconds over which the rate is measured, at least."""

SLOW = MOST // 2
"""A line with a smaller bound is slow. The kernel fills a segment of its own, which
may have 64 KiB, before it looks at the bound, so there it has to be given less at a
time."""

GAP = 0.5
"""Seconds without a full kernel after which measuring begins anew: it was not the
line that held bytes back."""


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
        Bytes of one stream that go out in one piece, and that may wait outside of
        the kernel: larger ones on a line that takes them as soon.
        """
        return max(self.most, int(min(self.rate * WAIT, MOST * 4))) // 4

    @property
    def atOnce(self) -> int:
        """
        Bytes that may be given to the kernel before it says again that it has room;
        it does when half of L{most} is left.
        """
        return self.most // 2 if self.most < SLOW else MOST * MOST

    def full(self, now: float, taken: int) -> bool:
        """
        The kernel takes no more.

        @param now: Seconds.
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
            # Not worth a call to the kernel.
            return False
        changed, self.most = most != self.most, most
        return changed
