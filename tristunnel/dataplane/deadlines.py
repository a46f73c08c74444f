"""
The deadlines of many connections, with one timer.

A reactor keeps each delayed call as an object in a heap. For a connection that lives
for a millisecond, that costs more than to move its bytes. Here a deadline is an entry
in the bucket of its second, and one call per second processes the bucket that is due.
So a deadline may be up to a second late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tristunnel.util.repeating import stopTimer

__all__ = ["Deadlines", "deadlinesOf"]

GRAIN = 1.0
"""Seconds between two checks."""

Key = tuple[int, int]


class Deadlines:
    """
    Calls that are made later unless they are cancelled before.

    @param reactor: Tells time.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._buckets: dict[int, dict[int, Callable[[], object]]] = {}
        self._last = 0
        self._timer: IDelayedCall | None = None

    def add(self, seconds: float, late: Callable[[], object]) -> Key:
        """
        Have C{late} called after C{seconds}, or up to a second later.

        @return: What L{cancel} takes.
        """
        self._last += 1
        at = int((self._reactor.seconds() + seconds) / GRAIN) + 1
        bucket = self._buckets.get(at)
        if bucket is None:
            bucket = self._buckets[at] = {}
            # A reactor can be told to forget all its calls.
            if self._timer is None or not self._timer.active():
                self._timer = self._reactor.callLater(GRAIN, self._look)
        bucket[self._last] = late
        return at, self._last

    def cancel(self, key: Key) -> None:
        """Drop a deadline that was met; doing it twice is no error."""
        bucket = self._buckets.get(key[0])
        if bucket is not None and bucket.pop(key[1], None) is not None and not bucket:
            del self._buckets[key[0]]
            self._stopIfNone()

    def _stopIfNone(self) -> None:
        """Leave no timer behind in a program that ends."""
        if not self._buckets:
            stopTimer(self._timer)
            self._timer = None

    def _look(self) -> None:
        """Call what is late."""
        self._timer = None
        now = self._reactor.seconds() / GRAIN
        for at in sorted(at for at in self._buckets if at <= now):
            # One call may cancel others, of its own second and of those that follow.
            bucket = self._buckets.get(at, {})
            while bucket:
                _, late = bucket.popitem()
                try:
                    late()
                except Exception:
                    self._log.failure("What was to follow a deadline failed")
            self._buckets.pop(at, None)
        if self._buckets and self._timer is None:
            self._timer = self._reactor.callLater(GRAIN, self._look)
        self._stopIfNone()


_DEADLINES: WeakKeyDictionary[Any, Deadlines] = WeakKeyDictionary()


def deadlinesOf(reactor: Any) -> Deadlines:
    """Find a reactor's deadlines."""
    found = _DEADLINES.get(reactor)
    if found is None:
        found = _DEADLINES[reactor] = Deadlines(reactor)
    return found
