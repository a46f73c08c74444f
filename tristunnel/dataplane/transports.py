"""
Transports that lack what a stream's end asks of its connection.

An endpoint promises an L{ITransport} and no more. TCP, UNIX sockets and TLS can
be aborted and paused, and most of them closed for one direction; a child
process, standard input and output, an SSH channel or a transport in memory can
do some of that.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from zope.interface import directlyProvides, providedBy

__all__ = ["MOST_UNASKED", "canHalfClose", "canPause", "completed"]

MOST_UNASKED = 4 * 1024 * 1024
"""Bytes taken from a transport that cannot be paused while nobody wants them."""

_WANTED = (
    "abortConnection",
    "loseWriteConnection",
    "pauseProducing",
    "registerProducer",
    "resumeProducing",
    "unregisterProducer",
)


class _Completed:
    """
    A transport, with a substitute for each method that it lacks.
    """

    def __init__(self, transport: Any) -> None:
        self.completes = transport
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.completes, name)

    def abortConnection(self) -> None:
        """
        Cut the connection, or close it where that is all there is. A process
        that does not end by losing its input and output is told to.
        """
        transport = self.completes
        getattr(transport, "abortConnection", transport.loseConnection)()
        if IProcessTransport.providedBy(transport):
            with suppress(ProcessExitedAlready):
                transport.signalProcess("TERM")

    def loseWriteConnection(self) -> None:
        """
        Send no more. Call it only where L{canHalfClose} says so.
        """
        transport = self.completes
        if IProcessTransport.providedBy(transport):
            transport.closeStdin()
        else:
            transport.loseWriteConnection()

    def pauseProducing(self) -> None:
        """
        Read no more for now, if there is a way.
        """
        getattr(self.completes, "pauseProducing", _nothing)()

    def resumeProducing(self) -> None:
        """
        Read again.
        """
        getattr(self.completes, "resumeProducing", _nothing)()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Have C{producer} paused while enough is held, if anybody looks.
        """
        getattr(self.completes, "registerProducer", _nothing)(producer, streaming)

    def unregisterProducer(self) -> None:
        """
        Forget the producer.
        """
        getattr(self.completes, "unregisterProducer", _nothing)()


def _nothing(*arguments: object) -> None:
    """
    What a transport does that lacks a method.
    """


def completed(transport: Any) -> Any:
    """
    Give a transport all methods that a stream's end calls.

    @param transport: An L{ITransport} that may lack all the others.
    @return: C{transport} itself if it lacks none.
    """
    if all(hasattr(transport, name) for name in _WANTED):
        return transport
    return _Completed(transport)


def canHalfClose(transport: Any) -> bool:
    """
    Whether one direction of what L{completed} returned can end by itself.
    """
    below = getattr(transport, "completes", transport)
    return hasattr(below, "loseWriteConnection") or IProcessTransport.providedBy(below)


def canPause(transport: Any) -> bool:
    """
    Whether what L{completed} returned reads no more when it is asked to.
    """
    return hasattr(getattr(transport, "completes", transport), "pauseProducing")
