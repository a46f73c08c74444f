"""
The kernel's pipes through which bytes are spliced.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.util.descriptor_calls import canSizePipes, pipeSize

__all__ = ["PIPES", "PIPE_SIZE", "Pipe", "PipePool", "canSplice"]

PIPE_SIZE = 1024 * 1024
"""Bytes that a pipe should hold: as many as F_SETPIPE_SZ grants without privileges
(C{/proc/sys/fs/pipe-max-size})."""

SMALLEST = 64 * 1024
"""A pipe for fewer bytes than this is slower than copying."""

OPEN = 48
"""The most pipes that are open at once. The kernel allows a user without privileges
64 MiB of pipes (C{/proc/sys/fs/pipe-user-pages-soft})."""

KEPT = 8
"""Empty pipes kept for the next use."""


def canSplice() -> bool:
    """Whether this system has C{splice}: Linux."""
    return hasattr(os, "splice") and canSizePipes


@dataclass(eq=False, slots=True)
class Pipe:
    """
    A pipe, empty or not.

    @ivar out: The descriptor from which bytes are read.
    @ivar into: The descriptor to which they are written.
    @ivar size: Bytes that it can hold.
    @ivar held: Bytes in it.
    """

    out: int
    into: int
    size: int
    held: int = 0

    def close(self) -> None:
        """Drop it and what it holds."""
        os.close(self.out)
        os.close(self.into)


class PipePool:
    """
    The pipes of a process.

    A stream holds a pipe only while there are bytes in it: during one turn of the
    reactor, or as long as its reader is slow. So a few pipes serve any number of
    streams.

    @param most: Pipes that may be open at once; streams that get none copy instead.
    @param kept: Empty pipes to keep.

    @ivar opened: Pipes that are open.
    @ivar moved: Bytes that have passed through them so far.
    """

    def __init__(self, most: int = OPEN, kept: int = KEPT) -> None:
        self.opened = 0
        self.moved = 0
        self._most = most
        self._kept = kept
        self._idle: list[Pipe] = []

    def take(self) -> Pipe | None:
        """Hand out an empty pipe, or C{None} if none is available."""
        if self._idle:
            return self._idle.pop()
        if self.opened >= self._most:
            return None
        return self._open()

    def give(self, pipe: Pipe) -> None:
        """Take a pipe back; one that is not empty is closed."""
        if pipe.held or len(self._idle) >= self._kept:
            self.opened -= 1
            pipe.close()
        else:
            self._idle.append(pipe)

    def clear(self) -> None:
        """Close the pipes that nobody uses."""
        idle, self._idle = self._idle, []
        for pipe in idle:
            self.opened -= 1
            pipe.close()

    def _open(self) -> Pipe | None:
        """Open a pipe, as large as the kernel allows."""
        if RESERVE.isLow:
            return None
        try:
            out, into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            # No descriptors left.
            return None
        pipe = Pipe(out, into, _enlarge(into))
        if pipe.size < SMALLEST:
            pipe.close()
            return None
        self.opened += 1
        return pipe


def _enlarge(descriptor: int) -> int:
    """
    Make a pipe larger.

    @return: Its size afterwards.
    """
    size = PIPE_SIZE
    while size >= SMALLEST:
        try:
            return pipeSize(descriptor, size)
        except OSError:
            size //= 2
    return pipeSize(descriptor)


PIPES = PipePool()
"""The pipes of this process; they are global because descriptors are."""
