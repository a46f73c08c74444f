"""
Data connections: a visitor of a zlayer client, on a WebSocket of its own.

Its binary messages are the visitor's bytes, or one datagram each. Between our
own ends, which agree on it by the subprotocol, an empty message among bytes
says that no more follow in this direction; others close the WebSocket, which
ends both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.datagrams import FlowEnd
from tristunnel.errors import TunnelError
from tristunnel.websocket.codes import UNSUPPORTED
from tristunnel.websocket.end import WebSocketEnd
from tristunnel.wire.framed import MAX_DATAGRAM

if TYPE_CHECKING:
    from tristunnel.websocket.connection import Connection

__all__ = ["DATA_SUBPROTOCOL", "HELD_BYTES", "DataEnd", "DataFlow"]

DATA_SUBPROTOCOL = "tristunnel.data.1"
"""Bytes whose directions end apart, by an empty message each."""

HELD_BYTES = 256 * 1024
"""Bytes of datagrams that wait while the WebSocket takes none."""


class DataEnd(WebSocketEnd):
    """
    The L{End<tristunnel.interfaces.End>} of a data connection for bytes.

    @param arrived: Called once with this end when bytes may pass.
    @param patient: Whether to wait for the peer's answer before the end of
        what we send, where that would end both directions.
    """

    def __init__(
        self,
        arrived: Callable[[WebSocketEnd], None] = lambda end: None,
        patient: bool = False,
    ) -> None:
        super().__init__(arrived)
        self._patient = patient

    @property
    def _endsApart(self) -> bool:
        return bool(self._connection.chosen == DATA_SUBPROTOCOL)

    def bytesReceived(self, data: bytes) -> None:
        if data or not self._endsApart:
            super().bytesReceived(data)
        elif not (self._eof or self._over):
            self._noMoreComes()
            if self._connection.paused:
                # The peer's close is still to be read.
                self._connection.resumeReading()
            self._closeIfThrough()

    def _endTransmission(self) -> None:
        if self._endsApart:
            self._connection.sendEmpty()
            self._closeIfThrough()
        else:
            super()._endTransmission()

    def _closeIfThrough(self) -> None:
        if self._eof and self._finished:
            self._connection.close()

    @property
    def _awaitsAnswer(self) -> bool:
        return self._patient or super()._awaitsAnswer

    def breakOff(self, reason: TunnelError) -> None:
        if not self._over:
            self.evict(reason)


@implementer(IPushProducer)
class DataFlow(FlowEnd):
    """
    The L{DatagramEnd<tristunnel.interfaces.DatagramEnd>} of a data connection:
    a message for each datagram.

    What the WebSocket does not take waits in a short queue, and is dropped when that is
    full: late datagrams are worse than none.

    @param arrived: Called once with this end when datagrams may pass.
    """

    __slots__ = ("_arrived", "_connection", "_full", "_held", "_heldBytes")

    def __init__(self, arrived: Callable[[DataFlow], None]) -> None:
        super().__init__()
        self._arrived = arrived
        self._connection: Any = None
        self._full = False
        self._held: deque[bytes] = deque()
        self._heldBytes = 0

    # Receiver

    def opened(self, connection: Connection) -> None:
        self._connection = connection
        connection.wholeUpTo = MAX_DATAGRAM
        connection.registerProducer(self)
        self._arrived(self)

    def bytesReceived(self, data: bytes) -> None:
        self.passOn(data)

    def textReceived(self, text: bytes) -> None:
        reason = TunnelError("protocol-error", "datagrams must be binary messages here")
        self._connection.fail(reason, UNSUPPORTED)
        self.remoteOver(reason)

    def closeReceived(self, reason: TunnelError | None) -> None:
        self.remoteOver(reason)

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        self.remoteOver(reason)

    # DatagramEnd

    def send(self, datagram: bytes) -> None:
        if self._over or self._connection is None or not self._connection.canSend:
            self.dropped += 1
        elif not self._full:
            self._connection.sendWhole(datagram)
        elif self._heldBytes + len(datagram) <= HELD_BYTES:
            self._held.append(datagram)
            self._heldBytes += len(datagram)
        else:
            self.dropped += 1

    def flowOver(self, reason: TunnelError | None) -> None:
        self.dropped += len(self._held)
        self._held.clear()
        self._heldBytes = 0
        if self._connection is None:
            return
        if reason is None:
            self._connection.close()
        else:
            self._connection.fail(reason)

    def breakOff(self, reason: TunnelError) -> None:
        self.remoteOver(reason)

    # IPushProducer, for the connection

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        while self._held and not self._full:
            datagram = self._held.popleft()
            self._heldBytes -= len(datagram)
            self._connection.sendWhole(datagram)

    def stopProducing(self) -> None:
        """The connection is gone; L{connectionLost} tells the peer."""
