"""
What a killed program leaves of a UNIX socket, and how the next one starts all
the same.

Twisted locks a socket by the number of the process. A number that is another
program's by now, as it nearly always is when a container starts again, kept
the lock for ever.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from tristunnel.util.strings import splitEndpoint, withoutBrackets

__all__ = ["ClearedEndpoint", "clearLeftovers", "serverEndpoint"]

_ASK_TIME = 1.0


def clearLeftovers(path: str) -> None:
    """
    Remove a socket, and its lock, if nobody listens there.

    @param path: The socket's path; one that begins with a null byte is no
        file. What is there and no socket is left alone.
    """
    if not path or path.startswith("\0"):
        return
    with suppress(OSError):
        if stat.S_ISSOCK(os.stat(path).st_mode) and _isDeaf(path):
            # The lock first: whoever sees a socket without one will ask, too.
            _unlock(path)
            os.unlink(path)
            return
    with suppress(OSError):
        if not os.path.lexists(path) and os.readlink(_lockOf(path)) == str(os.getpid()):
            # We hold no lock yet, so it is that of a former life.
            _unlock(path)


def _lockOf(path: str) -> str:
    return f"{path}.lock"


def _unlock(path: str) -> None:
    lock = _lockOf(path)
    if os.path.islink(lock):
        os.unlink(lock)


def _isDeaf(path: str) -> bool:
    """
    Whether nobody listens at a socket. A program that is too busy to answer
    does listen.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_ASK_TIME)
        return probe.connect_ex(path) == errno.ECONNREFUSED


@implementer(IStreamServerEndpoint)
class ClearedEndpoint:
    """
    A UNIX socket's endpoint that is not stopped by what is left of an earlier
    one.

    @param endpoint: Listens.
    @param path: The socket's path.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, path: str) -> None:
        self._endpoint = endpoint
        self._path = path

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        clearLeftovers(self._path)
        listening: Deferred[IListeningPort] = self._endpoint.listen(factory)
        return listening


def serverEndpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """
    Have Twisted read an endpoint string, in which IPv6 addresses may have
    brackets. A UNIX socket's endpoint tidies up before it listens.

    @raise Exception: Whatever a parser raises.
    """
    endpoint: IStreamServerEndpoint = serverFromString(
        reactor, withoutBrackets(description)
    )
    prefix, parts, keywords = splitEndpoint(description)
    path = parts[0] if parts else keywords.get("address", "")
    if prefix != "unix" or not path:
        return endpoint
    return ClearedEndpoint(endpoint, path)
