"""
The framed protocol with tristunnel's extension: streams that are opened,
refused, half-closed and held back by credit.

The frames are specified in C{docs/protocol.rst}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from tristunnel.dialects.base.multiplexer import (
    FRAME_SHARED,
    FrameTable,
    Limits,
    Multiplexer,
    Sink,
)
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.framed.datagrams import DatagramFlows, SessionFlow
from tristunnel.dialects.framed.movable import MovableStream, MoveCarrier
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import (
    FrameType,
    decodeCredit,
    decodeObject,
    encodeCredit,
    encodeObject,
)
from tristunnel.wire.windows import ReceiveWindow, SendWindow, WindowBudget

__all__ = ["FRAME_LONG", "OPEN_TIMEOUT", "STALL", "STALLS", "ExtendedMultiplexer"]

FRAME_LONG = 256 * 1024
"""Most payload of a data frame on a line that takes it in a few milliseconds."""


OPEN_TIMEOUT = 30.0
"""Seconds in which the peer must accept or refuse a stream."""

PAUSE = 1.0
"""Seconds that readers who stand still may hold up a whole session."""

STALL = 10.0
"""The same for readers who move, but too slowly."""

STALLS: Counter[str] = Counter({"stream": 0, "session": 0})
"""How often, in this process, a stream or a whole session had bytes to send and
no credit for them, until it came. Counted when it comes, which is rare."""

_CREDIT = 8

# As plain numbers, which cost nothing to look up.
_OPEN, _OPENED, _EOF = int(FrameType.OPEN), int(FrameType.OPENED), int(FrameType.EOF)


class ExtendedMultiplexer(Multiplexer, MoveCarrier):
    """
    The streams of an extended session, at either side.

    @param isServer: The server numbers its streams 2, 4, 6 and on, the client
        1, 3, 5.
    @param peerStreamWindow: Credit that our streams begin with.
    @param peerSessionWindow: Credit that the session begins with.

    @ivar roundTrip: What the way takes, there and back, in seconds; 0 before a measure.
    @ivar datagrams: What is carried in datagrams, beside the streams.
    @ivar callLater: Has something called later; without it deadlines are looked
        at by L{tick} alone.
    @ivar takeOther: Takes the type and the payload of frames that concern no stream,
        and returns whether it knows the type.
    """

    frameAlone = FRAME_LONG

    __slots__ = (
        "_budget",
        "_crowd",
        "_fullSince",
        "_lastId",
        "_look",
        "_parity",
        "_peerStreamWindow",
        "_receiveWindow",
        "callLater",
        "datagrams",
        "roundTrip",
        "takeOther",
        "whenAskedToMove",
        "whenBusy",
        "whenMoved",
    )

    def __init__(
        self,
        sink: Sink,
        seconds: Callable[[], float],
        opened: Callable[[SessionStream, dict[str, object]], None],
        limits: Limits,
        isServer: bool,
        peerStreamWindow: int,
        peerSessionWindow: int,
    ) -> None:
        super().__init__(sink, seconds, opened, limits)
        self.roundTrip = 0.0
        self.sendWindow = SendWindow(peerSessionWindow)
        # Renewed from a quarter on: readers that stand still may hold up to
        # three quarters before L{tick} breaks one, and must not block others.
        self._receiveWindow = ReceiveWindow(limits.sessionWindow, share=4)
        self._crowd = limits.sessionWindow // 4 * 3
        self._budget = WindowBudget(self._crowd)
        self._peerStreamWindow = peerStreamWindow
        self._parity = 0 if isServer else 1
        self._lastId = -1 if not isServer else 0
        self._fullSince: float | None = None
        self.callLater: Callable[..., Any] | None = None
        self._look: Any = None
        self.whenBusy: Callable[[MovableStream], None] | None = None
        self.whenAskedToMove: (
            Callable[[MovableStream, dict[str, object]], None] | None
        ) = None
        self.whenMoved: Callable[[MovableStream], None] | None = None
        self.takeOther: Callable[[int, bytes], bool] | None = None
        self.datagrams = DatagramFlows(self)

    # Opening

    def open(self, info: dict[str, object]) -> MovableStream:
        """
        Open a stream; bytes may be sent at once, on the credit that the peer
        gave in its handshake.

        @param info: What the peer is told of it.
        @raise TunnelError: C{limit-reached}.
        """
        stream = self._newStream(self._nextId(), self._peerStreamWindow)
        credit = encodeCredit(stream.receiveWindow.limit)
        self.sendFrame(stream.id, _OPEN, credit + encodeObject(info))
        return stream

    def openFlow(self, info: dict[str, object]) -> SessionFlow:
        """
        Open a flow of datagrams.

        @param info: What the peer is told of it.
        @raise TunnelError: C{limit-reached} or C{not-permitted}.
        """
        return self.datagrams.open(self._nextId(), info)

    def _nextId(self) -> int:
        """
        Number a stream or a flow.

        @raise TunnelError: C{limit-reached}.
        """
        streams, flows = self.streams, self.datagrams.flows
        if len(streams) + len(flows) >= self.limits.streams:
            raise TunnelError("limit-reached", "the session has too many streams")
        while True:
            self._lastId = number = (self._lastId + 2) & 0xFFFFFFFF
            if number and number not in streams and number not in flows:
                return number

    def accept(self, stream: SessionStream) -> None:
        """Tell the peer that the stream it opened has reached the service."""
        if not (stream.over or stream.answered):
            stream.answered = True
            credit = encodeCredit(stream.receiveWindow.limit)
            self.sendFrame(stream.id, _OPENED, credit)

    def _newStream(self, streamId: int, credit: int) -> MovableStream:
        limits = self.limits
        stream = MovableStream(
            self,
            streamId,
            SendWindow(credit),
            ReceiveWindow(limits.streamWindow, limits.largestWindow, self._budget),
            self._seconds(),
        )
        self.streams[streamId] = stream
        return stream

    def isPeers(self, streamId: int) -> bool:
        """Whether a stream of this number is the peer's to open."""
        return streamId != 0 and streamId % 2 != self._parity

    def _open(self, streamId: int, payload: bytes) -> None:
        streams, flows = self.streams, self.datagrams.flows
        if not self.isPeers(streamId) or streamId in streams or streamId in flows:
            raise TunnelError(
                "protocol-error", f"stream {streamId} is not the peer's to open"
            )
        credit = decodeCredit(payload[:_CREDIT])
        info = decodeObject(payload[_CREDIT:])
        if len(streams) + len(flows) >= self.limits.streams:
            reason = TunnelError("limit-reached", "the session has too many streams")
            self.sendReason(streamId, FrameType.REFUSED, reason)
        elif info.get("protocol") == "udp":
            self.datagrams.openedByPeer(streamId, info)
        else:
            stream = self._newStream(streamId, credit)
            # Like C{guarded}, but once per stream.
            try:
                self._opened(stream, info)
            except Exception:
                stream.faulted()

    def _openedByPeer(self, streamId: int, payload: bytes) -> None:
        stream = self.streams.get(streamId)
        if stream is None:
            self._noStreams(streamId, FrameType.OPENED, payload)
            return
        stream.answered = True
        if stream.sendWindow.grant(decodeCredit(payload)):
            self.wantsToSend(stream)
        whenAnswered, stream.whenAnswered = stream.whenAnswered, None
        if whenAnswered is not None:
            stream.guarded(whenAnswered)

    def _refused(self, streamId: int, payload: bytes) -> None:
        stream = self.streams.get(streamId)
        if stream is None:
            self._noStreams(streamId, FrameType.REFUSED, payload)
        else:
            stream.broken(
                TunnelError.fromDict(decodeObject(payload), "service-refused")
            )

    def _noStreams(self, number: int, kind: int, payload: bytes) -> None:
        """A frame came for a flow, or for what is over."""
        if not self.datagrams.arrived(number, kind, payload):
            self.lateFrames += 1

    # Bytes and credit

    def _data(self, streamId: int, payload: bytes) -> None:
        # Windows are counted in place here: this is for each piece of each stream.
        size, session = len(payload), self._receiveWindow
        session.received += size
        if session.received > session.limit:
            raise TunnelError("protocol-error", "the session's credit was exceeded")
        stream = self.streams.get(streamId)
        if stream is None:
            # Under way when the stream ended here.
            self.lateFrames += 1
            self._drainSession(size)
            return
        window = stream.receiveWindow
        window.received += size
        if stream.eof or window.received > window.limit:
            raise TunnelError(
                "protocol-error",
                f"stream {streamId} sent past its "
                + ("end" if stream.eof else "credit"),
            )
        if size:
            stream.dataArrived(payload)
            if session.received - session.drained >= self._crowd and self._look is None:
                self._lookLater()

    def drained(self, stream: SessionStream, amount: int) -> None:
        """A reader took bytes: renew credit, once enough is used up."""
        # A stream that is over has given its window back and must not grow it.
        window, session = stream.receiveWindow, self._receiveWindow
        window.drained += amount
        if window.limit - window.drained <= window.low and not stream.over:
            credit = window.renew(self._seconds(), self.roundTrip)
            if not stream.eof:
                self.sendFrame(stream.id, FrameType.WINDOW, encodeCredit(credit))
        session.drained += amount
        if session.limit - session.drained <= session.low:
            self._drainSession(0)

    def _drainSession(self, amount: int) -> None:
        """Renew the session's credit."""
        window = self._receiveWindow
        if window.take(amount):
            self.sendFrame(0, FrameType.WINDOW, encodeCredit(window.renew(0.0, 0.0)))

    def _window(self, streamId: int, payload: bytes) -> None:
        credit = decodeCredit(payload)
        if streamId == 0:
            if self._ready and self.sendWindow.available <= 0:
                STALLS["session"] += 1
            if self.sendWindow.grant(credit) and not (self._paused or self._pumping):
                self._pump()
            return
        stream = self.streams.get(streamId)
        if stream is None:
            self.lateFrames += 1
            return
        if stream.outgoing and stream.sendWindow.available <= 0:
            STALLS["stream"] += 1
        if stream.sendWindow.grant(credit):
            self.wantsToSend(stream)

    # Ends

    def _eof(self, streamId: int, payload: bytes) -> None:
        """The peer sends no more on a stream."""
        stream = self.streams.get(streamId)
        if stream is None:
            self.lateFrames += 1
        else:
            stream.eofArrived()

    def _close(self, streamId: int, payload: bytes) -> None:
        """The peer neither sends nor takes any more."""
        stream = self.streams.get(streamId)
        if stream is None:
            self._noStreams(streamId, FrameType.CLOSE, payload)
        else:
            stream.farSideLeft()

    def _error(self, streamId: int, payload: bytes) -> None:
        stream = self.streams.get(streamId)
        if stream is None:
            self._noStreams(streamId, FrameType.ERROR, payload)
        else:
            message = decodeObject(payload) if payload else {}
            stream.broken(TunnelError.fromDict(message, "reset"))

    def sendEnd(self, stream: SessionStream) -> None:
        stream.finished = True
        self.sendFrame(stream.id, _EOF)
        if stream.eof:
            stream.checkOver()

    def sendReset(self, stream: SessionStream, reason: TunnelError) -> None:
        """Refuse a stream that the peer has opened, or break one."""
        refusing = self.isPeers(stream.id) and not stream.answered
        kind = FrameType.REFUSED if refusing else FrameType.ERROR
        self.sendReason(stream.id, kind, reason)

    def sendReason(self, streamId: int, kind: int, reason: TunnelError) -> None:
        """Send a frame whose payload is a code and a message."""
        payload = encodeObject(reason.asDict())
        self.sendFrame(streamId, kind, payload)

    def streamOver(self, stream: SessionStream, held: int) -> None:
        if self.streams.get(stream.id) is not stream:
            # It has left the session before it was over.
            return
        del self.streams[stream.id]
        if stream.receiveWindow.grown:
            stream.receiveWindow.close()
        if held:
            self._drainSession(held)

    # Streams that move

    def provedBusy(self, stream: MovableStream) -> None:
        """A stream had better have a connection of its own."""
        if self.whenBusy is not None:
            self.whenBusy(stream)

    def sendMoved(self, stream: MovableStream, offset: int) -> None:
        """Say that C{stream} sends by its own connection after so many bytes."""
        self.sendFrame(stream.id, FrameType.MOVED, encodeCredit(offset))

    def _askedToMove(self, streamId: int, payload: bytes) -> None:
        """The peer lets a stream have a connection of its own."""
        stream = self.streams.get(streamId)
        if isinstance(stream, MovableStream) and self.whenAskedToMove is not None:
            self.whenAskedToMove(stream, decodeObject(payload))

    def _moved(self, streamId: int, payload: bytes) -> None:
        """The peer sends a stream's bytes by its own connection from now on."""
        stream = self.streams.get(streamId)
        if isinstance(stream, MovableStream):
            stream.movedArrived(decodeCredit(payload))
            if not stream.moves and self.whenMoved is not None:
                self.whenMoved(stream)
        else:
            self.lateFrames += 1

    # Datagrams take turns with streams

    @property
    def backedUp(self) -> bool:
        """Whether the connection takes nothing now."""
        return self._paused

    def writePieces(self, *pieces: bytes) -> None:
        """Send a frame that is in pieces."""
        if not self._over:
            self._sink.writeSequence(pieces)

    def _datagram(self, number: int, payload: bytes) -> None:
        """A datagram of a flow came."""
        self.datagrams.datagramArrived(number, payload)

    def _pump(self) -> None:
        """Send, streams and datagrams in turn, until the connection holds enough."""
        self._pumping = True
        try:
            credit = True
            while not self._paused:
                if self.datagrams.waiting:
                    self.datagrams.pump(FRAME_SHARED)
                if self._ready and credit and not self._paused:
                    credit = self._sendNext(self._ready.popleft())
                elif not self.datagrams.waiting:
                    break
        finally:
            self._pumping = False

    def otherFrame(self, kind: int, payload: bytes) -> None:
        """A frame came that concerns no stream, or that a newer peer has sent."""
        if self.takeOther is None or not self.takeOther(kind, payload):
            self.unknownFrames += 1

    frames: ClassVar[FrameTable] = {
        FrameType.DATA: _data,
        FrameType.CLOSE: _close,
        FrameType.ERROR: _error,
        FrameType.EOF: _eof,
        FrameType.WINDOW: _window,
        FrameType.DATAGRAM: _datagram,
        FrameType.OPEN: _open,
        FrameType.OPENED: _openedByPeer,
        FrameType.REFUSED: _refused,
        FrameType.MOVE: _askedToMove,
        FrameType.MOVED: _moved,
    }

    def close(self, reason: TunnelError) -> None:
        super().close(reason)
        self.datagrams.close(reason)
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def tick(self) -> None:
        """
        Give up on streams that the peer does not answer, and on the greediest
        of those that hold up the session.
        """
        self.datagrams.tick()
        now = self._seconds()
        for stream in list(self.streams.values()):
            if (
                not stream.answered
                and not self.isPeers(stream.id)
                and now - stream.since > OPEN_TIMEOUT
            ):
                self._break(stream, TunnelError("service-timeout"))
        if not self._isCrowded():
            self._fullSince = None
        elif self._fullSince is None:
            self._fullSince = now
        elif now - self._fullSince > STALL:
            self._makeRoom(list(self.streams.values()))

    def _isCrowded(self) -> bool:
        """
        Whether what waits for readers has taken so much of the session's window
        that nobody will soon get anything.
        """
        return self._receiveWindow.waiting >= self._crowd

    def _lookLater(self) -> None:
        """See in a moment whose readers have taken nothing."""
        if self.callLater is not None and not self._over:
            before = {
                stream: stream.receiveWindow.drained
                for stream in self.streams.values()
                if stream.holding
            }
            self._look = self.callLater(PAUSE, self._lookNow, before)

    def _lookNow(self, before: dict[SessionStream, int]) -> None:
        """
        Break those that stood still, if it is still as crowded.

        @param before: What the readers had taken a moment ago, in bytes.
        """
        self._look = None
        if self._isCrowded():
            self._makeRoom(
                [
                    stream
                    for stream, drained in before.items()
                    if not stream.over and stream.receiveWindow.drained == drained
                ]
            )
        if self._isCrowded():
            self._lookLater()

    def _makeRoom(self, among: list[SessionStream]) -> None:
        """
        Break the greediest streams until half of the session's window is free.

        @param among: Those that may go.
        """
        held = sorted(among, key=lambda stream: stream.holding, reverse=True)
        for stream in held:
            if self._receiveWindow.waiting <= self.limits.sessionWindow // 2:
                break
            self._break(stream, TunnelError("stalled"))

    def _break(self, stream: SessionStream, reason: TunnelError) -> None:
        """Break a stream towards both of its ends."""
        self.sendReset(stream, reason)
        stream.broken(reason)
