"""Tests for L{tristunnel.util.output}."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.util.output import LogFile, Output, outputOf

LINE = "x" * 99 + "\n"


class PipeTests(SynchronousTestCase):
    """A pipe, as C{| less} and collectors of logs have it."""

    def setUp(self) -> None:
        self.reader, self.writer = os.pipe()
        self.addCleanup(os.close, self.reader)
        self.addCleanup(self.hangUp)
        self.output = Output(self.writer, most=10_000)
        self.output.notice = lambda count: f"{count} left out\n"

    def hangUp(self) -> None:
        if self.writer >= 0:
            self.output.finish()
            os.close(self.writer)
            self.writer = -1

    def readUntil(self, pattern: bytes) -> bytes:
        text = b""
        while not re.search(pattern, text):
            piece = os.read(self.reader, 1 << 16)
            self.assertTrue(piece, f"it ended without {pattern!r}")
            text += piece
        return text

    def test_order(self) -> None:
        """A reader that reads has every line, in order."""
        for number in range(50):
            self.output.write(f"{number}\n")
        text = self.readUntil(rb"\n49\n")
        self.assertEqual(text.split(), [b"%d" % number for number in range(50)])

    def test_nobodyReads(self) -> None:
        """Writing goes on within a bound, and the reader learns what it missed."""
        count = 5000
        for _ in range(count):
            self.output.write(LINE)
        text, seen = b"", 0
        while seen < count:
            text += self.readUntil(rb"\n$")
            told = re.findall(rb"(\d+) left out\n", text)
            seen = text.count(LINE.encode()) + sum(map(int, told))
        self.assertEqual(seen, count)
        # What the pipe holds, and what waits.
        self.assertLess(len(text), 65536 + 10_000 + 1000)
        self.output.write("again\n")
        self.readUntil(rb"again\n")

    def test_finish(self) -> None:
        """A program that ends waits for its last lines, but not for ever."""
        self.output.write(LINE * 3000)
        # There is room for more once that is being written.
        self.readUntil(rb"\n")
        self.output.finish(0.0)
        done = threading.Event()

        def read() -> None:
            self.readUntil(rb"last\n")
            done.set()

        reading = threading.Thread(target=read)
        reading.start()
        self.output.write("last\n")
        self.assertTrue(done.wait(30))
        reading.join()

    def test_nonBlocking(self) -> None:
        """Nothing is lost when somebody else has made it non-blocking."""
        os.set_blocking(self.writer, False)
        output = Output(self.writer, most=1 << 20)
        for _ in range(3000):
            output.write(LINE)
        output.write("last\n")
        self.assertEqual(self.readUntil(rb"last\n").count(LINE.encode()), 3000)

    def test_gone(self) -> None:
        """A reader that is gone is no error."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, writer)
        os.close(reader)
        output = Output(writer)
        output.write(LINE)
        output.finish(30)
        output.write(LINE)

    def test_child(self) -> None:
        """A child writes with a thread of its own: C{twistd} forks."""
        self.output.write("parent\n")
        self.readUntil(rb"parent\n")
        child = os.fork()
        if not child:
            try:
                self.output.write("child\n")
                self.output.finish(30)
            finally:
                os._exit(0)
        self.readUntil(rb"child\n")
        self.assertEqual(os.waitpid(child, 0)[1], 0)


class FileTests(SynchronousTestCase):
    """A regular file, which has no reader to wait for."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.file = self.path.open("w", encoding="utf-8")
        self.addCleanup(self.file.close)

    def test_atOnce(self) -> None:
        """It has the line when the call is over, whatever letters are in it."""
        output = Output(self.file.fileno())
        output.write("\u2603 \ud800\n")
        self.assertEqual(self.path.read_text("utf-8"), "\u2603 \\ud800\n")

    def test_full(self) -> None:
        """A full disk is told of once there is room."""
        output = Output(self.file.fileno())
        output.notice = lambda count: f"{count} left out\n"
        with patch("os.write", side_effect=OSError(28, "No space left on device")):
            output.write("one\ntwo\n")
            output.write("three\n")
        output.write("four\n")
        output.write("five\n")
        self.assertEqual(self.path.read_text(), "3 left out\nfour\nfive\n")

    def test_shared(self) -> None:
        """A file has one output, so that no line is in the middle of another one."""
        self.assertIs(outputOf(self.file), outputOf(self.file))
        self.assertIs(outputOf(None), None)
        with Path(self.mktemp()).open("w", encoding="utf-8") as closed:
            pass
        self.assertIs(outputOf(closed), None)


class LogFileTests(SynchronousTestCase):
    """One file."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "log"
        self.file = LogFile(str(self.path), length=100, kept=3)

    def found(self) -> dict[str, str]:
        return {each.name: each.read_text() for each in self.directory.iterdir()}

    def test_appended(self) -> None:
        """What was there stays."""
        self.file.write("one\n")
        LogFile(str(self.path)).write("two\n")
        self.assertEqual(self.found(), {"log": "one\ntwo\n"})

    def test_long(self) -> None:
        """A long file is put aside, and the number of those is bounded."""
        for number in (4, 77):
            (self.directory / f"log.{number}").write_text("old")
        (self.directory / "log.gz").write_text("somebody's")
        for number in range(20):
            self.file.write(f"{number:02}{'x' * 57}\n")
        rows = {name: text[:2] for name, text in self.found().items()}
        expected = {"log": "19", "log.1": "18", "log.2": "17", "log.3": "16"}
        self.assertEqual(rows, {**expected, "log.gz": "so"})

    def test_renamed(self) -> None:
        """A file that was renamed is opened anew; one that was not stays."""
        self.file.write("one\n")
        self.assertFalse(self.file.reopen())
        self.path.rename(self.directory / "log.old")
        self.file.write("two\n")
        self.assertTrue(self.file.reopen())
        self.file.write("three\n")
        self.path.rename(self.directory / "log.older")
        self.path.write_text("turned over\n")
        self.file.turn()
        self.file.write("four\n")
        self.assertEqual(
            self.found(),
            {
                "log.old": "one\ntwo\n",
                "log.older": "three\n",
                "log": "turned over\nfour\n",
            },
        )

    def test_turned(self) -> None:
        """Where nobody has made room, the file is put aside."""
        self.file.write("one\n")
        self.file.turn()
        self.file.write("two\n")
        self.assertEqual(self.found(), {"log.1": "one\n", "log": "two\n"})

    def test_mode(self) -> None:
        """Who may read it stays the same."""
        self.path.chmod(0o640)
        self.addCleanup(os.umask, os.umask(0o077))
        self.file.turn()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)

    def test_device(self) -> None:
        """What is no file, or only leads to one, is not renamed."""
        link = self.directory / "link"
        link.symlink_to("log")
        file = LogFile(str(link))
        file.write("one\n")
        file.turn()
        file.write("two\n")
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.found()["log.1"], "one\n")
        pipe = self.directory / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        os.set_blocking(reader, True)
        file = LogFile(str(pipe), length=1)
        for _ in range(2):
            file.write("line\n")
            file.turn()
            self.assertEqual(os.read(reader, 5), b"line\n")
        self.assertTrue(pipe.is_fifo())

    def test_cut(self) -> None:
        """A file that somebody copies and cuts has no hole."""
        self.file.write("one\n")
        os.truncate(self.path, 0)
        self.file.write("two\n")
        self.assertEqual(self.found(), {"log": "two\n"})

    def test_stuck(self) -> None:
        """Where the file cannot be put aside it grows on, and is told of once."""
        stuck = patch("os.rename", side_effect=OSError(13, "No"))
        with capturedLogs() as logged, stuck:
            for number in range(5):
                self.file.write(f"{number:02}{'x' * 47}\n")
        self.assertEqual(len(self.found()["log"]), 250)
        self.assertLess(len(logged), 3)
        self.assertIn("cannot be rotated: No", str(formatEvent(logged[0])))

    def test_noPlace(self) -> None:
        """Where no new file can be made, the renamed one takes the lines."""
        self.path.rename(self.directory / "log.old")
        logged: Sequence[LogEvent]
        with (
            capturedLogs() as logged,
            patch.object(self.file, "_open", side_effect=OSError(13, "No")),
        ):
            self.file.turn()
        self.file.write("one\n")
        self.assertEqual(self.found(), {"log.old": "one\n"})
        self.assertIn("cannot be reopened: No", str(formatEvent(logged[0])))
