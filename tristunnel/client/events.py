"""
What happened lately at a client, of bounded length however much happens.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

__all__ = ["KEPT", "Event", "RecentEvents"]

KEPT = 200
"""Events of each sort that are kept."""


@dataclass(slots=True)
class Event:
    """
    Something that happened.

    @ivar time: When, or when last, in seconds since the epoch.
    @ivar kind: C{visitor}, C{refusal}, C{session}, C{tunnel} or C{log}.
    @ivar level: C{info}, C{warn} or C{error}.
    @ivar text: Says it in one line, or makes what does: most events are never
        read.
    @ivar count: How often in a row.
    """

    time: float
    kind: str
    level: str
    text: str | Callable[[], str]
    count: int = 1

    def describe(self) -> dict[str, object]:
        """
        The event as plain data.
        """
        if not isinstance(self.text, str):
            self.text = self.text()
        return {
            "time": round(self.time, 3),
            "kind": self.kind,
            "level": self.level,
            "text": self.text,
            "count": self.count,
        }


class RecentEvents:
    """
    Keeps the newest events. Visitors, who may be thousands, do not drive out
    what else happens.

    @param now: The time of day.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._visitors: deque[Event] = deque(maxlen=KEPT)
        self._others: deque[Event] = deque(maxlen=KEPT)

    def add(
        self, kind: str, text: str | Callable[[], str], level: str = "info"
    ) -> None:
        """
        Note an event. What is said again and again is noted once, and counted.
        """
        now = self._now()
        if kind == "visitor":
            self._visitors.append(Event(now, kind, level, text))
            return
        for known in islice(reversed(self._others), 8):
            if known.text == text and known.kind == kind:
                known.count += 1
                known.time = now
                self._others.remove(known)
                self._others.append(known)
                return
        self._others.append(Event(now, kind, level, text))

    def latest(self, most: int) -> list[dict[str, object]]:
        """
        The newest events, newest first. Up to half of them are not of visitors,
        however long ago those were.
        """
        others = list(islice(reversed(self._others), most))
        visitors = list(islice(reversed(self._visitors), most))
        share = min(len(others), most // 2)
        visitors = visitors[: most - share]
        merged = heapq.merge(
            others[: most - len(visitors)],
            visitors,
            key=lambda event: event.time,
            reverse=True,
        )
        return [event.describe() for event in merged]
