"""
What a stream's end, or a session, asks of a transport of any kind.

An endpoint promises an C{ITransport} and no more. TCP, UNIX sockets and TLS can
be aborted and paused, and most of them closed for one direction; a child process,
standard input and output, an SSH channel or a transport in memory can do some of
that.
"""

from __future__ import annotations

from contextlib import suppress
from socket import socket
from typing import Any

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport, ITCPTransport
from zope.interface import directlyProvides, providedBy

from tristunnel.dataplane import tuning

__all__ = [
    "MOST_UNASKED",
    "boundUnsent",
    "bytesTaken",
    "canHalfClose",
    "canPause",
    "completed",
    "tuneSocket",
    "unsent",
]

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
    """A transport, with a substitute for each method that it lacks."""

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
        """Send no more. Call it only where L{canHalfClose} says so."""
        transport = self.completes
        if IProcessTransport.providedBy(transport):
            transport.closeStdin()
        else:
            transport.loseWriteConnection()

    def pauseProducing(self) -> None:
        """Read no more for now, if there is a way."""
        getattr(self.completes, "pauseProducing", _nothing)()

    def resumeProducing(self) -> None:
        """Read again."""
        getattr(self.completes, "resumeProducing", _nothing)()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Have C{producer} paused while enough is held, if anybody looks."""
        getattr(self.completes, "registerProducer", _nothing)(producer, streaming)

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        getattr(self.completes, "unregisterProducer", _nothing)()


def _nothing(*arguments: object) -> None:
    """What a transport does that lacks a method."""


def completed(transport: Any) -> Any:
    """
    Give a transport all methods that a stream's end calls.

    @param transport: An C{ITransport} that may lack all the others.
    @return: C{transport} itself if it lacks none.
    """
    if all(hasattr(transport, name) for name in _WANTED):
        return transport
    return _Completed(transport)


def canHalfClose(transport: Any) -> bool:
    """Whether one direction of what L{completed} returned can end by itself."""
    below = getattr(transport, "completes", transport)
    return hasattr(below, "loseWriteConnection") or IProcessTransport.providedBy(below)


def canPause(transport: Any) -> bool:
    """Whether what L{completed} returned reads no more when it is asked to."""
    return hasattr(getattr(transport, "completes", transport), "pauseProducing")


def _socketOf(transport: Any) -> socket | None:
    """Find the socket that is below all the layers of a transport."""
    while transport is not None:
        found = getattr(transport, "connection", None) or getattr(
            transport, "socket", None
        )
        if isinstance(found, socket):
            return found
        transport = transport.__dict__.get("transport")
    return None


def tuneSocket(transport: Any) -> None:
    """Send small pieces at once, and notice a dead peer, where there is a socket."""
    below = _socketOf(transport)
    if below is not None and ITCPTransport.providedBy(transport):
        tuning.tuneSocket(below)


def boundUnsent(transport: Any) -> None:
    """
    Keep the kernel from queueing much: as much as the line takes in a moment,
    where that can be seen, see L{LineRate<tristunnel.dataplane.line.LineRate>}.
    """
    follow = getattr(transport, "followLine", None)
    if follow is not None:
        follow()
        return
    below = _socketOf(transport)
    if below is not None:
        tuning.boundUnsent(below)


def bytesTaken(transport: Any) -> int | None:
    """
    How many bytes the far side has taken so far.

    @param transport: Any; one that is no layer of Twisted's, but stands on one,
        has a method of this name.
    @return: C{None} where that is not known.
    """
    own = getattr(transport, "bytesTaken", None)
    if own is not None:
        taken: int | None = own()
        return taken
    below = _socketOf(transport)
    return None if below is None else tuning.bytesTaken(below)


def unsent(transport: Any) -> int:
    """
    How much of what was written to a connection its peer has not taken.

    @param transport: A connection of ours or of Twisted's, or TLS over one.
    @return: Bytes in our buffers and in the kernel's, as far as they are known.
    """
    held = sum(map(len, getattr(transport, "_appSendBuffer", ())))
    below = transport
    while below is not None and not hasattr(below, "dataBuffer"):
        if hasattr(below, "unsent"):
            held += below.unsent
            break
        below = below.__dict__.get("transport") if hasattr(below, "__dict__") else None
    if hasattr(below, "dataBuffer"):
        held += len(below.dataBuffer) - below.offset + below._tempDataLen
    connection = _socketOf(transport)
    return held if connection is None else held + tuning.bytesUntaken(connection)
