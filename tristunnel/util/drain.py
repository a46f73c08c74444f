"""
Stopping without cutting anybody off, and being told to hurry.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from tristunnel.util.output import finishOutputs

__all__ = ["FAREWELL", "GRACE", "Drain", "exitWith", "hurryOnSecondSignal"]


GRACE = 7.0
"""Seconds that streams get to finish at a stop, unless somebody says otherwise. With
what follows it is less than the 10 s after which C{docker stop} kills."""

FAREWELL = 1.5
"""Seconds that a stopping program waits for its last words to be heard: a
WebSocket's close takes a round trip."""


class Drain:
    """
    Waits until nothing is left, or time is up, or somebody is in a hurry.

    @param reactor: Tells time.
    @param left: How much is left.
    @param grace: Seconds to wait at the most.
    """

    _INTERVAL = 0.1

    def __init__(
        self, reactor: IReactorTime, left: Callable[[], int], grace: float
    ) -> None:
        self._reactor = reactor
        self._left = left
        self._until = reactor.seconds() + grace

    def wait(self) -> Deferred[None]:
        """
        @return: Fires when the wait is over.
        """
        done: Deferred[None] = Deferred()
        self._look(done)
        return done

    def hurry(self) -> None:
        """
        Wait no longer.
        """
        self._until = 0.0

    def _look(self, done: Deferred[None]) -> None:
        if not self._left() or self._reactor.seconds() >= self._until:
            done.callback(None)
        else:
            self._reactor.callLater(self._INTERVAL, self._look, done)


def hurryOnSecondSignal(reactor: Any, hurry: Callable[[], None]) -> None:
    """
    Have C{hurry} called when SIGTERM or SIGINT comes again during a stop.

    Twisted's own handlers only log that the reactor is already stopping.

    @param reactor: The one that runs; elsewhere nothing is done.
    """

    def again(number: int, frame: object) -> None:
        reactor.callFromThread(hurry)

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            if signal.getsignal(number) is not signal.SIG_DFL:
                signal.signal(number, again)
        except ValueError:
            # Not the main thread: signals are somebody else's.
            return


def exitWith(status: int) -> None:
    """
    Have the process end with C{status} once C{twistd} is done.

    C{twistd} gives a service no say in its exit status; the last word before
    the end is that of the exit functions.
    """

    def leave() -> None:
        finishOutputs()
        os._exit(status)

    atexit.register(leave)
