"""
What we know of the insides of Twisted's transports.

Bytes can pass from socket to socket faster than through C{dataReceived} and
C{write}, as long as the transports do not hold some that must go first. What
they hold is told by attributes that only Twisted's own classes have; this is
the one module that reads them.
"""

from __future__ import annotations

import socket as socketModule
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from socket import IPPROTO_TCP, SHUT_WR, SO_LINGER, SOL_SOCKET, socket
from struct import error, pack, unpack_from
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure

from tristunnel.dataplane.gathering import GATHERED

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # pragma: no cover - Windows
    ioctl = None  # type: ignore[assignment]

try:
    from twisted.internet.tcp import Connection
except ImportError:  # pragma: no cover - where there are no sockets
    Connection = None  # type: ignore[assignment,misc]

__all__ = [
    "PlainSink",
    "boundUnsent",
    "breakIfKilled",
    "bytesTaken",
    "canHandOver",
    "closeNow",
    "finishNow",
    "handOver",
    "holdsNothing",
    "kernelSocket",
    "probeSoon",
    "sinkFor",
    "unsent",
]

TCP_NOTSENT_LOWAT = 0x201 if sys.platform == "darwin" else 25
"""An option of TCP sockets that Python does not name everywhere."""

_ACKNOWLEDGED, _INFO_SIZE = 120, 128
"""Where Linux's C{tcp_info} has C{tcpi_bytes_acked}, and its end."""

UNSENT = 256 * 1024
"""Bytes of a session that the kernel may hold and not have sent yet."""

AT_ONCE = 16 * 1024
"""Bytes that are gathered before they are handed to the kernel."""

PIECES = 4
"""Pieces that are gathered before they are sent: with fewer, the kernel is
asked more often; with more, the peer has nothing to do meanwhile."""

MOST_PIECES = 1024
"""Pieces that the kernel takes at once (C{IOV_MAX})."""

_PROBES = [
    (getattr(socketModule, name), value)
    for name, value in (
        # Seconds of silence, seconds between questions, and how many of them.
        ("TCP_KEEPIDLE", 60),
        ("TCP_KEEPINTVL", 15),
        ("TCP_KEEPCNT", 4),
    )
    if hasattr(socketModule, name)
]

_AT_ONCE, _IN_ORDER = pack("ii", 1, 0), pack("ii", 0, 0)

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


def unsent(transport: Any) -> int:
    """
    How much of what was written to a connection its peer has not taken.

    @param transport: A TCP or UNIX connection, or TLS over one.
    @return: Bytes in our buffers and in the kernel's, as far as they are known.
    """
    held: int = sum(map(len, getattr(transport, "_appSendBuffer", ())))
    below = _connectionBelow(transport)
    if below is None:
        return held
    held += int(len(below.dataBuffer) - below.offset + below._tempDataLen)
    if ioctl is not None:
        amount = array("i", [0])
        # A reader that takes less than the kernel holds is seen only there. A
        # connection that is gone has no socket.
        with suppress(AttributeError, OSError, ValueError):
            ioctl(below.socket.fileno(), TIOCOUTQ, amount)
        held += amount[0]
    return held


def boundUnsent(transport: Any, most: int = UNSENT) -> None:
    """
    Keep the kernel from queueing much for a connection beyond what is under
    way: what waits there can be overtaken by nothing.

    @param transport: A TCP connection, or TLS over one.
    """
    below = _socketBelow(transport)
    # Not TCP, or not Linux or macOS.
    with suppress(OSError):
        if below is not None:
            below.setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, most)


def _connectionBelow(transport: Any) -> Any:
    """
    Find what is below all the layers of a transport; C{None} if that is no
    connection of Twisted's.
    """
    below = transport
    while Connection is not None and not isinstance(below, Connection):
        below = getattr(below, "transport", None)
        if below is None:
            return None
    return below


def _socketBelow(transport: Any) -> socket | None:
    """
    Find the socket that is below all the layers of a transport.
    """
    below = _connectionBelow(transport)
    return None if below is None else below.socket


def bytesTaken(transport: Any) -> int | None:
    """
    How many bytes the kernel of the far side has taken so far.

    @param transport: Any; one that is no layer of Twisted's, but stands on one,
        has a method of this name.
    @return: C{None} where that is not known: only Linux tells.
    """
    if hasattr(transport, "bytesTaken"):
        counted: int | None = transport.bytesTaken()
        return counted
    below = _socketBelow(transport)
    with suppress(OSError, error, AttributeError):
        if below is not None and sys.platform == "linux":
            info = below.getsockopt(IPPROTO_TCP, socketModule.TCP_INFO, _INFO_SIZE)
            acknowledged: int = unpack_from("=Q", info, _ACKNOWLEDGED)[0]
            return acknowledged
    return None


def probeSoon(transport: Any) -> None:
    """
    Have the kernel ask a silent peer for a sign of life after a minute, where
    by itself it would do so after two hours.

    @param transport: A TCP connection, or TLS over one.
    """
    below = _socketBelow(transport)
    if below is None:
        return
    for option, value in _PROBES:
        # Not TCP, or a system that knows no such option.
        with suppress(OSError):
            below.setsockopt(IPPROTO_TCP, option, value)


def breakIfKilled(plain: socket, broken: bool) -> None:
    """
    Choose what the other side sees if this process is killed: the kernel
    closes a dead process's connections in good order, so that half of a file
    looks like a whole one.

    @param broken: C{True} for a reset, until all is sent; C{False} for an end.
        With C{True} an orderly close would lose what is under way.
    """
    with suppress(OSError):
        plain.setsockopt(SOL_SOCKET, SO_LINGER, _AT_ONCE if broken else _IN_ORDER)


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
    A plain transport, with a short way to its socket.

    A transport copies what is written and asks the reactor when to send it. A
    socket that has room takes it without that: what is written in one turn of
    the reactor is handed over in one piece, and a large one at once. Only what
    the socket does not take goes the long way, by which producers are paused.

    @param transport: A transport that L{kernelSocket} knows.
    """

    __slots__ = (
        "_due",
        "_gathered",
        "_size",
        "_socket",
        "pauseProducing",
        "resumeProducing",
        "transport",
    )

    def __init__(self, transport: Any, plain: socket) -> None:
        self.transport = transport
        self.pauseProducing = transport.pauseProducing
        self.resumeProducing = transport.resumeProducing
        self._socket = plain
        self._due = False
        self._gathered: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """
        Send bytes.
        """
        self.writeSequence((data,))

    def writeSequence(self, data: Sequence[bytes]) -> None:
        """
        Send several pieces.
        """
        gathered = self._gathered
        if not gathered:
            if not self._mayPass:
                self.transport.writeSequence(data)
                return
            if not self._due:
                self._due = True
                if GATHERED.active:
                    GATHERED.add(self)
                else:
                    self.transport.reactor.callLater(0, self.turnOver)
        gathered.extend(data)
        self._size += len(data[-1])
        if self._size >= AT_ONCE or len(gathered) >= PIECES:
            self.flush()

    def turnOver(self) -> None:
        """
        Nothing more comes in this turn.
        """
        self._due = False
        self.flush()

    @property
    def _mayPass(self) -> bool:
        """
        Whether bytes may go past the transport.
        """
        transport = self.transport
        return (
            transport.connected
            and not transport.disconnecting
            and holdsNothing(transport)
        )

    def flush(self) -> None:
        """
        Send what was gathered in this turn.
        """
        gathered = self._gathered
        if gathered:
            self._gathered, self._size = [], 0
            self._send(gathered)

    def _send(self, data: Sequence[bytes]) -> None:
        """
        Hand pieces to the kernel, and to the transport what that does not
        take.
        """
        try:
            sent = self._socket.sendmsg(data[:MOST_PIECES])
        except OSError:
            # No room, or an error, which the transport will meet too.
            sent = 0
        if sent < sum(map(len, data)):
            self.transport.write(b"".join(data)[sent:])


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
