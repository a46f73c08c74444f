"""
What we know of the insides of Twisted's transports.

Bytes can pass from socket to socket faster than through C{dataReceived} and
C{write}, as long as the transports do not hold some that must go first. What
they hold is told by attributes that only Twisted's own classes have; this is
the one module that reads them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from socket import IPPROTO_TCP, SHUT_WR, socket
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure

try:
    from twisted.internet.tcp import Connection
except ImportError:  # pragma: no cover - where there are no sockets
    Connection = None  # type: ignore[assignment,misc]

__all__ = [
    "PlainSink",
    "boundUnsent",
    "canHandOver",
    "closeNow",
    "finishNow",
    "handOver",
    "holdsNothing",
    "kernelSocket",
    "sinkFor",
]

TCP_NOTSENT_LOWAT = 0x201 if sys.platform == "darwin" else 25
"""An option of TCP sockets that Python does not name everywhere."""

UNSENT = 256 * 1024
"""Bytes of a session that the kernel may hold and not have sent yet."""

AT_ONCE = 16 * 1024
"""Bytes from which on a write is handed to the kernel at once; smaller ones are
gathered by the transport until the reactor's next turn."""

_KNOWN = all(
    hasattr(FileDescriptor(object()), name)  # type: ignore[arg-type]
    for name in ("dataBuffer", "_tempDataLen", "_writeDisconnecting")
)


def kernelSocket(transport: Any) -> socket | None:
    """
    Find the socket behind a transport that adds nothing to it.

    @return: The socket of a plain TCP or UNIX connection; C{None} for TLS,
        WebSockets, wrappers, and for reactors that have other transports.
    """
    if (
        _KNOWN
        and Connection is not None
        and isinstance(transport, Connection)
        and not transport.TLS
    ):
        found: socket = transport.getHandle()
        return found
    return None


def closeNow(transport: Any) -> None:
    """
    Break a connection. A plain one is closed before this returns, and not in
    the reactor's next turn: until then a hundred others may be accepted, and
    descriptors can be short.
    """
    if kernelSocket(transport) is None:
        transport.abortConnection()
    else:
        transport.connectionLost(Failure(ConnectionAborted()))


def holdsNothing(transport: Any) -> bool:
    """
    Whether all that was written to a plain transport has been sent, so that
    who writes to its socket now overtakes nothing.
    """
    return not (transport.dataBuffer or transport._tempDataLen)


def boundUnsent(transport: Any, most: int = UNSENT) -> None:
    """
    Keep the kernel from queueing much for a connection beyond what is under
    way: what waits there can be overtaken by nothing.

    @param transport: A TCP connection, or TLS over one.
    """
    below = transport
    while Connection is not None and not isinstance(below, Connection):
        below = getattr(below, "transport", None)
        if below is None:
            return
    # Not TCP, or not Linux or macOS.
    with suppress(OSError):
        below.getHandle().setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, most)


def finishNow(transport: Any, plain: socket, tell: bool) -> None:
    """
    Send no more on a transport that holds nothing. The transport itself would
    ask the reactor first when that may be done.

    @param tell: Whether to tell the other side; a connection that is closed
        next does so by that.
    """
    transport._writeDisconnected = True
    if tell:
        # If it broke meanwhile, the transport will meet that.
        with suppress(OSError):
            plain.shutdown(SHUT_WR)


class PlainSink:
    """
    A plain transport, with a short way for what is large.

    A transport copies what is written and asks the reactor when to send it. A
    socket that has room takes a large piece now, uncopied; only what it does
    not take goes the long way, by which producers are paused.

    @param transport: A transport that L{kernelSocket} knows.
    """

    __slots__ = ("_socket", "pauseProducing", "resumeProducing", "transport", "write")

    def __init__(self, transport: Any, plain: socket) -> None:
        self.transport = transport
        self.write = transport.write
        self.pauseProducing = transport.pauseProducing
        self.resumeProducing = transport.resumeProducing
        self._socket = plain

    def writeSequence(self, data: Sequence[bytes]) -> None:
        """
        Send several pieces.
        """
        transport = self.transport
        if (
            len(data[-1]) >= AT_ONCE
            and transport.connected
            and not transport.disconnecting
            and holdsNothing(transport)
        ):
            try:
                sent = self._socket.sendmsg(data)
            except OSError:
                # No room, or an error, which the transport will meet too.
                pass
            else:
                whole = b"".join(data) if sent < sum(map(len, data)) else b""
                if whole:
                    transport.write(whole[sent:])
                return
        transport.writeSequence(data)


def sinkFor(transport: Any) -> Any:
    """
    Find the best way to write to a transport.

    @return: A L{PlainSink}, or the transport itself.
    """
    plain = kernelSocket(transport)
    return transport if plain is None else PlainSink(transport, plain)


def canHandOver(transport: Any) -> bool:
    """
    Whether L{handOver} works with a transport.
    """
    return kernelSocket(transport) is not None or hasattr(transport, "wrappedProtocol")


def handOver(transport: Any, protocol: Any) -> bool:
    """
    Let another protocol have a connection from now on.

    @return: C{False} if this kind of transport cannot do that.
    """
    if kernelSocket(transport) is not None:
        transport.protocol = protocol
    elif hasattr(transport, "wrappedProtocol"):
        # TLS, and what else is layered in Twisted's way.
        transport.wrappedProtocol = protocol
    else:
        return False
    return True
