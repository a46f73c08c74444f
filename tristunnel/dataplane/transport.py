"""
The transport for an ordinary Twisted C{Protocol} on a
L{PolledSocket<tristunnel.dataplane.polled.PolledSocket>}: for HTTP, autobahn, a
session, or a protocol of the embedding program.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from socket import MSG_PEEK, SO_RCVLOWAT, SOL_SOCKET, socket
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from tristunnel.dataplane.described import DescribedSocket
from tristunnel.dataplane.following import FollowingSocket
from tristunnel.dataplane.pieces import NOTHING
from tristunnel.dataplane.poller import Poller

__all__ = ["SocketTransport"]


def _peek(connection: socket, most: int) -> bytes:
    return connection.recv(most, MSG_PEEK)


@implementer(ITCPTransport, IConsumer, IPushProducer)
class SocketTransport(FollowingSocket, DescribedSocket):
    """
    A transport. With TLS it also provides C{ISSLTransport} and C{INegotiated}, and
    tells an C{IHandshakeListener} when the handshake is complete.

    A half-close is passed on to an C{IHalfCloseableProtocol}. With any other protocol
    the connection is closed when the other side ends its direction, as in Twisted.

    @param peer: The other side's address; C{None} to ask the kernel.

    @ivar protocol: The protocol that it serves.
    @ivar disconnecting: Whether the connection is to be closed after what waits.
    @ivar producer: What is paused when too much waits, or C{None}.
    @ivar factory: What made the protocol, for the choice by ALPN.
    @ivar whenLost: Called with the reason when the connection is gone, after the
        protocol.
    """

    takesTLS = True
    """Whether TLS may be made on the socket C{connection}."""

    def __init__(
        self,
        poller: Poller,
        connection: socket,
        protocol: IProtocol,
        tls: SSL.Connection | None = None,
        peer: IAddress | None = None,
    ) -> None:
        super().__init__(poller, connection, tls)
        self.protocol: Any = protocol
        self.reactor = poller.reactor
        self.factory: IProtocolFactory | None = None
        self.disconnecting = False
        self.connected = True
        self._peer = peer
        self.producer: Any = None
        self._streaming = False
        self._paused = False
        self.whenLost: Callable[[Failure], None] | None = None
        if tls is not None:
            self._speakTLS(tls)

    def _speakTLS(self, tls: SSL.Connection) -> None:
        """Provide the interfaces of a transport with TLS."""
        self._tls = tls
        self._shaken = False
        tls.set_app_data(self)
        alsoProvides(self, ISSLTransport, INegotiated)

    def startTLS(self, tls: SSL.Connection, protocol: IProtocol) -> None:
        """
        Put TLS over the connection, before anything was read or written.

        @param tls: TLS over the same socket, before its handshake.
        @param protocol: The protocol from now on.
        """
        self.protocol = protocol
        self._speakTLS(tls)
        protocol.makeConnection(self)
        # It may fail at once; but nobody must hear that before they have the
        # connection.
        self._flushSoon()

    def peek(self, count: int) -> None:
        """
        Show the protocol what has arrived without consuming it: everything each time.

        @param count: How many bytes there must be; 0 to consume bytes from now on.
        """
        connection = self.connection
        self._recv = partial(_peek, connection) if count else connection.recv
        with suppress(OSError):
            connection.setsockopt(SOL_SOCKET, SO_RCVLOWAT, max(1, count))

    def retire(self) -> None:
        """Leave the socket to another owner; the protocol is told nothing."""
        self.connected = False
        self.disconnecting = True
        self.producer = None

    def begin(self) -> None:
        """Show the protocol its transport, and begin to read."""
        try:
            self.start()
        except OSError as problem:
            self.protocol.makeConnection(self)
            self.poller.close(self.connection)
            self.lost(Failure(problem))
        else:
            self.protocol.makeConnection(self)

    # PolledSocket

    def bytesReceived(self, data: bytes) -> None:
        """Bytes came."""
        self.protocol.dataReceived(data)

    def readEnded(self) -> None:
        """The other side sends no more."""
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is None or self._tls is not None:
            self._finishBoth()
        else:
            half.readConnectionLost()

    def writeEnded(self) -> None:
        """The other side knows that we send no more."""
        if not self.disconnecting:
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is not None:
                half.writeConnectionLost()

    def drained(self) -> None:
        """A producer that was told to pause may go on."""
        line = self._line
        if (
            line is not None
            and self._written - self._hadRoom >= line.atOnce
            and self._isBehind(line)
        ):
            return
        producer = self.producer
        if producer is not None and (self._paused or not self._streaming):
            self._paused = False
            producer.resumeProducing()

    def handshakeDone(self) -> None:
        """TLS is up."""
        listener = IHandshakeListener(self.protocol, None)
        if listener is not None:
            listener.handshakeCompleted()

    def lost(self, reason: Failure) -> None:
        """The connection is gone."""
        self.connected = False
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(reason)
        if self.whenLost is not None:
            self.whenLost(reason)

    # ITransport

    def write(self, data: bytes) -> None:
        """
        Send bytes, together with everything else that is written in this turn. As in
        Twisted, this is possible until the connection is actually closed.
        """
        if self._writeDone or not (self.connected and data):
            return
        if self._writeEnding and not self.disconnecting:
            return
        out = self._out
        if out is NOTHING:
            out = self._out = deque()
        out.append(data)
        self._written += (size := len(data))
        self.unsent = unsent = self.unsent + size
        if not (self._queued or self._kernelFull):
            self._queued = True
            self.poller.flushLater(self)
        if unsent > self.full and self._streaming and not self._paused:
            self._paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several pieces."""
        for piece in data:
            self.write(piece)

    def loseConnection(self) -> None:
        """Close the connection after what waits, once no producer is registered."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            if self.producer is None:
                self._closeAfterWrites()

    def _closeAfterWrites(self) -> None:
        """Close both directions when nothing waits any more."""
        self._readHeld = True
        self._writeEnding = True
        self._ask()
        if self._shaken:
            self._flushSoon()

    def _endNow(self) -> None:
        """End writing: everything that was written is sent."""
        if self.disconnecting:
            self._finishBoth()
        else:
            super()._endNow()

    def loseWriteConnection(self) -> None:
        """Send no more after what waits; with TLS, this ends both directions."""
        if self._tls is not None:
            self.loseConnection()
        elif self.connected:
            # Only after this call has returned, as it may end the connection.
            self._writeEnding = True
            self._flushSoon()

    def abortConnection(self) -> None:
        """
        Break the connection. The protocol, which may be the caller, is told in the
        reactor's next iteration, as in Twisted.
        """
        if self.connected:
            self.disconnecting = self._writeDone = True
            self.hold()
            self._out = NOTHING
            self.unsent = 0
            self.reactor.callLater(0, self.abort)

    # IPushProducer

    def pauseProducing(self) -> None:
        """Read no more."""
        self.hold()

    def resumeProducing(self) -> None:
        """Read again."""
        if self.connected and not self.disconnecting:
            self.resume()

    def stopProducing(self) -> None:
        """End the connection."""
        self.loseConnection()

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Have C{producer} paused when too much waits.

        @raise RuntimeError: If there is another one.
        """
        if self.producer is not None:
            raise RuntimeError("a producer is registered already")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer, self._streaming = producer, streaming
        self._paused = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Forget the producer; a close that waited for it goes on."""
        self.producer = None
        self._streaming = False
        if self.connected and self.disconnecting:
            self._closeAfterWrites()
