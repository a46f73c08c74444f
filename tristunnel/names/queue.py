"""What a visitor has sent and has not been handled yet."""

from __future__ import annotations

from collections import deque

from tristunnel.wire.http import Event, RequestReader

__all__ = ["RequestQueue"]

SLICE = 8 * 1024
"""Bytes of heads that are parsed at once, so that many small requests wait as bytes,
and not as objects."""


class RequestQueue:
    """
    The bytes of a connection, and the requests that were read from them.

    @ivar first: All that has come so far, until it is dropped by setting it to C{None}:
        a connection may turn out to be for somebody who reads it differently.
    @ivar events: What was read from them; the first one is next.
    """

    __slots__ = ("_input", "_reader", "events", "first")

    def __init__(self) -> None:
        self._reader = RequestReader()
        self.events: deque[Event] = deque()
        self._input = b""
        self.first: bytes | None = b""

    def add(self, data: bytes) -> None:
        """Take bytes."""
        if self.first is not None:
            self.first += data
        self._input = self._input + data if self._input else data

    def read(self) -> bool:
        """
        Read on.

        @return: Whether anything is next.
        """
        while not self.events:
            data = self._input
            if not data:
                return False
            if len(data) > SLICE and not self._reader.inBody:
                data, self._input = data[:SLICE], data[SLICE:]
            else:
                self._input = b""
            self.events.extend(self._reader.feed(data))
        return True

    @property
    def waits(self) -> bool:
        """Whether something waits for its turn."""
        return bool(self.events or self._input or self._reader.rest)

    @property
    def isBetween(self) -> bool:
        """Whether no request is incomplete."""
        return self._reader.isBetween

    def declined(self) -> None:
        """
        Note that there was no upgrade: what came after the request is another one.
        """
        if self._reader.rest is not None:
            self.events.extend(self._reader.goOn())

    def rest(self) -> bytes:
        """Take what came after a request that was upgraded."""
        rest = (self._reader.rest or b"") + self._input
        self._reader.rest, self._input = None, b""
        return rest

    def clear(self) -> None:
        """Drop everything."""
        self.events.clear()
        self._input = b""
