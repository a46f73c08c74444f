"""
What streams hold in memory, in the whole process, and who must go when it is
too much.

A reader that stands still has bytes held for it: in its session's stream, and
in the transport to it. Each stream, and each session, has a bound of its own;
this one is for all of them together. A stream for which nothing is held costs
nothing here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

from tristunnel.errors import TunnelError

__all__ = ["HELD", "HeldBytes", "defaultMemory", "keepFreed"]

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_KEPT = 1024 * 1024

STANDSTILL = 1.0
"""Seconds after which a reader that took nothing stands still."""

_LEAST = 64 * 1024 * 1024


def defaultMemory() -> int:
    """
    Half of the memory of this machine, or of what of it this process may use.

    @return: Bytes.
    """
    whole = 1 << 62
    # Windows has no such call.
    with suppress(AttributeError, OSError, ValueError):
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _LIMITS:
        with suppress(OSError, ValueError):
            whole = min(whole, int(Path(path).read_text()))
    return max(whole // 2, _LEAST)


def keepFreed() -> None:
    """
    Have the process keep memory that was freed for what is read next. The C library
    asks the kernel for each block of 128 KiB or more, and gives it back, until a larger
    one was freed (glibc's mallopt(3), M_MMAP_THRESHOLD); the faults of its pages cost
    more than to read into it.
    """
    bytearray(_KEPT)


class _Holding:
    """
    What is held for one stream's end.

    @ivar amount: Bytes.
    @ivar end: Ends it.
    @ivar moved: When its reader last took some, in seconds.
    """

    __slots__ = ("amount", "end", "moved")

    def __init__(self, end: Callable[[TunnelError], None], moved: float) -> None:
        self.amount = 0
        self.end = end
        self.moved = moved


class HeldBytes:
    """
    Counts what is held for streams, and ends some when all of them hold too
    much: of those that stand still, the greediest first.

    @param seconds: The clock.

    @ivar most: Bytes that may be held; 0 for any number.
    @ivar total: Bytes that are held.
    @ivar shed: Streams that had to go so far.
    """

    _log = Logger()

    def __init__(
        self, most: int = 0, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self.most = most
        self.total = 0
        self.shed = 0
        self._seconds = seconds
        self._holders: dict[object, _Holding] = {}
        self._shedding = False

    def __len__(self) -> int:
        return len(self._holders)

    def of(self, holder: object) -> int:
        """How many bytes somebody holds."""
        held = self._holders.get(holder)
        return 0 if held is None else held.amount

    def hold(
        self, holder: object, amount: int, end: Callable[[TunnelError], None]
    ) -> None:
        """
        Count bytes that are held from now on, in addition to others of the
        same holder.

        @param holder: Who holds them.
        @param end: Ends it; it must L{letGo}, then or later.
        """
        held = self._holders.get(holder)
        if held is None:
            held = self._holders[holder] = _Holding(end, self._seconds())
        held.amount += amount
        self.total += amount
        if self.most and self.total > self.most:
            self._shedSome()

    def release(self, holder: object, amount: int) -> None:
        """Bytes are held no more; of a holder that has let go, nothing is."""
        held = self._holders.get(holder)
        if held is None:
            return
        amount = min(amount, held.amount)
        self.total -= amount
        held.amount -= amount
        if held.amount:
            held.moved = self._seconds()
        else:
            del self._holders[holder]

    def letGo(self, holder: object) -> None:
        """Somebody holds nothing any more; doing it twice is no error."""
        held = self._holders.pop(holder, None)
        if held is not None:
            self.total -= held.amount

    def _shedSome(self) -> None:
        """
        End some, until what is left is well within the bound: the search is
        for many, and must not follow each byte.
        """
        if self._shedding:
            return
        self._shedding = True
        try:
            goal = self.most - self.most // 16
            stoodStill = self._seconds() - STANDSTILL
            candidates = sorted(
                self._holders.items(),
                key=lambda each: (each[1].moved < stoodStill, each[1].amount),
                reverse=True,
            )
            before, ended = self.total, 0
            for holder, held in candidates:
                if self.total <= goal:
                    break
                ended += 1
                self.letGo(holder)
                held.end(
                    TunnelError(
                        "stalled",
                        f"{held.amount} bytes were waiting for this slow reader, and"
                        " the server needs the memory (--max-memory)",
                    )
                )
            self.shed += ended
            self.tell(before, ended)
        finally:
            self._shedding = False

    def tell(self, before: int, ended: int) -> None:
        """
        Some had to go.

        @param before: Bytes that were held before.
        @param ended: How many had to go.
        """
        self._log.warn(
            "{before} bytes were held for slow readers, more than --max-memory"
            " {most} allows: the {ended} streams that held most were ended",
            before=before,
            most=self.most,
            ended=ended,
        )


HELD = HeldBytes()
"""What this process holds; it is the process's, as its memory is."""
