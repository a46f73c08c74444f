"""
The framed protocol with tristunnel's extension: streams that are opened, refused and
half-closed, and that move; and datagrams beside them. The streams' bytes and the credit
for them are in L{tristunnel.dialects.framed.credit}.

The frames are specified in C{docs/protocol.rst}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from tristunnel.dialects.base.multiplexer import FRAME_SHARED, FrameTable, Limits, Sink
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.framed.credit import CreditedStreams
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
from tristunnel.wire.windows import ReceiveWindow, SendWindow

__all__ = ["FRAME_LONG", "OPEN_TIMEOUT", "ExtendedMultiplexer"]

FRAME_LONG = 256 * 1024
"""Most payload of a data frame on a line that takes it in a few milliseconds."""

OPEN_TIMEOUT = 30.0
"""Seconds in which the peer must accept or refuse a stream."""

_CREDIT = 8

# As plain numbers, which cost nothing to look up.
_OPEN, _OPENED, _EOF = int(FrameType.OPEN), int(FrameType.OPENED), int(FrameType.EOF)


class ExtendedMultiplexer(CreditedStreams, MoveCarrier):
    """
    The streams of an extended session, at either side.

    @param isServer: The server numbers its streams 2, 4, 6 and on, the client
        1, 3, 5.
    @param peerStreamWindow: Credit that our streams begin with.

    @ivar datagrams: What is carried in datagrams, beside the streams.
    @ivar takeOther: Takes the type and the payload of frames that concern no stream,
        and returns whether it knows the type.
    """

    frameAlone = FRAME_LONG

    __slots__ = (
        "_lastId",
        "_parity",
        "_peerStreamWindow",
        "datagrams",
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
        super().__init__(sink, seconds, opened, limits, peerSessionWindow)
        self._peerStreamWindow = peerStreamWindow
        self._parity = 0 if isServer else 1
        self._lastId = -1 if not isServer else 0
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
        **CreditedStreams.frames,
        FrameType.CLOSE: _close,
        FrameType.ERROR: _error,
        FrameType.EOF: _eof,
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

    def tick(self) -> None:
        """Give up on streams that the peer does not answer, too."""
        self.datagrams.tick()
        now = self._seconds()
        for stream in list(self.streams.values()):
            if (
                not stream.answered
                and not self.isPeers(stream.id)
                and now - stream.since > OPEN_TIMEOUT
            ):
                stream.breakOff(TunnelError("service-timeout"))
        super().tick()
