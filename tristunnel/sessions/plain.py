"""
The framed protocol as W3P speaks it: data, close and error frames only.

W3P has no credit and no half-close. So memory is bounded by no longer reading
the session while one stream's reader stands still, and a reader that goes on
standing still while others wait is reset. A visitor's end-of-file is held
back while its answer is still coming, since the only frame that could carry
it ends both directions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from weakref import ref

from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.sessions.multiplexer import Limits, Multiplexer, Sink
from tristunnel.sessions.stream import SessionStream
from tristunnel.wire.framed import FrameType
from tristunnel.wire.windows import UNLIMITED, ReceiveWindow, SendWindow

__all__ = [
    "ANSWER_LINGER",
    "HELD_UP",
    "HOLD",
    "LINGER",
    "STALL",
    "PlainClientSide",
    "PlainServerSide",
]

HOLD = 1024 * 1024
"""Bytes held for one stream at which the session is read no further."""

STALL = 10.0
"""Seconds that a reader may stand still while others wait."""

HELD_UP = 60.0
"""Seconds that a reader may hold up the session although it moves."""

LINGER = 10.0
"""Seconds of silence after which a visitor's end-of-file is passed on,
although it still awaited an answer."""

ANSWER_LINGER = 1.0
"""The same, once the answer has begun."""

LEAVE = 120.0
"""Seconds in which a local end must be over after its stream was closed: the
last bytes may still be on their way."""

_REMEMBERED = 4096


class _PlainMultiplexer(Multiplexer):
    """
    What both sides of a plain session share.
    """

    def __init__(
        self,
        sink: Sink,
        seconds: Callable[[], float],
        opened: Callable[[SessionStream, dict[str, object]], None],
        limits: Limits | None = None,
    ) -> None:
        super().__init__(sink, seconds, opened, limits)
        # Streams that hold the session up, and since when.
        self._stalled: dict[SessionStream, float] = {}
        # When local ends were told that the far side has left. Most of them
        # are over soon, and are not kept alive by this.
        self._left: list[tuple[float, ref[End]]] = []
        self._frames = {
            FrameType.DATA: self._data,
            FrameType.CLOSE: self._close,
            FrameType.ERROR: self._error,
        }

    def unknownFrame(self, kind: int) -> None:
        """
        W3P's own programs end the connection here, and so do we.
        """
        raise TunnelError("protocol-error", f"frame type 0x{kind:02x} is not W3P's")

    def _newStream(self, streamId: int) -> SessionStream:
        """
        Enter a stream into the table.
        """
        stream = SessionStream(
            self,
            streamId,
            SendWindow(UNLIMITED),
            ReceiveWindow(UNLIMITED),
            self._seconds(),
        )
        stream.answered = True
        self.streams[streamId] = stream
        return stream

    def _data(self, streamId: int, payload: bytes) -> None:
        """
        Bytes for a stream.
        """
        stream = self.streams.get(streamId) or self.unknownStream(streamId)
        if stream is None:
            self.lateFrames += 1
        elif payload:
            stream.receiveWindow.receive(len(payload))
            stream.dataArrived(payload)
            if (
                stream.holding > HOLD
                and stream.stalledSince is None
                and not stream.over
            ):
                stream.stalledSince = self._seconds()
                if not self._stalled:
                    self._sink.pauseProducing()
                self._stalled[stream] = stream.stalledSince

    def unknownStream(self, streamId: int) -> SessionStream | None:
        """
        Data came for a stream that is not open.
        """
        return None

    def _close(self, streamId: int, payload: bytes) -> None:
        """
        Both directions of a stream are over.
        """
        stream = self.streams.get(streamId)
        if stream is None:
            self.lateFrames += 1
        else:
            local = stream.peer
            stream.farSideLeft()
            if local is not None:
                self._left.append((self._seconds(), ref(local)))

    def _error(self, streamId: int, payload: bytes) -> None:
        """
        A stream is broken.
        """
        stream = self.streams.get(streamId)
        if stream is None:
            self.lateFrames += 1
        else:
            stream.broken(TunnelError("reset"))

    def sendEnd(self, stream: SessionStream) -> None:
        """
        End both directions: W3P can say nothing less.
        """
        stream.finished = True
        self.sendFrame(stream.id, FrameType.CLOSE)
        stream.eofArrived()

    def sendReset(self, stream: SessionStream, reason: TunnelError) -> None:
        """
        Break a stream; W3P has no room for the reason.
        """
        self.sendFrame(stream.id, FrameType.ERROR)

    def drained(self, stream: SessionStream, amount: int) -> None:
        """
        Count what a reader took.
        """
        stream.receiveWindow.drained += amount
        if stream.stalledSince is not None:
            stream.stalledSince = self._seconds()

    def emptied(self, stream: SessionStream) -> None:
        """
        A reader moves again.
        """
        stream.stalledSince = None
        if stream in self._stalled:
            del self._stalled[stream]
            if not self._stalled and not self._over:
                self._sink.resumeProducing()

    def streamOver(self, stream: SessionStream, held: int) -> None:
        """
        Forget C{stream}.
        """
        super().streamOver(stream, held)
        self.emptied(stream)

    def tick(self) -> None:
        """
        Reset readers that stood still for too long while others wait, and
        those that made others wait for too long.
        """
        now = self._seconds()
        self._breakLeft(now - LEAVE)
        for stream, since in list(self._stalled.items()):
            still = stream.stalledSince
            if still is not None and self.mayWaitFor(now - still, now - since):
                continue
            reason = TunnelError("stalled")
            self.sendReset(stream, reason)
            stream.broken(reason)

    def _breakLeft(self, late: float) -> None:
        """
        Break local ends that were told of a close, which ends both directions,
        and have not ended their own.

        @param late: Those who were told before this, in seconds.
        """
        waiting, self._left = self._left, []
        for since, reference in waiting:
            local = reference()
            if local is None or getattr(local, "over", False):
                continue
            if since <= late:
                local.reset(TunnelError("reset", "the far side has left"))
            else:
                self._left.append((since, reference))

    def mayWaitFor(self, still: float, held: float) -> bool:
        """
        Whether a reader may go on holding up the session.

        @param still: Seconds since it last took anything.
        @param held: Seconds for which the session has waited.
        """
        return len(self.streams) < 2 or (still < STALL and held < HELD_UP)


class PlainServerSide(_PlainMultiplexer):
    """
    A plain W3P client's streams, at the server.
    """

    def __init__(
        self,
        sink: Sink,
        seconds: Callable[[], float],
        opened: Callable[[SessionStream, dict[str, object]], None],
        limits: Limits | None = None,
    ) -> None:
        super().__init__(sink, seconds, opened, limits)
        self._lastId = 0
        self._unanswered: set[int] = set()
        # Of visitors that send no more: how long their service may be silent,
        # and when it last was not.
        self._lingering: dict[SessionStream, tuple[float, float]] = {}
        self._answered: dict[int, float] = {}
        self._told: OrderedDict[int, None] = OrderedDict()

    def open(self, info: dict[str, object]) -> SessionStream:
        """
        Begin a stream with an empty data frame, which makes a W3P client
        connect to its service even if the service is to speak first.
        """
        if len(self.streams) >= self.limits.streams:
            raise TunnelError("limit-reached", "the client has too many streams")
        while True:
            self._lastId = self._lastId % 0xFFFFFFFF + 1
            if self._lastId not in self.streams:
                break
        stream = self._newStream(self._lastId)
        self.sendFrame(stream.id, FrameType.DATA)
        return stream

    def sending(self, stream: SessionStream) -> None:
        """
        The visitor said something and now awaits an answer.
        """
        self._unanswered.add(stream.id)

    def unknownStream(self, streamId: int) -> SessionStream | None:
        """
        Data came for a stream that is over. W3P's client reaches its service
        anew for any frame that comes after its own close; say once that
        nobody is here, but never answer a close, or it goes on for ever.
        """
        if streamId not in self._told:
            self._told[streamId] = None
            if len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
            self.sendFrame(streamId, FrameType.CLOSE)
        return None

    def _data(self, streamId: int, payload: bytes) -> None:
        """
        The service answers.
        """
        super()._data(streamId, payload)
        stream = self.streams.get(streamId)
        if payload and stream is not None:
            self._unanswered.discard(streamId)
            self._answered[streamId] = now = self._seconds()
            if stream in self._lingering:
                self._lingering[stream] = (self._lingering[stream][0], now)

    def sendEnd(self, stream: SessionStream) -> None:
        """
        The visitor sends no more: close, unless its answer is due or coming.
        """
        now = self._seconds()
        if stream.id in self._unanswered:
            self._lingering[stream] = (LINGER, now)
            stream.finished = True
        elif now - self._answered.get(stream.id, -ANSWER_LINGER) < ANSWER_LINGER:
            self._lingering[stream] = (ANSWER_LINGER, self._answered[stream.id])
            stream.finished = True
        else:
            super().sendEnd(stream)

    def streamOver(self, stream: SessionStream, held: int) -> None:
        """
        Forget C{stream}.
        """
        self._unanswered.discard(stream.id)
        self._answered.pop(stream.id, None)
        self._lingering.pop(stream, None)
        super().streamOver(stream, held)

    def tick(self) -> None:
        """
        Pass on the ends of visitors whose answers have stopped coming.
        """
        super().tick()
        now = self._seconds()
        for stream, (patience, since) in list(self._lingering.items()):
            if now - since >= patience:
                self._lingering.pop(stream, None)
                super().sendEnd(stream)


class PlainClientSide(_PlainMultiplexer):
    """
    The streams of a client at a plain W3P server.
    """

    def __init__(
        self,
        sink: Sink,
        seconds: Callable[[], float],
        opened: Callable[[SessionStream, dict[str, object]], None],
        limits: Limits | None = None,
    ) -> None:
        super().__init__(sink, seconds, opened, limits)
        self._gone: OrderedDict[int, None] = OrderedDict()

    def unknownStream(self, streamId: int) -> SessionStream | None:
        """
        A visitor came, unless this is the rest of one that has left.
        """
        if streamId in self._gone or streamId == 0:
            return None
        if len(self.streams) >= self.limits.streams:
            self.sendFrame(streamId, FrameType.ERROR)
            return None
        stream = self._newStream(streamId)
        self._opened(stream, {})
        return self.streams.get(streamId)

    def mayWaitFor(self, still: float, held: float) -> bool:
        """
        Even a service that is alone may not stand still for ever: the server
        has no other way to tell of new visitors.
        """
        return super().mayWaitFor(still, held) and still < HELD_UP

    def _close(self, streamId: int, payload: bytes) -> None:
        """
        The visitor left: answer in kind, as W3P's client does.
        """
        if streamId in self.streams:
            self.sendFrame(streamId, FrameType.CLOSE)
        super()._close(streamId, payload)
        self._gone.pop(streamId, None)

    def _error(self, streamId: int, payload: bytes) -> None:
        """
        The visitor's connection broke.
        """
        super()._error(streamId, payload)
        self._gone.pop(streamId, None)

    def streamOver(self, stream: SessionStream, held: int) -> None:
        """
        Forget C{stream}, but not at once its number: data may be under way.
        """
        super().streamOver(stream, held)
        self._gone[stream.id] = None
        if len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)
