"""
How fast a slow line is fed, so that no queue stands before it in a router.

A connection that sends as much as it can fills the queue before its slowest line, and a
keystroke stands in it as long as a download does: 100 ms and more, whatever little
waits in the kernel. So what a slow line is given follows the time that its answers
take: a little less than it carries while a queue stands, a little more while none does.

A queue that stays although less is sent is somebody else's, or none: some radio links
take their time. Then nothing is held back for a while, so that a session gets its share
beside others who do not look at queues.
"""

from __future__ import annotations

__all__ = [
    "FREE",
    "GAP",
    "LEAST",
    "NEVER_LESS",
    "SLOW",
    "STEP",
    "TRIED",
    "WAIT",
    "Pace",
]

WAIT = 0.01
"""Seconds that bytes may stand in queues; an eighth of a long round trip, which varies
by itself."""

STEP = 0.1
"""Seconds between two looks, and at least a round trip: before that it cannot be seen
what the last change has done."""

GAP = 0.5
"""Seconds without a full kernel after which looking begins anew."""

SLOW = 8 * 1024 * 1024
"""Bytes per second from which on a line is not slow: queues are short there, and the
kernel's rule does well."""

MORE = 1.05
"""How much more is given after a look at which no queue stood."""

DRAIN = 0.3
"""Seconds in which a queue is to be gone."""

LEAST = 16 * 1024
"""Bytes per second that may be sent in any case: a line that stood still for a moment
has carried nothing."""

NEVER_LESS = 0.5
"""No less than this part of what the line carried is given in order to see whether a
queue goes."""

TRIED = 1.0
"""Seconds in which a queue must have halved, if it is ours. If there is none for as
long, the line is faster than it was."""

FREE = 10.0
"""Seconds for which nothing is held back otherwise."""


class Pace:
    """
    The pace of one connection.

    @ivar rate: Bytes per second that may be sent; 0 for any number.
    """

    __slots__ = (
        "_carried",
        "_due",
        "_freeUntil",
        "_queue",
        "_seen",
        "_since",
        "_taken",
        "rate",
    )

    def __init__(self) -> None:
        self.rate = 0.0
        self._due = self._since = self._freeUntil = float("-inf")
        self._taken = 0
        # When there was a queue first, or none; how long it was, and what the line
        # carried then.
        self._seen = self._queue = self._carried = 0.0

    def due(self, now: float) -> bool:
        """
        Whether to L{look}, while there is more to send than the kernel takes.

        @param now: Seconds.
        """
        return now >= self._due

    def look(self, now: float, taken: int, roundTrip: float, least: float) -> bool:
        """
        See how the line does.

        @param now: Seconds.
        @param taken: Bytes that the far side has acknowledged so far.
        @param roundTrip: Seconds that its answers take now.
        @param least: Seconds that they take without queues.
        @return: Whether L{rate} has changed.
        """
        before, late = self.rate, now - self._due
        carried = (taken - self._taken) / max(now - self._since, STEP)
        self._taken, self._since = taken, now
        self._due = now + max(STEP, roundTrip)
        if late > GAP:
            # It was not the line that held bytes back, and what it did before says
            # nothing of now.
            self._seen, self._queue = now, 0.0
            return False
        queue = roundTrip - least
        if carried >= SLOW or now < self._freeUntil:
            self.rate = self._queue = 0.0
        elif queue <= max(WAIT, least / 8):
            if self._queue:
                self._seen, self._queue = now, 0.0
            self.rate = self.rate * MORE if now - self._seen < TRIED else 0.0
        else:
            self._drain(now, carried, queue)
        return self.rate != before

    def _drain(self, now: float, carried: float, queue: float) -> None:
        """A queue stands: send less than the line carries, until it is gone."""
        if not self._queue:
            self._seen, self._queue, self._carried = now, queue, carried
        elif now - self._seen >= TRIED:
            if queue * 2 > self._queue:
                self._freeUntil = now + FREE
                self.rate = self._queue = 0.0
                return
            self._seen, self._queue = now, queue
        less = carried * max(1 - queue / DRAIN, NEVER_LESS)
        self.rate = max(less, self._carried * NEVER_LESS, LEAST)
