"""
The life of a process: its clock, its memory, its signals, and how it ends.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorTime
from twisted.python.runtime import seconds as timeOfDay

from tristunnel.util.logs import Log
from tristunnel.util.output import finishOutputs
from tristunnel.util.platform import HANG_UP, ROTATE

__all__ = [
    "FAREWELL",
    "GRACE",
    "Drain",
    "ReloadSignalService",
    "environmentOfOthers",
    "exitWith",
    "hurryOnSecondSignal",
    "serviceThen",
    "stopSoon",
    "tuneCollector",
    "useMonotonicTime",
]


def useMonotonicTime(reactor: Any) -> None:
    """
    Have a reactor count seconds by the clock that is never stepped. What waits
    already goes on to wait for as long as it would have.

    @param reactor: The process's, or one that is made from it, and names it as
        C{original}. One that has another clock than the time of day is left alone;
        doing it twice is no error.
    """
    reactor = getattr(reactor, "original", reactor)
    if not isinstance(reactor, ReactorBase) or reactor.seconds is not timeOfDay:
        return
    # Twisted looks this up at each use, and gives no other way to choose it.
    reactor.seconds = time.monotonic
    behind = time.monotonic() - timeOfDay()
    for call in reactor.getDelayedCalls():
        if isinstance(call, DelayedCall):
            call.time += behind
            call.seconds = time.monotonic


YOUNG = 20_000
"""Objects made, less those that went by themselves, between two looks at the
youngest; a connection is a few dozens of them."""


def tuneCollector() -> None:
    """
    Look for garbage less often than a short program needs it, and never again
    among what was there at the start: modules, classes and code.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)


def environmentOfOthers() -> dict[str, str]:
    """The environment for programs that are started: ours, without our secrets."""
    return {k: v for k, v in os.environ.items() if not k.startswith("TRISTUNNEL_")}


GRACE = 7.0
"""Seconds that streams get to finish at a stop, unless somebody says otherwise. With
what follows it is less than the 10 s after which C{docker stop} kills."""

FAREWELL = 1.5
"""Seconds that a stopping program waits for its last words to be heard: a
WebSocket's close takes a round trip."""


class _ServiceThen(MultiService):
    def __init__(self, service: Service, after: Callable[[], Any]) -> None:
        super().__init__()
        self._after = after
        service.setServiceParent(self)

    def stopService(self) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, stopping: Any) -> None:
        await stopping
        await self._after()


def serviceThen(service: Service, after: Callable[[], Any]) -> Service:
    """
    Have something done when a service has stopped.

    @param after: Does it; the program waits for what it returns.
    """
    return _ServiceThen(service, after)


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
        self._check(done)
        return done

    def hurry(self) -> None:
        """Wait no longer."""
        self._until = 0.0

    def _check(self, done: Deferred[None]) -> None:
        if not self._left() or self._reactor.seconds() >= self._until:
            done.callback(None)
        else:
            self._reactor.callLater(self._INTERVAL, self._check, done)


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


def stopSoon(reactor: Any) -> None:
    """
    Stop a reactor, or as soon as it runs. Several things may be wrong, so that this
    is called for each of them.
    """

    def stop() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    reactor.callWhenRunning(stop)


def _hasTerminal() -> bool:
    try:
        return os.tcgetpgrp(0) >= 0
    except (AttributeError, OSError):
        return False


class ReloadSignalService(Service):
    """
    Obeys signals of which Twisted knows nothing, and which would end the process.
    SIGHUP still does when it means what it says, and the terminal is gone from
    which the program was started.

    @param reactor: Where the functions are called.
    @param log: Its file is opened anew at SIGHUP if it was renamed; at SIGUSR1
        another one is begun.
    @param called: Called at SIGHUP, too.
    """

    def __init__(
        self, reactor: Any, log: Log, called: Callable[[], None] = lambda: None
    ) -> None:
        self._reactor = reactor
        self._log = log
        self._called = called
        self._before: dict[int, Any] = {}
        self._attended = False

    def privilegedStartService(self) -> None:
        # Before any port is open: who sees that must not end the program by a signal.
        super().privilegedStartService()
        self._obey()

    def startService(self) -> None:
        super().startService()
        self._obey()
        self._reactor.addSystemEventTrigger("after", "shutdown", finishOutputs)

    def _obey(self) -> None:
        if self._before:
            return
        with suppress(ValueError):
            for number in (HANG_UP, ROTATE):
                if number is not None:
                    self._before[number] = signal.signal(number, self._signalled)
        # Whoever says nohup wants it to go on.
        ignored = HANG_UP and self._before.get(HANG_UP) is signal.SIG_IGN
        self._attended = _hasTerminal() and not ignored

    def stopService(self) -> None:
        super().stopService()
        before, self._before = self._before, {}
        for number, action in before.items():
            # A rotation while the program ends must not end it at once.
            if number == HANG_UP:
                signal.signal(number, action)

    def _signalled(self, number: int, frame: object) -> None:
        if number == ROTATE:
            self._reactor.callFromThread(self._log.turn)
        else:
            self._reactor.callFromThread(self._hungUp)

    def _hungUp(self) -> None:
        if self._attended and not _hasTerminal():
            if self._reactor.running:
                self._reactor.stop()
            return
        self._log.reopen()
        self._called()
