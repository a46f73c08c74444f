"""
A terminal that a program takes over for a while: it draws there, reads keys, and
restores everything.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.util.platform import NOT_INHERITED
from tristunnel.util.terminal_modes import (
    goOn,
    hasModes,
    inForeground,
    keyByKey,
    putBack,
)

__all__ = ["Terminal"]

# The other screen of the terminal, without a cursor and without breaking lines;
# and back.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"

_PATIENCE = 1.0
"""Seconds that the terminal gets to take the sequence that restores it."""


@implementer(IReadDescriptor)
class Terminal:
    """
    The terminal behind a file.

    It is opened again, so that writing never blocks: it may have been stopped with
    Ctrl-S, and the tunnels must not stop with it. What it does not take now is sent
    later, and nothing is drawn meanwhile.

    @param fd: Its descriptor, which is ours from now on.
    @param encoding: Its encoding.

    @ivar keys: Called with the text of keys that were pressed.
    @ivar gone: Called when the terminal has gone.
    """

    def __init__(self, fd: int, encoding: str = "utf-8") -> None:
        self.keys: Callable[[str], None] = lambda text: None
        self.gone: Callable[[], None] = lambda: None
        self.encoding = encoding
        self._fd = fd
        self._reactor: IReactorFDSet | None = None
        self._modes: list[Any] | None = None
        self._rest = b""
        self._shown: list[str] = []
        self._size = (0, 0)

    @classmethod
    def behind(cls, file: IO[str] | None) -> Terminal | None:
        """
        Open the terminal that a file writes to.

        @return: C{None} if it writes to none, or to one that cannot do more
            than print.
        """
        if file is None or os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
            return None
        with suppress(OSError, ValueError):
            if hasModes and file.isatty():
                name = os.ttyname(file.fileno())
                flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | NOT_INHERITED
                encoding = getattr(file, "encoding", None) or "ascii"
                return cls(os.open(name, flags), encoding)
        return None

    @property
    def entered(self) -> bool:
        """Whether the terminal is ours now."""
        return self._modes is not None

    @property
    def mayEnter(self) -> bool:
        """
        Whether this process is in the foreground; in the background it would be stopped
        for writing.
        """
        return inForeground(self._fd)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            columns, lines = os.get_terminal_size(self._fd)
        except OSError:
            columns = lines = 0
        return columns or 80, lines or 24

    def enter(self, reactor: Any) -> bool:
        """
        Take the terminal.

        @return: Whether it could be taken.
        """
        if self.entered or self._fd < 0 or not self.mayEnter:
            return self.entered
        modes = keyByKey(self._fd)
        if modes is None:
            return False
        self._modes = modes
        self._rest = _ENTER
        self._shown = []
        self._reactor = reactor
        reactor.addReader(self)
        self._send()
        return True

    def leave(self) -> None:
        """Restore the terminal, also if it was stopped."""
        modes, self._modes = self._modes, None
        if modes is None:
            return
        if self._reactor is not None:
            self._reactor.removeReader(self)
        # A sequence that was cut off must not swallow what follows.
        self._rest = (b"\x18" if self._rest else b"") + _LEAVE
        goOn(self._fd)
        self._send()
        while self._rest and select.select([], [self._fd], [], _PATIENCE)[1]:
            if not self._send():
                break
        putBack(self._fd, modes)

    def close(self) -> None:
        """Leave for good."""
        self.leave()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def forget(self) -> None:
        """Draw everything again: something else has written here."""
        self._size = (0, 0)

    def show(self, lines: Sequence[str], size: tuple[int, int]) -> bool:
        """
        Draw those lines that have changed.

        @param size: The size that they were drawn for.
        @return: Whether the terminal was ready for it.
        """
        if self._rest:
            self._send()
        if self._rest or not self.entered:
            return False
        pieces = []
        if size != self._size:
            self._size, self._shown = size, []
            pieces.append("\x1b[0m\x1b[2J")
        for number in range(max(len(lines), len(self._shown))):
            line = lines[number] if number < len(lines) else ""
            if number >= len(self._shown) or self._shown[number] != line:
                # Cleared first: behind a full line the cursor stays on its last
                # letter, which clearing would erase.
                pieces.append(f"\x1b[{number + 1};1H\x1b[0m\x1b[K{line}\x1b[0m")
        self._shown = list(lines)
        if pieces:
            self._rest = "".join(pieces).encode(self.encoding, "replace")
            self._send()
        return True

    def _send(self) -> bool:
        """Send what the terminal takes; say whether it took anything."""
        try:
            sent = os.write(self._fd, self._rest)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._rest = b""
            return False
        self._rest = self._rest[sent:]
        return True

    # IReadDescriptor

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "terminal"

    def doRead(self) -> None:
        try:
            heard = os.read(self._fd, 1024)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            heard = b""
        if heard:
            self.keys(heard.decode("utf-8", "replace"))
        else:
            self._lost()

    def connectionLost(self, reason: Failure) -> None:
        self._lost()

    def _lost(self) -> None:
        if self._reactor is not None:
            self._reactor.removeReader(self)
        if self.entered:
            self._modes = None
            self.gone()
