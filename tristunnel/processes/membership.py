"""A member's links to its parent and its siblings."""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tristunnel.dataplane.poller import pollerOf
from tristunnel.errors import TunnelError
from tristunnel.processes.book import ParentsBook
from tristunnel.processes.channel import firstOf
from tristunnel.processes.copies import InheritingReactor
from tristunnel.processes.link import Asker, Link

__all__ = ["ANSWERED", "Membership"]

ANSWERED = 2.0
"""Seconds that a process that stops waits for its parent."""


class Membership:
    """
    One member among several.

    @param connection: The connection to the parent, whose first message is waited for.
    @raise OSError: If the parent has ended.

    @ivar index: Which member this is, from 0.
    @ivar count: How many there are.
    @ivar key: A secret that all of them share.
    @ivar name: The same as C{index}, as text.
    @ivar siblings: The other members that serve, by index.
    @ivar answers: What siblings may ask, by name.
    @ivar whenMet: Called when another member has come.
    @ivar stop: Called when the parent stops, or has ended.
    @ivar hurry: Called when the parent does not wait for streams any longer.
    @ivar allStop: Whether the others stop, too.
    """

    _log = Logger(namespace="tristunnel.server")

    parent: Link
    book: ParentsBook
    reactor: InheritingReactor

    def __init__(self, connection: socket) -> None:
        begin = firstOf(connection)
        said: Any = begin.head["params"]
        self.index: int = said["index"]
        self.count: int = said["count"]
        self.key: str = said["key"]
        self.name = str(self.index)
        self.siblings: dict[int, Link] = {}
        self.answers: dict[str, Callable[..., object]] = {}
        self.whenMet: Callable[[], object] = lambda: None
        self.stop: Callable[[], object] = lambda: None
        self.hurry: Callable[[], object] = lambda: None
        self._connection = connection
        self._inherited = begin.sockets
        self._copied: dict[str, list[socket]] = {}
        self._leaving = self.allStop = False

    def join(self, reactor: Any) -> InheritingReactor:
        """
        Begin to exchange messages with the parent.

        @param reactor: The process's.
        @return: A reactor that listens where the parent does.
        """
        poller = pollerOf(reactor)
        assert poller is not None
        self.reactor = InheritingReactor(poller, self._inherited)
        methods: dict[str, Callable[..., object]] = {
            "changed": lambda asker, change: self.book.changed(change),
            "meet": self._meet,
            "standIn": lambda asker, index: self.reactor.standIn(
                index, asker.message.sockets
            ),
            "standBack": lambda asker, index: self.reactor.standBack(index),
            "copied": self._copiesCame,
            "stop": lambda asker: self._allStop(),
            "hurry": lambda asker: self.hurry(),
        }
        reactor.addSystemEventTrigger("before", "shutdown", self._leave)
        self.parent = Link(reactor, self._connection, methods.get, self._parentLost)
        self.book = ParentsBook(self.parent, self.name)
        return self.reactor

    def ready(self) -> None:
        """Tell the parent that this member serves."""
        self.parent.tell("ready")

    def _leave(self) -> None:
        """The process ends."""
        self._leaving = True
        self.reactor.leave()

    def obey(self, stop: Callable[[], object]) -> None:
        """
        Set how this process is stopped.

        @param stop: Called when the parent stops or has ended; at once, if that has
            happened already.
        """
        self.stop = stop
        if self._leaving:
            stop()

    def stopOnce(self) -> None:
        """Stop, unless that has begun."""
        if not self._leaving:
            self._leaving = True
            self.stop()

    def _allStop(self) -> None:
        self.allStop = True
        self.stopOnce()

    def _parentLost(self, link: Link) -> None:
        if not self._leaving:
            self._log.error("The parent process has ended: so does this one")
        self._allStop()

    def leaving(self) -> Deferred[None]:
        """
        Have others accept connections in the place of this process, which stops.

        @return: Fires when they have been told, and all links to processes that take
            this one for present are in L{siblings}; or if the parent does not answer.
        """
        told: Deferred[Any] = self.parent.call("leaving", patience=ANSWERED)
        return told.addErrback(lambda failure: failure.trap(TunnelError) and None)

    # Siblings

    def elsewhere(self) -> tuple[str, ...]:
        """
        Where clients may go instead when this process stops: to others, which have the
        same ports.
        """
        if not self._leaving or self.allStop:
            return ()
        goesOn = any(not each.isLeaving for each in self.siblings.values())
        return ("",) if goesOn else ()

    def _meet(self, asker: Asker, index: int, isLeaving: bool) -> None:
        """
        Take the link to another member.

        @param isLeaving: Whether that one stops already.
        """
        before = self.siblings.pop(index, None)
        if before is not None:
            before.close()
        sockets = asker.message.sockets
        if sockets:
            link = self.siblings[index] = Link(
                self.reactor, sockets[0], self.answers.get, self._siblingLost, index
            )
            link.isLeaving = isLeaving
            self.whenMet()

    def _siblingLost(self, link: Link) -> None:
        if self.siblings.get(link.index) is link:
            del self.siblings[link.index]

    def sibling(self, index: int) -> Link:
        """
        Find another member.

        @raise TunnelError: C{session-lost}, if it is not there.
        """
        try:
            return self.siblings[index]
        except KeyError:
            raise TunnelError(
                "session-lost", f"process {index} of this server has ended"
            ) from None

    # Visitors' ports

    def keep(self, tunnel: str, lease: str, sockets: list[socket]) -> None:
        """
        Have the parent keep copies of a tunnel's sockets, so that its port outlives
        this process.

        @param sockets: Copied here.
        @raise TunnelError: C{limit-reached}.
        """
        try:
            copies = [each.dup() for each in sockets]
        except OSError as error:
            raise TunnelError("limit-reached", f"a port: {error.strerror}") from None
        self.parent.tell("keep", [tunnel, lease], b"", copies)

    def copies(self, tunnel: str) -> Deferred[list[socket]]:
        """Get copies of the sockets that the parent keeps for a tunnel."""

        def counted(count: int) -> list[socket]:
            return self._copied.pop(tunnel, [])

        asked: Deferred[Any] = self.parent.call("copies", [tunnel])
        return asked.addCallback(counted)

    def _copiesCame(self, asker: Asker, tunnel: str) -> None:
        for each in self._copied.pop(tunnel, ()):
            each.close()
        self._copied[tunnel] = asker.message.sockets
