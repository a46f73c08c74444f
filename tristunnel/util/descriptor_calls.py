"""
What can be asked of descriptors beside reading and writing, where the platform has
it: locks, which end with the process that holds them, sizes of pipes, and what a
socket has not got rid of yet.
"""

from __future__ import annotations

import os
from array import array
from typing import Any

from tristunnel.util.terminal_modes import OUTGOING

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

__all__ = ["MOVABLE", "bytesOutgoing", "canSizePipes", "lockFile", "pipeSize"]

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


_F_SETPIPE_SZ = 1031
_F_GETPIPE_SZ = 1032

canSizePipes = fcntl is not None
"""Whether L{pipeSize} can be asked."""


def pipeSize(descriptor: int, wanted: int = 0) -> int:
    """
    Ask how much a pipe holds, on Linux.

    @param wanted: Bytes that it is to hold from now on; 0 to leave it as it is.
    @return: Bytes.
    @raise OSError: If it cannot be had.
    """
    if wanted:
        return int(fcntl.fcntl(descriptor, _F_SETPIPE_SZ, wanted))
    return int(fcntl.fcntl(descriptor, _F_GETPIPE_SZ))


def bytesOutgoing(descriptor: int) -> int:
    """
    Ask how many bytes the kernel holds that were written to a descriptor.

    @return: 0 where that is not known.
    @raise OSError: If it is closed.
    """
    amount = array("i", [0])
    if fcntl is not None and OUTGOING is not None:
        fcntl.ioctl(descriptor, OUTGOING, amount)
    return amount[0]
