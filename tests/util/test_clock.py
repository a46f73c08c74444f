"""Tests for L{tristunnel.util.clock}."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python.runtime import seconds as timeOfDay
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.util.clock import useMonotonicTime


class MonotonicTimeTests(SynchronousTestCase):
    """A reactor whose timers do not care what day it is."""

    def reactor(self) -> PosixReactorBase:
        reactor = SelectReactor()
        self.addCleanup(self._close, reactor)
        return reactor

    def _close(self, reactor: PosixReactorBase) -> None:
        for each in reactor.removeAll():
            each.connectionLost(None)

    def test_twisted(self) -> None:
        """It is still needed: Twisted goes by the time of day."""
        self.assertIs(self.reactor().seconds, timeOfDay)

    def test_seconds(self) -> None:
        """
        The reactor counts by the clock that is not stepped, for calls that are
        made from now on too.
        """
        reactor = self.reactor()
        useMonotonicTime(reactor)
        self.assertIs(reactor.seconds, time.monotonic)
        before = time.monotonic()
        call = reactor.callLater(100, lambda: None)
        self.assertLessEqual(before + 100, call.getTime())
        self.assertLess(call.getTime(), time.monotonic() + 101)
        call.cancel()

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
        reactor.seconds = lambda: 5.0  # type: ignore[method-assign]
        useMonotonicTime(reactor)
        self.assertEqual(reactor.seconds(), 5.0)
