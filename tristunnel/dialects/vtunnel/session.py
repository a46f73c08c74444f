"""
vtunnel's dialect: streams in JSON messages, by the rules of plain W3P.

vtunnel has no credit and no half-close either, so what bounds memory and what
becomes of a visitor's end-of-file is the same, see
L{tristunnel.dialects.base.plain}. Only what is written differs: a visitor is
announced by C{connect}, where W3P has an empty data frame.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tristunnel.dialects.base.messages import MessageSession
from tristunnel.dialects.base.multiplexer import Limits, Multiplexer
from tristunnel.dialects.base.plain import PlainClientSide, PlainServerSide
from tristunnel.errors import TunnelError
from tristunnel.util.repeating import RepeatingCall
from tristunnel.websocket.codes import UNSUPPORTED
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
from tristunnel.wire.websocket import BAD_PAYLOAD

if TYPE_CHECKING:
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
        self.frames[kind](self, message.stream, message.data)


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


class VTunnelSession(MessageSession):
    """
    What both ends of a vtunnel connection share: messages, and the streams.

    @ivar multiplexer: The streams, once the connection is open.
    """

    reactor: Any
    limits: Limits
    multiplexer: _Messages | None = None
    _ticking: RepeatingCall | None = None
    _kinds: dict[str, Callable[[Message], None]]

    @abstractmethod
    def makeMultiplexer(self, link: TextLink) -> _Messages:
        """Make the streams."""

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        self.multiplexer = self.makeMultiplexer(TextLink(connection))
        self._kinds.setdefault(DATA, self.multiplexer.messageArrived)
        self._kinds.setdefault(CLOSE, self.multiplexer.messageArrived)
        connection.registerProducer(self.multiplexer)
        self._ticking = RepeatingCall(self.reactor, self.multiplexer.tick)
        self._ticking.start(TICK, now=False)

    def send(self, message: Message) -> None:
        """Send a message."""
        if self.connection is not None:
            self.connection.sendText(encodeMessage(message))

    def bytesReceived(self, data: bytes) -> None:
        reason = TunnelError("protocol-error", "vtunnel uses text messages")
        self.fail(reason, UNSUPPORTED)

    def textReceived(self, text: bytes) -> None:
        try:
            message = decodeMessage(text)
        except TunnelError as error:
            self.fail(error, BAD_PAYLOAD)
            return
        # One of an unknown type is skipped, as by vtunnel.
        take = self._kinds.get(message.kind)
        if take is None:
            return
        try:
            take(message)
        except TunnelError as error:
            self.fail(error)

    def sessionOver(self, reason: TunnelError) -> None:
        if self._ticking is not None and self._ticking.running:
            self._ticking.stop()
        if self.multiplexer is not None:
            self.multiplexer.close(reason)
        super().sessionOver(reason)

    def streams(self) -> int:
        """How many visitors there are."""
        return 0 if self.multiplexer is None else len(self.multiplexer.streams)
