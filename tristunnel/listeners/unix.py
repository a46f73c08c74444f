"""UNIX sockets for visitors, in a directory of the operator's choice."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.transport_end import Arriving, EndFactory
from tristunnel.errors import TunnelError, badOption
from tristunnel.interfaces import End
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import Reserve
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.endpoints import BACKLOG, clearStaleSocket
from tristunnel.util.words import isName

__all__ = ["MODE", "UNIXListener", "UNIXListeners", "checkDirectory", "parseMode"]

MODE = "660"
"""Who may connect to such a socket: its user and its group."""

_LONGEST_PATH = 107
"""Bytes that the kernel takes for the path of a socket (C{unix(7)})."""


def checkDirectory(path: str) -> None:
    """
    Make sure that nobody can replace the sockets in a directory.

    @raise TunnelError: C{bad-option}, if it is not a directory, or anybody may write
        there.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise badOption(f"--unix-directory {path}: {error.strerror}") from None
    if not (os.path.isabs(path) and stat.S_ISDIR(mode)):
        raise badOption(
            f"--unix-directory {path}: give the whole path of a directory, such as"
            " /run/tunnels"
        )
    if mode & stat.S_IWOTH:
        raise badOption(
            f"--unix-directory {path}: everybody may write there, so that anybody could"
            " put a socket in place of a tunnel's; chmod o-w, or take another"
        )


def parseMode(text: str) -> int:
    """
    Read who may connect.

    @param text: Three octal digits, as C{chmod} takes them.
    @raise TunnelError: C{bad-option}.
    """
    if not re.fullmatch("0?[0-7]{3}", text):
        raise badOption(f"--unix-mode {text!r} is not a mode; write for example 660")
    return int(text, 8)


class UNIXListener:
    """
    An L{IListener<tristunnel.model.place.IListener>} on a UNIX socket.

    @ivar uri: The address as visitors are told it.
    """

    def __init__(self, port: IListeningPort, path: str) -> None:
        self.uri = f"unix:{path}"
        self._port = port

    @property
    def address(self) -> tuple[str, str, int]:
        """The kind, no interface, and no port."""
        return "unix", "", 0

    def close(self) -> Awaitable[object]:
        """Stop listening, and remove the socket."""
        return maybeDeferred(self._port.stopListening)


class _Visitors(EndFactory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Arriving | None:
        try:
            RESERVE.checkSession()
        except TunnelError:
            # Without a protocol, the connection is closed.
            return None
        return super().buildProtocol(addr)


class UNIXListeners:
    """
    Opens UNIX sockets for visitors. A tunnel's name is that of its socket.

    @param reactor: Listens.
    @param directory: Where the sockets are, and nothing else.
    @param mode: Who may connect.

    @cvar portless: Whether its tunnels have no ports of their own.
    """

    portless = True

    def __init__(self, reactor: Any, directory: str, mode: int) -> None:
        self._reactor = reactor
        self._directory = directory
        self._mode = mode

    @returnsDeferred
    async def open(
        self,
        options: TunnelOptions,
        arrived: Callable[[End, str], None],
        reserve: Reserve,
    ) -> UNIXListener:
        """
        Listen for visitors.

        @param options: All that was asked of the tunnel; here its C{name} counts.
        @param arrived: Called with each visitor's end and address.
        @param reserve: Reserves a name among this server's processes; the socket's
            file and the tunnel's own name are enough here.
        @raise TunnelError: C{bad-option} or C{name-taken}.
        """
        if options.gate.knock:
            raise badOption(
                "visitors of a UNIX socket have no address that could be let in; leave"
                " knock out"
            )
        path = self._pathOf(options.name)
        clearStaleSocket(path)
        factory = _Visitors(self._reactor, lambda end: arrived(end, "unix"))
        try:
            port = self._reactor.listenUNIX(
                path, factory, BACKLOG, self._mode, wantPID=True
            )
        except CannotListenError as error:
            raise self._refusal(options.name, error.socketError) from None
        except OSError as error:
            raise self._refusal(options.name, error) from None
        return UNIXListener(port, path)

    def _pathOf(self, name: str) -> str:
        if not name or not isName(name) or name.startswith(".") or not name.isascii():
            raise badOption(
                "a UNIX socket has a name of letters, digits, '-', '_' and '.', which"
                " is a file in the directory that the server's operator has chosen:"
                " unix/app.sock"
            )
        path = os.path.join(self._directory, name)
        # The name of its lock is five characters longer.
        if len(os.fsencode(path)) + 5 > _LONGEST_PATH:
            raise badOption(f"the name {name!r} is too long for a UNIX socket here")
        return path

    def _refusal(self, name: str, error: Any) -> TunnelError:
        number = getattr(error, "errno", None)
        if number in (errno.EMFILE, errno.ENFILE):
            return TunnelError(
                "limit-reached", "the server has no file descriptor left"
            )
        if number in (errno.EADDRINUSE, None):
            return TunnelError(
                "name-taken",
                f"the socket {name} is in use on the server; choose another name",
            )
        return TunnelError(
            "not-permitted",
            f"the server cannot make the socket {name}: {os.strerror(number)}",
        )
