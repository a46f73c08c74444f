"""
The framed protocol as W3P speaks it: data, close and error frames only.

W3P has no credit and no half-close. So memory is bounded by no longer reading
the session: when one stream's reader leaves too much waiting, or all of them
together do. That stops everybody. So it lasts for a moment only if others wait:
who holds the session up then is reset, those with the most first, and those who
have stood still for long enough already without any pause. Who reads slowly
but asks for little is never among them. A visitor's end-of-file is held back while its
answer is still coming, since the only frame that could carry it ends both
directions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

from tristunnel.dialects.base.left_ends import LeftEnds
from tristunnel.dialects.base.lingering import LingeringEnds
from tristunnel.dialects.base.multiplexer import FrameTable, Limits, Multiplexer, Sink
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.errors import TunnelError
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.framed import FrameType
from tristunnel.wire.windows import UNLIMITED, ReceiveWindow, SendWindow

__all__ = [
    "ALONE",
    "HOLD",
    "PAUSE",
    "STALL",
    "STEP",
    "PlainClientSide",
    "PlainServerSide",
]

HOLD = 4 * 1024 * 1024
"""Bytes held for one stream at which the session is read no further."""

STEP = 256 * 1024
"""Bytes below a bound at which the session is read again. The others share what
is read until the bound is met again: at a quarter of a MiB per second a reader
lets them have at least as much."""

PAUSE = 1.0
"""Seconds for which visitors may hold up the session while others wait."""

RECOVERY = 0.02
"""Seconds of such patience that a second gives back, once some was used up in
vain: one who stalls again and again must not stop the others each time."""

LEAST = 0.02
"""The part of it that is always there."""

STALL = 10.0
"""The same for services, whose visitors may be waiting or not: nobody knows."""

ALONE = 60.0
"""Seconds that a service may stand still although nobody is known to wait: the
server has no other way to tell of new visitors."""

_REMEMBERED = 4096


class _PlainMultiplexer(Multiplexer):
    """
    What both sides of a plain session share.

    @param callLater: Has something called later.
    @cvar pause: Seconds for which streams may hold up the session.
    @ivar waiting: Bytes that wait for all readers together.
    """

    pause = PAUSE

    def __init__(
        self,
        sink: Sink,
        seconds: Callable[[], float],
        opened: Callable[[SessionStream, dict[str, object]], None],
        limits: Limits | None,
        callLater: Callable[..., Any],
    ) -> None:
        super().__init__(sink, seconds, opened, limits)
        self.waiting = 0
        self._callLater = callLater
        self._left = LeftEnds(seconds)
        self._patience = self.pause
        self._patienceAt = seconds()
        # Streams for which too much waits, in the order in which that began.
        self._full: dict[SessionStream, None] = {}
        self._pausedSince: float | None = None
        self._look: Any = None

    def otherFrame(self, kind: int, payload: bytes) -> None:
        """W3P's own programs end the connection here, and so do we."""
        raise TunnelError("protocol-error", f"frame type 0x{kind:02x} is not W3P's")

    def _newStream(self, streamId: int) -> SessionStream:
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
        stream = self.streams.get(streamId) or self.unknownStream(streamId)
        if stream is None:
            self.lateFrames += 1
        elif payload:
            size = len(payload)
            self.waiting += size
            stream.receiveWindow.receive(size)
            stream.dataArrived(payload)
            if stream.holding and not stream.over:
                self._holds(stream)

    def _holds(self, stream: SessionStream) -> None:
        """Bytes wait for a reader."""
        if stream.stalledSince is None:
            stream.stalledSince = self._seconds()
        if stream.holding > HOLD:
            self._full[stream] = None
        if self._pausedSince is None and self._isFull():
            now = self._seconds()
            self._makeRoom(now - self._patienceNow(now))
            if self._isFull():
                self._pausedSince = now
                self.holds.hold("readers")
                self._lookLater()

    def _isFull(self) -> bool:
        return bool(self._full) or self.waiting > self.limits.sessionWindow

    def _patienceNow(self, now: float) -> float:
        """How long the session may be held up, in seconds."""
        recovered = self._patience + (now - self._patienceAt) * RECOVERY
        return min(recovered, self.pause)

    def _makeRoom(self, stoodStill: float) -> bool:
        """
        Reset readers that hold up others.

        @param stoodStill: Those that have taken nothing since then, in seconds.
        @return: Whether there was any.
        """
        if not self.othersWait():
            return False

        def stand(stream: SessionStream) -> bool:
            since = stream.stalledSince
            return since is not None and since <= stoodStill

        broken = [stream for stream in self._full if stand(stream)]
        for stream in broken:
            stream.breakOff(TunnelError("stalled"))
        if self.waiting > self.limits.sessionWindow:
            greedy = sorted(
                (stream for stream in self.streams.values() if stand(stream)),
                key=lambda stream: stream.holding,
            )
            while greedy and self.waiting > self.limits.sessionWindow // 2:
                broken.append(greedy.pop())
                broken[-1].breakOff(TunnelError("stalled"))
        return bool(broken)

    def othersWait(self) -> bool:
        """Whether anybody waits for the session who does not hold it up."""
        return any(not stream.holding for stream in self.streams.values())

    def _lookLater(self) -> None:
        """
        Look at those that hold the session up, when they have done so for as
        long as they may.
        """
        if self._look is None:
            patience = self._patienceNow(self._seconds())
            self._look = self._callLater(patience, self._lookNow)

    def _lookNow(self) -> None:
        self._look = None
        self._endPause()
        if self._pausedSince is not None:
            self._lookLater()

    def _endPause(self) -> None:
        """
        If the session was held up for long enough, reset who does it, whether
        they stand still or move too slowly for the others.
        """
        now, since = self._seconds(), self._pausedSince
        if since is None:
            return
        patience, held = self._patienceNow(now), now - since
        if held >= patience and self._makeRoom(now):
            self._patience = max(patience - held, self.pause * LEAST)
            self._patienceAt = now
        self._goOn()

    def _goOn(self) -> None:
        if self._pausedSince is None or self._over:
            return
        room = self.limits.sessionWindow - STEP
        if not self._full and self.waiting <= max(room, 0):
            self._pausedSince = None
            if self._look is not None:
                self._look.cancel()
                self._look = None
            self.holds.release("readers")

    def unknownStream(self, streamId: int) -> SessionStream | None:
        """Data came for a stream that is not open."""
        return None

    def _close(self, streamId: int, payload: bytes) -> None:
        stream = self.streams.get(streamId)
        if stream is None:
            self.lateFrames += 1
        else:
            self._left.farSideLeft(stream)

    def _error(self, streamId: int, payload: bytes) -> None:
        stream = self.streams.get(streamId)
        if stream is None:
            self.lateFrames += 1
        else:
            stream.broken(TunnelError("reset"))

    def sendEnd(self, stream: SessionStream) -> None:
        """End both directions: W3P can say nothing less."""
        stream.finished = True
        self.sendFrame(stream.id, FrameType.CLOSE)
        stream.eofArrived()

    def sendReset(self, stream: SessionStream, reason: TunnelError) -> None:
        """Break a stream; W3P has no room for the reason."""
        self.sendFrame(stream.id, FrameType.ERROR)

    def drained(self, stream: SessionStream, amount: int) -> None:
        self.waiting -= amount
        stream.receiveWindow.drained += amount
        if stream.stalledSince is not None:
            stream.stalledSince = self._seconds()
        if self._pausedSince is not None:
            if stream.holding <= HOLD - STEP:
                self._full.pop(stream, None)
            self._goOn()

    def emptied(self, stream: SessionStream) -> None:
        stream.stalledSince = None
        self._full.pop(stream, None)
        self._goOn()

    def streamOver(self, stream: SessionStream, held: int) -> None:
        super().streamOver(stream, held)
        self.waiting -= held
        self.emptied(stream)

    def close(self, reason: TunnelError) -> None:
        super().close(reason)
        stopTimer(self._look)

    def tick(self) -> None:
        self._left.breakLate()
        self._endPause()

    frames: ClassVar[FrameTable] = {
        FrameType.DATA: _data,
        FrameType.CLOSE: _close,
        FrameType.ERROR: _error,
    }


class PlainServerSide(LingeringEnds, _PlainMultiplexer):
    """A plain W3P client's streams, at the server."""

    def __init__(
        self,
        sink: Sink,
        seconds: Callable[[], float],
        opened: Callable[[SessionStream, dict[str, object]], None],
        limits: Limits | None,
        callLater: Callable[..., Any],
    ) -> None:
        super().__init__(sink, seconds, opened, limits, callLater)
        self.lingerWith(callLater)
        self._lastId = 0
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
        self.begun(stream)
        self.sendFrame(stream.id, FrameType.DATA)
        return stream

    def othersWait(self) -> bool:
        """
        Whether a visitor waits: for the first word, for an answer, or for more
        of one that was just coming.
        """
        since = self._seconds() if self._pausedSince is None else self._pausedSince
        return any(
            not stream.holding
            and (
                not stream.received
                or patience.unanswered
                or since - patience.heardAt < PAUSE
            )
            for stream, patience in self.patienceOf.items()
        )

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
        """The service answers."""
        super()._data(streamId, payload)
        stream = self.streams.get(streamId)
        if payload and stream is not None:
            self.answered(stream)

    @property
    def readsNothing(self) -> bool:
        """Whether answers are not silent, but not read."""
        return self._pausedSince is not None

    def _goOn(self) -> None:
        """Read again, if there is room: what is silent is so from now on."""
        waited = self._pausedSince is not None
        super()._goOn()
        if waited and self._pausedSince is None:
            self.readsAgain()

    frames: ClassVar[FrameTable] = {**_PlainMultiplexer.frames, FrameType.DATA: _data}


class PlainClientSide(_PlainMultiplexer):
    """The streams of a client at a plain W3P server."""

    pause = STALL

    def __init__(
        self,
        sink: Sink,
        seconds: Callable[[], float],
        opened: Callable[[SessionStream, dict[str, object]], None],
        limits: Limits | None,
        callLater: Callable[..., Any],
    ) -> None:
        super().__init__(sink, seconds, opened, limits, callLater)
        self._gone: OrderedDict[int, None] = OrderedDict()

    def unknownStream(self, streamId: int) -> SessionStream | None:
        """A visitor came, unless this is the rest of one that has left."""
        if streamId in self._gone or streamId == 0:
            return None
        if len(self.streams) >= self.limits.streams:
            self.sendFrame(streamId, FrameType.ERROR)
            return None
        stream = self._newStream(streamId)
        stream.guarded(self._opened, stream, {})
        return self.streams.get(streamId)

    def tick(self) -> None:
        """
        Reset services that have stood still for so long that there may be
        visitors of whom we do not know.
        """
        super().tick()
        if self._pausedSince is not None:
            late = self._seconds() - ALONE
            for stream in list(self.streams.values()):
                if stream.stalledSince is not None and stream.stalledSince <= late:
                    stream.breakOff(TunnelError("stalled"))

    def _close(self, streamId: int, payload: bytes) -> None:
        """The visitor left: answer in kind, as W3P's client does."""
        if streamId in self.streams:
            self.sendFrame(streamId, FrameType.CLOSE)
        super()._close(streamId, payload)
        self._gone.pop(streamId, None)

    def _error(self, streamId: int, payload: bytes) -> None:
        """The visitor's connection broke."""
        super()._error(streamId, payload)
        self._gone.pop(streamId, None)

    def streamOver(self, stream: SessionStream, held: int) -> None:
        """Forget C{stream}, but not at once its number: data may be under way."""
        super().streamOver(stream, held)
        self._gone[stream.id] = None
        if len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)

    frames: ClassVar[FrameTable] = {
        **_PlainMultiplexer.frames,
        FrameType.CLOSE: _close,
        FrameType.ERROR: _error,
    }
