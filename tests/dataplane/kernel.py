"""
A kernel in memory: sockets whose numbers are given out again as soon as they are
closed, and an epoll instance that watches them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from socket import SO_LINGER
from struct import pack
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import ffi
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from zope.interface import implementer

from tristunnel.dataplane.poller import ERRORS, IN, LONG_READ, OUT, Poller
from tristunnel.dataplane.records import Records

HANGUP = 16

__all__ = ["FakeKernel", "FakeReactor", "FakeSocket", "FakeTLS", "fakePoller"]


@implementer(IReactorFDSet)
class FakeReactor(Clock):
    """A clock that takes descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        raise NotImplementedError

    def removeWriter(self, writer: Any) -> None:
        raise NotImplementedError

    def removeAll(self) -> list[Any]:
        raise NotImplementedError

    def getReaders(self) -> list[Any]:
        return list(self.readers)

    def getWriters(self) -> list[Any]:
        return []


class FakeSocket:
    """
    One end of a connection that the test holds the other end of.

    @ivar incoming: What the other side has sent and nobody read yet.
    @ivar outgoing: What was sent to the other side.
    @ivar room: Bytes that the kernel takes before it is full.
    @ivar peerEnded: Whether the other side sends no more.
    @ivar problem: The error number that the next call meets, or 0.
    @ivar hungUp: Whether both directions are over.
    @ivar wasReset: Whether closing it is a reset.
    """

    family = 2

    def __init__(self, kernel: FakeKernel, number: int) -> None:
        self.kernel = kernel
        self.number = number
        self.incoming = b""
        self.outgoing = b""
        self.room = 1 << 30
        self.peerEnded = False
        self.weEnded = False
        self.problem = 0
        self.hungUp = False
        self.closed = False
        self.wasReset = False
        self.peer: FakeSocket | None = None

    def fileno(self) -> int:
        return -1 if self.closed else self.number

    def _check(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "closed")
        if self.problem:
            problem, self.problem = self.problem, 0
            raise OSError(problem, "broken")

    def recv(self, size: int) -> bytes:
        if self.incoming and not self.closed:
            data, self.incoming = self.incoming[:size], self.incoming[size:]
            return data
        self._check()
        if self.peerEnded:
            return b""
        raise BlockingIOError

    def send(self, data: bytes | memoryview) -> int:
        self._check()
        taken = min(len(data), self.space)
        if not taken:
            raise BlockingIOError
        if self.peer is None:
            self.room -= taken
            self.outgoing += bytes(data[:taken])
        else:
            self.peer.incoming += bytes(data[:taken])
        return taken

    @property
    def space(self) -> int:
        if self.peer is None:
            return self.room
        return max(0, self.room - len(self.peer.incoming))

    def sendmsg(self, pieces: list[bytes | memoryview]) -> int:
        return self.send(b"".join(pieces))

    def shutdown(self, how: int) -> None:
        self._check()
        self.weEnded = True
        if self.peer is not None:
            self.peer.peerEnded = True

    def getsockopt(self, level: int, name: int) -> int:
        problem, self.problem = self.problem, 0
        return problem

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        if name == SO_LINGER:
            self.wasReset = value == pack("ii", 1, 0)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.kernel.free(self)
            if self.peer is not None and not self.peer.closed:
                if self.wasReset or self.incoming:
                    self.peer.cut()
                self.peer.peerEnded = True

    def cut(self) -> None:
        """Break the connection, with what is under way to this side."""
        self.incoming = b""
        self.problem = errno.ECONNRESET

    def events(self) -> int:
        events = 0
        if self.incoming or self.peerEnded:
            events |= IN
        if self.space:
            events |= OUT
        if self.problem:
            events |= ERRORS
        if self.hungUp:
            events |= HANGUP
        return events


class FakeTLS:
    """
    TLS over a socket, whose records are the bytes themselves.

    @ivar shaken: Whether the other side has said hello.
    @ivar problem: Why L{FakeOpenSSL} has not succeeded.
    """

    def __init__(self, below: FakeSocket) -> None:
        self.below = below
        self.shaken = False
        self.problem: SSL.Error | None = None
        self._ssl = self

    def _raise_ssl_error(self, ssl: FakeTLS, result: int) -> None:
        assert self.problem is not None
        raise self.problem

    def set_app_data(self, data: object) -> None:
        """Nobody asks for it."""

    def do_handshake(self) -> None:
        if not self.shaken:
            raise SSL.WantReadError

    def recv(self, size: int) -> bytes:
        try:
            data = self.below.recv(size)
        except BlockingIOError:
            raise SSL.WantReadError from None
        except OSError as problem:
            raise SSL.SysCallError(problem.errno, problem.strerror) from None
        if not data:
            raise SSL.ZeroReturnError
        return data

    def send(self, data: bytes | memoryview) -> int:
        try:
            return self.below.send(data)
        except BlockingIOError:
            raise SSL.WantWriteError from None

    def shutdown(self) -> bool:
        if not self.below.space:
            raise SSL.WantWriteError
        self.below.weEnded = True
        return False

    def pending(self) -> int:
        return 0


class FakeOpenSSL:
    """The functions that are called for L{FakeTLS}."""

    SSL_ERROR_WANT_READ = 2

    def SSL_read(self, ssl: FakeTLS, where: Any, size: int) -> int:
        try:
            data = ssl.recv(size)
        except SSL.Error as problem:
            ssl.problem = problem
            return -1
        ffi.memmove(where, data, len(data))
        return len(data)

    def SSL_write(self, ssl: FakeTLS, where: Any, size: int) -> int:
        try:
            return ssl.send(ffi.buffer(where, size)[:])
        except SSL.Error as problem:
            ssl.problem = problem
            return -1

    def SSL_get_error(self, ssl: FakeTLS, result: int) -> int:
        return 2 if isinstance(ssl.problem, SSL.WantReadError) else 1


class FakeKernel:
    """The sockets of a process, and one epoll instance."""

    def __init__(self) -> None:
        self.sockets: dict[int, FakeSocket] = {}
        self.watched: dict[int, int] = {}
        self.opened = False
        self.between: Callable[[], None] = lambda: None

    def socket(self) -> FakeSocket:
        """Make a connection, with the lowest number that is free."""
        number = 3
        while number in self.sockets:
            number += 1
        made = self.sockets[number] = FakeSocket(self, number)
        return made

    def pair(self, room: int) -> tuple[FakeSocket, FakeSocket]:
        """
        Make two sockets that are connected.

        @param room: Bytes that can be under way in each direction.
        """
        one, other = self.socket(), self.socket()
        one.peer, other.peer = other, one
        one.room = other.room = room
        return one, other

    def free(self, closed: FakeSocket) -> None:
        """A socket was closed: its number may be given out again."""
        del self.sockets[closed.number]
        self.watched.pop(closed.number, None)

    # An epoll instance

    def __call__(self) -> FakeKernel:
        self.opened = True
        return self

    def fileno(self) -> int:
        return 2

    def close(self) -> None:
        self.opened = False
        self.watched.clear()

    def register(self, number: int, events: int) -> None:
        assert number in self.sockets, f"{number} is nobody's"
        assert number not in self.watched, f"{number} is watched already"
        self.watched[number] = events

    def modify(self, number: int, events: int) -> None:
        assert number in self.watched, f"{number} is not watched"
        self.watched[number] = events

    def unregister(self, number: int) -> None:
        if number not in self.watched:
            raise FileNotFoundError(errno.ENOENT, "not watched")
        del self.watched[number]

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        found = []
        for number, asked in self.watched.items():
            events = self.sockets[number].events() & (asked | ERRORS)
            if events:
                found.append((number, events))
        return found[:most]


def fakePoller(reactor: FakeReactor, kernel: FakeKernel) -> Poller:
    """Watch sockets of a kernel in memory, with L{FakeTLS} or without."""
    made = Poller(reactor, kernel)
    made.records = Records(LONG_READ, FakeOpenSSL())
    return made
