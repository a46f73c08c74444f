"""
The direction of a stream to the far side of its session.

Its states::

    ========= ============================= ==========================================
    state     fields                        left when
    ========= ============================= ==========================================
    open                                    the local end finishes: finishing; the
                                            stream has another way: elsewhere; or the
                                            far side leaves: finished
    elsewhere C{_sendsBy}                   the local end finishes: finished
    finishing C{finishing}                  all that waits was sent, and the end after
                                            it; or the far side leaves: finished
    finished  C{finishing}, C{finished}     never; what is written is dropped
    ========= ============================= ==========================================

While it is open or finishing, bytes for which there is no credit or no room wait in
C{outgoing}; the local end is paused once they are too many, until few are left.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

from tristunnel.dataplane.memory import HELD
from tristunnel.dataplane.pieces import NOTHING
from tristunnel.dialects.base.guarded import Guarded
from tristunnel.dialects.base.stream_carrier import StreamCarrier
from tristunnel.errors import TunnelError
from tristunnel.wire.windows import SendWindow

if TYPE_CHECKING:
    from tristunnel.interfaces import End

__all__ = ["LARGE", "SOURCE_HIGH", "SOURCE_LOW", "OutgoingDirection"]

SOURCE_HIGH = 64 * 1024
"""Bytes waiting to be sent at which the stream's source is paused."""

SOURCE_LOW = 16 * 1024
"""Bytes waiting to be sent at which the source is resumed."""

LARGE = 4 * 1024
"""The least bytes of a piece that counts for a connection of the stream's own. Many
small requests and answers cost less in the session, which gathers those of all streams,
than on a connection each."""


class OutgoingDirection(Guarded):
    """
    What is written to a stream: it is sent at once if possible, or else held until the
    session can send it. What is held is bounded by pausing the local end.

    @param multiplexer: The session.

    @ivar id: The stream's number in the session.
    @ivar sendWindow: The peer's credit for this stream.
    @ivar outgoing: Bytes to send, first one first.
    @ivar finishing: Whether the end follows after C{outgoing}.
    @ivar finished: Whether the end was sent.
    @ivar over: Whether both directions have ended, or the stream was broken.
    @ivar queued: Whether it is in the multiplexer's round-robin queue.
    @ivar _sendsBy: What sends in place of the session from now on.
    @cvar memory: Counts what is held for stalled readers.
    """

    over: bool
    memory = HELD

    __slots__ = (
        "_discarded",
        "_multiplexer",
        "_offset",
        "_outgoingSize",
        "_peer",
        "_sendsBy",
        "_sourceHeld",
        "finished",
        "finishing",
        "id",
        "outgoing",
        "over",
        "queued",
        "sendWindow",
    )

    def __init__(
        self, multiplexer: StreamCarrier[Any], streamId: int, sendWindow: SendWindow
    ) -> None:
        self.id = streamId
        self.sendWindow = sendWindow
        self.outgoing: deque[bytes] = NOTHING
        self.finishing = False
        self.finished = False
        self.over = False
        self.queued = False
        self._multiplexer = multiplexer
        self._offset = 0
        self._outgoingSize = 0
        self._discarded = 0
        self._sourceHeld = 0
        self._peer: End | None = None
        self._sendsBy: End | None = None

    def write(self, data: bytes) -> None:
        """Send bytes to the far side, as credit allows."""
        if self._sendsBy is not None:
            self._sendsBy.write(data)
            return
        if self.over or self.finished:
            self._discard(len(data))
            return
        if not data:
            return
        if not self.outgoing and self._multiplexer.sendNow(self, data):
            if len(data) >= LARGE:
                self.countLarge(len(data))
            return
        if self.outgoing is NOTHING:
            self.outgoing = deque()
        self.outgoing.append(data)
        self._outgoingSize += len(data)
        self._multiplexer.wantsToSend(self)
        if self._outgoingSize > SOURCE_HIGH and not self._sourceHeld:
            self._sourceHeld = self._outgoingSize
            if self._peer is not None:
                self.guarded(self._peer.pauseReading)
            self.memory.hold(self, self._sourceHeld, self.breakOff)

    def _discard(self, amount: int) -> None:
        """
        Drop bytes, because the far side has left. Its last bytes may still be on their
        way to the local end, so that one is broken only if it keeps sending.
        """
        self._discarded += amount
        if self._discarded > SOURCE_HIGH and self._peer is not None:
            reason = TunnelError("reset", "the other side has left")
            self.guarded(self._peer.reset, reason)

    def finish(self) -> None:
        """End this direction after what is held."""
        if not (self.over or self.finishing):
            self.finishing = True
            if self._sendsBy is not None:
                self.finished = True
                self._sendsBy.finish()
            elif self.outgoing or self.queued:
                self._multiplexer.wantsToSend(self)
            else:
                self._multiplexer.sendEnd(self)

    def take(self, limit: int) -> bytes:
        """
        Take bytes to send now.

        @param limit: The most bytes to take; at least 1.
        @return: No bytes if the stream was broken by that.
        """
        data, offset = self.outgoing[0], self._offset
        if len(data) - offset <= limit:
            self.outgoing.popleft()
            if not self.outgoing:
                self.outgoing = NOTHING
            self._offset = 0
            if offset:
                data = data[offset:]
        else:
            self._offset = offset + limit
            data = data[offset : offset + limit]
        self._outgoingSize -= len(data)
        if len(data) >= LARGE:
            self.countLarge(len(data))
        if self._sourceHeld and self._outgoingSize <= SOURCE_LOW:
            self._resumeSource()
            if self.over:
                return b""
        return data

    def _resumeSource(self) -> None:
        """Resume the local end: little is waiting any more."""
        held, self._sourceHeld = self._sourceHeld, 0
        self.memory.release(self, held)
        if self._peer is not None:
            self.guarded(self._peer.resumeReading)

    @abstractmethod
    def breakOff(self, reason: TunnelError) -> None:
        """Break the stream on both sides, for example if too much is held for it."""

    # What a stream that can move takes note of

    def countLarge(self, size: int) -> None:
        """A piece of L{LARGE} bytes or more comes or goes."""

    def allSent(self) -> None:
        """No bytes wait any more to be sent."""
