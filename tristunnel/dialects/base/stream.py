"""
A stream's end within a session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from tristunnel.dataplane.memory import HELD
from tristunnel.errors import TunnelError
from tristunnel.wire.windows import ReceiveWindow, SendWindow

if TYPE_CHECKING:
    from tristunnel.dialects.base.multiplexer import Multiplexer
    from tristunnel.interfaces import Closed, End

__all__ = ["SOURCE_HIGH", "SOURCE_LOW", "Guarded", "SessionStream"]

SOURCE_HIGH = 64 * 1024
"""Bytes held for sending at which the stream's source is paused."""

SOURCE_LOW = 16 * 1024
"""Bytes held for sending at which it is resumed."""


class Guarded:
    """
    One of the many that share a connection. Whatever its local end's code raises
    breaks it, and reaches neither the session nor the stream that happened to be
    the cause of the call.
    """

    __slots__ = ()

    id: int
    _peer: Any
    _over: bool
    _log = Logger()

    def reset(self, reason: TunnelError) -> None:
        """
        Break off and tell the far side why.
        """
        raise NotImplementedError

    def guarded(self, call: Callable[..., object], *arguments: object) -> None:
        """
        Call code that is for this one alone.
        """
        try:
            call(*arguments)
        except Exception:
            self.faulted()

    def faulted(self) -> None:
        """
        Break off at both sides, because of the error that is being handled. The
        local end may be in any state, so what it raises from now on says no more.
        """
        peer, self._peer = self._peer, None
        if peer is not None or not self._over:
            self._log.failure("An error broke stream {id}", id=self.id)
        reason = TunnelError("internal", "an error broke the stream")
        with suppress(Exception):
            self.reset(reason)
        if peer is not None:
            with suppress(Exception):
                peer.reset(reason)


class SessionStream(Guarded):
    """
    An L{End<tristunnel.interfaces.End>} whose world is the far side of a
    session.

    It holds what the session cannot send yet, and what the local end does not
    take yet; both are bounded, the first by pausing the local end, the second
    by the credit that was given to the peer.

    @ivar id: The stream's number in the session.
    @ivar received: Bytes that came from the peer.
    @ivar sendWindow: The peer's credit for this stream.
    @ivar receiveWindow: Our credit for the peer.
    @ivar outgoing: Bytes to send, first one first.
    @ivar finishing: Whether the end follows after C{outgoing}.
    @ivar finished: Whether the end was sent.
    @ivar eof: Whether the peer sent its end.
    @ivar queued: Whether the multiplexer has it in its round.
    @ivar answered: Whether the peer has accepted the stream.
    @ivar since: When it was opened, in seconds.
    @ivar whenAnswered: Called once when the peer accepts it.
    @cvar memory: Counts what is held for readers that stand still.
    """

    memory = HELD

    __slots__ = (
        "_closed",
        "_discarded",
        "_incoming",
        "_multiplexer",
        "_offset",
        "_outgoingSize",
        "_over",
        "_peer",
        "_readPaused",
        "_sourcePaused",
        "answered",
        "eof",
        "finished",
        "finishing",
        "id",
        "outgoing",
        "queued",
        "receiveWindow",
        "received",
        "sendWindow",
        "since",
        "stalledSince",
        "whenAnswered",
    )

    def __init__(
        self,
        multiplexer: Multiplexer,
        streamId: int,
        sendWindow: SendWindow,
        receiveWindow: ReceiveWindow,
        since: float,
    ) -> None:
        self.id = streamId
        self.received = 0
        self.sendWindow = sendWindow
        self.receiveWindow = receiveWindow
        self.outgoing: deque[bytes] = deque()
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
        self._incoming: deque[bytes] = deque()
        self._peer: End | None = None
        self._closed: Closed | None = None
        self._readPaused = False
        self._sourcePaused = False
        self._over = False

    def __repr__(self) -> str:
        return f"<SessionStream {self.id}>"

    @property
    def peer(self) -> End | None:
        """
        The local end, once it was joined.
        """
        return self._peer

    @property
    def over(self) -> bool:
        """
        Whether both directions have ended, or it was broken.
        """
        return self._over

    @property
    def holding(self) -> int:
        """
        Bytes that came and that the local end did not take yet.
        """
        return self.receiveWindow.waiting

    # End

    def join(self, peer: End, closed: Closed) -> None:
        """
        Begin to pass bytes to C{peer}.
        """
        self._peer = peer
        self._closed = closed
        self._deliver()

    def write(self, data: bytes) -> None:
        """
        Send bytes to the far side, as credit allows.
        """
        if self._over or self.finished:
            self._discard(len(data))
            return
        if not data:
            return
        self.outgoing.append(data)
        self._outgoingSize += len(data)
        self._multiplexer.wantsToSend(self)
        if self._outgoingSize > SOURCE_HIGH and not self._sourcePaused:
            self._sourcePaused = True
            if self._peer is not None:
                self.guarded(self._peer.pauseReading)
            self.memory.hold(self, SOURCE_HIGH, self._shed)

    def _discard(self, amount: int) -> None:
        """
        The far side has left. Its last bytes may still be on their way to the
        local end, so that is broken only if it goes on and on.
        """
        self._discarded += amount
        if self._discarded > SOURCE_HIGH and self._peer is not None:
            reason = TunnelError("reset", "the far side has left")
            self.guarded(self._peer.reset, reason)

    def finish(self) -> None:
        """
        End this direction after what is held.
        """
        if not (self._over or self.finishing):
            self.finishing = True
            self._multiplexer.wantsToSend(self)

    def reset(self, reason: TunnelError) -> None:
        """
        Break the stream and tell the far side why.
        """
        if not self._over:
            self._multiplexer.sendReset(self, reason)
            self._end(reason)

    def pauseReading(self) -> None:
        """
        Hold what comes; the credit runs out by itself.
        """
        self._readPaused = True

    def resumeReading(self) -> None:
        """
        Hand on what was held, and what comes.
        """
        self._readPaused = False
        if self._incoming:
            self._deliver()

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        """
        Pass bytes to what stands for the peer from now on.

        @return: The peer until now, and whether it has this end paused.
        """
        before, self._peer = self._peer, peer
        return before, self._readPaused

    def whileWaiting(self, left: Closed) -> None:
        """
        Have C{left} called if the stream ends before it is joined.
        """
        if self._peer is None:
            self._closed = left

    def accept(self) -> None:
        """
        Tell the far side, which opened it, that it has reached its service.
        """
        self._multiplexer.accept(self)

    def abandon(self) -> None:
        """
        Forget the stream without a word: it goes on elsewhere.
        """
        if not self._over:
            self._closed = self.whenAnswered = None
            self._end(None)

    # For the multiplexer

    def take(self, limit: int) -> bytes:
        """
        Take bytes to send now.

        @param limit: How many at the most; at least 1.
        @return: None if that broke the stream.
        """
        data, offset = self.outgoing[0], self._offset
        if len(data) - offset <= limit:
            self.outgoing.popleft()
            self._offset = 0
            if offset:
                data = data[offset:]
        else:
            self._offset = offset + limit
            data = data[offset : offset + limit]
        self._outgoingSize -= len(data)
        if self._sourcePaused and self._outgoingSize <= SOURCE_LOW:
            self._sourcePaused = False
            self.memory.release(self, SOURCE_HIGH)
            if self._peer is not None:
                self.guarded(self._peer.resumeReading)
                if self._over:
                    return b""
        return data

    def dataArrived(self, data: bytes) -> None:
        """
        Bytes came from the far side; credit was checked.
        """
        self.received += len(data)
        if self._readPaused or self._peer is None or self._incoming:
            self._incoming.append(data)
            self.memory.hold(self, len(data), self._shed)
        else:
            try:
                self._peer.write(data)
            except Exception:
                self.faulted()
            self._multiplexer.drained(self, len(data))

    def farSideLeft(self) -> None:
        """
        The far side neither sends nor takes any more.
        """
        self.finishing = self.finished = True
        self.outgoing.clear()
        self._outgoingSize = 0
        if self._sourcePaused:
            # Paused for ever it would never see its own end.
            self._sourcePaused = False
            self.memory.release(self, SOURCE_HIGH)
            if self._peer is not None:
                self.guarded(self._peer.resumeReading)
        self.eofArrived()

    def eofArrived(self) -> None:
        """
        The far side sends no more.
        """
        if not self.eof:
            self.eof = True
            if not self._incoming and self._peer is not None:
                self.guarded(self._peer.finish)
                self.checkOver()

    def broken(self, reason: TunnelError) -> None:
        """
        The far side, or the session, broke the stream.
        """
        if not self._over:
            peer = self._peer
            self._end(reason)
            if peer is not None:
                self.guarded(peer.reset, reason)

    def checkOver(self) -> None:
        """
        End the stream once both directions are through.
        """
        if self.eof and self.finished and not self._incoming and not self._over:
            self._end(None)

    def _deliver(self) -> None:
        """
        Hand on what is held, as long as the local end takes it.
        """
        peer, incoming = self._peer, self._incoming
        if peer is None or self._over:
            return
        hadSome = bool(incoming)
        while incoming and not self._readPaused and not self._over:
            data = incoming.popleft()
            self.memory.release(self, len(data))
            self.guarded(peer.write, data)
            self._multiplexer.drained(self, len(data))
        if hadSome and not incoming:
            self._multiplexer.emptied(self)
        if self.eof and not incoming and not self._over:
            self.guarded(peer.finish)
            self.checkOver()

    def _shed(self, reason: TunnelError) -> None:
        """
        Be broken towards both sides: too much is held for this stream.
        """
        if not self._over:
            self._multiplexer.sendReset(self, reason)
            self.broken(reason)

    def _end(self, reason: TunnelError | None) -> None:
        """
        Let go of everything.
        """
        self._over = True
        self.memory.letGo(self)
        held = sum(map(len, self._incoming))
        self._incoming.clear()
        self.outgoing.clear()
        self._multiplexer.streamOver(self, held)
        self.whenAnswered = None
        if self._closed is not None:
            closed, self._closed = self._closed, None
            self.guarded(closed, reason)
