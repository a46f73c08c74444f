"""What a test has at the ends of its connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

__all__ = ["Answering", "Hearing"]


class Hearing(Protocol):
    """
    Keeps what it hears.

    @ivar data: Bytes that came.
    @ivar lost: Why the connection is over, or C{None}.
    """

    transport: Any

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.data = bytearray()
        self.lost: Failure | None = None
        self._waits: list[tuple[Callable[[Any], object], Deferred[Any]]] = []

    def connectionMade(self) -> None:
        if self.greeting:
            self.transport.write(self.greeting)

    def until(self, condition: Callable[[Any], object]) -> Deferred[Self]:
        """
        Wait until C{condition}, called with this object, holds.

        @return: Fires with this object; fails if the connection ends first.
        """
        waiting: Deferred[Self] = Deferred()
        if condition(self):
            waiting.callback(self)
        elif self.lost is not None:
            waiting.errback(self.lost)
        else:
            self._waits.append((condition, waiting))
        return waiting

    def has(self, count: int) -> Deferred[Self]:
        """Wait for bytes."""
        return self.until(lambda self: len(self.data) >= count)

    def gone(self) -> Deferred[Self]:
        """Wait for the end of both directions."""
        return self.until(lambda self: self.lost is not None)

    def _look(self) -> None:
        for wait in list(self._waits):
            if wait[0](self):
                self._waits.remove(wait)
                wait[1].callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self._look()
        waits, self._waits = self._waits, []
        for _, waiting in waits:
            waiting.errback(reason)

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
