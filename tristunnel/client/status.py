"""
What the clients of this process do now, as it is shown on the screen and over
RPC.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from heapq import nlargest
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from tristunnel import __version__
from tristunnel.client.following import ClientStatus
from tristunnel.client.offer import Offer
from tristunnel.service.listing import RateMeter
from tristunnel.util.events import RecentEvents
from tristunnel.util.words import printable

if TYPE_CHECKING:
    from tristunnel.model.visit import Visit

__all__ = ["EVENTS", "SAMPLES", "VISITORS", "ProcessStatus", "StatusTicks"]

SAMPLES = 60
"""Rates that are kept, one for each second."""

EVENTS = 50
"""Events that C{status} tells."""

VISITORS = 1000
"""Visitors that C{listVisitors} tells of, unless it is asked for more."""


class ProcessStatus:
    """
    What all clients of this process do.

    @param seconds: The clock.
    @param now: The time of day.

    @ivar events: What happened lately.
    @ivar changed: Called when there is something new to be seen.
    @ivar isStopping: Whether the process was told to stop.
    @ivar former: Counts of clients that are no more.
    """

    def __init__(
        self, seconds: Callable[[], float], now: Callable[[], float] = time.time
    ) -> None:
        self.seconds = seconds
        self.events = RecentEvents(now)
        self.changed: Callable[[], None] = lambda: None
        self.isStopping = False
        self._began = self._sampled = seconds()
        self._clients: list[ClientStatus] = []
        self.former = Offer("", "")
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self._meter = RateMeter(seconds)
        self._numbers = 0
        self._ids: WeakKeyDictionary[Visit, int] = WeakKeyDictionary()

    def follow(self, server: str, connects: bool = True) -> ClientStatus:
        """
        Follow one more client.

        @param server: The server, as messages name it.
        @param connects: Whether the client stays connected.
        """
        client = ClientStatus(self, server, connects)
        self._clients.append(client)
        return client

    def forget(self, client: ClientStatus) -> None:
        """
        A client has ended. In the end of all of them, its last state is still
        to be seen.
        """
        if not self.isStopping and client in self._clients:
            self._clients.remove(client)
            for offer in client.offers:
                self.former.take(offer)
            self.changed()

    def stopping(self) -> None:
        """
        The process was told to stop, and waits for its visitors.
        """
        self.isStopping = True
        self.changed()

    def tell(
        self, kind: str, text: str | Callable[[], str], level: str = "info"
    ) -> None:
        """
        Note an event.
        """
        same = text if isinstance(text, str) else None
        self.events.add(kind, text, level, same=same)
        self.changed()

    def number(self, visit: Visit) -> None:
        """
        Give a visit a number of its own.
        """
        self._numbers += 1
        self._ids[visit] = self._numbers

    @property
    def _offers(self) -> list[Offer]:
        own = [offer for client in self._clients for offer in client.offers]
        return [*own, self.former]

    def sample(self) -> None:
        """
        Measure the rates; to be called about once a second.
        """
        now = self.seconds()
        passed = now - self._sampled
        if passed < 0.5:
            return
        self._sampled = now
        offers = self._offers
        for offer in offers:
            offer.sample(passed)
        self._samples.append(
            (
                sum(offer.rates[0] for offer in offers),
                sum(offer.rates[1] for offer in offers),
            )
        )

    def describe(self, events: int = EVENTS) -> dict[str, object]:
        """
        All but the visitors, as plain data.

        @param events: How many events.
        """
        offers = self._offers
        counts = [offer.counts() for offer in offers]
        rates = self._samples[-1] if self._samples else (0.0, 0.0)
        return {
            "program": "client",
            "version": __version__,
            "pid": os.getpid(),
            "seconds": round(self.seconds() - self._began, 3),
            "servers": [client.describe() for client in self._clients],
            "tunnels": self.tunnels(),
            "visitors": sum(len(offer.visits) for offer in offers),
            "visitorsTotal": sum(offer.visitorsTotal for offer in offers),
            "refused": sum(offer.refused for offer in offers),
            "bytesIn": sum(bytesIn for bytesIn, _ in counts),
            "bytesOut": sum(bytesOut for _, bytesOut in counts),
            "rateIn": round(rates[0]),
            "rateOut": round(rates[1]),
            "rates": [[round(one), round(other)] for one, other in self._samples],
            "events": [each.describe() for each in self.events.latest(events)],
        }

    def tunnels(self) -> list[dict[str, object]]:
        """
        The tunnels, as plain data.
        """
        return [tunnel for client in self._clients for tunnel in client.tunnels()]

    def visitors(self, most: int = VISITORS) -> list[dict[str, object]]:
        """
        The visitors who are here, as plain data.

        @param most: How many; those are told of who have moved the most.
        """
        here = (
            (visit, since, offer.address)
            for offer in self._offers
            for visit, since in offer.visits.items()
        )
        chosen = nlargest(most, here, key=lambda e: e[0].bytesIn + e[0].bytesOut)
        return [self._visitor(*each) for each in chosen]

    def _visitor(self, visit: Visit, since: float, address: str) -> dict[str, object]:
        bytesIn, bytesOut = visit.bytesIn, visit.bytesOut
        rateIn, rateOut = self._meter.measure(visit, since, bytesIn, bytesOut)
        return {
            "id": str(self._ids[visit]),
            "from": printable(visit.visitor),
            "address": address,
            "target": visit.target,
            "seconds": round(self.seconds() - since, 3),
            "bytesIn": bytesIn,
            "bytesOut": bytesOut,
            "rateIn": round(rateIn),
            "rateOut": round(rateOut),
        }


class StatusTicks(Service):
    """
    Has a status measure its rates.

    @param reactor: Tells time.
    @param status: The status.
    """

    def __init__(self, reactor: Any, status: ProcessStatus) -> None:
        self._ticking = LoopingCall(status.sample)
        self._ticking.clock = reactor

    def startService(self) -> None:
        super().startService()
        self._ticking.start(1.0, now=False)

    def stopService(self) -> Deferred[None] | None:
        if self._ticking.running:
            self._ticking.stop()
        return None
