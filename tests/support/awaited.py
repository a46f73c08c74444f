"""Things that tell a test themselves when what it waits for has come about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Awaited"]


class Awaited:
    """
    Has conditions that a test waits for, and looks at them with each change.

    @ivar lost: Why it is over, or C{None}.
    """

    def __init__(self) -> None:
        self._waits: list[tuple[Callable[[Any], object], Deferred[Any]]] = []
        self.lost: Failure | None = None

    def until(self, condition: Callable[[Self], object]) -> Deferred[Self]:
        """
        Wait until C{condition}, called with this object, holds.

        @return: Fires with this object; fails if this is over before.
        """
        waiting: Deferred[Self] = Deferred()
        if condition(self):
            waiting.callback(self)
        elif self.lost is not None:
            waiting.errback(self.lost)
        else:
            self._waits.append((condition, waiting))
        return waiting

    def gone(self) -> Deferred[Self]:
        """Wait until it is over, in both directions."""
        return self.until(lambda it: it.lost is not None)

    def _look(self) -> None:
        for wait in list(self._waits):
            if wait[0](self):
                self._waits.remove(wait)
                wait[1].callback(self)

    def _end(self, reason: Failure) -> None:
        """Look for the last time: nothing changes any more."""
        self.lost = reason
        self._look()
        waits, self._waits = self._waits, []
        for _, waiting in waits:
            waiting.errback(reason)
