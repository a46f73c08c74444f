"""A program that runs until it is told to end, with all that it has started."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.errors import printable
from tristunnel.util.process import environmentOfOthers
from tristunnel.util.repeating import stopTimer

__all__ = ["Command"]

PATIENCE = 10.0
"""Seconds that a program has to end when it is asked to."""

MORE = 1.0
"""Seconds that it has to end once it has been killed."""

_LONGEST = 500
"""Characters of a line of its output that are logged."""

# It leads a process group of its own, so that its children are signalled with it.
_LEADER = "import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])"


class Command(ProcessProtocol):
    """
    One run of a command.

    @param reactor: Starts it, and tells time.
    @param words: The command.
    @param said: Called with each line of its output.

    @ivar ended: Fires when it has ended: with an empty text, or with what went wrong.
    @ivar isOver: Whether it has ended, with all its children that could still write to
        us.
    @ivar last: The last line that it has written.
    """

    _log: ClassVar[Logger] = Logger(namespace="tristunnel.client")
    transport: Any

    def __init__(
        self, reactor: Any, words: Sequence[str], said: Callable[[str], object]
    ) -> None:
        self.ended: Deferred[str] = Deferred()
        self.isOver = False
        self.last = ""
        self._reactor = reactor
        self._words = words
        self._said = said
        self._rest = b""
        self._isEnding = False
        self._hasExited = False
        self._later: IDelayedCall | None = None

    def run(self) -> None:
        """
        Begin.

        @raise OSError: If another process cannot be started.
        """
        leading = [sys.executable, "-I", "-S", "-c", _LEADER, *self._words]
        self._reactor.spawnProcess(self, sys.executable, leading, environmentOfOthers())

    def connectionMade(self) -> None:
        self._leader: int = self.transport.pid
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_LONGEST]
        for line in lines:
            self._wrote(line)

    errReceived = outReceived

    def _wrote(self, line: bytes) -> None:
        text = printable(line[:_LONGEST].decode("utf-8", "replace").strip(), _LONGEST)
        if text:
            self.last = text
            self._said(text)

    def end(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if not (self.isOver or self._isEnding):
            self._isEnding = True
            self._signal(signal.SIGTERM)
            self._later = self._reactor.callLater(PATIENCE, self._kill)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        # A child that has left the group may keep the output open forever.
        self.transport.loseConnection()
        self._later = self._reactor.callLater(MORE, self._over, "does not end")

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._leader, number)
        except ProcessLookupError:
            # It has no group yet, or nothing is left in that.
            if not self._hasExited:
                os.kill(self._leader, number)
        except PermissionError:
            # It runs as another user by now.
            return

    def processExited(self, reason: Failure) -> None:
        self._hasExited = True

    def processEnded(self, reason: Failure) -> None:
        self._wrote(self._rest)
        error: Any = reason.value
        wrong = ""
        if not (reason.check(ProcessDone) or self._isEnding):
            status = error.exitCode
            how = f"with status {status}" if status else f"by signal {error.signal}"
            last = f": {self.last}" if self.last else ""
            wrong = f"ended {how}{last}"
        self._over(wrong)

    def _over(self, wrong: str) -> None:
        if not self.isOver:
            self.isOver = True
            stopTimer(self._later)
            self.ended.callback(f"{self._words[0]} {wrong}" if wrong else "")
