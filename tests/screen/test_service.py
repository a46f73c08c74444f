"""Tests for L{tristunnel.screen.service}, L{tristunnel.screen.client} and
L{tristunnel.screen.client}."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.screen.example import clientStatus, server
from tristunnel.client.log import LoggingClientObserver
from tristunnel.client.status import ProcessStatus
from tristunnel.errors import TunnelError
from tristunnel.screen.client import ScreenLog, WatchedClient, farewell, screenTerminal
from tristunnel.screen.draw import Pen
from tristunnel.screen.service import IDLE, INTERVAL, Screen
from tristunnel.screen.terminal import Terminal
from tristunnel.util.events import RecentEvents


class FakeTerminal:
    """A terminal in memory."""

    encoding = "utf-8"
    mayEnter = True

    def __init__(self) -> None:
        self.pictures: list[list[str]] = []
        self.ready = self.foreground = True
        self.entered = self.closed = False
        self.size = (80, 24)
        self.forgot = 0
        self.keys: Callable[[str], None] = lambda text: None
        self.gone: Callable[[], None] = lambda: None

    def enter(self, reactor: object) -> bool:
        self.entered = self.foreground
        return self.entered

    def leave(self) -> None:
        self.entered = False

    def close(self) -> None:
        self.entered, self.closed = False, True

    def forget(self) -> None:
        self.forgot += 1

    def show(self, lines: Sequence[str], size: tuple[int, int]) -> bool:
        if self.ready:
            self.pictures.append(list(lines))
        return self.ready


class ReactorClock(Clock):
    running = True
    stopped = 0

    def callWhenRunning(self, call: Callable[..., Any], *arguments: Any) -> None:
        call(*arguments)

    def callFromThread(self, call: Callable[..., Any], *arguments: Any) -> None:
        call(*arguments)

    def stop(self) -> None:
        self.stopped += 1


class ScreenTests(SynchronousTestCase):
    """What is drawn when."""

    def setUp(self) -> None:
        self.clock = ReactorClock()
        self.terminal = FakeTerminal()
        self.codes: list[str] = []
        self.drawn = self.ended = 0
        terminal: Any = self.terminal
        self.screen = Screen(
            self.clock,
            terminal,
            Pen(styled=False),
            self.draw,
            lambda: self.codes,
            self.end,
        )
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.screen.stopService()

    def end(self) -> None:
        self.ended += 1

    def draw(self, width: int, height: int) -> list[str]:
        self.drawn += 1
        return [f"{width}x{height}", str(self.drawn)]

    def test_bounded(self) -> None:
        """However much happens, it is drawn four times a second; and once a second if
        nothing does."""
        self.screen.startService()
        self.assertEqual(self.terminal.pictures, [["80x24", "1"]])
        for _ in range(1000):
            self.screen.changed()
            self.clock.advance(0.004)
        self.assertEqual(self.drawn, 1 + 4 / INTERVAL)
        before = self.drawn
        self.clock.pump([INTERVAL] * 40)
        self.assertEqual(self.drawn - before, 10 / IDLE)

    def test_resized(self) -> None:
        """Another size shows at once."""
        self.screen.startService()
        self.terminal.size = (60, 20)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.terminal.pictures[-1][0], "60x20")

    def test_notReady(self) -> None:
        """What the terminal did not take is drawn when it does."""
        self.screen.startService()
        self.terminal.ready = False
        self.screen.changed()
        self.clock.advance(INTERVAL)
        self.terminal.ready = True
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.terminal.pictures), 2)

    def test_background(self) -> None:
        """In the background nothing is drawn, until the terminal is ours again."""
        self.screen.startService()
        self.terminal.entered = self.terminal.foreground = False
        self.clock.pump([INTERVAL] * 10)
        self.assertEqual(len(self.terminal.pictures), 1)
        self.terminal.foreground = True
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.terminal.pictures), 2)

    def test_quit(self) -> None:
        """C{q} does what Ctrl-C does; behind a QR code it only goes back."""
        self.codes = ["http://a.example/"]
        self.screen.startService()
        ends = []
        for key in ("x", "c", "q", "q", "Q"):
            self.terminal.keys(key)
            self.clock.advance(0)
            ends.append(self.ended)
        self.assertEqual(ends, [0, 0, 0, 1, 2])

    def test_codes(self) -> None:
        """C{c} shows one code after the other, and any other key goes back."""
        self.codes = ["http://a.example/", "http://b.example/"]
        self.screen.startService()
        first: list[str] = []
        for key, begins in (
            ("c", "http://a.example/  1 of 2"),
            ("c", "http://b.example/  2 of 2"),
            ("c", "http://a.example/  1 of 2"),
            (" ", "80x24"),
        ):
            self.terminal.keys(key)
            self.clock.advance(0)
            first.append(self.terminal.pictures[-1][0][: len(begins)])
            self.assertEqual(first[-1], begins)

    def test_oneCode(self) -> None:
        """Where there is but one code, every key goes back, C{c} too."""
        self.codes = ["http://a.example/"]
        self.screen.startService()
        first: list[str] = []
        for _ in range(2):
            self.terminal.keys("c")
            self.clock.advance(0)
            first.append(self.terminal.pictures[-1][0])
        self.assertEqual(first, ["http://a.example/  any key: back", "80x24"])

    def test_codeTooLarge(self) -> None:
        """A code that does not fit is not drawn in part."""
        self.codes = ["http://a.example/"]
        self.terminal.size = (80, 10)
        self.screen.startService()
        self.terminal.keys("c")
        self.clock.advance(0)
        self.assertEqual(len(self.terminal.pictures[-1]), 2)
        self.assertIn("The code needs", self.terminal.pictures[-1][1])

    def test_noCodes(self) -> None:
        """Without an address to open, C{c} does nothing."""
        self.screen.startService()
        self.terminal.keys("c")
        self.clock.advance(0)
        self.assertEqual(self.terminal.pictures[-1][0], "80x24")

    def test_refresh(self) -> None:
        """Ctrl-L draws everything anew."""
        self.screen.startService()
        self.terminal.keys("\x0c")
        self.assertEqual(self.terminal.forgot, 1)

    def test_gone(self) -> None:
        """When the terminal is gone the program ends."""
        self.screen.startService()
        self.terminal.gone()
        self.assertEqual(self.clock.stopped, 1)

    def test_stop(self) -> None:
        """In the end the terminal is put back, and the signals are."""
        before = signal.getsignal(signal.SIGTSTP)
        self.screen.startService()
        self.assertNotEqual(signal.getsignal(signal.SIGTSTP), before)
        self.screen.stopService()
        self.assertTrue(self.terminal.closed)
        self.assertEqual(signal.getsignal(signal.SIGTSTP), before)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_neverBegun(self) -> None:
        """A program that ends before it began leaves the terminal alone."""
        calls: list[Callable[[], None]] = []
        self.patch(self.clock, "callWhenRunning", calls.append)
        self.screen.startService()
        self.screen.stopService()
        calls[0]()
        self.assertEqual(self.terminal.pictures, [])
        self.assertFalse(self.terminal.entered)


class LogTests(SynchronousTestCase):
    """The log beside a screen."""

    def setUp(self) -> None:
        self.events = RecentEvents(Clock().seconds)
        self.log = ScreenLog(self.events)
        self.log.start()
        self.addCleanup(self.log.stop)

    def found(self) -> list[tuple[object, object]]:
        return [(e.level, e.text) for e in self.events.latest(9)]

    def test_levels(self) -> None:
        """What is wrong is seen, in one line; what is not, is not."""
        log = Logger(namespace="test")
        log.debug("hush")
        log.info("quiet")
        log.warn("careful,\nthere is more")
        log.error("wrong: {what}", what="\x1b[2J")
        self.assertEqual(self.found(), [("error", "wrong: ?[2J"), ("warn", "careful,")])

    def test_failure(self) -> None:
        """So is a failure, and its traceback is kept for later."""
        try:
            raise ZeroDivisionError("of apples")
        except ZeroDivisionError:
            Logger(namespace="test").failure("It failed")
        self.assertEqual(self.found(), [("error", "It failed: of apples")])
        (traceback,) = self.log.tracebacks
        self.assertIn("ZeroDivisionError", traceback)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_twice(self) -> None:
        """What the observer of the client logs is an event already."""
        LoggingClientObserver().disconnected(TunnelError("session-lost"))
        self.assertEqual(self.found(), [])

    def test_stop(self) -> None:
        """In the end it listens no more."""
        self.log.stop()
        Logger(namespace="test").warn("late")
        self.assertEqual(self.found(), [])


class StoppingService(Service):
    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self.done


class WatchedClientTests(SynchronousTestCase):
    """L{WatchedClient}."""

    def test_order(self) -> None:
        """What shows a client stops after it."""
        status = ProcessStatus(Clock().seconds)
        status.follow("tcp:h:1")
        client, other = StoppingService(), Service()
        watched = WatchedClient(client, status, 5.0, other)
        watched.startService()
        stopping = watched.stopService()
        self.assertTrue(other.running)
        servers: Any = status.describe()["servers"]
        self.assertEqual(servers[0]["state"], "stopping")
        client.done.callback(None)
        self.assertFalse(other.running)
        self.successResultOf(stopping)


class FarewellTests(SynchronousTestCase):
    """What is left on the terminal."""

    def setUp(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.log = ScreenLog(RecentEvents(Clock().seconds))

    def test_good(self) -> None:
        """What there was."""
        farewell(clientStatus(), self.log, self.out, self.err)
        self.assertEqual(
            self.out.getvalue(), "1,292 visitors in 2 h 5 min, 3.1 MB down, 4.0 GB up\n"
        )
        self.assertEqual(self.err.getvalue(), "")

    def test_gaveUp(self) -> None:
        """And why it is over; and failures, for which the screen had no room."""
        self.log.tracebacks.append("Traceback: ...")
        self.log.start()
        Logger(namespace="test").critical("Cannot start: no port")
        self.log.stop()
        status = clientStatus(servers=[server(state="stopped", reason="no [x]")])
        farewell(status, self.log, self.out, self.err)
        self.assertEqual(
            self.err.getvalue(),
            "Traceback: ...\nCannot start: no port\nGiving up: no [x]\n",
        )

    def test_gone(self) -> None:
        """A terminal that is gone is no obstacle."""
        self.out.close()
        farewell(clientStatus(), self.log, self.out, self.err)


class _Given(dict[str, Any]):
    parent: dict[str, Any] | None = None


class WantedTests(SynchronousTestCase):
    """Who has a screen."""

    def setUp(self) -> None:
        self.terminal = FakeTerminal()

        class Files:
            closed = False

            def isatty(self) -> bool:
                return True

        self.stdin: Any = Files()
        self.patch(sys, "__stdin__", self.stdin)
        self.patch(Terminal, "behind", lambda file: self.terminal)

    def wanted(self, outer: dict[str, Any] | None, **options: Any) -> bool:
        given = _Given({"no-screen": 0, "log-format": "text", **options})
        given.parent = outer
        return screenTerminal(given) is not None

    def test_terminal(self) -> None:
        """Whoever starts a client in a terminal, and wants no log there."""
        self.assertTrue(self.wanted({"nodaemon": 1}))
        self.assertTrue(self.wanted({"nodaemon": 1, "logfile": "x.log"}))
        self.assertFalse(self.wanted({"nodaemon": 0}))
        self.assertFalse(self.wanted(None))
        self.assertFalse(self.wanted({"nodaemon": 1, "logfile": "-"}))
        self.assertFalse(self.wanted({"nodaemon": 1, "logger": "x"}))
        self.assertFalse(self.wanted({"nodaemon": 1}, **{"no-screen": 1}))
        self.assertFalse(self.wanted({"nodaemon": 1}, **{"log-format": "json"}))

    def test_script(self) -> None:
        """Not one of several programs of a script, and not the background."""
        self.stdin.isatty = lambda: False
        self.assertFalse(self.wanted({"nodaemon": 1}))
        del self.stdin.isatty
        self.terminal.mayEnter = False
        self.assertFalse(self.wanted({"nodaemon": 1}))
        self.assertTrue(self.terminal.closed)
