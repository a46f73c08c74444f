"""A tunnel as its client sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tristunnel.errors import printable
from tristunnel.model.observer import Visit

__all__ = ["Offer"]


@dataclass(eq=False)
class Offer:
    """
    One tunnel as a client sees it, and what passed through it.

    @ivar spec: The forward, as the user wrote it.
    @ivar name: The tunnel's name, or empty.
    @ivar wanted: The visitors' port or the name that was asked for, in words.
    @ivar listens: Whether the service listens, as far as is known.
    @ivar health: Why the service is not well, as a check has found out, or empty.
    @ivar demand: Why a service that is started for visitors is not up, or empty.
    @ivar proven: When the service last passed a check; C{None} if it never has.
    @ivar uri: The tunnel's, or empty where the dialect has none.
    @ivar knockLink: Where visitors knock, or empty.
    @ivar isLocal: Whether it is a port of this machine, which stays open while
        the server is away.
    @ivar reason: Why visitors cannot come, or empty.
    @ivar speaks: What the service speaks: C{"http"}, C{"https"}, C{"other"}, or empty
        while it is not known.
    @ivar visits: The visits under way, and since when.
    @ivar bytesIn: Bytes from visitors who are gone.
    @ivar bytesOut: Bytes to them.
    @ivar before: All bytes at the last sample.
    @ivar rates: Bytes per second each way, between the last two samples.
    """

    spec: str = ""
    target: str = ""
    name: str = ""
    wanted: str = ""
    listens: bool = True
    health: str = ""
    demand: str = ""
    proven: float | None = None
    uri: str = ""
    address: str = ""
    knockLink: str = ""
    ready: bool = False
    isLocal: bool = False
    reason: str = ""
    speaks: str = ""
    visits: dict[Visit, float] = field(default_factory=dict)
    visitorsTotal: int = 0
    refused: int = 0
    bytesIn: int = 0
    bytesOut: int = 0
    before: tuple[int, int] = (0, 0)
    rates: tuple[float, float] = (0.0, 0.0)

    def counts(self) -> tuple[int, int]:
        """
        @return: Bytes from and to all visitors, including those who are here.
        """
        bytesIn, bytesOut = self.bytesIn, self.bytesOut
        for visit in self.visits:
            bytesIn += visit.bytesIn
            bytesOut += visit.bytesOut
        return bytesIn, bytesOut

    def take(self, other: Offer) -> None:
        """Take over the counts of an entry that is removed."""
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

    def describe(self, now: float) -> dict[str, object]:
        """
        The tunnel as plain data.

        @param now: By the clock of the checks.
        """
        bytesIn, bytesOut = self.counts()
        return {
            "forward": printable(self.spec),
            "name": self.name,
            "wanted": printable(self.wanted),
            "address": self.address,
            "knockLink": self.knockLink,
            "target": self.target,
            "ready": self.ready,
            "reason": self.reason,
            "speaks": self.speaks,
            "listens": self.listens,
            "health": self.health,
            "demand": self.demand,
            "proven": None if self.proven is None else round(now - self.proven, 1),
            "visitors": len(self.visits),
            "visitorsTotal": self.visitorsTotal,
            "refused": self.refused,
            "bytesIn": bytesIn,
            "bytesOut": bytesOut,
            "rateIn": round(self.rates[0]),
            "rateOut": round(self.rates[1]),
        }
