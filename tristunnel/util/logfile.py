"""
The file of a log, which somebody may rename: logrotate, newsyslog, or this
program itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from twisted.logger import Logger

from tristunnel.util.output import Output

__all__ = ["KEPT", "LENGTH", "LogFile"]

LENGTH = 10_000_000
"""Bytes after which a file is put aside."""

KEPT = 9
"""Files that are kept beside the present one."""


class LogFile:
    """
    Appends to a file, and puts it aside when it is long: C{NAME.1} is the
    youngest of those. It is always appended to, so that whoever cuts it short
    (C{copytruncate}) does that.

    @param path: The file.
    @raise OSError: If it cannot be written.

    @ivar notice: Makes the lines that tell how many were dropped.
    """

    _log = Logger(namespace="tristunnel.log")

    def __init__(self, path: str, length: int = LENGTH, kept: int = KEPT) -> None:
        # A link, such as /dev/stdout, is not what is to be renamed.
        self.path = os.path.realpath(path)
        if not os.path.isfile(self.path):
            self.path = os.path.abspath(path)
        self._length = length
        self._kept = kept
        self._spare = 0
        self.notice: Callable[[int], str] = lambda count: ""
        self._descriptor = self._open()
        self._output = Output(self._descriptor)

    def _open(self, mode: int = 0o666) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self.path, flags | getattr(os, "O_NONBLOCK", 0), mode)

    def write(self, text: str) -> None:
        size = os.fstat(self._descriptor).st_size
        if size and size + len(text) > self._length + self._spare:
            # If it cannot be put aside, not every line tries again.
            self._spare += self._length
            self.rotate()
        self._output.notice = self.notice
        self._output.write(text)

    def reopen(self) -> bool:
        """
        Open the file anew, if the one that is open has another name now, or none.

        @return: Whether it had.
        """
        ours = os.fstat(self._descriptor)
        mode = stat.S_IMODE(ours.st_mode)
        isNew = not os.path.lexists(self.path)
        with suppress(OSError):
            if os.path.samestat(ours, os.stat(self.path)):
                return False
        try:
            fresh = self._open(mode)
        except OSError as error:
            self._log.error(
                "The log file {path} cannot be opened anew: {reason}; what follows is"
                " still in the one that was renamed",
                path=self.path,
                reason=error.strerror,
            )
            return True
        if isNew:
            # Whatever the umask of a daemon is.
            os.fchmod(fresh, mode)
        old, self._descriptor = self._descriptor, fresh
        self._output = Output(fresh)
        os.close(old)
        self._spare = 0
        return True

    def turn(self) -> None:
        """
        Begin another file: the one that somebody has made room for, or else one
        of our own.
        """
        if not self.reopen():
            self.rotate()

    def rotate(self) -> None:
        """
        Put the file aside, and drop the oldest one.
        """
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            return
        try:
            for name in self._asideBeyond(self._kept - 1):
                os.unlink(name)
            for number in range(self._kept - 1, 0, -1):
                with suppress(FileNotFoundError):
                    os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
            os.rename(self.path, f"{self.path}.1")
        except OSError as error:
            self._log.error(
                "The log file {path} cannot be put aside: {reason}; it grows on",
                path=self.path,
                reason=error.strerror,
            )
            return
        self.reopen()

    def _asideBeyond(self, most: int) -> list[str]:
        directory, name = os.path.split(self.path)
        return [
            os.path.join(directory, each)
            for each in os.listdir(directory)
            if each.startswith(f"{name}.")
            and each[len(name) + 1 :].isdecimal()
            and int(each[len(name) + 1 :]) > most
        ]
