"""
Moving bytes from one socket to another without taking them out of the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from tristunnel.dataplane.breaks import lostBy
from tristunnel.dataplane.pipes import PIPES, Pipe, PipePool, canSplice
from tristunnel.dataplane.poller import READ
from tristunnel.dataplane.sockets import SocketEnd

__all__ = ["SHORT_TURN", "TURN", "Splice", "Stretch", "spliceBoth"]

TURN = 1024 * 1024
"""Bytes that one direction of a stream may move before others get their turn: about a
millisecond's worth."""

SHORT_TURN = 256 * 1024
"""The same while there are others who have little to say, and wait for that."""

_FLAGS = 0
if canSplice():
    _FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Splice:
    """
    One direction of a stream between two plain sockets, while it is busy.

    A pipe is held only while bytes are in it: during one turn, or as long as the reader
    is slow. Bytes that already wait in the sink go first, by copying.

    @param source: The socket that is read.
    @param sink: The socket that is written to.
    @param pipes: Where pipes come from.

    @ivar begun: Whether it has replaced the source's own reading.
    @ivar blocked: Whether the sink has yet to take what is in the pipe.
    """

    __slots__ = ("_ended", "_pipe", "_pipes", "begun", "blocked", "sink", "source")

    def __init__(
        self, source: SocketEnd, sink: SocketEnd, pipes: PipePool = PIPES
    ) -> None:
        self.source = source
        self.sink = sink
        self.begun = False
        self.blocked = False
        self._ended = False
        self._pipes = pipes
        self._pipe: Pipe | None = None

    def end(self) -> None:
        """Stop; what is in the pipe is lost. Doing it twice is no error."""
        self._ended = True
        self.blocked = False
        if self._pipe is not None:
            self._giveBack(self._pipe)

    def _giveBack(self, pipe: Pipe) -> None:
        """Return the pipe to the pool."""
        self._pipe = None
        self._pipes.give(pipe)

    def move(self) -> None:
        """Move what the source has, up to one turn's share."""
        pipe = self._pipes.take()
        if pipe is None:
            # No pipe is free, or none is allowed: copy.
            self.begun = False
            return
        self._pipe = pipe
        splice, flags = os.splice, _FLAGS
        source, sink = self.source.connection.fileno(), self.sink.connection.fileno()
        moved, most = 0, self.most()
        over = False
        problem: OSError | None = None
        while moved < most and not pipe.held:
            try:
                count = splice(
                    source, pipe.into, min(pipe.size, most - moved), flags=flags
                )
            except BlockingIOError:
                break
            except OSError as met:
                problem = met
                break
            if not count:
                over = True
                break
            moved += count
            pipe.held = count
            if not self._empty(pipe, sink):
                break
        self._pipes.moved += moved
        if self._ended:
            return
        if pipe.held:
            self.blocked = True
            self.source.hold(self.source.PIPE)
            self.sink.waitForRoom()
        else:
            self._giveBack(pipe)
            if (source in self.source.poller.busy) is not (moved >= READ):
                self.source.setBusy(moved >= READ)
        if moved:
            self.count(moved)
        if problem is not None:
            # A socket reports a reset only once.
            self.source.broken(lostBy(problem))
        elif over:
            self.source.readOver()

    def most(self) -> int:
        """How many bytes may move in this turn."""
        alone = self.source.poller.isForBulkAlone
        return self.source.allowance(TURN if alone else SHORT_TURN)

    def count(self, amount: int) -> None:
        """Count bytes that have moved."""
        self.source.counted(amount)

    def _empty(self, pipe: Pipe, sink: int) -> bool:
        """
        Move what is in the pipe to the sink.

        @return: Whether all of it was taken.
        """
        try:
            while pipe.held:
                pipe.held -= os.splice(pipe.out, sink, pipe.held, flags=_FLAGS)
        except BlockingIOError:
            return False
        except OSError as problem:
            self.sink.broken(lostBy(problem))
            return False
        return True

    def push(self) -> None:
        """Go on: the sink takes bytes again."""
        pipe = self._pipe
        if pipe is not None and self._empty(pipe, self.sink.connection.fileno()):
            self.blocked = False
            self._giveBack(pipe)
            self.sink.hasRoom()
            self.source.release(self.source.PIPE)


class Stretch(Splice):
    """
    One direction between two plain sockets for a known number of bytes, such as the
    body of a request. After them, somebody looks at the bytes again.

    @param source: The socket that is read. What is copied still passes whoever looks.
    @param sink: The socket that is written to.
    @param left: Returns how many bytes are left.
    @param passed: Called with how many bytes have moved.
    """

    __slots__ = ("_left", "_passed")

    def __init__(
        self,
        source: SocketEnd,
        sink: SocketEnd,
        left: Callable[[], int],
        passed: Callable[[int], None],
    ) -> None:
        super().__init__(source, sink)
        self._left = left
        self._passed = passed
        source.splice = sink.spliceToUs = self

    def most(self) -> int:
        return min(super().most(), self._left())

    def count(self, amount: int) -> None:
        super().count(amount)
        self._passed(amount)

    def push(self) -> None:
        super().push()
        if self.source.splice is not self:
            self.leave()

    def leave(self) -> None:
        """Have everything copied from now on, after what is in a pipe."""
        if self.source.splice is self:
            self.source.splice = None
        if not self.blocked and self.sink.spliceToUs is self:
            self.sink.spliceToUs = None


def spliceBoth(one: SocketEnd, other: SocketEnd) -> None:
    """Have the kernel move both directions of a stream once they are busy."""
    for source, sink in ((one, other), (other, one)):
        source.splice = sink.spliceToUs = Splice(source, sink)
