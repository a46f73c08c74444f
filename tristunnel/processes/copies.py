"""
Listening sockets of which every process of a server has one.

Endpoints, whatever they put on top, ask their reactor to listen. Here are two that know
what that means for one server in several processes: the parent's opens a socket for
each member, and a member's takes what it was given.
"""

from __future__ import annotations

import socket as socketModule
from collections.abc import Callable
from dataclasses import dataclass, field
from socket import SOCK_STREAM, socket
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from zope.interface import implementer

from tristunnel.dataplane.acceptor import Acceptor, listeningSocket
from tristunnel.dataplane.addresses import addressOf
from tristunnel.dataplane.poller import Poller
from tristunnel.dataplane.reactor import PolledReactor
from tristunnel.errors import badOption
from tristunnel.util.platform import AF_UNIX

__all__ = ["KINDS", "Copied", "CopyingReactor", "InheritingReactor", "checkCopied"]

KINDS = ("tcp", "tcp6", "ssl", "tls", "unix", "systemd")
"""Endpoints of which there can be copies, also behind C{haproxy:}."""


def checkCopied(option: str, description: str) -> None:
    """
    @raise TunnelError: C{bad-option}, for an endpoint of which there can be no copies:
        an onion service, or one of another package.
    """
    kind = description.removeprefix("haproxy:").partition(":")[0]
    if not kind.isdecimal() and kind not in KINDS:
        raise badOption(
            f"{option} {description!r} cannot be used with --processes: write one of"
            f" {', '.join(KINDS)}, or leave --processes out"
        )


@implementer(IListeningPort)
@dataclass
class Copied:
    """
    A place to listen at, in the parent.

    @ivar sockets: One for each member, by its index. The kernel chooses by the
        visitor's address which one gets a connection; all may be the same socket, from
        which the fastest member accepts.
    @ivar whenStopped: Called once when nobody is to listen any more.
    """

    sockets: list[socket] = field(default_factory=list)
    whenStopped: Callable[[], Any] = lambda: None

    def startListening(self) -> None:
        """It listens already."""

    def stopListening(self) -> Any:
        sockets, self.sockets = self.sockets, []
        for each in sockets:
            each.close()
        return self.whenStopped() if sockets else None

    def getHost(self) -> IAddress:
        return addressOf(self.sockets[0].family, self.sockets[0].getsockname())


class CopyingReactor:
    """
    A reactor that does not accept what it listens for.

    @param reactor: Twisted's own, which is asked for everything else.
    @param count: How many members there are.

    @ivar places: Where it listens, in the order in which that was asked for.
    """

    def __init__(self, reactor: Any, count: int) -> None:
        self.places: list[Copied] = []
        self._reactor = reactor
        self.count = count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> Copied:
        """
        Listen on a TCP port, once for each member.

        @raise CannotListenError: If it cannot be had.
        """
        place = Copied()
        try:
            for _ in range(self.count):
                made = listeningSocket(interface or "0.0.0.0", port, backlog, True)
                place.sockets.append(made)
                port = made.getsockname()[1]
        except OSError as problem:
            place.stopListening()
            raise CannotListenError(interface, port, problem) from None
        return self._made(place)

    def listenUNIX(self, address: str, factory: Any, *how: Any, **more: Any) -> Copied:
        """Listen on a UNIX socket, of which there is only one."""
        port = self._reactor.listenUNIX(address, factory, *how, **more)
        port.stopReading()
        place = self._sharing(port.fileno(), AF_UNIX)
        place.whenStopped = port.stopListening
        return place

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Any
    ) -> Copied:
        """Adopt a socket that somebody else has opened, such as systemd."""
        return self._sharing(fileDescriptor, addressFamily)

    def _sharing(self, number: int, family: int) -> Copied:
        first = socketModule.fromfd(number, family, SOCK_STREAM)
        first.setblocking(False)
        others = [first.dup() for _ in range(self.count - 1)]
        return self._made(Copied([first, *others]))

    def _made(self, place: Copied) -> Copied:
        self.places.append(place)
        return place


class InheritingReactor(PolledReactor):
    """
    A member's reactor: it listens on the sockets that it was given, whatever it is
    asked for.

    @param poller: Where sockets wait.
    @param inherited: The listening sockets, in the order in which the parent has
        opened them.
    """

    def __init__(self, poller: Poller, inherited: list[socket]) -> None:
        super().__init__(poller)
        self._inherited = inherited
        self._factories: list[Any] = []
        self._others: dict[tuple[int, int], Acceptor] = {}
        self._isLeaving = False

    def _next(self, factory: Any) -> Acceptor:
        mine = self._inherited[len(self._factories)]
        self._factories.append(factory)
        return self._listen(mine, factory)

    def listenTCP(self, port: int, factory: Any, *how: Any, **more: Any) -> Acceptor:
        """Listen on the next port."""
        return self._next(factory)

    def listenUNIX(self, address: str, factory: Any, *how: Any, **more: Any) -> Any:
        """Listen on the next UNIX socket."""
        return self._next(factory)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Any
    ) -> Acceptor:
        """Listen on the next one that was opened by somebody else."""
        return self._next(factory)

    # For a member that is gone

    def standIn(self, member: int, sockets: list[socket]) -> None:
        """Accept what comes to another member's sockets, too."""
        known = 0 if self._isLeaving else len(self._factories)
        for index, each in enumerate(sockets):
            if index < known and (member, index) not in self._others:
                accepting = self._acceptor(each, self._factories[index])
                self._others[member, index] = accepting
                accepting.startListening()
            else:
                each.close()

    def standBack(self, member: int) -> None:
        """Stop accepting for a member that is back. It may be called twice."""
        for key in [key for key in self._others if key[0] == member]:
            self._others.pop(key).stopListening()

    def leave(self) -> None:
        """Stop accepting for other members, for good."""
        self._isLeaving = True
        for accepting in self._others.values():
            accepting.stopListening()
        self._others.clear()
