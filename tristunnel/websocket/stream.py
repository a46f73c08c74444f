"""
A WebSocket as a byte stream: a transport for any Twisted protocol.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.following import FULL
from tristunnel.dataplane.stock import bytesTaken
from tristunnel.errors import TunnelError
from tristunnel.websocket.codes import UNSUPPORTED
from tristunnel.websocket.connection import Connection

__all__ = ["ByteStream"]


@implementer(ITransport, IPushProducer)
class ByteStream:
    """
    Binary messages as a stream; their boundaries have no meaning.

    The L{Receiver<tristunnel.websocket.connection.Receiver>} of a connection,
    and the transport of the protocol above.

    @param protocol: What speaks over it.

    @ivar disconnecting: Whether it is about to be closed by this side.
    """

    def __init__(self, protocol: IProtocol) -> None:
        self.disconnecting = False
        self._protocol: Any = protocol
        self._connection: Any = None

    # Receiver

    def opened(self, connection: Connection) -> None:
        self._connection = connection
        self._protocol.makeConnection(self)

    def bytesReceived(self, data: bytes) -> None:
        if data and not self.disconnecting and self._protocol is not None:
            self._protocol.dataReceived(data)

    def textReceived(self, text: bytes) -> None:
        self._connection.fail(
            TunnelError("protocol-error", "this protocol uses binary messages"),
            UNSUPPORTED,
        )

    def closeReceived(self, reason: TunnelError | None) -> None:
        """
        Nothing more comes, and nothing more can be sent. The connection's end follows,
        unless our consent is lost on its way.
        """
        if not self.disconnecting:
            self._lost(reason)

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        self._lost(reason)

    def _lost(self, reason: TunnelError | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            why: Exception = ConnectionDone()
            if reason is not None:
                why = ConnectionLost(reason.message)
            protocol.connectionLost(Failure(why))

    @property
    def full(self) -> int:
        """The number of waiting bytes at which a producer is told to pause."""
        return int(getattr(self._connection.transport, "full", FULL))

    @property
    def gone(self) -> bool:
        """Whether the connection is over."""
        return self._connection is None or bool(self._connection.gone)

    # ITransport

    def write(self, data: bytes) -> None:
        if not self.disconnecting:
            self._connection.sendBytes(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        if not self.disconnecting:
            self._connection.sendPieces(tuple(data))

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self._connection.close()
            if self._connection.paused:
                # The peer's consent to the close must be read.
                self._connection.resumeReading()

    def abortConnection(self) -> None:
        self.disconnecting = True
        self._connection.abort()

    def stayQuiet(self, seconds: float) -> None:
        """Send no pings for a while, and expect none."""
        self._connection.stayQuiet(seconds)

    def bytesTaken(self) -> int | None:
        """
        The number of bytes that the far side has taken, or C{None} if it is not known.
        """
        return bytesTaken(self._connection.transport)

    def getPeer(self) -> Any:
        return self._connection.peerAddress

    def getHost(self) -> Any:
        return self._connection.transport.getHost()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._connection.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._connection.unregisterProducer()

    # IPushProducer

    def pauseProducing(self) -> None:
        self._connection.pauseReading()

    def resumeProducing(self) -> None:
        self._connection.resumeReading()

    def stopProducing(self) -> None:
        self.loseConnection()
