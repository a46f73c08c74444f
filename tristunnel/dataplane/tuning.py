"""
The options that are set on sockets.

Connections inherit the options of the listening TCP socket that accepts them, so what
is set there costs nothing per connection.
"""

from __future__ import annotations

import socket as socketModule
import sys
from contextlib import suppress
from socket import (
    IPPROTO_TCP,
    SO_KEEPALIVE,
    SO_LINGER,
    SOL_SOCKET,
    TCP_NODELAY,
    socket,
)
from struct import error, pack, unpack_from

from tristunnel.util.descriptor_calls import bytesOutgoing

__all__ = [
    "TCP_NOTSENT_LOWAT",
    "UNSENT",
    "boundUnsent",
    "bytesTaken",
    "bytesUnsent",
    "bytesUntaken",
    "paceAt",
    "resetIfKilled",
    "roundTrips",
    "tuneSocket",
]

TCP_NOTSENT_LOWAT = 0x201 if sys.platform == "darwin" else 25
"""An option of TCP sockets that Python does not define on every system."""

UNSENT = 256 * 1024
"""Bytes of a session that the kernel may hold unsent."""

_ROUND_TRIP, _ACKNOWLEDGED, _NOT_SENT, _LEAST, _INFO_SIZE = 68, 120, 144, 148, 152
"""Where Linux's C{tcp_info} has C{tcpi_rtt}, C{tcpi_bytes_acked}, C{tcpi_notsent_bytes}
and C{tcpi_min_rtt}, and the end of these."""

_MICROSECONDS = 1e-6

_MAX_PACING_RATE = 47
"""C{SO_MAX_PACING_RATE} of Linux, which Python does not name."""

_ANY_RATE = 0xFFFFFFFF

_PROBES = [
    (getattr(socketModule, name), value)
    for name, value in (
        # Seconds of silence, seconds between probes, and the number of probes: a silent
        # peer is noticed after two minutes, not after two hours.
        ("TCP_KEEPIDLE", 60),
        ("TCP_KEEPINTVL", 15),
        ("TCP_KEEPCNT", 4),
    )
    if hasattr(socketModule, name)
]

_AT_ONCE, _IN_ORDER = pack("ii", 1, 0), pack("ii", 0, 0)


def tuneSocket(connection: socket) -> None:
    """Send small pieces at once, and notice a dead peer."""
    # A UNIX socket has none of these, and some systems lack some of them.
    with suppress(OSError):
        connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        connection.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
        for option, value in _PROBES:
            connection.setsockopt(IPPROTO_TCP, option, value)


def resetIfKilled(connection: socket, reset: bool = True) -> None:
    """
    Choose what the far side sees if this process is killed. By default, the kernel
    closes the connections of a dead process in good order, and half of a file looks
    like a whole one.

    @param reset: C{True} for a reset, as long as not everything is sent; C{False} for
        an orderly end. With C{True}, an orderly close would lose what is in transit.
    """
    # Not C{suppress}, which costs more than the call, and this is for each connection.
    try:  # noqa: SIM105
        connection.setsockopt(SOL_SOCKET, SO_LINGER, _AT_ONCE if reset else _IN_ORDER)
    except OSError:
        pass


def boundUnsent(connection: socket, most: int = UNSENT) -> None:
    """
    Keep the kernel from queueing much for a connection beyond what is in transit:
    nothing can overtake what waits there.
    """
    # It fails where this is not TCP, or neither Linux nor macOS.
    with suppress(OSError):
        connection.setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, most)


def paceAt(connection: socket, rate: float) -> None:
    """
    Have the kernel send no faster.

    @param rate: Bytes per second; 0 for as fast as it likes.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            most = pack("I", min(int(rate), _ANY_RATE) or _ANY_RATE)
            connection.setsockopt(SOL_SOCKET, _MAX_PACING_RATE, most)


def roundTrips(connection: socket) -> tuple[int, float, float] | None:
    """
    How the far side answers.

    @return: Bytes that it has taken so far, seconds that its answers take now, and what
        they have taken at the least; C{None} where that is not known.
    """
    info = _info(connection)
    if info is None or len(info) < _INFO_SIZE:
        return None
    return (
        int(unpack_from("Q", info, _ACKNOWLEDGED)[0]),
        unpack_from("I", info, _ROUND_TRIP)[0] * _MICROSECONDS,
        unpack_from("I", info, _LEAST)[0] * _MICROSECONDS,
    )


def bytesTaken(connection: socket) -> int | None:
    """
    How many bytes the kernel of the far side has acknowledged so far.

    @return: C{None} where that is not known: only Linux tells.
    """
    return _told(connection, "Q", _ACKNOWLEDGED)


def bytesUnsent(connection: socket) -> int | None:
    """
    How many bytes the kernel holds that it has never sent.

    @return: C{None} where that is not known: only Linux tells.
    """
    return _told(connection, "I", _NOT_SENT)


def _told(connection: socket, kind: str, place: int) -> int | None:
    """Read one of the numbers that Linux keeps for a connection."""
    info = _info(connection)
    with suppress(error):
        return None if info is None else int(unpack_from(kind, info, place)[0])
    return None


def _info(connection: socket) -> bytes | None:
    """What Linux tells of a connection; C{None} elsewhere."""
    with suppress(OSError, AttributeError):
        return connection.getsockopt(IPPROTO_TCP, socketModule.TCP_INFO, _INFO_SIZE)
    return None


def bytesUntaken(connection: socket) -> int:
    """
    How many bytes the kernel holds that the far side has not acknowledged. Only this
    shows a reader that reads less than the kernel's buffers hold.

    @return: 0 where that is not known.
    """
    # The connection may be gone, and has no descriptor then.
    with suppress(OSError, ValueError):
        return bytesOutgoing(connection.fileno())
    return 0
