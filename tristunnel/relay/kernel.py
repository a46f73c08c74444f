"""
What we know of the insides of Twisted's transports.

Bytes can pass from socket to socket faster than through C{dataReceived} and
C{write}, as long as the transports do not hold some that must go first. What
they hold is told by attributes that only Twisted's own classes have; this is
the one module that reads them.
"""

from __future__ import annotations

from socket import socket
from typing import Any

from twisted.internet.abstract import FileDescriptor

try:
    from twisted.internet.tcp import Connection
except ImportError:  # pragma: no cover - where there are no sockets
    Connection = None  # type: ignore[assignment,misc]

__all__ = ["holdsNothing", "kernelSocket"]

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


def holdsNothing(transport: Any) -> bool:
    """
    Whether all that was written to a plain transport has been sent, so that
    who writes to its socket now overtakes nothing.
    """
    return not (transport.dataBuffer or transport._tempDataLen)
