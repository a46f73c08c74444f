"""
The end of a stream within a session.

What its session brings passes through these states; the other direction has its own,
see L{tristunnel.dialects.base.outgoing}::

    ======== ============================== ==========================================
    state    fields                         left when
    ======== ============================== ==========================================
    passing  nothing in C{_incoming}        the local end is not there yet, or pauses
                                            the stream, and bytes come: holding; or
                                            the peer ends: ended
    holding  C{_incoming}                   all is taken: passing; or ended, if C{eof}
    ended    C{eof}, nothing in             the other direction is finished: over
             C{_incoming}
    over     C{over}                        never; nothing is held, and the session
                                            has forgotten it
    ======== ============================== ==========================================

A break by either side leads from each of them to C{over}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tristunnel.dataplane.pieces import NOTHING
from tristunnel.dialects.base.outgoing import LARGE, OutgoingDirection
from tristunnel.dialects.base.stream_carrier import StreamCarrier
from tristunnel.errors import TunnelError
from tristunnel.wire.windows import ReceiveWindow, SendWindow

if TYPE_CHECKING:
    from tristunnel.interfaces import Closed, End

__all__ = ["SessionStream"]


class SessionStream(OutgoingDirection):
    """
    An L{End<tristunnel.interfaces.End>} whose remote is the far side of a session.

    It holds what the local end does not take yet, which is bounded by the credit that
    the peer was given.

    @ivar receiveWindow: Our credit for the peer.
    @ivar eof: Whether the peer sent its end.
    @ivar answered: Whether the peer has accepted the stream.
    @ivar since: When it was opened, in seconds.
    @ivar whenAnswered: Called once when the peer accepts it.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_incoming",
        "_readPaused",
        "_readsBy",
        "answered",
        "eof",
        "receiveWindow",
        "since",
        "stalledSince",
        "whenAnswered",
    )

    _multiplexer: StreamCarrier[SessionStream]

    def __init__(
        self,
        multiplexer: StreamCarrier[SessionStream],
        streamId: int,
        sendWindow: SendWindow,
        receiveWindow: ReceiveWindow,
        since: float,
    ) -> None:
        super().__init__(multiplexer, streamId, sendWindow)
        self.receiveWindow = receiveWindow
        self.eof = False
        self.answered = False
        self.since = since
        self.stalledSince: float | None = None
        self.whenAnswered: Callable[[], None] | None = None
        self._incoming: deque[bytes] = NOTHING
        self._closed: Closed | None = None
        self._readPaused = False
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

    # For the multiplexer

    def dataArrived(self, data: bytes) -> None:
        """Take bytes from the far side; the caller has checked the credit."""
        size = len(data)
        if size >= LARGE:
            self.countLarge(size)
        if self._readPaused or self._peer is None or self._incoming:
            if self._incoming is NOTHING:
                self._incoming = deque()
            self._incoming.append(data)
            self.memory.hold(self, len(data), self.breakOff)
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

    def allPassed(self) -> None:
        """No bytes wait any more for the local end."""

    def breakOff(self, reason: TunnelError) -> None:
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
