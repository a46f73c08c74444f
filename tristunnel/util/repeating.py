"""Calls that are repeated on a given reactor's time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall

__all__ = ["RepeatingCall"]


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
