"""
A stream's end that is a connection of its own: TCP, UNIX or TLS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.errors import TunnelError

if TYPE_CHECKING:
    from tristunnel.interfaces import Closed, End

__all__ = [
    "EARLY",
    "TLS_CLOSE_TIMEOUT",
    "TLS_HANDSHAKE_TIMEOUT",
    "SocketEnd",
    "tuneSocket",
]

TLS_HANDSHAKE_TIMEOUT = 10.0
"""Seconds in which a TLS visitor must have said hello."""

EARLY = 64 * 1024
"""Bytes read from an end that is not joined yet, before reading pauses."""

TLS_CLOSE_TIMEOUT = 120.0
"""Seconds that a TLS peer gets to answer our close: some never do."""


def tuneSocket(transport: ITransport) -> None:
    """
    Send small writes at once, and have the kernel notice a dead peer.
    """
    if ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)


@implementer(IPushProducer, IHalfCloseableProtocol, IHandshakeListener)
class SocketEnd(Protocol):
    """
    The L{End<tristunnel.interfaces.End>} of a stream that is a connection.

    @param reactor: Tells time.
    @param arrived: Called once with this end when bytes may pass: after the
        TLS handshake where there is one. It may join the end then or later;
        what comes meanwhile is held, up to L{EARLY} bytes.

    @ivar received: Bytes read so far.
    """

    transport: Any

    def __init__(
        self, reactor: IReactorTime, arrived: Callable[[SocketEnd], None]
    ) -> None:
        self.received = 0
        self._reactor = reactor
        self._arrived = arrived
        self._peer: End | None = None
        self._closed: Closed | None = None
        self._early: list[bytes] = []
        self._canHalfClose = False
        self._eof = False
        self._readPaused = False
        self._finished = False
        self._over = False
        self._reason: TunnelError | None = None
        self._timer: IDelayedCall | None = None

    # IProtocol

    def connectionMade(self) -> None:
        """
        The connection is there; TLS may still have to begin.
        """
        tuneSocket(self.transport)
        if INegotiated.providedBy(self.transport):
            self._timer = self._reactor.callLater(
                TLS_HANDSHAKE_TIMEOUT, self.transport.abortConnection
            )
        else:
            self._canHalfClose = True
            self._begin()

    def handshakeCompleted(self) -> None:
        """
        TLS is up.
        """
        self._stopTimer()
        self._begin()

    def _begin(self) -> None:
        """
        Show this end to whoever waits for it.
        """
        self._arrived(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on what came.
        """
        self.received += len(data)
        if self._peer is None:
            # Reading goes on for a while, so that an end that leaves again is
            # noticed; and TLS hands on what it had decrypted before a pause.
            self._early.append(data)
            if self.received > EARLY:
                self.transport.pauseProducing()
        else:
            self._peer.write(data)

    def readConnectionLost(self) -> None:
        """
        The other side sends no more.
        """
        self._eof = True
        if self._peer is not None:
            self._peer.finish()
        if self._finished:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """
        Our end of what we send is on its way.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection is over.
        """
        self._stopTimer()
        if self._over:
            return
        self._over = True
        if not reason.check(ConnectionDone):
            self._reason = TunnelError("reset", reason.getErrorMessage())
        if self._peer is not None:
            self._tellPeer(self._peer)
        else:
            self._tellClosed()

    def _tellPeer(self, peer: End) -> None:
        """
        Let the other end know that this one is over.
        """
        if self._reason is not None:
            peer.reset(self._reason)
        elif not self._eof:
            self._eof = True
            peer.finish()
        self._tellClosed()

    def _tellClosed(self) -> None:
        """
        Let whoever waits for the end of this end know.
        """
        if self._closed is not None:
            closed, self._closed = self._closed, None
            closed(self._reason)

    # End

    def whileWaiting(self, left: Closed) -> None:
        """
        Have C{left} called if this end is over before it is joined.
        """
        if self._peer is None:
            self._closed = left

    def join(self, peer: End, closed: Closed) -> None:
        """
        Begin to pass bytes to C{peer}.
        """
        self._peer = peer
        self._closed = closed
        early, self._early = self._early, []
        if not self._over:
            self.transport.registerProducer(self, True)
        for data in early:
            peer.write(data)
        if self._over:
            self._tellPeer(peer)
        elif self._eof:
            peer.finish()
        elif self.received > EARLY and not self._readPaused:
            self.transport.resumeProducing()

    def write(self, data: bytes) -> None:
        """
        Send bytes; to a connection that is gone, a reset comes back.
        """
        if not self._over:
            self.transport.write(data)
        elif self._peer is not None:
            self._peer.reset(TunnelError("reset", "the connection is gone"))

    def finish(self) -> None:
        """
        Send no more. TLS cannot say so for one direction, so there it ends
        both, after all that was written.
        """
        if self._over or self._finished:
            return
        self._finished = True
        # A registered producer would keep the transport from ever closing.
        self.transport.unregisterProducer()
        if self._eof:
            self.transport.loseConnection()
        elif self._canHalfClose:
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()
            self._timer = self._reactor.callLater(
                TLS_CLOSE_TIMEOUT, self.transport.abortConnection
            )

    def reset(self, reason: TunnelError) -> None:
        """
        Break the connection, so that the other side sees a reset.
        """
        if self._over:
            return
        self._over = True
        self._reason = reason
        self._stopTimer()
        self.transport.abortConnection()
        self._tellClosed()

    def pauseReading(self) -> None:
        """
        Read no more for now.
        """
        self._readPaused = True
        if not (self._over or self._eof):
            self.transport.pauseProducing()

    def resumeReading(self) -> None:
        """
        Read again; not after the end, which would then be seen twice.
        """
        self._readPaused = False
        if not (self._over or self._eof):
            self.transport.resumeProducing()

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        """
        The transport holds enough.
        """
        if self._peer is not None:
            self._peer.pauseReading()

    def resumeProducing(self) -> None:
        """
        The transport has sent all it held.
        """
        if self._peer is not None:
            self._peer.resumeReading()

    def stopProducing(self) -> None:
        """
        The transport is gone; L{connectionLost} tells the peer.
        """

    def _stopTimer(self) -> None:
        """
        Cancel what waits for TLS.
        """
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
