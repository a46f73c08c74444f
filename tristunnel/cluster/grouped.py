"""Tables of thousands of values that belong to groups."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Grouped"]

_V = TypeVar("_V")


class Grouped(UserDict[str, _V]):
    """
    A table that also finds what belongs to a group, without looking at everything.

    @param groupOf: The group of a value; it stays the same.
    """

    def __init__(self, groupOf: Callable[[_V], str]) -> None:
        self._groupOf = groupOf
        self._groups: dict[str, dict[str, None]] = {}
        super().__init__()

    def __setitem__(self, key: str, value: _V) -> None:
        self.data[key] = value
        self._groups.setdefault(self._groupOf(value), {})[key] = None

    def __delitem__(self, key: str) -> None:
        group = self._groupOf(self.data.pop(key))
        del self._groups[group][key]
        if not self._groups[group]:
            del self._groups[group]

    def of(self, group: str) -> list[str]:
        """The keys of a group, oldest first."""
        return list(self._groups.get(group, ()))
