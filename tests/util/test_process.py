"""Tests for L{tristunnel.util.process}."""

from __future__ import annotations

import gc
import os
import re
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.main import CONNECTION_DONE
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.python.runtime import seconds as timeOfDay
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli import client_tap, server_tap
from tristunnel.dataplane.reactor import polledReactor
from tristunnel.util.logs import Log
from tristunnel.util.output import PATIENCE
from tristunnel.util.process import (
    FAREWELL,
    YOUNG,
    ReloadSignalService,
    tuneCollector,
    useMonotonicTime,
)


class MonotonicTimeTests(SynchronousTestCase):
    """A reactor whose timers do not care what day it is."""

    def reactor(self) -> PosixReactorBase:
        reactor = SelectReactor()
        self.addCleanup(self._close, reactor)
        return reactor

    def _close(self, reactor: PosixReactorBase) -> None:
        for each in reactor.removeAll():
            each.connectionLost(Failure(CONNECTION_DONE))

    def test_twisted(self) -> None:
        """It is still needed: Twisted goes by the time of day."""
        self.assertIs(self.reactor().seconds, timeOfDay)

    def test_seconds(self) -> None:
        """The reactor counts by the clock that is not stepped, from now on too."""
        reactor = self.reactor()
        useMonotonicTime(reactor)
        self.assertIs(reactor.seconds, time.monotonic)
        before = time.monotonic()
        call = reactor.callLater(100, lambda: None)
        self.assertLessEqual(before + 100, call.getTime())
        self.assertLess(call.getTime(), time.monotonic() + 101)
        call.cancel()

    def test_polled(self) -> None:
        """So does what programs use: that reactor, with sockets of ours."""
        reactor = self.reactor()
        ours = polledReactor(reactor)
        useMonotonicTime(ours)
        self.assertIs(reactor.seconds, time.monotonic)
        self.assertIs(ours.seconds, time.monotonic)

    def test_pending(self) -> None:
        """A call that waits already is due when it was, also if it is moved."""
        reactor = self.reactor()
        called: list[int] = []
        reactor.callLater(0, called.append, 1)
        later = reactor.callLater(100, called.append, 2)
        reactor.timeout()
        reactor.callLater(50, called.append, 3)
        useMonotonicTime(reactor)
        useMonotonicTime(reactor)
        reactor.runUntilCurrent()
        self.assertEqual(called, [1])
        wait = reactor.timeout()
        assert wait is not None
        self.assertTrue(45 < wait <= 50, wait)
        later.reset(0)
        reactor.runUntilCurrent()
        self.assertEqual(called, [1, 2])

    def test_others(self) -> None:
        """A clock of another kind, and one that somebody has chosen, stay."""
        clock: Any = Clock()
        useMonotonicTime(clock)
        self.assertEqual(clock.seconds(), 0)
        reactor = self.reactor()
        reactor.seconds = lambda: 5.0
        useMonotonicTime(reactor)
        self.assertEqual(reactor.seconds(), 5.0)


class StopTests(SynchronousTestCase):
    """How long a stop may take."""

    # What comes after the streams: closes, and the last lines of the log.
    after = FAREWELL + PATIENCE

    def test_default(self) -> None:
        """It fits into the ten seconds after which Docker kills."""
        for options in (server_tap.Options, client_tap.Options):
            self.assertLess(options()["grace"] + self.after, 10)

    def test_compose(self) -> None:
        """The compose file gives the time that it has the server take."""
        compose = Path(__file__).parents[2] / "contrib" / "compose.yaml"
        text = compose.read_text()
        (period,) = re.findall(r"^  stop_grace_period: (\d+)s$", text, re.MULTILINE)
        (grace,) = re.findall(r'--grace, "(\d+)"', text)
        self.assertLess(int(grace) + self.after, int(period))


class CollectorTests(SynchronousTestCase):
    """What a long-lived process asks of the collector."""

    def test_tuned(self) -> None:
        """What is there is set aside, and cycles are still found."""
        before = gc.get_threshold()
        self.addCleanup(gc.set_threshold, *before)
        self.addCleanup(gc.unfreeze)
        tuneCollector()
        self.assertEqual(gc.get_threshold()[0], YOUNG)
        self.assertGreater(gc.get_freeze_count(), 0)
        self.assertTrue(gc.isenabled())
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        self.assertGreaterEqual(gc.collect(), 1)


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
            # It may be ignored, where the tests are to outlive their terminal.
            before = signal.signal(number, signal.SIG_DFL)
            self.addCleanup(signal.signal, number, before)

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

    def test_privileged(self) -> None:
        """Before any port is open, and once."""
        self.service.privilegedStartService()
        self.service.startService()
        self.hangUp()
        self.reactor.calls.pop()()
        self.assertEqual(self.called, ["reopened", "now"])
        self.service.stopService()

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
        with patch("tristunnel.util.process.os.tcgetpgrp", return_value=1):
            self.service.startService()
            self.hangUp()
            self.reactor.calls.pop()()
        self.assertEqual((self.called, self.reactor.stopped), (["reopened", "now"], 0))
        with patch("tristunnel.util.process.os.tcgetpgrp", side_effect=OSError):
            self.hangUp()
            self.reactor.calls.pop()()
        self.assertEqual((self.called, self.reactor.stopped), (["reopened", "now"], 1))

    def test_nohup(self) -> None:
        """Unless it was started to outlive that terminal."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with patch("tristunnel.util.process.os.tcgetpgrp", return_value=1):
            self.service.startService()
        with patch("tristunnel.util.process.os.tcgetpgrp", side_effect=OSError):
            self.hangUp()
            self.reactor.calls.pop()()
        self.assertEqual((self.called, self.reactor.stopped), (["reopened", "now"], 0))

    def test_elsewhere(self) -> None:
        """In another thread signals are somebody else's."""
        with patch("tristunnel.util.process.signal.signal", side_effect=ValueError):
            self.service.startService()
            self.service.stopService()
