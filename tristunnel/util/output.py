"""
Where lines are written: to files that somebody may rename, and to standard output
and error, whose reader may stand still: a terminal after Ctrl-S, C{| less}, a
collector of logs that hangs. What is written there must not stop the tunnels.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO
from weakref import WeakSet

from twisted.logger import Logger

from tristunnel.util.platform import NOT_INHERITED

__all__ = [
    "KEPT",
    "LENGTH",
    "MOST_WAITING",
    "PATIENCE",
    "LogFile",
    "Output",
    "finishOutputs",
    "outputOf",
]


MOST_WAITING = 256 * 1024
"""Bytes that wait for a reader; lines beyond are dropped and counted."""

PATIENCE = 1.0
"""Seconds that a program that ends waits for its last lines to be read."""

_outputs: WeakSet[Output] = WeakSet()
_standard: dict[int, Output] = {}


class Output:
    """
    Writes lines to a descriptor, and waits for nobody: a regular file takes them
    at once, and for everything else a thread waits. The descriptor is not made
    non-blocking, as it is shared with whoever started this program.

    @param descriptor: Where.
    @param most: Bytes that may wait.

    @ivar notice: Makes the lines that tell how many were dropped.
    """

    def __init__(self, descriptor: int, most: int = MOST_WAITING) -> None:
        self.notice: Callable[[int], str] = lambda count: ""
        self._descriptor = descriptor
        self._most = most
        self._waits = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._until: float | None = None
        self._process = 0
        self._changed = threading.Condition()
        _outputs.add(self)

    def write(self, text: str) -> None:
        if self._process != os.getpid() and self._waits:
            self._startWriting()
        with self._changed:
            told = self._notice() if self._dropped else b""
            data = text.encode("utf-8", "backslashreplace")
            if not self._waits:
                if not put(self._descriptor, told + data):
                    self._dropped += text.count("\n")
                elif told:
                    self._dropped = 0
                return
            if self._waiting and self._size + len(told) + len(data) > self._most:
                self._dropped += text.count("\n")
                return
            if told:
                self._dropped = 0
            self._waiting.append(told + data)
            self._size += len(told) + len(data)
            self._changed.notify_all()
            self._await()

    def flush(self) -> None:
        """Nothing is kept back."""

    def finish(self, patience: float = PATIENCE) -> None:
        """
        Wait for what was written, as the program ends; what is written from now
        on is waited for at once.

        @param patience: Seconds for all of it.
        """
        with self._changed:
            if self._until is None:
                self._until = time.monotonic() + patience
            self._await()

    def _await(self) -> None:
        if self._until is not None:
            self._changed.wait_for(
                lambda: not self._size, self._until - time.monotonic()
            )

    def _notice(self) -> bytes:
        return self.notice(self._dropped).encode("utf-8", "backslashreplace")

    def _startWriting(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        threading.Thread(target=self._write, name="output", daemon=True).start()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                data = self._waiting.popleft()
            put(self._descriptor, data)
            with self._changed:
                self._size -= len(data)
                if self._dropped and not self._waiting:
                    told = self._notice()
                    self._dropped = 0
                    if told:
                        self._waiting.append(told)
                        self._size += len(told)
                self._changed.notify_all()


def put(descriptor: int, data: bytes) -> bool:
    """
    Write everything, also to a descriptor that somebody made non-blocking.

    @return: Whether that worked; what nobody can read any more did not.
    """
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
                return False
            with suppress(OSError, ValueError):
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll()
    return True


def outputOf(file: IO[str] | None) -> Output | None:
    """
    The one L{Output} that everybody in this process uses instead of a file.

    @param file: C{sys.__stdout__} or C{sys.__stderr__}.
    @return: C{None}, if it is closed or leads nowhere.
    """
    try:
        descriptor = -1 if file is None else file.fileno()
        if descriptor not in _standard:
            _standard[descriptor] = Output(descriptor)
    except (OSError, ValueError):
        return None
    return _standard[descriptor]


def finishOutputs() -> None:
    """Wait a moment for what was written, as the program ends."""
    for output in list(_outputs):
        output.finish()
    for file in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError):
            if file is not None:
                file.flush()


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
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NOT_INHERITED
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
                "The log file {path} cannot be reopened: {reason};"
                " logging continues in the renamed one",
                path=self.path,
                reason=error.strerror,
            )
            return True
        if isNew:
            # Whatever the umask of a daemon is.
            os.chmod(self.path, mode)
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
        """Put the file aside, and drop the oldest one."""
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
                "The log file {path} cannot be rotated: {reason}; it keeps growing",
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
