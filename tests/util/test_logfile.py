"""Log files that are renamed, cut and put aside, L{tristunnel.util.logfile}."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.util.logfile import LogFile


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
        """
        A long file is put aside, and the number of those is bounded, also of
        those that an earlier version left.
        """
        for number in (4, 77):
            (self.directory / f"log.{number}").write_text("old")
        (self.directory / "log.gz").write_text("somebody's")
        for number in range(20):
            self.file.write(f"{number:02}{'x' * 57}\n")
        rows = {name: text[:2] for name, text in self.found().items()}
        expected = {"log": "19", "log.1": "18", "log.2": "17", "log.3": "16"}
        self.assertEqual(rows, {**expected, "log.gz": "so"})

    def test_renamed(self) -> None:
        """
        A file that was renamed is opened anew, whether or not somebody made the
        next one; one that was not stays.
        """
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
        """
        Where the file cannot be put aside it grows on, and not every line says
        so.
        """
        stuck = patch("os.rename", side_effect=OSError(13, "No"))
        with capturedLogs() as logged, stuck:
            for number in range(5):
                self.file.write(f"{number:02}{'x' * 47}\n")
        self.assertEqual(len(self.found()["log"]), 250)
        self.assertLess(len(logged), 3)
        self.assertIn("cannot be put aside: No", str(formatEvent(logged[0])))

    def test_noPlace(self) -> None:
        """Where no new file can be made, the renamed one takes the lines."""
        self.path.rename(self.directory / "log.old")
        logged: list[LogEvent]
        with (
            capturedLogs() as logged,
            patch.object(self.file, "_open", side_effect=OSError(13, "No")),
        ):
            self.file.turn()
        self.file.write("one\n")
        self.assertEqual(self.found(), {"log.old": "one\n"})
        self.assertIn("cannot be opened anew: No", str(formatEvent(logged[0])))
