"""What some platforms have and others do not, as numbers that do no harm there."""

from __future__ import annotations

import os
import signal
import socket

__all__ = [
    "AF_UNIX",
    "HANG_UP",
    "JOB_CONTROL",
    "NON_BLOCKING",
    "NOT_INHERITED",
    "NO_FOLLOW",
    "NO_WAIT",
    "ROTATE",
    "SHARED",
]

HANG_UP: int | None = getattr(signal, "SIGHUP", None)
"""The signal that means: read your files again."""

ROTATE: int | None = getattr(signal, "SIGUSR1", None)
"""The signal that means: begin another log file."""

JOB_CONTROL: tuple[int, ...] = tuple(
    getattr(signal, name) for name in ("SIGTSTP", "SIGQUIT") if hasattr(signal, name)
)
"""The signals that Ctrl-Z and Ctrl-backslash send."""

AF_UNIX: int = getattr(socket, "AF_UNIX", -1)
"""The family of UNIX sockets; one that no socket has where there are none."""

NO_WAIT: int = getattr(socket, "MSG_DONTWAIT", 0)
"""Flag for a call that is not to wait, whatever the socket does."""

NON_BLOCKING: int = getattr(socket, "SOCK_NONBLOCK", 0)
"""Flag of a socket's type that saves the call by which it is told not to wait."""

NOT_INHERITED: int = getattr(os, "O_CLOEXEC", 0)
"""Flag to open a file that child processes do not get."""

NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0) | NOT_INHERITED
"""The same, for a file that may be no symbolic link."""

SHARED: int = getattr(socket, "SO_REUSEPORT", -1)
"""Socket option: others of this user may listen on the same port."""
