"""
Standard output and error, which may have a reader that stands still: a terminal
after Ctrl-S, C{| less}, a collector of logs that hangs. What is written there
must not stop the tunnels.
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

__all__ = ["MOST_WAITING", "PATIENCE", "Output", "finishOutputs", "outputOf"]

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
        """
        Nothing is kept back.
        """

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
    """
    Wait a moment for what was written, as the program ends.
    """
    for output in list(_outputs):
        output.finish()
    for file in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError):
            if file is not None:
                file.flush()
