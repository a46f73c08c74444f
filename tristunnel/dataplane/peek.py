"""
Looking at the first bytes of a connection without consuming them. Whoever the
connection is handed to gets all of them, and from the kernel if the socket is ours, so
TLS on the socket and splicing work as if nobody had looked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tristunnel.dataplane.transport import SocketTransport

__all__ = ["Peeking"]

PAUSE = 0.05
"""Seconds until the next attempt when the kernel reports more bytes but there are none:
the other side sends no more, or memory is short."""


class Peeking(ABC, Protocol):
    """
    Shows the first bytes of a connection until it is handed over: whenever more arrive,
    all of them from the beginning.

    @param reactor: Tells time.
    """

    transport: Any

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._seen = b""
        self._pause: IDelayedCall | None = None
        self._inner: Any = None

    @abstractmethod
    def seen(self, data: bytes) -> int:
        """
        For subclasses: called when bytes have arrived.

        @param data: All that have arrived so far.
        @return: How many there must be before the next call makes sense. The value is
            ignored after L{handOver}, and when the connection is over.
        """

    @abstractmethod
    def left(self, reason: Failure) -> None:
        """For subclasses: called if the connection ends before it is handed over."""

    def connectionMade(self) -> None:
        self._want(1)

    def _want(self, count: int) -> None:
        if isinstance(self.transport, SocketTransport):
            self.transport.peek(count)

    def dataReceived(self, data: bytes) -> None:
        if not isinstance(self.transport, SocketTransport):
            self._seen += data
        elif len(data) > len(self._seen):
            self._seen = data
        else:
            self.transport.pauseProducing()
            self._pause = self._reactor.callLater(PAUSE, self._goOn)
            return
        wanted = self.seen(self._seen)
        if self._inner is None:
            self._want(wanted)

    def _goOn(self) -> None:
        self._pause = None
        self.transport.resumeProducing()

    def skip(self, count: int | None = None) -> None:
        """
        Consume bytes that were shown, which nobody else needs.

        @param count: How many; all of them by default.
        """
        count = len(self._seen) if count is None else count
        if count and isinstance(self.transport, SocketTransport):
            # The kernel still has them, or the connection is gone.
            with suppress(OSError):
                self.transport.connection.recv(count)
        self._seen = self._seen[count:]

    def handOver(self, protocol: Any) -> None:
        """
        Hand the connection over to another protocol, from its first byte on.

        @param protocol: Its C{makeConnection} may put TLS over the transport, or make
            a stream's end of it.
        """
        transport, began = self.transport, self._seen
        self._seen = b""
        self._inner = protocol
        if isinstance(transport, SocketTransport):
            transport.peek(0)
            transport.protocol = protocol
            protocol.makeConnection(transport)
            return
        if getattr(transport, "protocol", None) is self:
            transport.protocol = protocol
        protocol.makeConnection(transport)
        # A wrapper in between, as behind a balancer, goes on calling this protocol.
        self.dataReceived = protocol.dataReceived  # type: ignore[method-assign] # as said
        protocol.dataReceived(began)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._inner is None:
            self.left(reason)
        else:
            self._inner.connectionLost(reason)
