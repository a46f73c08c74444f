"""What a test has at the ends of its connections."""

from __future__ import annotations

from typing import Any, Self

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.support.awaited import Awaited

__all__ = ["Answering", "Hearing"]


class Hearing(Awaited, Protocol):
    """
    Keeps what it hears.

    @ivar data: Bytes that came.
    """

    transport: Any

    def __init__(self, greeting: bytes = b"") -> None:
        super().__init__()
        self.greeting = greeting
        self.data = bytearray()

    def connectionMade(self) -> None:
        if self.greeting:
            self.transport.write(self.greeting)

    def has(self, count: int) -> Deferred[Self]:
        """Wait for bytes."""
        return self.until(lambda self: len(self.data) >= count)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end(reason)

    def say(self, data: bytes) -> None:
        """Send bytes."""
        if self.lost is None:
            self.transport.write(data)

    def close(self) -> None:
        """Send no more, and listen no more."""
        if self.lost is None:
            self.transport.loseConnection()

    def abort(self) -> None:
        """Reset the connection."""
        if self.lost is None:
            self.transport.abortConnection()


class Answering(Protocol):
    """Says its greeting, and then what it hears."""

    transport: Any

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting

    def connectionMade(self) -> None:
        self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)
