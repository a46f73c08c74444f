"""SIGHUP, L{tristunnel.util.reload_signal}."""

from __future__ import annotations

import os
import signal
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.util.logs import Log
from tristunnel.util.reload_signal import ReloadSignalService


class _Reactor:
    """Notes what is asked of it."""

    running = True

    def __init__(self) -> None:
        self.stopped = 0
        self.calls: list[Any] = []

    def callFromThread(self, call: Any) -> None:
        self.calls.append(call)

    def addSystemEventTrigger(self, *trigger: Any) -> None:
        pass

    def stop(self) -> None:
        self.stopped += 1


class _Log(Log):
    """Notes what becomes of its file."""

    def __init__(self, called: list[str]) -> None:
        super().__init__({})
        self._called = called

    def reopen(self) -> None:
        self._called.append("reopened")

    def turn(self) -> None:
        self._called.append("turned")


class HangupTests(SynchronousTestCase):
    """A function is called, when the reactor has time."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.called: list[str] = []
        log = _Log(self.called)
        self.service = ReloadSignalService(
            self.reactor, log, lambda: self.called.append("now")
        )
        for number in (signal.SIGHUP, signal.SIGUSR1):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def hangUp(self) -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    def test_called(self) -> None:
        """Not in the midst of anything, but by the reactor."""
        self.service.startService()
        self.hangUp()
        self.assertEqual(self.called, [])
        for call in self.reactor.calls:
            call()
        self.assertEqual(self.called, ["reopened", "now"])
        self.assertEqual(self.reactor.stopped, 0)

    def test_turned(self) -> None:
        """SIGUSR1 is about the log alone, and ends nothing, also during the stop."""
        self.service.startService()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGUSR1)
            self.reactor.calls.pop()()
            self.service.stopService()
        self.assertEqual(self.called, ["turned", "turned"])

    def test_stop(self) -> None:
        """After the stop, whoever had the signal before has it again."""
        before: list[int] = []
        signal.signal(signal.SIGHUP, lambda number, frame: before.append(number))
        self.service.startService()
        self.service.stopService()
        self.hangUp()
        self.assertEqual(before, [signal.SIGHUP])
        self.assertEqual(self.reactor.calls, [])

    def test_terminalGone(self) -> None:
        """When the terminal is gone that the program was started in, it ends."""
        with patch("tristunnel.util.reload_signal.os.tcgetpgrp", return_value=1):
            self.service.startService()
            self.hangUp()
            self.reactor.calls.pop()()
        self.assertEqual((self.called, self.reactor.stopped), (["reopened", "now"], 0))
        with patch("tristunnel.util.reload_signal.os.tcgetpgrp", side_effect=OSError):
            self.hangUp()
            self.reactor.calls.pop()()
        self.assertEqual((self.called, self.reactor.stopped), (["reopened", "now"], 1))

    def test_nohup(self) -> None:
        """Unless it was started to outlive that terminal."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with patch("tristunnel.util.reload_signal.os.tcgetpgrp", return_value=1):
            self.service.startService()
        with patch("tristunnel.util.reload_signal.os.tcgetpgrp", side_effect=OSError):
            self.hangUp()
            self.reactor.calls.pop()()
        self.assertEqual((self.called, self.reactor.stopped), (["reopened", "now"], 0))

    def test_elsewhere(self) -> None:
        """In another thread signals are somebody else's."""
        with patch(
            "tristunnel.util.reload_signal.signal.signal", side_effect=ValueError
        ):
            self.service.startService()
            self.service.stopService()
