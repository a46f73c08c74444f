"""
SIGHUP: a request to read the configuration again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service

__all__ = ["HangupService"]


def _hasTerminal() -> bool:
    """
    Whether the standard input is a terminal that somebody is at.
    """
    try:
        return os.tcgetpgrp(0) >= 0
    except OSError:
        return False


class HangupService(Service):
    """
    Calls a function at SIGHUP, of which Twisted knows nothing: it would end
    the process. That it still does when the signal means what it says, and the
    terminal is gone from which the program was started.

    @param reactor: Where the function is called.
    @param called: The function.
    """

    def __init__(self, reactor: Any, called: Callable[[], None]) -> None:
        self._reactor = reactor
        self._called = called
        self._before: Any = None
        self._attended = False

    def startService(self) -> None:
        """
        Listen for the signal. Elsewhere than in the main thread signals are
        somebody else's.
        """
        super().startService()
        try:
            self._before = signal.signal(signal.SIGHUP, self._signalled)
        except ValueError:
            self._before = None
        # Whoever says nohup wants it to go on.
        self._attended = _hasTerminal() and self._before is not signal.SIG_IGN

    def stopService(self) -> None:
        """
        Listen no longer.
        """
        super().stopService()
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
            self._before = None

    def _signalled(self, number: int, frame: object) -> None:
        """
        The signal came, in the midst of anything.
        """
        self._reactor.callFromThread(self._hungUp)

    def _hungUp(self) -> None:
        """
        Do what it asks for.
        """
        if self._attended and not _hasTerminal():
            if self._reactor.running:
                self._reactor.stop()
            return
        self._called()
