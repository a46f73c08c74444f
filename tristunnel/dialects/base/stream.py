"""
The end of a stream within a session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tristunnel.dataplane.endings import MovedEnd
from tristunnel.dataplane.join import spliceIfPlain
from tristunnel.dataplane.memory import HELD
from tristunnel.dataplane.pace import SLOW
from tristunnel.dataplane.pieces import NOTHING
from tristunnel.dataplane.rate import RateLimiter
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dialects.base.guarded import Guarded
from tristunnel.dialects.base.stream_carrier import StreamCarrier
from tristunnel.errors import TunnelError
from tristunnel.wire.windows import ReceiveWindow, SendWindow

if TYPE_CHECKING:
    from tristunnel.interfaces import Closed, End

__all__ = [
    "BUSY",
    "LARGE",
    "SHORT",
    "SOURCE_HIGH",
    "SOURCE_LOW",
    "SessionStream",
]

SOURCE_HIGH = 64 * 1024
"""Bytes waiting to be sent at which the stream's source is paused."""

BUSY = 1024 * 1024
"""Bytes in a short time, in large pieces, that prove a stream to be busy."""

SHORT = BUSY / SLOW
"""Seconds that they may take. A line that is slower gains nothing: a second connection
would fill the queue before it, in which the session's small requests stand then."""

LARGE = 4 * 1024
"""The least bytes of a piece that counts for that. Many small requests and answers cost
less in the session, which gathers those of all streams, than on a connection each."""

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
        "_busySince",
        "_closed",
        "_discarded",
        "_elsewhere",
        "_follows",
        "_incoming",
        "_movedAt",
        "_multiplexer",
        "_offset",
        "_outgoingSize",
        "_peer",
        "_readPaused",
        "_recent",
        "_sentBefore",
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
        self._recent = 0
        self._busySince = since
        self._elsewhere: MovedEnd | None = None
        self._sentBefore = -1
        self._movedAt = -1
        self._follows = False

    def __repr__(self) -> str:
        return f"<SessionStream {self.id}>"

    @property
    def peer(self) -> End | None:
        """The local end, once joined."""
        return self._peer

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

    def write(self, data: bytes) -> None:
        """Send bytes to the far side, as credit allows."""
        if self._sentBefore >= 0 and self._elsewhere is not None:
            self._elsewhere.write(data)
            return
        if self.over or self.finished:
            self._discard(len(data))
            return
        if not data:
            return
        if not self.outgoing and self._multiplexer.sendNow(self, data):
            if len(data) >= LARGE:
                self._count(len(data))
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
            if self._sentBefore >= 0 and self._elsewhere is not None:
                self.finished = True
                self._elsewhere.finish()
            elif self.outgoing or self.queued or self._elsewhere is not None:
                self._multiplexer.wantsToSend(self)
            else:
                self._multiplexer.sendEnd(self)

    def reset(self, reason: TunnelError) -> None:
        """Break the stream and tell the far side why."""
        if not self.over:
            moved = self._elsewhere
            if not self.hasMoved:
                self._multiplexer.sendReset(self, reason)
            self._end(reason)
            if moved is not None:
                moved.reset(reason)

    def pauseReading(self) -> None:
        """Hold what comes, until the far side runs out of credit."""
        self._readPaused = True
        if self._follows and self._elsewhere is not None:
            self._elsewhere.pauseReading()

    def resumeReading(self) -> None:
        """Pass on what was held, and what comes."""
        self._readPaused = False
        if self._follows and self._elsewhere is not None:
            self._elsewhere.resumeReading()
        elif self._incoming:
            self._deliver()

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        """
        Pass bytes to what stands for the peer from now on.

        @return: The peer until now, and whether it has this end paused.
        """
        before, self._peer = self._peer, peer
        if self._follows and self._elsewhere is not None:
            return self._elsewhere.passTo(peer)
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

    # Moving to a connection of its own

    @property
    def received(self) -> int:
        """Bytes that came from the far side, on either connection."""
        moved = self._elsewhere
        return self.receiveWindow.received + (0 if moved is None else moved.received)

    @property
    def passed(self) -> int:
        """Bytes that the local end has passed to the connection it has moved to."""
        if self._sentBefore < 0 or self._peer is None:
            return 0
        return self._peer.received - self._sentBefore

    @property
    def moves(self) -> bool:
        """Whether there is a connection that it moves to, or has moved to."""
        return self._elsewhere is not None

    @property
    def hasMoved(self) -> bool:
        """Whether neither direction needs the session any more."""
        return (
            self._elsewhere is not None
            and (self._sentBefore >= 0 or self.finished)
            and (self._follows or self.eof)
        )

    @property
    def readsBy(self) -> SocketEnd | None:
        """The plain socket that it reads from now; C{None} for the session."""
        moved = self._elsewhere
        return moved.readsBy if moved is not None and self._follows else None

    @property
    def writesBy(self) -> SocketEnd | None:
        """Likewise the socket that it writes to."""
        moved = self._elsewhere
        return moved.writesBy if moved is not None and self._sentBefore >= 0 else None

    @property
    def mayGoByKernel(self) -> bool:
        """Whether the kernel moves its bytes."""
        return self._elsewhere is not None and self._elsewhere.mayGoByKernel

    def obey(self, rule: RateLimiter) -> None:
        """Have a rate slow down what the kernel moves."""
        if self._elsewhere is not None:
            self._elsewhere.obey(rule)

    def obeyAgain(self) -> None:
        """The rate has changed."""
        if self._elsewhere is not None:
            self._elsewhere.obeyAgain()

    def _count(self, size: int) -> None:
        """Count a large piece; enough of them in a short time prove the stream busy."""
        self._recent += size
        if self._recent >= BUSY:
            now = self._multiplexer.now()
            if now - self._busySince <= SHORT and self._elsewhere is None:
                self._multiplexer.provedBusy(self)
            self._recent, self._busySince = 0, now

    def moveTo(self, elsewhere: MovedEnd) -> None:
        """
        Move to a connection of its own: each direction as soon as none of its bytes
        wait here.
        """
        self._elsewhere = elsewhere
        elsewhere.whileWaiting(self._elsewhereOver)
        if self.finished:
            # Our end was sent in the session already; end the connection likewise.
            elsewhere.finish()
        self.switch()
        self._follow()

    def switch(self) -> None:
        """Send on the new connection from now on, if everything before is sent."""
        moved = self._elsewhere
        if moved is None or self._sentBefore >= 0 or self.over:
            return
        if self.outgoing or self.finished:
            return
        self._sentBefore = self.sendWindow.sent
        self._multiplexer.sendMoved(self, self._sentBefore)
        if self.finishing:
            self.finished = True
            moved.finish()
        self._settle()

    def movedArrived(self, offset: int) -> None:
        """
        Note that the far side sends on the new connection from now on.

        @raise TunnelError: C{protocol-error}, if C{offset} is not where this side is.
        """
        here = self.receiveWindow.received
        if offset != here or self._movedAt >= 0 or self.eof:
            raise TunnelError(
                "protocol-error",
                f"stream {self.id} moved at {offset}, and {here} bytes had come",
            )
        self._movedAt = offset
        self._follow()

    def moveFailed(self, reason: TunnelError) -> None:
        """
        Stay, as there is no connection to move to. If the far side has already changed
        over, break the stream.
        """
        if self._movedAt >= 0 and self._elsewhere is None and not self.over:
            peer = self._peer
            self.reset(reason)
            if peer is not None:
                peer.reset(reason)

    def _follow(self) -> None:
        """Read from the new connection once everything before is passed on."""
        moved, peer = self._elsewhere, self._peer
        if self._movedAt < 0 or self._follows or self.over:
            return
        if moved is None or peer is None or self._incoming:
            return
        self._follows = True
        if self._readPaused:
            moved.pauseReading()
        moved.join(peer, self._elsewhereOver)
        self._settle()

    def _settle(self) -> None:
        """
        Leave the session if nothing is left to do there, and have the kernel move the
        bytes if both ends are plain sockets.
        """
        moved, peer = self._elsewhere, self._peer
        if moved is None or self.over or not self.hasMoved:
            return
        self._multiplexer.streamMoved(self)
        if isinstance(peer, SocketEnd) and peer.sendsTo(self):
            peer.passTo(moved)
            spliceIfPlain(peer, moved)

    def _elsewhereOver(self, reason: TunnelError | None) -> None:
        """The new connection is gone."""
        if self.over:
            return
        if self._sentBefore < 0 and self._movedAt < 0:
            # Neither direction has changed over: go on in the session as if there had
            # been no connection.
            self._elsewhere = None
            return
        if reason is None and self._incoming and self._movedAt >= 0 <= self._sentBefore:
            # It has ended as it should, after what still waits here to be read.
            return
        peer, followed = self._peer, self._follows
        if reason is None and not self.hasMoved:
            reason = TunnelError("session-lost", "the stream's connection was lost")
        if reason is not None and not self.hasMoved:
            self._multiplexer.sendReset(self, reason)
        self._end(reason)
        if reason is not None and peer is not None and not followed:
            self.guarded(peer.reset, reason)

    def pauseSource(self) -> None:
        """Pause the local end."""
        if self._peer is not None:
            self._peer.pauseReading()

    def resumeSource(self) -> None:
        """Resume the local end."""
        if self._peer is not None:
            self._peer.resumeReading()

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
            self._count(len(data))
        if self._sourceHeld and self._outgoingSize <= SOURCE_LOW:
            self._resumeSource()
            if self.over:
                return b""
        return data

    def dataArrived(self, data: bytes) -> None:
        """Take bytes from the far side; the caller has checked the credit."""
        size = len(data)
        if size >= LARGE:
            self._count(size)
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
                self.checkOver()

    def broken(self, reason: TunnelError) -> None:
        """The far side, or the session, has broken the stream."""
        if not self.over:
            peer, moved = self._peer, self._elsewhere
            self._end(reason)
            if moved is not None:
                moved.reset(reason)
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
            self._follow()
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
        moved = self._elsewhere
        if moved is not None and not (moved.over or self.hasMoved):
            # It was going to move, and is over before that.
            moved.reset(reason or TunnelError("closed"))
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
