"""
Local ends whose far side has left, in dialects in which one message ends both
directions.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import ref

from tristunnel.dialects.base.stream import SessionStream
from tristunnel.errors import TunnelError
from tristunnel.interfaces import End

__all__ = ["LEAVE", "LeftEnds"]

LEAVE = 120.0
"""Seconds in which a local end must be over after its stream was closed: the
last bytes may still be on their way."""


class LeftEnds:
    """
    The local ends that were told of such a message, and when. Most of them are over
    soon, and are not kept alive by this.

    @param seconds: The clock.
    """

    __slots__ = ("_ends", "_seconds")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._ends: list[tuple[float, ref[End]]] = []

    def farSideLeft(self, stream: SessionStream) -> None:
        """The peer has ended both directions of a stream."""
        local = stream.peer
        stream.farSideLeft()
        if local is not None:
            self._ends.append((self._seconds(), ref(local)))

    def breakLate(self) -> None:
        """Break those that were told L{LEAVE} seconds ago, and are not over."""
        late = self._seconds() - LEAVE
        waiting, self._ends = self._ends, []
        for since, reference in waiting:
            local = reference()
            if local is None or getattr(local, "over", False):
                continue
            if since <= late:
                local.reset(TunnelError("reset", "the other side has left"))
            else:
                self._ends.append((since, reference))
