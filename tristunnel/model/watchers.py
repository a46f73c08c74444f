"""Those who are told what happens in a book."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from tristunnel.model.record import Change

__all__ = ["Watcher", "Watchers"]

Watcher = Callable[[Change], object]
"""Told of what happens in a book."""


class Watchers:
    """All that watch one book."""

    _log = Logger()

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []

    def add(self, watcher: Watcher) -> Callable[[], None]:
        """
        Tell somebody from now on.

        @return: Ends that.
        """
        self._watchers.append(watcher)

        def end() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return end

    def tell(self, change: Change) -> None:
        """Tell all; one that fails keeps it from no other."""
        for watcher in list(self._watchers):
            try:
                watcher(change)
            except Exception:
                self._log.failure("A watcher of the book failed")

    def clear(self) -> None:
        """Tell nobody any more."""
        self._watchers.clear()
