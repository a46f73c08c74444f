"""
The sockets of the data plane, registered in one nested epoll instance.

A reactor looks up, guards and logs each event separately. For a request of a hundred
bytes, that costs more than receiving and sending it. Here the kernel returns the events
as one list, and the reactor sees one descriptor only. One list is one I{turn}. Three
rules keep a turn sound:

  - A descriptor is closed at the end of the turn, never within it. The kernel may give
    the number of a closed one to the next connection at once, while the turn's list may
    still hold an event for the old one.
  - A socket that was removed gets no event, even if the list holds one.
  - An exception from one socket's code ends that socket, is logged once, and affects no
    other.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from socket import socket
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.posixbase import PosixReactorBase
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.memory import keepFreed
from tristunnel.dataplane.records import Records

__all__ = ["ERRORS", "IN", "LONG_READ", "OUT", "READ", "Handler", "Poller", "pollerOf"]

IN: int = getattr(select, "EPOLLIN", 1)
OUT: int = getattr(select, "EPOLLOUT", 4)
ERRORS: int = getattr(select, "EPOLLERR", 8) | getattr(select, "EPOLLHUP", 16)

READ = 64 * 1024 - 64
"""The most bytes that are read from one socket in one turn. With the headers of a frame
and of a WebSocket message they fill four TLS records, and need no fifth one for a few
bytes."""

LONG_READ = 256 * 1024 - 64
"""The same after a turn in which there were more bytes than that. Large reads cost half
as much per byte, but allocating so much memory for a few bytes would be a waste."""

MOST_EVENTS = 16
"""The most sockets that are served in one turn; the kernel begins with the next ones in
the following turn. What is gathered for a session is sent at the end of a turn, so with
more sockets the other side would be idle in the meantime, and then get everything at
once."""

TURNS = 4
"""The most turns in a row, while there is something to do, before the rest of the
reactor has its turn."""


class Gatherer(Protocol):
    """Gathers what is written during a turn, and sends it when the turn ends."""

    def flush(self) -> None:
        """Called when the turn ends, to send what was gathered."""

    def broken(self, reason: Failure) -> None:
        """
        Called when a method of this object has raised an exception, to end the
        connection. Must not raise.
        """


class Handler(Gatherer, Protocol):
    """A socket's owner."""

    def ready(self, events: int) -> None:
        """
        Called with the events that the kernel reports.

        @param events: Any of L{IN}, L{OUT} and L{ERRORS}.
        """

    def more(self) -> None:
        """Called to do what was left for the next turn."""


@implementer(IReadDescriptor)
class Poller:
    """
    A nested epoll instance, which the reactor sees as one descriptor. While no socket
    is registered, it has no descriptor at all.

    @param reactor: Watches the instance's descriptor, and tells time.
    @param makePoll: Makes an epoll instance.

    @ivar reactor: The same.
    @ivar records: Reads and writes the TLS records of its sockets.
    @ivar busy: The numbers of those that had much to read the last time.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, makePoll: Callable[[], Any] = lambda: select.epoll()
    ) -> None:
        self.reactor = reactor
        keepFreed()
        self.records = Records(LONG_READ)
        self.busy: set[int] = set()
        self._otherAt = float("-inf")
        self._makePoll = makePoll
        self._poll: Any = None
        self._handlers: dict[int, Handler] = {}
        self._inTurn = False
        self._flushing: list[Gatherer] = []
        self._closing: list[socket] = []
        self._closed: list[Deferred[None]] = []
        self._later: list[Handler] = []
        self._laterCall: Any = None

    def __len__(self) -> int:
        return len(self._handlers)

    # Sockets

    def add(self, number: int, handler: Handler, events: int) -> None:
        """
        Watch a descriptor.

        @raise OSError: If the kernel has no room for it; nothing has changed then.
        """
        if self._poll is None:
            self._poll = self._makePoll()
        if not self._inTurn:
            # Every time, because a reactor can be told to forget all its readers.
            self.reactor.addReader(self)
        try:
            self._poll.register(number, events)
        except OSError:
            self._dropIfEmpty()
            raise
        self._handlers[number] = handler

    def change(self, number: int, events: int) -> None:
        """Watch a descriptor for other events; C{0} still reports L{ERRORS}."""
        self._poll.modify(number, events)

    def remove(self, number: int) -> None:
        """Stop watching a descriptor."""
        if self._handlers.pop(number, None) is not None:
            self.busy.discard(number)
            # Not C{suppress}, which costs more than the call.
            try:  # noqa: SIM105
                self._poll.unregister(number)
            except OSError:
                # The kernel has forgotten a descriptor that was closed already.
                pass
            if not self._inTurn:
                self._dropIfEmpty()

    def replace(self, number: int, handler: Handler) -> None:
        """Give a watched descriptor another owner."""
        self._handlers[number] = handler

    def close(self, connection: socket) -> None:
        """Close a socket that was removed, at the latest when the turn ends."""
        if self._inTurn:
            self._closing.append(connection)
        else:
            connection.close()

    def whenClosed(self) -> Deferred[None]:
        """Wait until all sockets that are waiting to be closed are closed."""
        if not self._inTurn:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._closed.append(waiting)
        return waiting

    def _dropIfEmpty(self) -> None:
        """Close the instance's descriptor if no socket needs it."""
        if self._poll is not None and not self._handlers:
            self.reactor.removeReader(self)
            self._poll.close()
            self._poll = None

    # Turns

    def flushLater(self, handler: Gatherer) -> None:
        """
        Have C{handler.flush} called when this turn ends; outside a turn, in the
        reactor's next iteration. May be called only once until then.
        """
        self._flushing.append(handler)
        if not self._inTurn:
            self._schedule()

    def again(self, handler: Handler) -> None:
        """
        Have C{handler.more} called in the next turn, even if the kernel has nothing to
        report: bytes that were already read are waiting.
        """
        self._later.append(handler)
        self._schedule()

    def _schedule(self) -> None:
        """Schedule a turn, whether or not the kernel reports anything."""
        if self._laterCall is None or not self._laterCall.active():
            self._laterCall = self.reactor.callLater(0, self._turnByTimer)

    def _turnByTimer(self) -> None:
        """A turn without events."""
        self._laterCall = None
        self._turn(())

    def doRead(self) -> None:
        """
        Serve what the kernel reports. It is asked again before the reactor goes on,
        since an iteration of the reactor costs as much as serving a small request.
        """
        for _ in range(TURNS):
            events = self._poll.poll(0, MOST_EVENTS)
            if events:
                self._turn(events)
            if not events or self._poll is None or self._laterCall is not None:
                return

    def _turn(self, events: Any) -> None:
        """Serve the sockets that are ready."""
        self._inTurn = True
        if self.busy and events:
            events = sorted(events, key=self._isForBulk)
            if not self._isForBulk(events[0]):
                self._otherAt = self.reactor.seconds()
        find = self._handlers.get
        for number, event in events:
            handler = find(number)
            if handler is not None:
                try:
                    handler.ready(event)
                except Exception:
                    self._broken(handler)
        if self._later:
            later, self._later = self._later, []
            for handler in later:
                try:
                    handler.more()
                except Exception:
                    self._broken(handler)
        while self._flushing:
            flushing, self._flushing = self._flushing, []
            for gatherer in flushing:
                try:
                    gatherer.flush()
                except Exception:
                    self._broken(gatherer)
        self._inTurn = False
        if self._closing or self._closed:
            self._closeAll()
        self._dropIfEmpty()

    @property
    def isForBulkAlone(self) -> bool:
        """Whether there was nothing but bulk in the last second."""
        return bool(self.reactor.seconds() - self._otherAt > 1.0)

    def _isForBulk(self, event: tuple[int, int]) -> bool:
        """
        Whether an event is served behind others. The kernel lists those first that
        always have something to report, and moving their megabytes takes so long that
        the scheduler may turn to another program before a keystroke has its turn.
        """
        number, events = event
        return number in self.busy or events & OUT != 0

    def _closeAll(self) -> None:
        """Close the sockets whose closing was put off until the end of the turn."""
        closing, self._closing = self._closing, []
        for connection in closing:
            connection.close()
        closed, self._closed = self._closed, []
        for waiting in closed:
            waiting.callback(None)

    def _broken(self, handler: Gatherer) -> None:
        """End a socket whose code has raised an exception."""
        failure = Failure()
        self._log.failure("A connection is broken by an error in its code", failure)
        handler.broken(failure)

    # IReadDescriptor

    def fileno(self) -> int:
        return -1 if self._poll is None else int(self._poll.fileno())

    def logPrefix(self) -> str:
        return "tristunnel"

    def connectionLost(self, reason: Failure) -> None:
        """End all sockets: the reactor ends, or has given up on the instance."""
        for handler in list(self._handlers.values()):
            handler.broken(reason)
        self._dropIfEmpty()


_POLLERS: WeakKeyDictionary[Any, Poller] = WeakKeyDictionary()


def pollerOf(reactor: Any) -> Poller | None:
    """
    Find a reactor's poller.

    @return: C{None} if there can be none: without epoll, or with a reactor that does
        not watch descriptors itself, such as one in memory.
    """
    found: Poller | None = getattr(reactor, "poller", None)
    if found is not None:
        return found
    found = _POLLERS.get(reactor)
    if found is None:
        if not hasattr(select, "epoll") or not isinstance(reactor, PosixReactorBase):
            return None
        found = _POLLERS[reactor] = Poller(reactor)
    return found
