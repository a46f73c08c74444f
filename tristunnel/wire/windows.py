"""
Credit: how many bytes each side may still send.

Credit is absolute, as in QUIC and smux's second version: "you may send byte
number N and no further, counted from the beginning". A lost or repeated
announcement then does no harm, and either side can be audited at any moment.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNLIMITED", "ReceiveWindow", "SendWindow", "WindowBudget", "roundTripAfter"]

UNLIMITED = 1 << 62
"""The credit of a peer that knows no credit."""

STEP = 128 * 1024
"""Bytes of credit that are worth a frame, until that is less than a part in L{PARTS} of
the window."""

PARTS = 8
"""A sender stands still unless new credit comes a round trip before the old one is used
up: a window that is renewed by halves carries only half of itself in a round trip."""


def roundTripAfter(before: float, measured: float) -> float:
    """
    Estimate what the way itself takes. An answer takes longer if either side was busy,
    and windows that grow because of that hold much for readers that stall; so a longer
    time is believed step by step.

    @param before: The last estimate in seconds; 0 if there is none.
    @param measured: What the last ping took, in seconds.
    @return: The new estimate, in seconds.
    """
    return min(measured, 2 * before) if before else measured


@dataclass(slots=True, eq=False)
class SendWindow:
    """
    The credit that the peer has given us.

    @ivar limit: Total bytes that may be sent.
    @ivar sent: Total bytes sent.
    """

    limit: int
    sent: int = 0

    @property
    def available(self) -> int:
        return self.limit - self.sent

    def grant(self, limit: int) -> bool:
        """
        Take an announcement; an old one changes nothing.

        @return: Whether there is more credit than before.
        """
        if limit <= self.limit:
            return False
        self.limit = limit
        return True


@dataclass(slots=True, eq=False)
class WindowBudget:
    """
    What all windows of a session may grow by together.

    @ivar free: Bytes that are left, over and above each window's first size.
    """

    free: int

    def take(self, amount: int) -> bool:
        """Set C{amount} bytes aside, if there are as many."""
        if amount > self.free:
            return False
        self.free -= amount
        return True

    def give(self, amount: int) -> None:
        """Put back what was taken."""
        self.free += amount


class ReceiveWindow:
    """
    The credit that we have given the peer.

    It is renewed by what the reader has really drained, and doubled when the
    peer uses it up faster than the round trip allows: then the window is what
    holds the stream back. A reader that stands still never makes it grow.

    @param size: Bytes that may be under way or waiting at once.
    @param largest: What C{size} may grow to.
    @param budget: Where growth is taken from.
    @param share: Credit is renewed when one part in C{share} of the window
        can be given anew; in smaller parts once the window has grown.

    @ivar limit: Total bytes that the peer may send.
    @ivar low: Credit that is left when L{renew} is due.
    @ivar received: Total bytes that came.
    @ivar drained: Total bytes that the reader took.
    @ivar grown: Bytes by which it has grown.
    """

    __slots__ = (
        "_looked",
        "_renewed",
        "budget",
        "drained",
        "grown",
        "largest",
        "limit",
        "low",
        "received",
        "share",
        "size",
    )

    def __init__(
        self,
        size: int,
        largest: int = 0,
        budget: WindowBudget | None = None,
        share: int = 2,
    ) -> None:
        # By hand, as there is one for each stream: what dataclasses make needs two
        # calls more.
        self.size = self.limit = size
        self.largest = largest
        self.budget = budget
        self.share = share
        self.low = size - -(-size // share)
        self.received = self.drained = self.grown = 0
        self._renewed = 0.0
        self._looked = 0

    @property
    def waiting(self) -> int:
        return self.received - self.drained

    def receive(self, amount: int) -> bool:
        """
        Count bytes that came.

        @return: C{False} if the peer had no credit for them.
        """
        self.received += amount
        return self.received <= self.limit

    def take(self, amount: int) -> bool:
        """
        Count bytes that the reader took.

        @return: Whether so much of the credit is used up that L{renew} is due.
        """
        self.drained += amount
        return self.limit - self.drained <= self.low

    def renew(self, now: float, roundTrip: float) -> int:
        """
        Give more credit.

        @param now: Seconds, of any clock that does not go back.
        @param roundTrip: Seconds; 0 where it is not known.
        @return: The credit to announce.
        """
        if (self.drained - self._looked) * 2 >= self.size:
            if now - self._renewed < 2 * roundTrip:
                self._grow()
            self._renewed, self._looked = now, self.drained
        self.limit = self.drained + self.size
        self.low = self.size - -(-self.size // self.share)
        return self.limit

    def drain(self, amount: int, now: float, roundTrip: float) -> int | None:
        """L{take}, and L{renew} if that is due; C{None} if it is not."""
        return self.renew(now, roundTrip) if self.take(amount) else None

    def _grow(self) -> None:
        more = min(self.size, self.largest - self.size)
        if more > 0 and self.budget is not None and self.budget.take(more):
            self.size += more
            self.grown += more
            self.share = max(self.share, min(self.size // STEP, PARTS))

    def close(self) -> None:
        """Return what growth took."""
        if self.grown and self.budget is not None:
            self.budget.give(self.grown)
            self.grown = 0
