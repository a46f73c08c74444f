"""
One tunnel as a client sees it, and its visitors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tristunnel.util.words import printable

if TYPE_CHECKING:
    from tristunnel.model.visit import Visit

__all__ = ["Offer"]


class Offer:
    """
    One tunnel, and what passed through it.

    @ivar uri: The tunnel's, or empty where the dialect has none.
    @ivar isLocal: Whether it is a port of this machine, which stays open while
        the server is away.
    @ivar reason: Why visitors cannot come, or empty.
    @ivar bytesIn: Bytes from visitors who are gone.
    @ivar bytesOut: Bytes to them.
    @ivar before: All bytes at the last sample.
    """

    def __init__(self, spec: str, target: str) -> None:
        self.spec = spec
        self.target = target
        self.uri = ""
        self.address = ""
        self.ready = False
        self.isLocal = False
        self.reason = ""
        self.visits: dict[Visit, float] = {}
        self.visitorsTotal = self.refused = 0
        self.bytesIn = self.bytesOut = 0
        self.before = (0, 0)
        self.rates = (0.0, 0.0)

    def counts(self) -> tuple[int, int]:
        """
        @return: Bytes from and to all visitors, those included who are here.
        """
        bytesIn, bytesOut = self.bytesIn, self.bytesOut
        for visit in self.visits:
            bytesIn += visit.bytesIn
            bytesOut += visit.bytesOut
        return bytesIn, bytesOut

    def take(self, other: Offer) -> None:
        """
        Keep the counts of an entry that goes.
        """
        self.visits.update(other.visits)
        other.visits = {}
        self.visitorsTotal += other.visitorsTotal
        self.refused += other.refused
        self.bytesIn += other.bytesIn
        self.bytesOut += other.bytesOut
        one, two = self.before, other.before
        self.before = one[0] + two[0], one[1] + two[1]

    def sample(self, passed: float) -> None:
        """
        Measure the rates.

        @param passed: Seconds since the last time.
        """
        now = self.counts()
        self.rates = (
            max(0, now[0] - self.before[0]) / passed,
            max(0, now[1] - self.before[1]) / passed,
        )
        self.before = now

    def describe(self) -> dict[str, object]:
        """
        The tunnel as plain data.
        """
        bytesIn, bytesOut = self.counts()
        return {
            "forward": printable(self.spec),
            "address": self.address,
            "target": self.target,
            "ready": self.ready,
            "reason": self.reason,
            "visitors": len(self.visits),
            "visitorsTotal": self.visitorsTotal,
            "refused": self.refused,
            "bytesIn": bytesIn,
            "bytesOut": bytesOut,
            "rateIn": round(self.rates[0]),
            "rateOut": round(self.rates[1]),
        }
