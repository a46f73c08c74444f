"""
What a visitor has sent and nobody has looked at yet.
"""

from __future__ import annotations

from collections import deque

from tristunnel.wire.http import Event, RequestReader

__all__ = ["RequestQueue"]

SLICE = 8 * 1024
"""Bytes that are read at once while they are heads, so that a crowd of small requests
waits as the bytes that it came as, and not as objects."""


class RequestQueue:
    """
    The bytes of a connection, and what of its requests was read of them.

    @ivar first: All that has come, until somebody has forgotten it by C{None}: a
        connection may turn out to be for somebody who reads it differently.
    @ivar events: What was read of them; the first one is next.
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
        """Whether no request has begun that is not whole."""
        return self._reader.isBetween

    def declined(self) -> None:
        """There was no upgrade: what came behind the request is another one."""
        if self._reader.rest is not None:
            self.events.extend(self._reader.goOn())

    def rest(self) -> bytes:
        """What came behind a request that was upgraded; nothing is left of it."""
        rest = (self._reader.rest or b"") + self._input
        self._reader.rest, self._input = None, b""
        return rest

    def clear(self) -> None:
        """Nothing more is to be looked at."""
        self.events.clear()
        self._input = b""
