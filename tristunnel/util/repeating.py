"""Calls that are repeated, or due later, on a given reactor's time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.task import LoopingCall

__all__ = ["RepeatingCall", "RepeatingService", "Timer", "stopTimer"]


class Timer(Protocol):
    """A call that is due later, such as an C{IDelayedCall}."""

    def active(self) -> bool: ...

    def cancel(self) -> object: ...


def stopTimer(timer: Timer | None) -> None:
    """Cancel a call that is due later, unless it was made or cancelled before."""
    if timer is not None and timer.active():
        timer.cancel()


class RepeatingCall(LoopingCall):
    """
    A looping call that is told its clock.

    Twisted's own asks for the process's reactor at first, and so installs one in
    a program that may want another, or has none.

    @param clock: Tells time.
    @param call: What to call, with the arguments.
    """

    def __init__(
        self, clock: Any, call: Callable[..., object], *args: object, **kwargs: object
    ) -> None:
        self.clock = clock
        self.f = call
        self.a = args
        self.kw = kwargs


class RepeatingService(Service):
    """
    Repeats a call while it runs.

    @param clock: Tells time.
    @param call: What to call.
    @param interval: Seconds between two calls.
    """

    def __init__(self, clock: Any, call: Callable[[], object], interval: float) -> None:
        self._repeating = RepeatingCall(clock, call)
        self._interval = interval

    def startService(self) -> None:
        super().startService()
        self._repeating.start(self._interval, now=False)

    def stopService(self) -> None:
        super().stopService()
        if self._repeating.running:
            self._repeating.stop()
