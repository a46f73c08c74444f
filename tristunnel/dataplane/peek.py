"""
Looking at what a connection says first without taking it, so that whoever it is handed
to has all of it, in the kernel where that is ours: TLS on the socket and splicing work
as if nobody had looked.
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
"""Seconds until the next look, when the kernel reports that there is more and there is
not: the other side sends no more, or memory is short."""


class Peeking(ABC, Protocol):
    """
    Shows the first bytes of a connection, all of them each time that there are more,
    until it is handed over.

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
        For subclasses: bytes came.

        @param data: All that came so far.
        @return: How many there must be for another call to make sense. What is
            returned after L{handOver}, or an end of the connection, does not matter.
        """

    @abstractmethod
    def left(self, reason: Failure) -> None:
        """For subclasses: the connection is over before it was handed over."""

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
        Take bytes that were shown: they are for nobody else.

        @param count: How many; all of them by default.
        """
        count = len(self._seen) if count is None else count
        if count and isinstance(self.transport, SocketTransport):
            # The kernel has them, or the connection is gone.
            with suppress(OSError):
                self.transport.connection.recv(count)
        self._seen = self._seen[count:]

    def handOver(self, protocol: Any) -> None:
        """
        Let another protocol have the connection, from its first byte on.

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
        # What lies between, as behind a balancer, goes on to call this one.
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
