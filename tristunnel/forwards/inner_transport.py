"""
The connection of a protocol to an end of a stream within this process: no socket
buffers what one of them has sent and the other has not taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End

__all__ = ["InnerTransport", "Taker"]


class Taker(Protocol):
    """Takes what a protocol sends: the part of an L{End} that this needs."""

    def write(self, data: bytes) -> None:
        """Take bytes."""

    def finish(self) -> None:
        """No more bytes follow."""

    def reset(self, reason: TunnelError) -> None:
        """Note that the protocol is gone."""

    def pauseReading(self) -> None:
        """Send nothing for now."""

    def resumeReading(self) -> None:
        """Send again."""


@implementer(ITransport, IConsumer, IPushProducer)
class InnerTransport:
    """
    What a protocol writes to. It can be paused and half-closed as a socket can.

    @param protocol: Whose transport it is.
    @param peer: Takes what the protocol sends.

    @ivar end: Where C{peer} sends what is for the protocol.
    @ivar disconnecting: Whether it has been closed.
    """

    def __init__(self, protocol: IProtocol, peer: Taker) -> None:
        self.end = _ProtocolEnd(self)
        self.disconnecting = False
        self._protocol: Any = protocol
        self._peer = peer
        self._producer: Any = None
        self._isFull = self._isHeld = self._isPaused = self._hasFinished = False

    def begin(self) -> None:
        """Connect the protocol."""
        self._protocol.makeConnection(self)

    def passTo(self, peer: Taker) -> None:
        """Have another end take what the protocol sends from now on."""
        self._peer = peer
        if self._isPaused:
            peer.pauseReading()

    # ITransport, and what is usual beside it

    def getPeer(self) -> IAddress:
        return UNIXAddress(None)

    getHost = getPeer

    def write(self, data: bytes) -> None:
        if not (self._hasFinished or self.disconnecting):
            self.end.received += len(data)
            self._peer.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseWriteConnection(self) -> None:
        """Send no more."""
        if not (self._hasFinished or self.disconnecting):
            self._hasFinished = True
            self._peer.finish()

    def loseConnection(self) -> None:
        self.loseWriteConnection()
        self._lost(ConnectionDone())

    def abortConnection(self) -> None:
        """Break it."""
        if not self.disconnecting:
            self._lost(ConnectionAborted())
            self._peer.reset(_left())

    def _lost(self, reason: Exception) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self._producer = None
            protocol, self._protocol = self._protocol, None
            protocol.connectionLost(Failure(reason))

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer
        if self._isFull or self._isHeld:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    # IPushProducer

    def pauseProducing(self) -> None:
        self._isPaused = True
        self._peer.pauseReading()

    def resumeProducing(self) -> None:
        self._isPaused = False
        self._peer.resumeReading()

    def stopProducing(self) -> None:
        self.loseConnection()

    # From the end

    def came(self, data: bytes) -> None:
        """Hand the protocol what the peer sends."""
        if self.disconnecting:
            self._peer.reset(_left())
        else:
            self._protocol.dataReceived(data)

    def ended(self) -> None:
        """Note that the peer sends no more."""
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.readConnectionLost()
        else:
            self.loseConnection()

    def broken(self, reason: TunnelError) -> None:
        """Note that the peer is gone."""
        self._lost(ConnectionLost(reason.message))

    def fill(self, isFull: bool) -> None:
        """Note whether the peer takes no more for now."""
        self._change(isFull, self._isHeld)

    def hold(self, isHeld: bool) -> None:
        """
        Set whether the protocol is to send nothing for now, whatever the peer takes.
        """
        self._change(self._isFull, isHeld)

    def _change(self, isFull: bool, isHeld: bool) -> None:
        before = self._isFull or self._isHeld
        self._isFull, self._isHeld = isFull, isHeld
        if self._producer is None or before == (isFull or isHeld):
            return
        if before:
            self._producer.resumeProducing()
        else:
            self._producer.pauseProducing()


def _left() -> TunnelError:
    return TunnelError("reset", "the visitor has left")


class _ProtocolEnd(End):
    """
    The protocol, as its peer sees it.

    @ivar received: Bytes that it has sent.
    """

    received = 0

    def __init__(self, transport: InnerTransport) -> None:
        self._transport = transport

    def join(self, peer: End, closed: Closed) -> None:
        self._transport.passTo(peer)

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        self._transport.passTo(peer)
        return None, False

    def whileWaiting(self, left: Closed) -> None:
        """It never waits to be joined."""

    def write(self, data: bytes) -> None:
        self._transport.came(data)

    def finish(self) -> None:
        self._transport.ended()

    def reset(self, reason: TunnelError) -> None:
        self._transport.broken(reason)

    def pauseReading(self) -> None:
        self._transport.fill(True)

    def resumeReading(self) -> None:
        self._transport.fill(False)
