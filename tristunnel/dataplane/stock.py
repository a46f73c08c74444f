"""
What the end of a stream, or a session, needs from a transport of any kind.

An endpoint promises an C{ITransport} and no more. Connections by TCP, UNIX sockets and
TLS can be aborted and paused, and most of them half-closed; a child process, standard
input and output, an SSH channel or a transport in memory can do only some of that.
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
"""The most bytes that are kept from a transport that cannot be paused."""

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
        Abort the connection, or close it if the transport cannot do more. A child
        process that does not end when it loses its input and output is sent a signal.
        """
        transport = self.completes
        getattr(transport, "abortConnection", transport.loseConnection)()
        if IProcessTransport.providedBy(transport):
            with suppress(ProcessExitedAlready):
                transport.signalProcess("TERM")

    def loseWriteConnection(self) -> None:
        """Send no more. To be called only if L{canHalfClose}."""
        transport = self.completes
        if IProcessTransport.providedBy(transport):
            transport.closeStdin()
        else:
            transport.loseWriteConnection()

    def pauseProducing(self) -> None:
        """Read no more for now, if the transport can pause."""
        getattr(self.completes, "pauseProducing", _nothing)()

    def resumeProducing(self) -> None:
        """Read again."""
        getattr(self.completes, "resumeProducing", _nothing)()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Have C{producer} paused when too much is held, if the transport does that."""
        getattr(self.completes, "registerProducer", _nothing)(producer, streaming)

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        getattr(self.completes, "unregisterProducer", _nothing)()


def _nothing(*arguments: object) -> None:
    """The substitute for a missing method."""


def completed(transport: Any) -> Any:
    """
    Give a transport all the methods that the end of a stream calls.

    @param transport: An C{ITransport} that may lack all the others.
    @return: C{transport} itself if it lacks none.
    """
    if all(hasattr(transport, name) for name in _WANTED):
        return transport
    return _Completed(transport)


def canHalfClose(transport: Any) -> bool:
    """Whether one direction of what L{completed} returned can end on its own."""
    below = getattr(transport, "completes", transport)
    return hasattr(below, "loseWriteConnection") or IProcessTransport.providedBy(below)


def canPause(transport: Any) -> bool:
    """Whether what L{completed} returned stops reading when it is asked to."""
    return hasattr(getattr(transport, "completes", transport), "pauseProducing")


def _socketOf(transport: Any) -> socket | None:
    """Find the socket below all the layers of a transport."""
    while transport is not None:
        found = getattr(transport, "connection", None) or getattr(
            transport, "socket", None
        )
        if isinstance(found, socket):
            return found
        transport = transport.__dict__.get("transport")
    return None


def tuneSocket(transport: Any) -> None:
    """If there is a socket, send small pieces at once, and notice a dead peer."""
    below = _socketOf(transport)
    if below is not None and ITCPTransport.providedBy(transport):
        tuning.tuneSocket(below)


def boundUnsent(transport: Any) -> None:
    """
    Keep the kernel from queueing more than the line takes in a moment, where that can
    be measured; see L{LineRate<tristunnel.dataplane.line.LineRate>}.
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
    How many bytes the far side has received so far.

    @param transport: Any transport. One that is on top of another, but is not one of
        Twisted's layers, must have a method of this name.
    @return: C{None} if it is not known.
    """
    own = getattr(transport, "bytesTaken", None)
    if own is not None:
        taken: int | None = own()
        return taken
    below = _socketOf(transport)
    return None if below is None else tuning.bytesTaken(below)


def unsent(transport: Any) -> int:
    """
    How much of what was written to a connection its peer has not received.

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
