"""
The memory that streams hold in the whole process, and which of them must end when it is
too much.

For a reader that has stopped reading, bytes are held in its session's stream, and in
the transport to it. Each stream and each session has a bound of its own; the one in
this module is for all of them together. A stream for which nothing is held costs
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
"""Seconds without reading after which a reader counts as stalled."""

_LEAST = 64 * 1024 * 1024


def defaultMemory() -> int:
    """
    Half of this machine's memory, or of the part of it that this process may use.

    @return: Bytes.
    """
    whole = 1 << 62
    # Windows does not have this function.
    with suppress(AttributeError, OSError, ValueError):
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _LIMITS:
        with suppress(OSError, ValueError):
            whole = min(whole, int(Path(path).read_text()))
    return max(whole // 2, _LEAST)


def keepFreed() -> None:
    """
    Have the process keep freed memory for later reads. The C library otherwise maps
    each block of 128 KiB or more anew and unmaps it when it is freed, until a larger
    one has been freed (glibc's mallopt(3), M_MMAP_THRESHOLD). The page faults of a new
    mapping cost more than reading into it.
    """
    bytearray(_KEPT)


class _Holding:
    """
    What is held for one end of a stream.

    @ivar amount: Bytes.
    @ivar end: Ends the stream.
    @ivar moved: When its reader last read something, in seconds.
    """

    __slots__ = ("amount", "end", "moved")

    def __init__(self, end: Callable[[TunnelError], None], moved: float) -> None:
        self.amount = 0
        self.end = end
        self.moved = moved


class HeldBytes:
    """
    Counts the bytes that are held for streams, and ends some streams when there are too
    many in all: of the stalled ones, those with the most bytes first.

    @param seconds: The clock.

    @ivar most: Bytes that may be held; 0 for any number.
    @ivar total: Bytes that are held.
    @ivar evicted: How many streams were ended for this reason so far.
    """

    _log = Logger()

    def __init__(
        self, most: int = 0, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self.most = most
        self.total = 0
        self.evicted = 0
        self._seconds = seconds
        self._holders: dict[object, _Holding] = {}
        self._evicting = False

    def __len__(self) -> int:
        return len(self._holders)

    def of(self, holder: object) -> int:
        """How many bytes are held by C{holder}."""
        held = self._holders.get(holder)
        return 0 if held is None else held.amount

    def hold(
        self, holder: object, amount: int, end: Callable[[TunnelError], None]
    ) -> None:
        """
        Count bytes that are held from now on, in addition to those of the same holder
        that are counted already.

        @param holder: Who holds them.
        @param end: Ends the stream; the holder must call L{releaseAll}, then or later.
        """
        held = self._holders.get(holder)
        if held is None:
            held = self._holders[holder] = _Holding(end, self._seconds())
        held.amount += amount
        self.total += amount
        if self.most and self.total > self.most:
            self._evictSome()

    def release(self, holder: object, amount: int) -> None:
        """Count bytes no more; no effect after L{releaseAll}."""
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

    def releaseAll(self, holder: object) -> None:
        """Count none of a holder's bytes any more; doing it twice is no error."""
        held = self._holders.pop(holder, None)
        if held is not None:
            self.total -= held.amount

    def _evictSome(self) -> None:
        """
        End streams until the rest is well within the bound. The search is expensive, so
        it must not be repeated for every few bytes.
        """
        if self._evicting:
            return
        self._evicting = True
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
                self.releaseAll(holder)
                held.end(
                    TunnelError(
                        "stalled",
                        f"{held.amount} bytes were waiting for this slow reader, and"
                        " the server needs the memory (--max-memory)",
                    )
                )
            self.evicted += ended
            self.tell(before, ended)
        finally:
            self._evicting = False

    def tell(self, before: int, ended: int) -> None:
        """
        Log that streams were ended.

        @param before: Bytes that were held before.
        @param ended: How many streams were ended.
        """
        self._log.warn(
            "{before} bytes were held for slow readers, more than --max-memory"
            " {most} allows: the {ended} streams that held most were ended",
            before=before,
            most=self.most,
            ended=ended,
        )


HELD = HeldBytes()
"""What this process holds; it is global because memory is."""
