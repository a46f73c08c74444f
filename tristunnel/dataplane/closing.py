"""
Closing a connection whose peer may not read what it was sent.

A transport's C{loseConnection} waits until everything that was written has left, and
over TLS until the peer has answered, however long that takes. So whoever closes a
connection, or waits for an answer to be read, sets a deadline from this module.
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
    Cuts off a connection whose peer does not read what was written.

    @param reactor: Tells time.
    @param transport: The connection.
    @param seconds: Seconds within which the peer must read everything, and the owner
        cancel this, in C{connectionLost} for example.
    @param patient: Whether it is enough that the peer reads at L{SLOWEST} bytes per
        second in each such period.
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
        Close the connection after everything that was written. Its owner must already
        hold this object: the connection may be gone before this method returns.
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
        Lift the deadline: the connection is gone, or everything written has left. Doing
        it twice is no error.
        """
        if self._call is not None:
            self._call.cancel()
            self._call = None
