"""
A terminal's modes, where the platform has them, and a number that sockets share with
terminals.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

termios: Any
try:
    import termios
except ImportError:
    # Windows: its console is no terminal, and lines are written instead.
    termios = None

__all__ = ["OUTGOING", "goOn", "hasModes", "inForeground", "keyByKey", "putBack"]

OUTGOING: int | None = getattr(termios, "TIOCOUTQ", None)
"""Asks how many bytes wait to go out."""

hasModes = termios is not None
"""Whether a screen can be drawn at all."""


def inForeground(descriptor: int) -> bool:
    """
    Whether this process is in the foreground: one that is not would be stopped for
    what it does to the terminal.
    """
    if not hasModes:
        return False
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False


def keyByKey(descriptor: int) -> Any:
    """
    Have keys come one by one, and unseen; Ctrl-C is still a signal.

    @return: The modes until now, or C{None} if it is no terminal.
    """
    try:
        modes = termios.tcgetattr(descriptor)
        own = [*modes[:6], list(modes[6])]
        own[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(descriptor, termios.TCSANOW, own)
    except termios.error:
        return None
    return modes


def goOn(descriptor: int) -> None:
    """Let a terminal write again that Ctrl-S has stopped."""
    with suppress(termios.error):
        termios.tcflow(descriptor, termios.TCOON)


def putBack(descriptor: int, modes: Any) -> None:
    """Put modes back."""
    with suppress(termios.error):
        termios.tcsetattr(descriptor, termios.TCSANOW, modes)
