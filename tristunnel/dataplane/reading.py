"""
Reading many ends in one go.

A reactor looks up, logs and guards each event by itself, which for a request
of a hundred bytes costs more than to receive and send it. Ends that are read
again and again wait in an epoll set of their own, which to the reactor is one
descriptor; whatever is ready in it is read in one turn.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.gathering import GATHERED

if TYPE_CHECKING:
    from socket import socket

__all__ = ["ReadySet", "readySetOf"]

READ = 64 * 1024
"""Most bytes to read of one end in one turn."""

_EPOLLIN = getattr(select, "EPOLLIN", 1)


class _Entry:
    """
    An end in the set.
    """

    __slots__ = ("end", "received", "recv", "transport")

    def __init__(self, plain: socket, transport: Any, end: Any) -> None:
        self.recv = plain.recv
        self.received: Callable[[bytes], None] = end.dataReceived
        self.transport = transport
        self.end = end


@implementer(IReadDescriptor)
class ReadySet:
    """
    The ends that are read together. While it is empty, it has no descriptor
    and the reactor does not know it.

    @param reactor: One that takes descriptors.

    @cvar makePoll: Makes an epoll set.
    """

    _log = Logger()
    makePoll: Any = getattr(select, "epoll", None)

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._poll: Any = None
        self._entries: dict[int, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def enter(self, plain: socket, transport: Any, end: Any) -> int:
        """
        Read an end from now on; its transport reads no more.

        @param end: Has C{dataReceived}, and C{leaveReadySet}, which is called
            when its transport has to see to something.
        @return: What L{leave} takes, or -1 if the kernel has no room for it:
            then nothing has changed.
        """
        number = plain.fileno()
        try:
            if self._poll is None:
                self._poll = self.makePoll()
                self._reactor.addReader(self)
            self._poll.register(number, _EPOLLIN)
        except OSError:
            # No descriptor, or no memory for one more.
            self._dropIfEmpty()
            return -1
        transport.stopReading()
        self._entries[number] = _Entry(plain, transport, end)
        return number

    def leave(self, number: int) -> None:
        """
        Read an end no more.
        """
        del self._entries[number]
        # A socket that was closed has left by itself.
        with suppress(OSError):
            self._poll.unregister(number)
        self._dropIfEmpty()

    def _dropIfEmpty(self) -> None:
        """
        Let go of the descriptor if nobody needs it.
        """
        if self._poll is not None and not self._entries:
            self._reactor.removeReader(self)
            self._poll.close()
            self._poll = None

    # IReadDescriptor

    def fileno(self) -> int:
        """
        The set's own descriptor.
        """
        return -1 if self._poll is None else int(self._poll.fileno())

    def logPrefix(self) -> str:
        """
        As what it appears in logs.
        """
        return "tristunnel"

    def doRead(self) -> None:
        """
        Read all ends that have something, and send what came of it.
        """
        find = self._entries.get
        gathered = GATHERED
        gathered.begin()
        try:
            for number, event in self._poll.poll(0):
                entry = find(number)
                if entry is None:
                    # It left because of what another one had.
                    continue
                try:
                    if event == _EPOLLIN:
                        data = entry.recv(READ)
                        if data:
                            entry.received(data)
                            continue
                    # It is over, or has an error. Its transport knows what to
                    # do, and will meet that again.
                    entry.end.leaveReadySet()
                except BlockingIOError:
                    pass
                except OSError:
                    # A socket tells of this only once.
                    self._lose(number, entry, Failure(CONNECTION_LOST))
                except Exception:
                    self._log.failure("A stream is broken")
                    self._lose(number, entry, Failure())
        finally:
            gathered.end()

    def _lose(self, number: int, entry: _Entry, reason: Failure) -> None:
        """
        End a connection, as the reactor would.
        """
        if self._entries.get(number) is entry:
            self.leave(number)
        entry.transport.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor gives up on the set; it never should.
        """
        self._log.failure("The set of ends that are read together is lost", reason)


_SETS: WeakKeyDictionary[Any, ReadySet] = WeakKeyDictionary()


def readySetOf(reactor: Any) -> ReadySet | None:
    """
    Find a reactor's set.

    @return: C{None} where there can be none: without epoll, or with a reactor
        that takes no descriptors.
    """
    found = _SETS.get(reactor)
    if found is None:
        if not hasattr(select, "epoll") or not IReactorFDSet.providedBy(reactor):
            return None
        found = _SETS[reactor] = ReadySet(reactor)
    return found
