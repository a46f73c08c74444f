"""Tests for L{tristunnel.screen.terminal}, with the two ends of a pseudo-terminal."""

from __future__ import annotations

import os
import re
import termios
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.screen import terminal as module
from tristunnel.screen.terminal import Terminal

SIZE = (40, 5)


def written(data: bytes) -> list[str]:
    """What is on a terminal of L{SIZE} that breaks no lines."""
    width, height = SIZE
    grid = [["?"] * width for _ in range(height)]
    row = column = 0
    for number, kind, letter in re.findall(
        r"\x1b\[([0-9;?]*)([A-Za-z])|(.)", data.decode()
    ):
        if letter:
            grid[row][column] = letter
            column = min(column + 1, width - 1)
        elif kind == "H":
            row, column = (int(each) - 1 for each in number.split(";"))
        elif kind == "J":
            grid = [[" "] * width for _ in range(height)]
        elif kind == "K":
            grid[row][column:] = " " * (width - column)
    return ["".join(line).rstrip() for line in grid]


class TerminalTests(SynchronousTestCase):
    """A terminal is taken and put back."""

    def setUp(self) -> None:
        self.far, near = os.openpty()
        self.addCleanup(os.close, self.far)
        self.near = os.dup(near)
        self.addCleanup(os.close, self.near)
        os.set_blocking(near, False)
        os.set_blocking(self.far, False)
        self.patch(Terminal, "mayEnter", True)
        self.patch(module, "_PATIENCE", 0.01)
        self.reactor: Any = MemoryReactor()
        self.terminal = Terminal(near)
        self.addCleanup(self.terminal.close)
        self.before = termios.tcgetattr(self.near)

    def seen(self) -> bytes:
        pieces = []
        try:
            while piece := os.read(self.far, 65536):
                pieces.append(piece)
        except BlockingIOError:
            pass
        return b"".join(pieces)

    def test_enterAndLeave(self) -> None:
        """Meanwhile keys come one by one and are not echoed, on another screen without
        a cursor; after that all is as before."""
        self.assertTrue(self.terminal.enter(self.reactor))
        self.assertEqual(self.reactor.getReaders(), [self.terminal])
        modes = termios.tcgetattr(self.near)[3]
        self.assertFalse(modes & (termios.ICANON | termios.ECHO))
        self.assertTrue(modes & termios.ISIG)
        seen = self.seen()
        self.assertIn(b"\x1b[?1049h", seen)
        self.assertIn(b"\x1b[?25l", seen)
        self.terminal.leave()
        self.assertEqual(termios.tcgetattr(self.near), self.before)
        seen = self.seen()
        self.assertTrue(seen.endswith(b"\x1b[?25h\x1b[?1049l"), seen)
        self.assertEqual(self.reactor.getReaders(), [])
        self.terminal.leave()
        self.assertEqual(self.seen(), b"")

    def test_background(self) -> None:
        """A process in the background leaves the terminal alone."""
        self.patch(Terminal, "mayEnter", False)
        self.assertFalse(self.terminal.enter(self.reactor))
        self.assertEqual(termios.tcgetattr(self.near), self.before)
        self.assertEqual(self.seen(), b"")

    def test_differences(self) -> None:
        """Only lines that are different are drawn, unless the size is."""
        self.terminal.enter(self.reactor)
        self.assertTrue(self.terminal.show(["one", "two"], SIZE))
        self.assertIn(b"one", self.seen())
        self.terminal.show(["one", "three"], SIZE)
        seen = self.seen()
        self.assertIn(b"\x1b[2;1H\x1b[0m\x1b[Kthree", seen)
        self.assertNotIn(b"one", seen)
        self.terminal.show(["one", "three"], SIZE)
        self.assertEqual(self.seen(), b"")
        self.terminal.show(["one"], SIZE)
        self.assertEqual(self.seen(), b"\x1b[2;1H\x1b[0m\x1b[K\x1b[0m")
        self.terminal.show(["one"], (50, 5))
        self.assertIn(b"one", self.seen())
        self.terminal.forget()
        self.terminal.show(["one"], (50, 5))
        self.assertIn(b"one", self.seen())

    def test_fullLine(self) -> None:
        """A line that fills the terminal is seen to its last letter, and leaves nothing
        of a longer one before it."""
        self.terminal.enter(self.reactor)
        self.terminal.show(["x" * SIZE[0]] * SIZE[1], SIZE)
        self.assertEqual(written(self.seen()), ["x" * SIZE[0]] * SIZE[1])
        for line in ("c QR code".rjust(SIZE[0]), "\x1b[1mshort\x1b[0m"):
            self.terminal.show([line] * SIZE[1], SIZE)
            plain = line.replace("\x1b[1m", "").replace("\x1b[0m", "")
            self.assertEqual(written(self.seen()), [plain] * SIZE[1])

    def test_stopped(self) -> None:
        """A terminal that takes nothing, as after Ctrl-S, makes nobody wait: then
        nothing is drawn. What it was sent in part goes on later."""
        self.terminal.enter(self.reactor)
        self.seen()
        drawn = 0
        while self.terminal.show([str(drawn) * 4000], SIZE):
            drawn += 1
            self.assertLess(drawn, 1000)
        self.assertFalse(self.terminal.show(["later"], SIZE))
        self.seen()
        self.assertTrue(self.terminal.show(["later"], SIZE))
        self.assertTrue(self.seen().endswith(b"later\x1b[0m"))

    def test_leaveStopped(self) -> None:
        """Such a terminal is put back all the same."""
        self.terminal.enter(self.reactor)
        while self.terminal.show(["x" * 4000, os.urandom(8).hex()], SIZE):
            pass
        self.terminal.leave()
        self.assertEqual(termios.tcgetattr(self.near), self.before)

    def test_keys(self) -> None:
        """Keys are heard."""
        heard: list[str] = []
        self.terminal.keys = heard.append
        self.terminal.enter(self.reactor)
        os.write(self.far, b"q")
        self.terminal.doRead()
        self.terminal.doRead()
        self.assertEqual(heard, ["q"])

    def test_gone(self) -> None:
        """It is told once that the terminal is gone."""
        told: list[None] = []
        self.terminal.gone = lambda: told.append(None)
        self.terminal.enter(self.reactor)
        self.terminal.connectionLost(Failure(ConnectionDone()))
        self.terminal.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(told), 1)
        self.assertEqual(self.reactor.getReaders(), [])

    def test_size(self) -> None:
        """The size is the terminal's, or the usual one."""
        self.assertEqual(self.terminal.size, (80, 24))
        termios.tcsetwinsize(self.near, (20, 60))
        self.assertEqual(self.terminal.size, (60, 20))

    def test_behind(self) -> None:
        """A terminal is found behind a file that writes to one, if it can do more than
        print."""
        self.patch(os, "environ", {**os.environ, "TERM": "xterm"})
        name = os.ttyname(self.near)
        with open(name, "w", encoding="latin-1") as file:
            found = Terminal.behind(file)
            assert found is not None
            self.addCleanup(found.close)
            self.assertEqual(found.encoding, "latin-1")
            self.assertEqual(os.ttyname(found.fileno()), name)
            self.assertFalse(os.get_blocking(found.fileno()))
            self.assertTrue(os.get_blocking(file.fileno()))
            for term in ("dumb", ""):
                os.environ["TERM"] = term
                self.assertIsNone(Terminal.behind(file))
            os.environ["TERM"] = "xterm"
        self.assertIsNone(Terminal.behind(file))
        self.assertIsNone(Terminal.behind(None))
        with open(os.devnull, "w") as null:
            self.assertIsNone(Terminal.behind(null))
