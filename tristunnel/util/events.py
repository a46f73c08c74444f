"""
What happened lately, of bounded length however much happens.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter

__all__ = ["KEPT", "Event", "RecentEvents"]

KEPT = 200
"""Events that are kept, and as many of the kind of which there may be floods."""

_REPEATED_WITHIN = 8


@dataclass(slots=True)
class Event:
    """
    Something that happened.

    @ivar number: Counts up.
    @ivar time: When, or when last, in seconds since the epoch.
    @ivar kind: What sort it is, in a word.
    @ivar level: How good or bad it is, in a word.
    @ivar text: Says it in one line, or makes what does: most events are never
        read.
    @ivar owner: Who may see it besides the operator; empty for nobody.
    @ivar same: What its repetitions have in common; C{None} if it has none.
    @ivar count: How often in a row.
    """

    number: int
    time: float
    kind: str
    level: str
    text: str | Callable[[], str]
    owner: str = ""
    same: object = None
    count: int = 1

    def line(self) -> str:
        """Say it in one line."""
        if not isinstance(self.text, str):
            self.text = self.text()
        return self.text

    def describe(self) -> dict[str, object]:
        """The event as plain data."""
        return {
            "time": round(self.time, 3),
            "kind": self.kind,
            "level": self.level,
            "text": self.line(),
            "count": self.count,
        }


class RecentEvents:
    """
    Keeps the newest events. Those of one kind, of which there may be a flood, do
    not drive out what else happens.

    @param now: The time of day.
    @param flood: That kind.
    @param most: Events to keep, and as many of that kind.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        flood: str = "visitor",
        most: int = KEPT,
    ) -> None:
        self._now = now
        self._number = 0
        self._flood = flood
        self._floods: deque[Event] = deque(maxlen=most)
        self._others: deque[Event] = deque(maxlen=most)

    def add(
        self,
        kind: str,
        text: str | Callable[[], str],
        level: str = "info",
        owner: str = "",
        same: object = None,
    ) -> None:
        """
        Note an event. One that repeats one of the last few takes its place, and
        counts on.

        @param same: What its repetitions have in common; C{None} if it has none.
        """
        self._number += 1
        event = Event(self._number, self._now(), kind, level, text, owner, same)
        events = self._floods if kind == self._flood else self._others
        if same is not None:
            for known in islice(reversed(events), _REPEATED_WITHIN):
                if (known.kind, known.same) == (kind, same):
                    event.count += known.count
                    events.remove(known)
                    break
        events.append(event)

    def addFlood(self, text: Callable[[], str]) -> None:
        """Note an event of the kind of which there may be a flood; it repeats none."""
        self._number += 1
        self._floods.append(Event(self._number, self._now(), self._flood, "info", text))

    def latest(self, most: int, owner: str | None = None) -> list[Event]:
        """
        The newest events, newest first. Up to half of them are not of the kind
        that comes in floods, however long ago those were.

        @param owner: Whose; C{None} for all.
        """
        floods, others = (
            [e for e in reversed(events) if owner is None or e.owner == owner][:most]
            for events in (self._floods, self._others)
        )
        floods = floods[: most - min(len(others), most // 2)]
        others = others[: most - len(floods)]
        key = attrgetter("number")
        return list(heapq.merge(others, floods, key=key, reverse=True))
