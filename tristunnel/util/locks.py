"""Locks on files, which end with the process that holds them."""

from __future__ import annotations

import os
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:
    fcntl = None

msvcrt: Any
try:
    import msvcrt
except ImportError:
    msvcrt = None

__all__ = ["MOVABLE", "lockFile"]

MOVABLE = os.name != "nt"
"""Whether a file that is open can be replaced by another one."""


def lockFile(descriptor: int, wait: bool = False) -> None:
    """
    Lock an open file. Where the platform has no locks, nothing happens.

    @param wait: Whether to wait while another process has it.
    @raise BlockingIOError: If another process has it.
    """
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    elif msvcrt is not None:
        mode = msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, mode, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from None
