"""
SIGHUP, a request to read the configuration again, and SIGUSR1, one to begin
another log file.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.service import Service

from tristunnel.util.logs import Log
from tristunnel.util.output import finishOutputs

__all__ = ["ReloadSignalService"]


def _hasTerminal() -> bool:
    try:
        return os.tcgetpgrp(0) >= 0
    except OSError:
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

    def startService(self) -> None:
        super().startService()
        with suppress(ValueError):
            for number in (signal.SIGHUP, signal.SIGUSR1):
                self._before[number] = signal.signal(number, self._signalled)
        # Whoever says nohup wants it to go on.
        ignored = self._before.get(signal.SIGHUP) is signal.SIG_IGN
        self._attended = _hasTerminal() and not ignored
        self._reactor.addSystemEventTrigger("after", "shutdown", finishOutputs)

    def stopService(self) -> None:
        super().stopService()
        before, self._before = self._before, {}
        for number, action in before.items():
            # A rotation while the program ends must not end it at once.
            if number == signal.SIGHUP:
                signal.signal(number, action)

    def _signalled(self, number: int, frame: object) -> None:
        if number == signal.SIGUSR1:
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
