"""The events of a program's tunnel, kept for readers in any thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Condition

from tristunnel.errors import TunnelError

__all__ = ["Event", "Events"]

MOST = 1000
"""The most events that are kept for readers; the oldest are dropped."""


@dataclass(frozen=True)
class Event:
    """
    Something that has happened.

    @ivar kind: C{opened} (visitors can come to C{address}), C{disconnected} (the
        session is over; another attempt follows), C{visitor} and C{visitor-gone}
        (who came, C{address}), C{service-failed} (a visitor was turned away) or
        C{closed}.
    @ivar address: The tunnel's or the visitor's, or empty if it is not known.
    @ivar reason: Why, or C{None}.
    """

    kind: str
    address: str = ""
    reason: TunnelError | None = None


class Events:
    """Events of one tunnel, from its opening on. Each reader gets all of them."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._kept: deque[Event] = deque(maxlen=MOST)
        self._count = 0
        self._over = False
        self._waking: list[Callable[[], None]] = []

    def add(self, event: Event, last: bool = False) -> None:
        """
        Keep one.

        @param last: Whether it is the last one.
        """
        with self._changed:
            if self._over:
                return
            self._kept.append(event)
            self._count += 1
            self._over = last
            self._changed.notify_all()
            waking, self._waking = self._waking, []
        for wake in waking:
            wake()

    def after(
        self, index: int, wake: Callable[[], None]
    ) -> tuple[Event | None, int, bool]:
        """
        Read one without waiting.

        @param index: The number that the reader has seen.
        @param wake: Called once, in another thread, when there is news, if there
            is none now.
        @return: An event or C{None}, the next index, and whether it is the last one.
        """
        with self._changed:
            found, index = self._next(index)
            if found is None and not self._over:
                self._waking.append(wake)
            return found, index, found is None and self._over

    def _next(self, index: int) -> tuple[Event | None, int]:
        index = max(index, self._count - len(self._kept))
        if index == self._count:
            return None, index
        return self._kept[index - self._count], index + 1

    def __iter__(self) -> Iterator[Event]:
        index = 0
        while True:
            with self._changed:
                found, index = self._next(index)
                while found is None:
                    if self._over:
                        return
                    self._changed.wait()
                    found, index = self._next(index)
            yield found
