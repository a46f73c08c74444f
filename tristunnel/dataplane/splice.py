"""
Moving bytes from one socket to another without taking them out of the kernel.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from tristunnel.dataplane.kernel import holdsNothing
from tristunnel.dataplane.pipes import PIPES, Pipe, PipePool, canSplice
from tristunnel.errors import TunnelError

if TYPE_CHECKING:
    from socket import socket

    from tristunnel.dataplane.sockets import SocketEnd

__all__ = ["TURN", "Splice"]

TURN = 1024 * 1024
"""Bytes that one direction of a stream may move before others get their turn,
about a millisecond's worth."""

_FLAGS = 0
if canSplice():
    _FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Splice:
    """
    One direction of a stream between two plain sockets, while it is busy.

    It takes the place of the reading side's C{doRead}, so that the reactor's
    and the transport's own bookkeeping (pausing, half-close, loss) goes on as
    ever; what it returns means what it means for any C{doRead}. A slow
    reader leaves bytes in the pipe: then the source is held, and C{doWrite}
    of the sink's transport is ours until the pipe is empty.

    Bytes that either transport holds go first, by copying.

    @param source: Whose world is read.
    @param sink: Whose world is written.
    @param pipes: Where pipes come from.

    @ivar begun: Whether it took the place of C{doRead}.
    @ivar blocked: Whether the sink's world has yet to take bytes.
    """

    __slots__ = (
        "_from",
        "_pipe",
        "_pipes",
        "_sinkLost",
        "_to",
        "_why",
        "begun",
        "blocked",
        "sink",
        "source",
    )

    def __init__(
        self, source: SocketEnd, sink: SocketEnd, pipes: PipePool = PIPES
    ) -> None:
        self.source = source
        self.sink = sink
        self.begun = False
        self.blocked = False
        self._from: socket | None = source.socket
        self._to: socket | None = sink.socket
        self._pipes = pipes
        self._pipe: Pipe | None = None
        self._why: Exception | None = None
        self._sinkLost = False

    def begin(self) -> None:
        """
        Read by splicing from now on.
        """
        self.begun = True
        self.source.transport.doRead = self.doRead

    def end(self) -> None:
        """
        Let the transports do their own work again; what is in the pipe is
        lost. Doing it twice is no error.
        """
        _restore(self.source.transport, "doRead")
        self._unblock()
        if self._pipe is not None:
            self._pipes.give(self._pipe)
            self._pipe = None

    def _unblock(self) -> None:
        """
        Let the sink's transport write for itself again.
        """
        if self.blocked:
            self.blocked = False
            _restore(self.sink.transport, "doWrite")

    # In the place of the transports' methods

    def doRead(self) -> Exception | None:
        """
        The source has bytes, or its end.

        @return: What the reactor makes of it, as for any C{doRead}.
        """
        why = self._why
        if why is not None:
            return why
        source = self.source.transport
        pipe = self._pipes.take() if holdsNothing(self.sink.transport) else None
        if pipe is None:
            copied: Exception | None = type(source).doRead(source)
            return copied
        self._pipe = pipe
        moved, why = self._move(pipe)
        self._pipes.moved += moved
        if self._sinkLost:
            self.sink.shed(TunnelError("reset", "the connection was lost"))
            return None
        if pipe.held:
            self.blocked = True
            self.source.hold(self.source.PIPE)
            sink = self.sink.transport
            sink.doWrite = self.doWrite
            sink.startWriting()
        else:
            self._pipe = None
            self._pipes.give(pipe)
        self.source.counted(moved)
        return why

    def doWrite(self) -> Exception | None:
        """
        The sink takes bytes again.

        @return: What the reactor makes of it, as for any C{doWrite}.
        """
        pipe = self._pipe
        if pipe is None or self._to is None:
            self._unblock()
            return None
        try:
            pipe.held -= os.splice(pipe.out, self._to.fileno(), pipe.held, flags=_FLAGS)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        moved = 0
        if not pipe.held and self.source.heldOnlyBy(self.source.PIPE):
            # As long as more is there, the reactor need not change whom it
            # asks. An end or an error waits for the source's next turn; it is
            # kept, since a socket tells of a reset only once.
            moved, self._why = self._move(pipe)
            self._pipes.moved += moved
            if self._sinkLost:
                return CONNECTION_LOST
        if not pipe.held:
            self._pipe = None
            self._pipes.give(pipe)
            self._unblock()
            sink: Any = self.sink.transport
            sink.stopWriting()
            self.source.release(self.source.PIPE)
            if sink.disconnecting or sink._writeDisconnecting:
                sink.startWriting()
        self.source.counted(moved)
        return None

    def _move(self, pipe: Pipe) -> tuple[int, Exception | None]:
        """
        Move what is there, but no more than is one's turn.

        @return: How many bytes were read, and the end if it was met.
        """
        if self._from is None or self._to is None:
            return 0, None
        splice, flags = os.splice, _FLAGS
        source, sink = self._from.fileno(), self._to.fileno()
        moved, most = 0, self.source.allowance(TURN)
        while moved < most:
            try:
                wanted = min(pipe.size, most - moved)
                count = splice(source, pipe.into, wanted, flags=flags)
            except BlockingIOError:
                break
            except OSError:
                return moved, CONNECTION_LOST
            if not count:
                return moved, CONNECTION_DONE
            moved += count
            pipe.held = count
            try:
                while pipe.held:
                    pipe.held -= splice(pipe.out, sink, pipe.held, flags=flags)
            except BlockingIOError:
                break
            except OSError:
                # Its socket tells of a reset only once; after that it would
                # look to its transport like an orderly end.
                self._sinkLost = True
                break
        return moved, None


def _restore(transport: Any, name: str) -> None:
    """
    Have C{transport} use its class's method again; an aborted one has put its
    own in place.
    """
    method = getattr(transport, "__dict__", {}).get(name)
    if isinstance(getattr(method, "__self__", None), Splice):
        delattr(transport, name)
