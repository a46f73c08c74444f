"""
The end of a stream on any transport of Twisted's: a child process, an SSH channel, a
connection of another package's endpoint, or any connection where there is no epoll.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from tristunnel.dataplane.closing import WriteDeadline
from tristunnel.dataplane.connection_end import (
    CLOSE_TIMEOUT,
    TLS_HANDSHAKE_TIMEOUT,
    ConnectionEnd,
)
from tristunnel.dataplane.following import FULL
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.stock import (
    MOST_UNASKED,
    canHalfClose,
    canPause,
    completed,
    tuneSocket,
)
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End
from tristunnel.util.repeating import stopTimer

__all__ = ["Arriving", "EndFactory", "TransportEnd"]


@implementer(IPushProducer, IHalfCloseableProtocol, IHandshakeListener)
class TransportEnd(ConnectionEnd, Protocol):
    """
    The L{End<tristunnel.interfaces.End>} of a stream that is a Twisted transport.

    @param reactor: Tells time.
    @param arrived: Called once with this end when bytes may pass: after the TLS
        handshake if there is one.
    """

    transport: Any

    def __init__(self, reactor: Any, arrived: Callable[[Any], None]) -> None:
        self._prepare(reactor, arrived)
        self._canHalfClose = False
        self._unasked = 0
        self._timer: IDelayedCall | WriteDeadline | None = None

    # IProtocol

    def makeConnection(self, transport: ITransport) -> None:
        super().makeConnection(completed(transport))

    def connectionMade(self) -> None:
        """The connection is there; TLS may still have to begin."""
        tuneSocket(self.transport)
        if INegotiated.providedBy(self.transport):
            self._timer = self._reactor.callLater(
                TLS_HANDSHAKE_TIMEOUT, self.transport.abortConnection
            )
        else:
            self._canHalfClose = canHalfClose(self.transport)
            self._arrived(self)

    def handshakeCompleted(self) -> None:
        self._stopTimers()
        self._arrived(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on what came, even while reading is held: from a transport that cannot be
        paused, bytes keep coming.
        """
        self._bytesCame(data)
        if self._held and not canPause(self.transport):
            self._unasked += len(data)
            if self._unasked > MOST_UNASKED:
                self.evict(TunnelError("stalled", "it cannot be paused"))

    def readConnectionLost(self) -> None:
        self._noMoreComes()
        if self._finished:
            self._closeBoth()

    def writeConnectionLost(self) -> None:
        """The end of our direction is on its way."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone(reason)

    # ConnectionEnd

    @property
    def peerAddress(self) -> IAddress:
        """Where the far side is."""
        address: IAddress = self.transport.getPeer()
        return address

    @property
    def hostAddress(self) -> IAddress | None:
        """Where the far side has connected to."""
        address: IAddress = self.transport.getHost()
        return address

    def join(self, peer: End, closed: Closed) -> None:
        # Once the peer has ended, a producer would keep the transport from closing.
        if not (self._over or self._finished):
            self.transport.registerProducer(self, True)
        super().join(peer, closed)

    def _stopReading(self) -> None:
        self.transport.pauseProducing()

    def _goOnReading(self) -> None:
        self._unasked = 0
        self.transport.resumeProducing()

    def _transmit(self, data: bytes) -> None:
        self.transport.write(data)

    def _endTransmission(self) -> None:
        """
        Send no more. Twisted's TLS cannot end one direction alone, so there this ends
        both, after everything that was written.
        """
        self.transport.unregisterProducer()
        if self._canHalfClose and not self._eof:
            self.transport.loseWriteConnection()
        else:
            self._closeBoth()

    def _closeBoth(self) -> None:
        """Close the connection, as both directions are over."""
        if not self._over:
            self._stopTimers()
            self._timer = closing = WriteDeadline(
                self._reactor, self.transport, CLOSE_TIMEOUT, patient=True
            )
            closing.close()

    def _cutOff(self) -> None:
        self.transport.abortConnection()

    def _stopTimers(self) -> None:
        super()._stopTimers()
        stopTimer(self._timer)
        self._timer = None

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        self._fills(FULL)

    def resumeProducing(self) -> None:
        self._emptied()

    def stopProducing(self) -> None:
        """The transport is gone; L{connectionLost} tells the peer."""


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Arriving(Protocol):
    """
    Makes a stream's end of whatever connection an endpoint has.

    @ivar end: The end, once the connection is there.
    @cvar socketEnd: Its class for a socket of ours.
    @cvar transportEnd: Its class for any other transport.
    """

    socketEnd: ClassVar[type[SocketEnd]] = SocketEnd
    transportEnd: ClassVar[type[TransportEnd]] = TransportEnd

    def __init__(self, reactor: Any, arrived: Callable[[Any], None]) -> None:
        self.end: SocketEnd | TransportEnd | None = None
        self._reactor = reactor
        self._arrived = arrived

    def makeConnection(self, transport: Any) -> None:
        if isinstance(transport, SocketTransport):
            self.end = self.socketEnd.of(transport, self._show)
            return
        self.end = made = self.transportEnd(self._reactor, self._arrived)
        self.dataReceived = made.dataReceived  # type: ignore[method-assign] # saves a call
        self.connectionLost = made.connectionLost  # type: ignore[method-assign] # likewise
        below = getattr(transport, "protocol", None)
        if below is self:
            transport.protocol = made
        elif hasattr(below, "readConnectionLost") and not INegotiated.providedBy(
            transport
        ):
            # A protocol of the endpoint's is in between. It passes on only the calls of
            # interfaces that this object provides.
            alsoProvides(below, IHalfCloseableProtocol)
        made.makeConnection(transport)

    def _show(self, end: SocketEnd) -> None:
        """Pass the end on, perhaps before C{of} has returned it."""
        self.end = end
        self._arrived(end)

    def readConnectionLost(self) -> None:
        if isinstance(self.end, TransportEnd):
            self.end.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """The end of our direction is on its way."""

    def handshakeCompleted(self) -> None:
        if isinstance(self.end, TransportEnd):
            self.end.handshakeCompleted()


class EndFactory(Factory[Arriving]):
    """
    Makes ends of the connections of any endpoint.

    @param reactor: Tells time.
    @param arrived: Called with each end when bytes may pass.
    """

    noisy = False

    def __init__(self, reactor: Any, arrived: Callable[[Any], None]) -> None:
        self._reactor = reactor
        self._arrived = arrived

    def buildProtocol(self, addr: IAddress | None) -> Arriving | None:
        return Arriving(self._reactor, self._arrived)
