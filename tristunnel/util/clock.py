"""
Time that nobody can set.

Twisted's reactors ask for the time of day. When that is stepped forward, all
timers are due at once: sessions are taken for dead, logins for too late. When
it is stepped back, none is until the day has caught up.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.base import DelayedCall, ReactorBase
from twisted.python.runtime import seconds as timeOfDay

__all__ = ["useMonotonicTime"]


def useMonotonicTime(reactor: Any) -> None:
    """
    Have a reactor count seconds by the clock that is never stepped. What waits
    already goes on to wait for as long as it would have.

    @param reactor: The process's. One that has another clock than the time of
        day is left alone; doing it twice is no error.
    """
    if not isinstance(reactor, ReactorBase) or reactor.seconds is not timeOfDay:
        return
    # Twisted looks this up at each use, and gives no other way to choose it.
    reactor.seconds = time.monotonic
    behind = time.monotonic() - timeOfDay()
    for call in reactor.getDelayedCalls():
        if isinstance(call, DelayedCall):
            call.time += behind
            call.seconds = time.monotonic
