"""
vtunnel's dialect: streams in JSON messages, by the rules of plain W3P.

vtunnel has no credit and no half-close either, so what bounds memory and what
becomes of a visitor's end-of-file is the same, see
L{tristunnel.dialects.base.plain}. Only what is written differs: a visitor is
announced by C{connect}, where W3P has an empty data frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from tristunnel.dialects.base.multiplexer import Limits, Multiplexer
from tristunnel.dialects.base.plain import PlainClientSide, PlainServerSide
from tristunnel.errors import TunnelError
from tristunnel.websocket.codes import BAD_PAYLOAD, UNSUPPORTED
from tristunnel.wire.framed import FrameType
from tristunnel.wire.vtunnel import (
    CLOSE,
    CONNECT,
    DATA,
    MAX_DATA,
    Message,
    decodeMessage,
    encodeData,
    encodeMessage,
)

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from tristunnel.dialects.base.stream import SessionStream

__all__ = ["TextLink", "VTunnelClientSide", "VTunnelServerSide", "VTunnelSession"]

TICK = 1.0
"""Seconds between two looks at the deadlines."""

Opened = Callable[["SessionStream", "dict[str, object]"], None]


class TextLink:
    """
    The L{Sink<tristunnel.dialects.base.multiplexer.Sink>} of a multiplexer that
    sends messages.

    @param connection: The WebSocket.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def sendMessage(self, message: Message) -> None:
        self.connection.sendText(encodeMessage(message))

    def write(self, data: bytes) -> None:
        self.connection.sendText(data)

    def writeSequence(self, data: Any) -> None:
        for each in data:
            self.connection.sendText(each)

    def pauseProducing(self) -> None:
        self.connection.pauseReading()

    def resumeProducing(self) -> None:
        self.connection.resumeReading()


class _Messages(Multiplexer):
    """Writes messages where W3P has frames; mixed into W3P's two sides."""

    _sink: TextLink

    def sendData(self, streamId: int, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA):
            self._sink.write(encodeData(streamId, data[start : start + MAX_DATA]))

    def sendFrame(self, streamId: int, kind: int, payload: bytes = b"") -> None:
        if self._over:
            return
        if kind in (FrameType.CLOSE, FrameType.ERROR):
            self._sink.sendMessage(Message(CLOSE, stream=streamId))
        elif payload:
            self.sendData(streamId, payload)
        else:
            self.announce(streamId)

    def announce(self, streamId: int) -> None:
        """Say that a visitor came."""

    def messageArrived(self, message: Message) -> None:
        kind = FrameType.DATA if message.kind == DATA else FrameType.CLOSE
        self._frames[kind](message.stream, message.data)


class VTunnelServerSide(_Messages, PlainServerSide):
    """A vtunnel client's streams, at the server."""

    _port = 0

    def open(self, info: dict[str, object]) -> SessionStream:
        """
        Begin a stream.

        @param info: The C{port} that the visitor came to.
        """
        self._port = int(str(info["port"]))
        return super().open(info)

    def announce(self, streamId: int) -> None:
        self._sink.sendMessage(Message(CONNECT, port=self._port, stream=streamId))


class VTunnelClientSide(_Messages, PlainClientSide):
    """The streams of a client at a vtunnel server."""

    def connectArrived(self, message: Message) -> None:
        """
        A visitor came.

        @raise TunnelError: C{protocol-error}.
        """
        streamId = message.stream
        if not streamId or streamId in self.streams:
            raise TunnelError(
                "protocol-error", f"stream {streamId} is not a new visitor's"
            )
        if len(self.streams) >= self.limits.streams:
            self.sendFrame(streamId, FrameType.ERROR)
            return
        stream = self._newStream(streamId)
        stream.guarded(self._opened, stream, {"port": message.port})

    def unknownStream(self, streamId: int) -> SessionStream | None:
        return None


class VTunnelSession:
    """
    What both ends of a vtunnel connection share: a
    L{Receiver<tristunnel.websocket.connection.Receiver>} of messages.

    @param reactor: Tells time.

    @ivar multiplexer: The streams, once the connection is open.
    @ivar lost: Why the session is over, or C{None}.
    """

    def __init__(self, reactor: IReactorTime, limits: Limits | None = None) -> None:
        self.reactor = reactor
        self.limits = limits or Limits()
        self.multiplexer: _Messages | None = None
        self.lost: TunnelError | None = None
        self.connection: Any = None
        self._ended = False
        self._ticking: LoopingCall | None = None
        self._kinds: dict[str, Callable[[Message], None]] = {}

    def makeMultiplexer(self, link: TextLink) -> _Messages:
        raise NotImplementedError

    # Receiver

    def opened(self, connection: Any) -> None:
        self.connection = connection
        self.multiplexer = self.makeMultiplexer(TextLink(connection))
        self._kinds.setdefault(DATA, self.multiplexer.messageArrived)
        self._kinds.setdefault(CLOSE, self.multiplexer.messageArrived)
        connection.registerProducer(self.multiplexer)
        self._ticking = LoopingCall(self.multiplexer.tick)
        self._ticking.clock = self.reactor
        self._ticking.start(TICK, now=False)

    def bytesReceived(self, data: bytes) -> None:
        reason = TunnelError("protocol-error", "vtunnel speaks in text messages")
        self.fail(reason, UNSUPPORTED)

    def textReceived(self, text: bytes) -> None:
        try:
            message = decodeMessage(text)
        except TunnelError as error:
            self.fail(error, BAD_PAYLOAD)
            return
        take = self._kinds.get(message.kind)
        if take is None:
            return
        try:
            take(message)
        except TunnelError as error:
            self.fail(error)

    def closeReceived(self, reason: TunnelError | None) -> None:
        """The connection's end follows."""

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        self._end(reason or TunnelError("session-lost", "the peer has left"))

    def _end(self, reason: TunnelError) -> None:
        if self._ended:
            return
        self._ended = True
        self.lost = self.lost or reason
        if self._ticking is not None and self._ticking.running:
            self._ticking.stop()
        if self.multiplexer is not None:
            self.multiplexer.close(self.lost)
        self.sessionOver(self.lost)

    def sessionOver(self, reason: TunnelError) -> None:
        raise NotImplementedError

    def streams(self) -> int:
        """How many visitors there are."""
        return 0 if self.multiplexer is None else len(self.multiplexer.streams)

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """
        End the session because of C{reason}.

        @param code: The close code, if it is another than the reason's.
        """
        self.lost = self.lost or reason
        if self.connection is not None:
            self.connection.fail(reason, code)
            self._end(reason)
