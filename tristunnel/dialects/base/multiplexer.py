"""
Many streams over one connection: who may send, how much, and in what order.

L{Multiplexer} holds what both forms of the framed protocol share: the table
of streams and a fair round of those that have something to send. What a frame
means is in L{tristunnel.dialects.base.plain}, L{tristunnel.dialects.framed.credit} and
L{tristunnel.dialects.framed.extended}.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from tristunnel.dataplane.answers import Answers, Holds
from tristunnel.dataplane.pieces import NOTHING
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.base.stream_carrier import StreamCarrier
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import Frame, FrameType, frameHeader, packHeader
from tristunnel.wire.windows import UNLIMITED, SendWindow

__all__ = [
    "FRAME_ALONE",
    "FRAME_SHARED",
    "FrameTable",
    "Limits",
    "Multiplexer",
    "Sink",
]

FRAME_SHARED = 16 * 1024
"""Most payload of a data frame while other streams wait, so that a keystroke
does not wait behind a download; more, a quarter of what there may be otherwise, on a
line that takes it in less than a millisecond."""

FRAME_ALONE = 64 * 1024
"""Most payload of a data frame otherwise: what W3P peers send."""

FrameTable = Mapping[int, Callable[[Any, int, bytes], None]]
"""The methods of a multiplexer that take a stream's number and the payload of a frame,
by its type."""

_DATA = int(FrameType.DATA)

_COPIED = 4096

_UNASKED = frozenset((FrameType.DATA, FrameType.OPEN, FrameType.PING))
"""Frames that no peer has us send."""


@dataclass(frozen=True)
class Limits:
    """
    What one side of a session accepts, in bytes and streams.

    @ivar streamWindow: Credit that a stream begins with.
    @ivar largestWindow: What a stream's window may grow to.
    @ivar sessionWindow: Bytes that all streams together may have waiting.
    @ivar streams: Streams open at once.
    """

    streamWindow: int = 256 * 1024
    largestWindow: int = 16 * 1024 * 1024
    sessionWindow: int = 32 * 1024 * 1024
    streams: int = 50_000


class Sink(Protocol):
    """What a multiplexer needs of its connection."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several pieces."""

    def pauseProducing(self) -> None:
        """Read no more for now."""

    def resumeProducing(self) -> None:
        """Read again."""


@implementer(IPushProducer)
class Multiplexer(StreamCarrier[SessionStream]):
    """
    The streams of a session.

    It is its connection's push producer: while the connection holds enough,
    data waits here, in the streams, where control frames overtake it.

    @param sink: The connection.
    @param seconds: The clock.
    @param opened: Called with a stream that the peer opened, and what it said
        of it.

    @ivar streams: All streams that are open, by number.
    @ivar sendWindow: The peer's credit for the whole session.
    @ivar unknownFrames: Frames skipped, since their type means nothing here.
    @ivar lateFrames: Frames for streams that are over.
    @ivar holds: Why the connection is not read.
    @ivar answers: Whether the peer takes what it asks for; C{None} if somebody
        else looks after that.
    @cvar frameAlone: Most payload of a data frame in any case.
    @cvar frames: The methods that take the frames of each type.
    """

    frameAlone = FRAME_ALONE
    frames: ClassVar[FrameTable] = {}

    __slots__ = (
        "_largest",
        "_notesSending",
        "_opened",
        "_over",
        "_paused",
        "_pumping",
        "_ready",
        "_seconds",
        "_sendsFrames",
        "_sink",
        "answers",
        "holds",
        "lateFrames",
        "limits",
        "sendWindow",
        "streams",
        "unknownFrames",
    )

    def __init__(
        self,
        sink: Sink,
        seconds: Callable[[], float],
        opened: Callable[[SessionStream, dict[str, object]], None],
        limits: Limits | None = None,
    ) -> None:
        self.streams: dict[int, SessionStream] = {}
        self.sendWindow = SendWindow(UNLIMITED)
        self.limits = limits or Limits()
        self.unknownFrames = 0
        self.lateFrames = 0
        self.holds = Holds(sink.pauseProducing, sink.resumeProducing)
        self.answers: Answers | None = None
        self._sink = sink
        self._seconds = seconds
        self._opened = opened
        self._ready: deque[SessionStream] = NOTHING
        self._paused = False
        self._pumping = False
        self._largest = self.frameAlone
        self._notesSending = type(self).sending is not Multiplexer.sending
        self._sendsFrames = type(self).sendData is Multiplexer.sendData
        self._over = False

    @property
    def unsent(self) -> int:
        """Bytes of answers that the connection could not send yet."""
        return 0 if self.answers is None else self.answers.waiting

    # What is opened

    def open(self, info: dict[str, object]) -> SessionStream:
        """
        Open a stream to the peer.

        @param info: What the peer is told of it, where the dialect can.
        @raise TunnelError: C{limit-reached}, or if this side opens none.
        """
        raise TunnelError("not-permitted", "a W3P client opens no streams")

    def accept(self, stream: SessionStream) -> None:
        """Only an extended session says that."""

    # What comes

    def framesArrived(self, frames: list[Frame]) -> None:
        """
        Take frames from the peer.

        @raise TunnelError: C{protocol-error}; the session cannot go on.
        """
        table = self.frames
        for streamId, kind, payload in frames:
            take = table.get(kind)
            if take is None:
                self.otherFrame(kind, payload)
            else:
                take(self, streamId, payload)

    def otherFrame(self, kind: int, payload: bytes) -> None:
        """A frame came of a type that is not in L{frames}."""
        self.unknownFrames += 1

    # What goes

    def wantsToSend(self, stream: SessionStream) -> None:
        if not stream.queued:
            stream.queued = True
            if self._ready is NOTHING:
                self._ready = deque()
            self._ready.append(stream)
        if not (self._paused or self._pumping):
            self._pump()

    def _pump(self) -> None:
        """
        Send, one frame of each stream in turn, until the connection holds
        enough.
        """
        self._pumping = True
        try:
            while self._ready and not self._paused:
                if not self._sendNext(self._ready.popleft()):
                    break
        finally:
            self._pumping = False

    def _sendNext(self, stream: SessionStream) -> bool:
        """
        Send a frame of C{stream}, or its end.

        @return: C{False} when the session's credit is used up.
        """
        ready = self._ready
        if stream.over:
            stream.queued = False
            return True
        if stream.outgoing:
            room = stream.sendWindow.available
            if room <= 0:
                # Comes back with the peer's next window frame.
                stream.queued = False
                return True
            credit = self.sendWindow.available
            if credit <= 0:
                ready.appendleft(stream)
                return False
            most = self._largest
            if ready:
                most = min(most, max(FRAME_SHARED, most // 4))
            data = stream.take(min(room, credit, most))
            size = len(data)
            if not size:
                # An error has just broken it.
                return True
            stream.sendWindow.sent += size
            self.sendWindow.sent += size
            self.sending(stream)
            self.sendData(stream.id, data)
            if stream.outgoing:
                ready.append(stream)
                return True
        stream.queued = False
        stream.allSent()
        if stream.finishing and not stream.finished:
            self.sendEnd(stream)
        return True

    def sendNow(self, stream: SessionStream, data: bytes) -> bool:
        """
        Send the bytes of a stream in which none wait, if nobody is before them.

        @return: Whether they were sent; if not, they must wait.
        """
        size, window, session = len(data), stream.sendWindow, self.sendWindow
        if (
            self._ready
            or self._paused
            or self._pumping
            or size > self._largest
            or size > window.limit - window.sent
            or size > session.limit - session.sent
        ):
            return False
        window.sent += size
        session.sent += size
        if self._notesSending:
            self.sending(stream)
        if self._sendsFrames and size <= _COPIED:
            self._sink.write(packHeader(size + 5, stream.id, _DATA) + data)
        else:
            self.sendData(stream.id, data)
        return True

    def sending(self, stream: SessionStream) -> None:
        """C{stream} sends bytes now."""

    def sendData(self, streamId: int, data: bytes) -> None:
        """Send a data frame."""
        size = len(data)
        if size <= _COPIED:
            # Two pieces cost more than to copy this much.
            self._sink.write(packHeader(size + 5, streamId, _DATA) + data)
        else:
            self._sink.writeSequence((frameHeader(streamId, _DATA, size), data))

    def sendFrame(self, streamId: int, kind: int, payload: bytes = b"") -> None:
        """Send a frame ahead of all data that waits."""
        if not self._over:
            answers, size = self.answers, len(payload)
            if answers is not None and kind not in _UNASKED:
                answers.wrote(size)
            self._sink.write(packHeader(size + 5, streamId, kind) + payload)

    @abstractmethod
    def sendEnd(self, stream: SessionStream) -> None:
        """Say that C{stream} sends no more."""

    # What the streams say

    def now(self) -> float:
        return self._seconds()

    def emptied(self, stream: SessionStream) -> None:
        """Only a plain session has waited for that."""

    def streamOver(self, stream: SessionStream, held: int) -> None:
        self.streams.pop(stream.id, None)

    # IPushProducer, for the connection

    def pauseProducing(self) -> None:
        self._paused = True
        # A slow line is sent small pieces.
        self._largest = min(getattr(self._sink, "full", FRAME_ALONE), self.frameAlone)

    def resumeProducing(self) -> None:
        self._paused = False
        if not self._pumping:
            self._pump()

    def stopProducing(self) -> None:
        """The connection is gone; L{close} follows."""
        self._paused = True

    # The session's life

    def tick(self) -> None:
        """Look after deadlines; called every few seconds."""

    def close(self, reason: TunnelError) -> None:
        """Break all streams; the connection is gone."""
        self._over = self._paused = True
        for stream in list(self.streams.values()):
            stream.broken(reason)
