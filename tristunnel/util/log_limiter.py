"""
Keeping a log readable, and a disk from filling, while somebody knocks a
thousand times a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

__all__ = ["BoundedLog", "LogRateLimiter"]

INTERVAL = 60.0
"""Seconds between summaries."""

MOST_KINDS = 1024
"""Kinds of event that are told apart; what is beyond counts as one more."""

FREELY = 20
"""Lines in an interval of one kind."""

ALL = 200
"""Lines in an interval of all kinds together."""

_OTHERS = ("others",)


@dataclass(slots=True)
class _Kind:
    """
    What is known of a kind of event.

    @ivar since: When its interval began, in seconds.
    @ivar told: Events of the interval that were told one by one.
    @ivar kept: Events of the interval that were not.
    @ivar summary: Tells how many those were.
    """

    since: float
    told: int
    kept: int
    summary: Callable[[int, float], None]


class LogRateLimiter:
    """
    Lets the first few events of a kind through at once, and then counts: one
    summary an interval.

    @param seconds: The clock.
    @param callLater: Has a summary told even if nothing follows; without it,
        that waits for the next event.
    @param interval: Seconds.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        callLater: Callable[..., object] | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._seconds = seconds
        self._callLater = callLater
        self._interval = interval
        self._kinds: dict[tuple[str, ...], _Kind] = {}
        # When the oldest kind's interval is over.
        self._due = float("inf")
        self._flushing: object | None = None

    def __len__(self) -> int:
        return len(self._kinds)

    def log(
        self,
        kind: tuple[str, ...],
        event: Callable[[], None],
        summary: Callable[[int, float], None],
        freely: int = 1,
    ) -> None:
        """
        Log an event, or count it.

        @param kind: What it is a repetition of.
        @param event: Logs it.
        @param summary: Tells of those that were counted: called with how many
            there were, and in how many seconds.
        @param freely: How many are told in an interval.
        """
        now = self._seconds()
        if now >= self._due:
            self._expire(now)
        known = self._kinds.get(kind) or self._enter(kind, now, summary)
        if known.told < freely:
            known.told += 1
            event()
        else:
            known.kept += 1
            known.summary = summary
            if self._flushing is None:
                self._flushLater()

    def _enter(
        self, kind: tuple[str, ...], now: float, summary: Callable[[int, float], None]
    ) -> _Kind:
        if len(self._kinds) >= MOST_KINDS:
            kind = _OTHERS
        known = self._kinds.setdefault(kind, _Kind(now, 0, 0, summary))
        self._due = min(self._due, known.since + self._interval)
        return known

    def _expire(self, now: float) -> None:
        """
        Tell the summaries that are due. A kind that had one stays counted for
        another interval, so that a flood gets a summary each time and no more.
        """
        # The oldest comes first, as each is moved to the end when it is due.
        while self._kinds:
            kind, known = next(iter(self._kinds.items()))
            passed = now - known.since
            self._due = known.since + self._interval
            if passed < self._interval:
                return
            del self._kinds[kind]
            if known.kept:
                kept, known.kept, known.since = known.kept, 0, now
                self._kinds[kind] = known
                known.summary(kept, passed)

    def _flushLater(self) -> None:
        if self._flushing is None and self._callLater is not None:
            self._flushing = self._callLater(self._interval, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        self._expire(self._seconds())
        if any(known.kept for known in self._kinds.values()):
            self._flushLater()


class BoundedLog:
    """
    Writes what visitors and retries can cause again and again: of each kind so
    many lines an interval, then one that says how many more there were, and of all
    kinds together not too many.

    @param seconds: The clock.
    @param callLater: As for L{LogRateLimiter}.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        callLater: Callable[..., object] | None = None,
    ) -> None:
        self._kinds = LogRateLimiter(seconds, callLater)
        self._all = LogRateLimiter(seconds, callLater)

    def __call__(
        self, write: Callable[..., None], text: str, *kind: str, **fields: object
    ) -> None:
        """
        Write an event, or count it.

        @param write: A method of a C{Logger}.
        @param text: The format, which is a kind of its own.
        @param kind: What else tells kinds apart.
        """

        def event(text: str, **more: object) -> None:
            writing = partial(write, text, **fields, **more)
            self._all.log((), writing, rest, ALL)

        def summary(more: int, passed: float) -> None:
            lead = "{more} more in {passed:.0f} s, the last one: "
            event(lead + text, more=more, passed=passed)

        def rest(more: int, passed: float) -> None:
            lead = "{more} more lines in {passed:.0f} s, the last one: "
            write(lead + text, more=more, passed=passed, **fields)

        self._kinds.log((text, *kind), partial(event, text), summary, FREELY)
