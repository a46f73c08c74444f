"""
What a WebSocket's peer sends, and may not send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IDelayedCall

from tristunnel.dataplane.answers import Holds
from tristunnel.dataplane.rate import TokenBucket
from tristunnel.errors import TunnelError
from tristunnel.websocket.codes import BAD_PAYLOAD, PROTOCOL_ERROR, TOO_BIG

if TYPE_CHECKING:
    from twisted.python.failure import Failure

__all__ = ["MAX_BINARY", "MAX_TEXT", "REQUEST_EFFORT", "Incoming", "Receiver"]

MAX_BINARY = 16 * 1024 * 1024
"""Bytes of the longest binary message accepted. It is handed on in pieces as
it comes, so this bounds nobody's memory but a peer's mistakes."""

MAX_TEXT = 1024 * 1024
"""Bytes of the longest text message accepted; it is held whole."""

SMALL = 64
"""Bytes of payload with which a frame costs less to read than it carries."""

SMALL_FRAMES = 5000
"""Frames a second of less than L{SMALL} bytes that are read from a peer."""

MANY = 100
"""Such frames in one read after which bytes are read in smaller portions."""

FEW = 4096
"""Bytes of such a portion."""

REQUEST_EFFORT = 50
"""What a request for a port costs, in such frames."""


class Receiver(Protocol):
    """What is told of a connection."""

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
        The peer sends no more, and will not take any more.

        @param reason: C{None} after an orderly end.
        """

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        """
        The connection is gone; the last call.

        @param reason: C{None} after an orderly end.
        """


class Incoming:
    """
    Takes messages from autobahn's parser and judges them; mixed into its
    classes, by L{Connection<tristunnel.websocket.connection.Connection>}.

    @ivar receiver: What is told; may be exchanged at any time.
    @ivar effort: Frames of less than L{SMALL} bytes that were read in one go; a
        receiver may add what a message costs more than that.
    """

    reactor: Any
    receiver: Receiver
    wholeUpTo: int
    _holds: Holds

    # Autobahn's.
    _dataReceived: Any

    def beginIncoming(self) -> None:
        """Begin with nothing."""
        # Whether messages are dropped, and whether bytes are.
        self._deaf = False
        self._blind = False
        self._binary = True
        self._size = 0
        self._gathered = bytearray()
        self.effort = 0
        self._wasSmall = False
        self._unread = b""
        self._small = TokenBucket(SMALL_FRAMES, self.reactor.seconds, SMALL_FRAMES)
        self._resting: IDelayedCall | None = None

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """
        Close because of C{reason}, and hand on nothing any more.

        @param code: The close code, if it is another than the reason's.
        """

    def _take(self, data: bytes) -> None:
        """
        Let the parser have bytes. Frames that cost more to read than they carry
        are rationed, so that nobody has to wait for a peer that sends nothing
        else.
        """
        start, step = 0, FEW if self._wasSmall else len(data)
        while start < len(data) and not self._blind:
            self.effort = 0
            self._dataReceived(data[start : start + step])
            start += step
            small = self.effort
            self._wasSmall = small > MANY
            wait = self._small.charge(small) if small else 0.0
            if wait or (self._wasSmall and start < len(data)):
                # Others have their turn in between.
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

    def onMessageBegin(self, isBinary: bool) -> None:
        self._binary = isBinary
        self._size = 0
        self._gathered = bytearray()

    def onMessageFrameBegin(self, length: int) -> None:
        self._size += length
        if length < SMALL:
            self.effort += 1
        most = self.wholeUpTo or (MAX_BINARY if self._binary else MAX_TEXT)
        if self._size > most:
            kind = "binary" if self._binary else "text"
            self._blind = True
            self.fail(
                TunnelError(
                    "protocol-error",
                    f"a {kind} message of {self._size} bytes is longer than the"
                    f" {most} accepted here",
                ),
                TOO_BIG,
            )

    def onMessageFrameData(self, payload: bytes) -> None:
        if self._deaf:
            return
        if not self._binary or self.wholeUpTo:
            self._gathered += payload
        elif payload:
            self.receiver.bytesReceived(payload)

    def onMessageFrameEnd(self) -> None:
        """A frame of it is complete."""

    def onMessageEnd(self) -> None:
        if self._deaf:
            return
        if not self._binary:
            text, self._gathered = bytes(self._gathered), bytearray()
            # Ten times faster than autobahn's validator, which is turned off.
            if not text.isascii():
                try:
                    text.decode("utf-8")
                except UnicodeDecodeError:
                    self._invalid_payload("a text message is not UTF-8")
                    return
            self.receiver.textReceived(text)
        elif self.wholeUpTo:
            data, self._gathered = bytes(self._gathered), bytearray()
            self.receiver.bytesReceived(data)
        elif not self._size:
            self.receiver.bytesReceived(b"")

    def _protocol_violation(self, reason: str) -> bool:
        """
        The peer broke RFC 6455: say so, and read none of the rest, which
        could be a control frame of any length.

        @return: C{True}: stop.
        """
        self._blind = True
        self.fail(TunnelError("protocol-error", reason), PROTOCOL_ERROR)
        return True

    def _invalid_payload(self, reason: str) -> bool:
        """
        The peer's text was none.

        @return: C{True}: stop.
        """
        self._blind = True
        self.fail(TunnelError("protocol-error", reason), BAD_PAYLOAD)
        return True

    def _fail_connection(self, code: int = 1001, reason: str = "") -> None:
        self.fail(TunnelError("protocol-error", reason), code)
