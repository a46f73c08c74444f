"""Sending over a WebSocket: bytes are gathered into messages of a reasonable size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from tristunnel.dataplane.answers import Answers
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.websocket import BINARY, MESSAGE, TEXT, encodeMessage

__all__ = ["GATHER", "Outgoing"]

GATHER = 64 * 1024
"""Bytes that are gathered into one message within a turn of the reactor; as many as may
wait to be sent, if that is less on a slow line."""


class Outgoing:
    """
    Writes messages; mixed into autobahn's classes, by
    L{Connection<tristunnel.websocket.connection.Connection>}.

    @ivar answers: Limits our answers to what the peer takes; C{None} until the
        connection is open.
    """

    reactor: Any
    transport: Any
    answers: Answers | None
    abort: Any
    _isOpen: bool

    # Autobahn's.
    state: int
    factory: Any

    def beginOutgoing(self) -> None:
        """Set the initial state."""
        self._held: list[bytes] = []
        self._heldSize = 0
        self._queued = False
        self._flushing: IDelayedCall | None = None

    @property
    def canSend(self) -> bool:
        """Whether what is written can still arrive."""
        return self._isOpen and self.state == WebSocketProtocol.STATE_OPEN

    def sendBytes(self, data: bytes) -> None:
        """Send bytes, in one message with others of this turn of the reactor."""
        self.sendPieces((data,))

    def sendPieces(self, pieces: Sequence[bytes]) -> None:
        """Send bytes that are in pieces, in the same way."""
        if not self.canSend:
            return
        self._held.extend(pieces)
        self._heldSize += sum(map(len, pieces))
        if self._heldSize >= min(GATHER, getattr(self.transport, "full", GATHER)):
            self.flush()
        elif not self._queued:
            self._queued = True
            if isinstance(self.transport, SocketTransport):
                self.transport.poller.flushLater(self)
            else:
                self._flushing = self.reactor.callLater(0, self.flush)

    def sendWhole(self, data: bytes) -> None:
        """Send a binary message, after what was gathered."""
        self.flush()
        self._answer(BINARY, data)

    def sendEmpty(self) -> None:
        """Send a binary message without bytes."""
        self.sendWhole(b"")

    def sendText(self, text: bytes) -> None:
        """Send a text message."""
        self._answer(TEXT, text)

    def _answer(self, opcode: int, message: bytes) -> None:
        if self.canSend:
            if self.answers is not None:
                self.answers.wrote(len(message))
            self._send(opcode, [message])

    def _send(self, opcode: int, pieces: list[bytes]) -> None:
        frame = encodeMessage(opcode, pieces, not self.factory.isServer)
        if not isinstance(self.transport, SocketTransport):
            # Twisted's own takes only bytes.
            frame = [bytes(piece) for piece in frame]
        self.transport.writeSequence(frame)

    def flush(self) -> None:
        """Send what was gathered; called when the turn ends, or before."""
        self._queued = False
        if self._flushing is not None:
            stopTimer(self._flushing)
            self._flushing = None
        held, self._held = self._held, []
        size, self._heldSize = self._heldSize, 0
        if not (held and self.canSend):
            return
        if size <= MESSAGE:
            self._send(BINARY, held)
            return
        data = b"".join(held)
        for start in range(0, size, MESSAGE):
            self._send(BINARY, [data[start : start + MESSAGE]])

    def broken(self, reason: Failure) -> None:
        """What was gathered could not be sent, because of an error in our code."""
        self.abort()

    def registerProducer(self, producer: Any, streaming: bool = True) -> None:
        if self.answers is not None:
            self.answers.passTo(producer)

    def unregisterProducer(self) -> None:
        if self.answers is not None:
            self.answers.passTo(None)

    def _stopAnswers(self) -> None:
        """
        Nothing follows our close: a transport with a producer would never be
        closed.
        """
        if self.answers is not None:
            self.answers.stop()
