"""
Closing a connection whose peer may not take what it was sent.

A transport's C{loseConnection} waits until all that was written is gone, and
over TLS until the peer has answered, however long that takes. Whoever closes a
connection, or waits for one to take an answer, does it with a deadline of this
module.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.dataplane.stock import unsent

__all__ = ["SLOWEST", "WriteDeadline"]

SLOWEST = 64
"""Bytes per second that a patient deadline asks for."""


class WriteDeadline:
    """
    Cuts a connection off whose peer does not take what was written.

    @param reactor: Tells time.
    @param transport: The connection.
    @param seconds: Seconds in which the peer must take everything; then its
        owner must have cancelled this, in C{connectionLost} for example.
    @param patient: Whether it is enough to take something in each such time,
        at L{SLOWEST} bytes per second.
    """

    __slots__ = ("_call", "_left", "_patient", "_reactor", "_seconds", "_transport")

    def __init__(
        self,
        reactor: IReactorTime,
        transport: Any,
        seconds: float,
        patient: bool = False,
    ) -> None:
        self._reactor = reactor
        self._transport = transport
        self._seconds = seconds
        self._patient = patient
        self._left = unsent(transport) if patient else 0
        self._call: IDelayedCall | None = reactor.callLater(seconds, self._look)

    def close(self) -> None:
        """
        Close the connection after all that was written. Its owner must have this
        object by now: the connection may be gone before this returns.
        """
        self._transport.loseConnection()

    def _look(self) -> None:
        self._call = None
        left = unsent(self._transport) if self._patient else 0
        if self._left - left >= SLOWEST * self._seconds:
            self._left = left
            self._call = self._reactor.callLater(self._seconds, self._look)
        else:
            self._transport.abortConnection()

    def active(self) -> bool:
        """
        @return: Whether it may still cut the connection off.
        """
        return self._call is not None

    def cancel(self) -> None:
        """
        The connection is gone, or what was written is; doing it twice is no
        error.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
