"""
A pair of sockets that carries the bytes of one connection between two processes of a
machine.
"""

from __future__ import annotations

import socket as socketModule
from collections.abc import Callable
from socket import socket
from typing import Any

from tristunnel.dataplane.poller import Poller
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.errors import TunnelError
from tristunnel.util.platform import AF_UNIX

__all__ = ["endOf", "passage"]


def passage() -> tuple[socket, socket]:
    """
    Make the two ends, which do not block: ours and theirs.

    @raise TunnelError: C{limit-reached}, without descriptors.
    """
    try:
        ours, theirs = socketModule.socketpair(AF_UNIX)
    except OSError as error:
        raise TunnelError("limit-reached", f"a passage: {error.strerror}") from None
    for each in (ours, theirs):
        each.setblocking(False)
    return ours, theirs


def endOf(
    poller: Poller,
    ours: socket,
    arrived: Callable[[Any], None],
    made: type[SocketEnd] = SocketEnd,
) -> None:
    """
    Make a stream's end of one of the two sockets. It is closed if that fails.

    @param arrived: Called with the end.
    @param made: Its class.
    @raise TunnelError: C{limit-reached}.
    """
    try:
        made(poller, ours, arrived).begin()
    except OSError as error:
        ours.close()
        raise TunnelError("limit-reached", f"a passage: {error.strerror}") from None
