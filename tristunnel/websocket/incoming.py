"""Receiving a WebSocket's messages, and limiting them."""

from __future__ import annotations

from struct import unpack
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IDelayedCall

from tristunnel.dataplane.answers import Holds
from tristunnel.dataplane.rate import TokenBucket
from tristunnel.errors import TunnelError
from tristunnel.wire.websocket import (
    BAD_PAYLOAD,
    BINARY,
    CLOSE,
    PING,
    PROTOCOL_ERROR,
    TEXT,
    FrameReader,
    Violation,
)

if TYPE_CHECKING:
    from twisted.python.failure import Failure

__all__ = ["MAX_BINARY", "MAX_TEXT", "REQUEST_EFFORT", "Incoming", "Receiver"]

MAX_BINARY = 16 * 1024 * 1024
"""Bytes of the longest binary message accepted. It is handed on in pieces as it comes,
so this does not limit memory, but a peer's mistakes."""

MAX_TEXT = 1024 * 1024
"""Bytes of the longest text message accepted; it is held whole."""

SMALL_FRAMES = 5000
"""Frames a second of less than L{SMALL} bytes that are read from a peer."""

MANY = 100
"""The number of such frames in one read after which smaller portions are read."""

FEW = 4096
"""Bytes of such a portion."""

REQUEST_EFFORT = 50
"""The cost of a request for a port, in such frames."""


class Receiver(Protocol):
    """Told of a connection's events."""

    def opened(self, connection: Any) -> None:
        """
        Messages may pass.

        @param connection: The
            L{Connection<tristunnel.websocket.connection.Connection>}.
        """

    def bytesReceived(self, data: bytes) -> None:
        """A piece of a binary message came; empty if the message was."""

    def textReceived(self, text: bytes) -> None:
        """A text message came, valid UTF-8."""

    def closeReceived(self, reason: TunnelError | None) -> None:
        """
        The peer sends no more, and takes no more.

        @param reason: C{None} after an orderly end.
        """

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        """
        The connection is gone; the last call.

        @param reason: C{None} after an orderly end.
        """


class Incoming:
    """
    Reads and checks messages; mixed into autobahn's classes by
    L{Connection<tristunnel.websocket.connection.Connection>}.

    @ivar receiver: What is told of events; may be replaced at any time.
    @ivar effort: Frames of less than L{SMALL} bytes that were read in one go; a
        receiver may add the further cost of a message.
    """

    reactor: Any
    receiver: Receiver
    _holds: Holds
    _reader: FrameReader

    # Autobahn's.
    data: bytes
    factory: Any
    onCloseFrame: Any
    _dataReceived: Any

    def beginIncoming(self) -> None:
        """Set the initial state."""
        # Whether messages are dropped, and whether bytes are, too.
        self._deaf = False
        self._blind = False
        self._most = {TEXT: MAX_TEXT, BINARY: MAX_BINARY}
        self._whole = False
        self._gathered = bytearray()
        self.effort = 0
        self._wasSmall = False
        self._unread = b""
        self._small = TokenBucket(SMALL_FRAMES, self.reactor.seconds, SMALL_FRAMES)
        self._resting: IDelayedCall | None = None

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """
        Close because of C{reason}, and hand on nothing more.

        @param code: The close code, if it is not the reason's.
        """

    @property
    def wholeUpTo(self) -> int:
        """
        Bytes of the longest binary message that is accepted and handed on in one
        piece; 0 to hand on pieces of longer ones as they come. A receiver may set
        it when it is told of the opening, or between messages.
        """
        return self._most[BINARY] if self._whole else 0

    @wholeUpTo.setter
    def wholeUpTo(self, most: int) -> None:
        self._whole = bool(most)
        self._most[BINARY] = most or MAX_BINARY

    def _take(self, data: bytes) -> None:
        """
        Read bytes. Frames that cost more to read than they carry are rationed, so that
        others need not wait for a peer that sends nothing else.
        """
        start, step = 0, FEW if self._wasSmall else len(data)
        while start < len(data) and not self._blind:
            self.effort = 0
            self._read(data[start : start + step])
            start += step
            small = self.effort
            self._wasSmall = small > MANY
            wait = self._small.charge(small) if small else 0.0
            if wait or (self._wasSmall and start < len(data)):
                # Others get a turn in between.
                self._unread = data[start:]
                self._holds.hold("rate")
                self._resting = self.reactor.callLater(wait, self._rested)
                return

    def _rested(self) -> None:
        self._resting = None
        data, self._unread = self._unread, b""
        self._take(data)
        if self._resting is None:
            self._holds.release("rate")

    def _beginFrames(self) -> None:
        """The handshake is over: frames follow."""
        self._reader = FrameReader(self.factory.isServer, self._most)

    def processData(self) -> bool:
        """
        Read what came with the handshake; called by autobahn.

        @return: C{False}: that was all.
        """
        data, self.data = self.data, b""
        self._take(data)
        return False

    def _read(self, data: bytes) -> None:
        reader = self._reader
        try:
            for opcode, payload, ends in reader.feed(data):
                if opcode == BINARY and not self._whole:
                    if payload or not reader.size:
                        self._hear(payload)
                elif opcode in (TEXT, BINARY):
                    self._gather(opcode, payload, ends)
                elif opcode == PING:
                    self.onPing(payload)
                elif opcode == CLOSE:
                    code = unpack("!H", payload[:2])[0] if payload else None
                    self.onCloseFrame(code, payload[2:] or None)
                    self._blind = True
                if self._blind:
                    break
        except Violation as violation:
            # What follows could be a control frame of any length.
            self._blind = True
            self.fail(TunnelError("protocol-error", str(violation)), violation.code)
        self.effort += reader.small
        reader.small = 0

    def _hear(self, data: bytes) -> None:
        if not self._deaf:
            self.receiver.bytesReceived(data)

    def _gather(self, opcode: int, payload: bytes, ends: bool) -> None:
        """
        Take a piece of a message that is handed on whole.

        @raise Violation: If it is not valid text.
        """
        if self._deaf:
            return
        self._gathered += payload
        if not ends:
            return
        whole, self._gathered = bytes(self._gathered), bytearray()
        if opcode == BINARY:
            self.receiver.bytesReceived(whole)
            return
        if not whole.isascii():
            try:
                whole.decode("utf-8")
            except UnicodeDecodeError:
                raise Violation(BAD_PAYLOAD, "a text message is not UTF-8") from None
        self.receiver.textReceived(whole)

    def onPing(self, payload: bytes) -> None:
        """A ping came."""

    # Autobahn's judgement of a close frame, and of the handshake

    def _protocol_violation(self, reason: str) -> bool:
        """
        The peer broke RFC 6455.

        @return: C{True}: stop.
        """
        self._blind = True
        self.fail(TunnelError("protocol-error", reason), PROTOCOL_ERROR)
        return True

    def _invalid_payload(self, reason: str) -> bool:
        """
        The peer's text was not UTF-8.

        @return: C{True}: stop.
        """
        self._blind = True
        self.fail(TunnelError("protocol-error", reason), BAD_PAYLOAD)
        return True

    def _fail_connection(self, code: int = 1001, reason: str = "") -> None:
        self.fail(TunnelError("protocol-error", reason), code)
