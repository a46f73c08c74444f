"""
The screen as a service: when it is drawn, its keys, and the signals that suspend a
program.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rich.text import Text
from twisted.application.service import Service
from twisted.internet.defer import Deferred

from tristunnel.screen.draw import Pen
from tristunnel.screen.terminal import Terminal
from tristunnel.util.platform import JOB_CONTROL
from tristunnel.util.qr import qrLines
from tristunnel.util.repeating import RepeatingCall

__all__ = ["Screen"]

INTERVAL = 0.25
"""The fewest seconds between two drawings."""

IDLE = 1.0
"""Seconds after which the screen is drawn again though nothing happened: times and
rates change."""


class Screen(Service):
    """
    Draws in a terminal for as long as it runs.

    @param reactor: Tells time.
    @param terminal: Where.
    @param pen: Draws.
    @param draw: Makes the lines to draw, for a number of columns and lines.
    @param codes: The addresses that can be shown as QR codes.
    @param end: Does what Ctrl-C does.
    """

    def __init__(
        self,
        reactor: Any,
        terminal: Terminal,
        pen: Pen,
        draw: Callable[[int, int], Sequence[str]],
        codes: Callable[[], Sequence[str]] = lambda: (),
        end: Callable[[], None] = lambda: signal.raise_signal(signal.SIGINT),
    ) -> None:
        self._reactor = reactor
        self._terminal = terminal
        self._pen = pen
        self._draw = draw
        self._codes = codes
        self._end = end
        self._code: int | None = None
        self._changed = True
        self._drawn = float("-inf")
        self._size = (0, 0)
        self._ticking = RepeatingCall(reactor, self._tick)
        self._before: dict[int, Any] = {}
        terminal.keys = self._keys
        terminal.gone = self._gone

    def changed(self) -> None:
        """Note that there is something new to show."""
        self._changed = True

    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if not self.running:
            return
        # The terminal is restored however this process ends.
        atexit.register(self._terminal.close)
        if threading.current_thread() is threading.main_thread():
            for number in JOB_CONTROL:
                self._before[number] = signal.signal(number, self._signalled)
        self._ticking.start(INTERVAL)

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        if self._ticking.running:
            self._ticking.stop()
        for number, action in self._before.items():
            signal.signal(number, action)
        self._before = {}
        self._terminal.close()
        atexit.unregister(self._terminal.close)
        return None

    # Drawing

    def _tick(self) -> None:
        terminal = self._terminal
        if not terminal.entered:
            # It was suspended, and may be in the background.
            if not terminal.enter(self._reactor):
                return
            self._changed = True
        now = self._reactor.seconds()
        size = terminal.size
        idle = now - self._drawn >= IDLE - INTERVAL / 2
        if not (self._changed or idle or size != self._size):
            return
        self._size = size
        if terminal.show(self._picture(*size), size):
            self._changed, self._drawn = False, now

    def _picture(self, width: int, height: int) -> Sequence[str]:
        if self._code is not None:
            codes = self._codes()
            if codes:
                return self._codePicture(codes, self._code % len(codes), width, height)
            self._code = None
        return self._draw(width, height)

    def _codePicture(
        self, codes: Sequence[str], index: int, width: int, height: int
    ) -> list[str]:
        pen = self._pen
        address = codes[index]
        keys = "any key: back"
        if codes[1:]:
            keys = f"{index + 1} of {len(codes)}, c for the next, any other key: back"
        head = Text.assemble((address, "bold"), (f"  {keys}", "dim"))
        code = qrLines(address, pen.unicode, pen.coloured)
        lines = len(code) + 1
        columns = (lines - 1) * 2 if pen.unicode else lines - 1
        if lines > height or columns > width:
            code = [f"The code needs {lines} lines and {columns} columns."]
        return [*pen.lines([head], width), *code]

    # Keys and signals

    def _keys(self, text: str) -> None:
        isShown = self._code is not None
        if text in ("c", "C") and not (isShown and len(self._codes()) == 1):
            self._code = 0 if self._code is None else self._code + 1
        elif isShown:
            self._code = None
        elif text in ("q", "Q"):
            self._end()
        if text == "\x0c":
            self._terminal.forget()
        self._changed = True
        if self._ticking.running:
            self._reactor.callLater(0, self._drawNow)

    def _drawNow(self) -> None:
        if self._ticking.running and self._terminal.entered:
            self._tick()

    def _gone(self) -> None:
        if self._reactor.running:
            self._reactor.stop()

    def _signalled(self, number: int, frame: object) -> None:
        """Suspend or end the program, as the signal says."""
        self._reactor.callFromThread(self._obey, number)

    def _obey(self, number: int) -> None:
        """Do what the signal does to programs without a screen."""
        self._terminal.leave()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Execution resumes here.
        signal.signal(number, self._signalled)
