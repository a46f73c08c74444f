"""
What stands at the two far ends of a tunnel in these tests.

Services and visitors live in the test's own process, so that a test can say
exactly what each end saw.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

_BLOCK = 1 << 20


class Conversation(Protocol):
    """
    One end of a stream of bytes, remembering all that arrives.

    @ivar data: every byte received.
    @ivar ended: fires with L{data} when the connection is over, however it
        ended.
    """

    def __init__(self) -> None:
        self.data = b""
        self.ended: Deferred[bytes] = Deferred()
        self._wanted: list[tuple[int, Deferred[bytes]]] = []

    def whenReceived(self, count: int) -> Deferred[bytes]:
        """
        Wait until at least C{count} bytes have arrived in all.

        @return: fires with L{data}; fails if the connection ends before.
        """
        arrived: Deferred[bytes] = Deferred()
        if len(self.data) >= count:
            arrived.callback(self.data)
        else:
            self._wanted.append((count, arrived))
        return arrived

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        for wanted in [each for each in self._wanted if each[0] <= len(self.data)]:
            self._wanted.remove(wanted)
            wanted[1].callback(self.data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        wanted, self._wanted = self._wanted, []
        for _, arrived in wanted:
            arrived.errback(reason)
        self.ended.callback(self.data)

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def close(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def abort(self) -> None:
        """Cut the connection; the other end sees a reset."""
        transport: Any = self.transport
        transport.abortConnection()


class ConversationFactory(Factory):
    """
    A service that hands each connection to the test.

    @ivar greeting: sent at once on each connection; may be empty.
    @ivar arrivals: gives the connections, in the order they came.
    """

    def __init__(self, greeting: bytes = b"") -> None:
        """
        @param greeting: what the service says first.
        """
        self.greeting = greeting
        self.arrivals: DeferredQueue[Conversation] = DeferredQueue()

    def buildProtocol(self, addr: IAddress | None) -> Conversation:
        """Make a L{Conversation} that is announced once it is connected."""
        return _Arrival(self)


class _Arrival(Conversation):
    """A L{Conversation} on the service's side."""

    def __init__(self, service: ConversationFactory) -> None:
        """
        @param service: where to announce the connection.
        """
        super().__init__()
        self._service = service

    def connectionMade(self) -> None:
        """Say what the service says first, and announce the connection."""
        if self._service.greeting:
            self.write(self._service.greeting)
        self._service.arrivals.put(self)


class ClosableFactory(WrappingFactory):
    """Any factory, with a way to be rid of its connections at a test's end."""

    def __init__(self, wrappedFactory: Factory) -> None:
        """
        @param wrappedFactory: makes the protocols.
        """
        super().__init__(wrappedFactory)
        self._empty: list[Deferred[None]] = []

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        if not self.protocols:
            waiting, self._empty = self._empty, []
            for empty in waiting:
                empty.callback(None)

    def abortAll(self) -> Deferred[None]:
        """
        Cut every connection.

        @return: fires when all are gone.
        """
        empty: Deferred[None] = Deferred()
        if not self.protocols:
            empty.callback(None)
            return empty
        self._empty.append(empty)
        for protocol in list(self.protocols):
            protocol.abortConnection()
        return empty


class Gathering(Resource):
    """
    Answer nobody until everybody has asked; then, to each its own question.

    If all the visitors are not let through at the same time, none is answered.
    """

    isLeaf = True

    def __init__(self, size: int) -> None:
        """
        @param size: how many requests make everybody.
        """
        super().__init__()
        self._size = size
        self._present: list[Request] = []

    def render_GET(self, request: Request) -> int:
        self._present.append(request)
        if len(self._present) == self._size:
            for each in self._present:
                each.write(each.uri)
                each.finish()
        return NOT_DONE_YET


class Digest(Resource):
    """Answer a POST with the SHA-256 of its body, in hexadecimal."""

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        """Read the body from where the request has stored it."""
        content: Any = request.content
        return digestOf(content).encode("ascii")


class DigestReader(Protocol):
    """
    Read a response's body without keeping it.

    @ivar finished: fires with the SHA-256 in hexadecimal and the length in
        bytes when the body is over; the length shows a body cut short.
    """

    def __init__(self) -> None:
        self.finished: Deferred[tuple[str, int]] = Deferred()
        self._hash = hashlib.sha256()
        self._length = 0

    def dataReceived(self, data: bytes) -> None:
        self._hash.update(data)
        self._length += len(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.finished.callback((self._hash.hexdigest(), self._length))


def digestOf(file: BinaryIO) -> str:
    """
    Hash an open file from where it stands to its end.

    @return: the SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def writeBody(path: Path, size: int) -> str:
    """
    Write a file that looks random, and is the same each time.

    @param size: its length in bytes.
    @return: the SHA-256 of the file in hexadecimal.
    """
    source = random.Random(size)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while size:
            block = source.randbytes(min(size, _BLOCK))
            file.write(block)
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()
