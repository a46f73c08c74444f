"""
Accepting connections in batches.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SO_REUSEADDR,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.addresses import addressOf
from tristunnel.dataplane.poller import IN, Poller
from tristunnel.dataplane.tuning import tuneSocket
from tristunnel.util.endpoints import BACKLOG
from tristunnel.util.platform import NOT_INHERITED, SHARED

__all__ = ["BATCH", "PAUSE", "Acceptor", "listeningSocket"]

BATCH = 16
"""Connections that one port accepts in one turn of the reactor."""

PAUSE = 0.1
"""Seconds for which a port is not watched when the kernel has no room for another
connection: it would report the waiting ones again and again."""

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_GONE = (errno.ECONNABORTED, errno.EPERM, errno.EINTR, errno.EPROTO)


class _Spare:
    """
    A descriptor kept in reserve. When the process has no others left, it is given up so
    that a waiting connection can be accepted and closed at once, instead of waiting
    until some other connection ends.
    """

    def __init__(self) -> None:
        self._number = -1

    def turnAway(self, accept: Callable[[], tuple[socket, Any]]) -> bool:
        """
        Accept the next waiting connection and close it.

        @return: Whether there was a descriptor to do it with.
        """
        if self._number < 0:
            return False
        os.close(self._number)
        self._number = -1
        try:
            made, _ = accept()
        except BlockingIOError:
            return True
        except OSError:
            return False
        else:
            made.close()
            return True
        finally:
            self.keep()

    def keep(self) -> None:
        """Take a descriptor into reserve again, if there is one."""
        if self._number < 0:
            with suppress(OSError):
                self._number = os.open(os.devnull, os.O_RDONLY | NOT_INHERITED)


_SPARE = _Spare()


@implementer(IListeningPort)
class Acceptor:
    """
    A listening socket in the poller.

    Accepted connections inherit the options of the listening socket, so none of them
    costs a system call per connection.

    @param poller: Watches the socket.
    @param listening: The socket, which is already listening; this object closes it.
    @param accepted: Called with each connection, which is non-blocking, and with its
        peer's address as the kernel gives it.

    @ivar whenStopped: Called once when it has stopped listening; may return a Deferred.
    """

    _log = Logger()

    def __init__(
        self, poller: Poller, listening: socket, accepted: Callable[[socket, Any], None]
    ) -> None:
        self.connection = listening
        self._poller = poller
        self._accepted = accepted
        self._number = -1
        self._pause: Any = None
        self.whenStopped: Callable[[], Any] | None = None
        self._kind = int(listening.family), int(listening.type), listening.proto
        listening.setblocking(False)
        tuneSocket(listening)

    def startListening(self) -> None:
        """
        Start to accept connections.

        @raise OSError: If the kernel has no room to watch the socket.
        """
        number = self.connection.fileno()
        self._poller.add(number, self, IN)
        self._number = number
        _SPARE.keep()

    def stopListening(self) -> Deferred[None]:
        """Stop accepting, and close the socket, which frees the port."""
        number, self._number = self._number, -1
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        elif number >= 0:
            self._poller.remove(number)
        self._poller.close(self.connection)
        whenStopped, self.whenStopped = self.whenStopped, None
        closed = self._poller.whenClosed()
        if whenStopped is None:
            return closed
        return gatherResults([closed, maybeDeferred(whenStopped)]).addCallback(
            lambda results: None
        )

    def getHost(self) -> IAddress:
        return addressOf(self.connection.family, self.connection.getsockname())

    # Handler

    def ready(self, events: int) -> None:
        """Connections wait."""
        # What socket.accept() is built on. The latter asks for the kind of the socket
        # each time, and makes enumerations of the answers.
        below: Any = self.connection
        accept, accepted = below._accept, self._accepted
        family, kind, protocol = self._kind
        for _ in range(BATCH):
            try:
                number, peer = accept()
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno in _GONE:
                    continue
                if problem.errno not in _NO_ROOM:
                    raise
                if not _SPARE.turnAway(self.connection.accept):
                    self._rest()
                    return
                continue
            made = socket(family, kind, protocol, number)
            made.setblocking(False)
            try:
                accepted(made, peer)
            except Exception:
                self._log.failure("A connection could not be taken in")
                self._poller.close(made)
            if self._number < 0:
                return

    def _rest(self) -> None:
        """Stop watching until a descriptor may be free."""
        self._poller.remove(self._number)
        self._pause = self._poller.reactor.callLater(PAUSE, self._goOn)

    def _goOn(self) -> None:
        """Watch the socket again."""
        self._pause = None
        try:
            self._poller.add(self._number, self, IN)
        except OSError:
            self._pause = self._poller.reactor.callLater(PAUSE, self._goOn)

    def more(self) -> None:
        """Never asked for."""

    def flush(self) -> None:
        """There is nothing to flush."""

    def broken(self, reason: Failure) -> None:
        """The port itself is broken; connections that exist go on."""
        self.stopListening()


def listeningSocket(
    interface: str, port: int, backlog: int = BACKLOG, shared: bool = False
) -> socket:
    """
    Listen on a TCP port.

    @param interface: An address; C{"0.0.0.0"} and C{"::"} stand for all addresses of
        one family, and for none of the other.
    @param shared: Whether other processes of the same user may listen there, too; the
        kernel divides the connections among them.
    @raise OSError: If the port is not available.
    """
    family = AF_INET6 if ":" in interface else AF_INET
    made = socket(family, SOCK_STREAM)
    try:
        made.setblocking(False)
        if family == AF_INET6:
            made.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        made.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(SOL_SOCKET, SHARED, 1)
        made.bind((interface, port))
        made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made
