"""
The end of a stream within a session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tristunnel.dataplane.memory import HELD
from tristunnel.dataplane.pieces import NOTHING
from tristunnel.dialects.base.guarded import Guarded
from tristunnel.dialects.base.stream_carrier import StreamCarrier
from tristunnel.errors import TunnelError
from tristunnel.wire.windows import ReceiveWindow, SendWindow

if TYPE_CHECKING:
    from tristunnel.interfaces import Closed, End

__all__ = [
    "LARGE",
    "SOURCE_HIGH",
    "SOURCE_LOW",
    "SessionStream",
]

SOURCE_HIGH = 64 * 1024
"""Bytes waiting to be sent at which the stream's source is paused."""

LARGE = 4 * 1024
"""The least bytes of a piece that counts for a connection of the stream's own. Many
small requests and answers cost less in the session, which gathers those of all streams,
than on a connection each."""

SOURCE_LOW = 16 * 1024
"""Bytes waiting to be sent at which the source is resumed."""


class SessionStream(Guarded):
    """
    An L{End<tristunnel.interfaces.End>} whose remote is the far side of a session.

    It holds what the session cannot send yet, and what the local end does not take yet.
    The former is bounded by pausing the local end, the latter by the credit that the
    peer was given.

    @ivar id: The stream's number in the session.
    @ivar sendWindow: The peer's credit for this stream.
    @ivar receiveWindow: Our credit for the peer.
    @ivar outgoing: Bytes to send, first one first.
    @ivar finishing: Whether the end follows after C{outgoing}.
    @ivar finished: Whether the end was sent.
    @ivar eof: Whether the peer sent its end.
    @ivar over: Whether both directions have ended, or the stream was broken.
    @ivar queued: Whether it is in the multiplexer's round-robin queue.
    @ivar answered: Whether the peer has accepted the stream.
    @ivar since: When it was opened, in seconds.
    @ivar whenAnswered: Called once when the peer accepts it.
    @cvar memory: Counts what is held for stalled readers.
    """

    over: bool
    memory = HELD

    __slots__ = (
        "__weakref__",
        "_closed",
        "_discarded",
        "_incoming",
        "_multiplexer",
        "_offset",
        "_outgoingSize",
        "_peer",
        "_readPaused",
        "_readsBy",
        "_sendsBy",
        "_sourceHeld",
        "answered",
        "eof",
        "finished",
        "finishing",
        "id",
        "outgoing",
        "over",
        "queued",
        "receiveWindow",
        "sendWindow",
        "since",
        "stalledSince",
        "whenAnswered",
    )

    def __init__(
        self,
        multiplexer: StreamCarrier[SessionStream],
        streamId: int,
        sendWindow: SendWindow,
        receiveWindow: ReceiveWindow,
        since: float,
    ) -> None:
        self.id = streamId
        self.sendWindow = sendWindow
        self.receiveWindow = receiveWindow
        self.outgoing: deque[bytes] = NOTHING
        self.finishing = False
        self.finished = False
        self.eof = False
        self.queued = False
        self.answered = False
        self.since = since
        self.stalledSince: float | None = None
        self.whenAnswered: Callable[[], None] | None = None
        self._multiplexer = multiplexer
        self._offset = 0
        self._outgoingSize = 0
        self._discarded = 0
        self._incoming: deque[bytes] = NOTHING
        self._peer: End | None = None
        self._closed: Closed | None = None
        self._readPaused = False
        self._sourceHeld = 0
        self.over = False
        self._sendsBy: End | None = None
        self._readsBy: End | None = None

    def __repr__(self) -> str:
        return f"<SessionStream {self.id}>"

    @property
    def peer(self) -> End | None:
        """The local end, once joined."""
        return self._peer

    @property
    def received(self) -> int:
        """Bytes that came from the far side."""
        return self.receiveWindow.received

    @property
    def hasMoved(self) -> bool:
        """Whether neither direction needs the session any more."""
        return False

    @property
    def holding(self) -> int:
        """Bytes that came, and that the local end has not taken yet."""
        return self.receiveWindow.waiting

    # End

    def join(self, peer: End, closed: Closed) -> None:
        """Begin to pass bytes to C{peer}."""
        self._peer = peer
        self._closed = closed
        if self._incoming or self.eof:
            self._deliver()
        elif self._sendsBy is not None:
            # It had moved before anybody was here to read.
            self.allPassed()

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
            self.memory.hold(self, self._sourceHeld, self._evict)

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

    def reset(self, reason: TunnelError) -> None:
        """Break the stream and tell the far side why."""
        if not self.over:
            self._multiplexer.sendReset(self, reason)
            self._end(reason)

    def pauseReading(self) -> None:
        """Hold what comes, until the far side runs out of credit."""
        self._readPaused = True
        if self._readsBy is not None:
            self._readsBy.pauseReading()

    def resumeReading(self) -> None:
        """Pass on what was held, and what comes."""
        self._readPaused = False
        if self._readsBy is not None:
            self._readsBy.resumeReading()
        elif self._incoming:
            self._deliver()

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        """
        Pass bytes to what stands for the peer from now on.

        @return: The peer until now, and whether it has this end paused.
        """
        before, self._peer = self._peer, peer
        if self._readsBy is not None:
            return self._readsBy.passTo(peer)
        return before, self._readPaused

    def whileWaiting(self, left: Closed) -> None:
        """Have C{left} called if the stream ends before it is joined."""
        if self._peer is None:
            self._closed = left

    def accept(self) -> None:
        """Tell the far side, which has opened it, that it has reached its service."""
        self._multiplexer.accept(self)

    def abandon(self) -> None:
        """Forget the stream without telling the far side: it goes on elsewhere."""
        if not self.over:
            self._closed = self.whenAnswered = None
            self._end(None)

    # What a stream that can move takes note of

    def countLarge(self, size: int) -> None:
        """A piece of L{LARGE} bytes or more comes or goes."""

    def allSent(self) -> None:
        """No bytes wait any more to be sent."""

    def allPassed(self) -> None:
        """No bytes wait any more for the local end."""

    # For the multiplexer

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

    def dataArrived(self, data: bytes) -> None:
        """Take bytes from the far side; the caller has checked the credit."""
        size = len(data)
        if size >= LARGE:
            self.countLarge(size)
        if self._readPaused or self._peer is None or self._incoming:
            if self._incoming is NOTHING:
                self._incoming = deque()
            self._incoming.append(data)
            self.memory.hold(self, len(data), self._evict)
        else:
            try:
                self._peer.write(data)
            except Exception:
                self.faulted()
            self._multiplexer.drained(self, size)

    def farSideLeft(self) -> None:
        """The far side neither sends nor takes any more."""
        self.finishing = self.finished = True
        self.outgoing = NOTHING
        self._outgoingSize = 0
        if self._sourceHeld:
            # If it stayed paused, it would never see the end of its own remote.
            self._resumeSource()
        self.eofArrived()

    def _resumeSource(self) -> None:
        """Resume the local end: little is waiting any more."""
        held, self._sourceHeld = self._sourceHeld, 0
        self.memory.release(self, held)
        if self._peer is not None:
            self.guarded(self._peer.resumeReading)

    def eofArrived(self) -> None:
        """The far side sends no more."""
        if not self.eof:
            self.eof = True
            if not self._incoming and self._peer is not None:
                # Like C{guarded}, but once per stream.
                try:
                    self._peer.finish()
                except Exception:
                    self.faulted()
                if self.finished and not self.over:
                    self._end(None)

    def broken(self, reason: TunnelError) -> None:
        """The far side, or the session, has broken the stream."""
        if not self.over:
            peer = self._peer
            self._end(reason)
            if peer is not None:
                self.guarded(peer.reset, reason)

    def checkOver(self) -> None:
        """End the stream once both directions are through."""
        if self.eof and self.finished and not self._incoming and not self.over:
            self._end(None)

    def _deliver(self) -> None:
        """Pass on what is held, as long as the local end takes it."""
        peer, incoming = self._peer, self._incoming
        if peer is None or self.over:
            return
        hadSome = bool(incoming)
        while incoming and not self._readPaused and not self.over:
            data = incoming.popleft()
            self.memory.release(self, len(data))
            self.guarded(peer.write, data)
            self._multiplexer.drained(self, len(data))
        if hadSome and not incoming:
            self._incoming = NOTHING
            self._multiplexer.emptied(self)
            self.allPassed()
        if self.eof and not incoming and not self.over:
            self.guarded(peer.finish)
            self.checkOver()

    def _evict(self, reason: TunnelError) -> None:
        """Break the stream on both sides, because too much is held for it."""
        if not self.over:
            self._multiplexer.sendReset(self, reason)
            self.broken(reason)

    def _end(self, reason: TunnelError | None) -> None:
        """Release everything."""
        self.over = True
        held = 0
        if self._incoming or self._sourceHeld:
            self.memory.releaseAll(self)
            held = sum(map(len, self._incoming))
        self._incoming = self.outgoing = NOTHING
        self._multiplexer.streamOver(self, held)
        self.whenAnswered = None
        if self._closed is not None:
            closed, self._closed = self._closed, None
            try:
                closed(reason)
            except Exception:
                self.faulted()
