"""
What is sent over a WebSocket: gathered into messages that are worth it.
"""

from __future__ import annotations

from typing import Any

from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.interfaces import IDelayedCall

from tristunnel.dataplane.answers import Answers

__all__ = ["GATHER", "Outgoing"]

GATHER = 64 * 1024
"""Bytes that are gathered into one message within a turn of the reactor."""

MESSAGE = 256 * 1024
"""Bytes of the longest message we send: common libraries refuse 1 MiB."""


class Outgoing:
    """
    Hands messages to autobahn; mixed into its classes, by
    L{Connection<tristunnel.websocket.connection.Connection>}.

    @ivar answers: Whether the peer takes what it asks for, once it is open.
    """

    reactor: Any
    answers: Answers | None
    _isOpen: bool

    # Autobahn's.
    state: int
    sendMessage: Any

    def beginOutgoing(self) -> None:
        """Begin with nothing."""
        self._held: list[bytes] = []
        self._heldSize = 0
        self._flushing: IDelayedCall | None = None

    @property
    def canSend(self) -> bool:
        """Whether what is written has a chance to arrive."""
        return self._isOpen and self.state == WebSocketProtocol.STATE_OPEN

    def sendBytes(self, data: bytes) -> None:
        """Send bytes, in one message with others of this turn of the reactor."""
        if not self.canSend:
            return
        self._held.append(data)
        self._heldSize += len(data)
        if self._heldSize >= GATHER:
            self.flush()
        elif self._flushing is None:
            self._flushing = self.reactor.callLater(0, self.flush)

    def sendWhole(self, data: bytes) -> None:
        """Send a binary message, after what was gathered."""
        self.flush()
        self._answer(data, True)

    def sendEmpty(self) -> None:
        """Send a binary message without bytes."""
        self.sendWhole(b"")

    def sendText(self, text: bytes) -> None:
        """Send a text message."""
        self._answer(text, False)

    def _answer(self, message: bytes, isBinary: bool) -> None:
        if self.canSend:
            if self.answers is not None:
                self.answers.wrote(len(message))
            self.sendMessage(message, isBinary)

    def flush(self) -> None:
        """Send what was gathered."""
        if self._flushing is not None:
            if self._flushing.active():
                self._flushing.cancel()
            self._flushing = None
        if not self._held:
            return
        data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held = []
        self._heldSize = 0
        for start in range(0, len(data), MESSAGE):
            if self.canSend:
                self.sendMessage(data[start : start + MESSAGE], True)

    def registerProducer(self, producer: Any, streaming: bool = True) -> None:
        """Have C{producer} paused while the transport holds enough."""
        if self.answers is not None:
            self.answers.passTo(producer)

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        if self.answers is not None:
            self.answers.passTo(None)

    def _stopAnswers(self) -> None:
        """
        Nothing follows our close: a transport with a producer would never be
        closed.
        """
        if self.answers is not None:
            self.answers.stop()
