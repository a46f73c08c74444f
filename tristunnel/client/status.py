"""What the clients of this process are doing, for the screen and for RPC."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from heapq import nlargest
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.interfaces import IAddress

from tristunnel.client.offer import Offer
from tristunnel.errors import TunnelError, printable
from tristunnel.forwards.forward import Forward
from tristunnel.model.observer import ClientObserver, Visit
from tristunnel.service.counters import RateMeter
from tristunnel.util.events import RecentEvents
from tristunnel.util.words import age, amount
from tristunnel.version import VERSION

__all__ = [
    "EVENTS",
    "SAMPLES",
    "VISITORS",
    "ClientStatus",
    "ProcessStatus",
    "statusTicks",
]

SAMPLES = 60
"""Rates that are kept, one for each second."""

EVENTS = 50
"""Events that C{status} tells."""

VISITORS = 1000
"""Visitors that C{listVisitors} tells of, unless it is asked for more."""


class ClientStatus(ClientObserver):
    """
    Follows one client.

    @param whole: What all clients of this process do.
    @param server: The server, as messages name it.
    @param connects: Whether the client stays connected; if not, each of its
        visitors connects.
    @param forwards: What it offers at first.
    """

    def __init__(
        self,
        whole: ProcessStatus,
        server: str,
        connects: bool,
        forwards: Sequence[Forward] = (),
    ) -> None:
        self._forwards = {forward.spec: forward for forward in forwards}
        self._whole = whole
        self._seconds = whole.seconds
        self._tell = whole.tell
        self._server = printable(server)
        self._connects = connects
        self._since = whole.seconds()
        self._state = "connecting"
        self._reason = ""
        self._until = 0.0
        self._dialect = ""
        self._roundTrip = 0.0
        self._offers: dict[str, Offer] = {}
        self._opened: dict[str, Offer] = {}
        # For visitors whose tunnel is not known.
        self._stray = Offer()

    @property
    def offers(self) -> tuple[Offer, ...]:
        """All tunnels, and the entry for visitors whose tunnel is not known."""
        return (*self._offers.values(), self._stray)

    # What the client tells

    def _enter(self, state: str, reason: str = "") -> None:
        self._state, self._reason = state, reason
        self._since = self._seconds()
        self._whole.changed()

    def connected(self, peer: IAddress) -> None:
        if self._state == "waiting":
            self._enter("connecting")

    def acknowledged(self, dialect: str) -> None:
        self._dialect = dialect
        self._roundTrip = 0.0
        for offer in self._offers.values():
            offer.uri = ""
            offer.ready = offer.isLocal
        self._enter("online")
        self._tell("session", f"connected to {self._server}")

    def disconnected(self, reason: TunnelError) -> None:
        for offer in self._offers.values():
            offer.ready = False
        text = _said(reason)
        if self._state != "stopping":
            self._enter("connecting", text)
        if not reason.final:
            self._tell("session", f"not connected: {text}", "warn")

    def reconnectQueued(self, delay: float) -> None:
        self._until = self._seconds() + delay
        self._enter("waiting", self._reason)

    def openingQueued(self, delay: float) -> None:
        self._until = self._seconds() + delay

    def gaveUp(self, reason: TunnelError) -> None:
        text = _said(reason)
        self._enter("stopped", text)
        self._tell("session", f"giving up: {text}", "error")

    def stopped(self) -> None:
        self._whole.forget(self)

    def roundTripMeasured(self, seconds: float) -> None:
        self._roundTrip = seconds

    # Tunnels

    def _offer(self, spec: str, target: str) -> Offer:
        offer = self._offers.get(spec)
        if offer is None or offer.target != target:
            offer = self._offers[spec] = Offer(spec, target)
            forward = self._forwards.get(spec)
            if forward is not None:
                offer.name, offer.wanted = forward.name, forward.wanted
        return offer

    def tunnelOpened(self, spec: str, uri: str, address: str, target: str) -> None:
        offer = self._offer(spec, target)
        offer.uri, offer.address = uri, printable(address)
        self._opened[offer.address] = offer

    def tunnelReady(self, address: str, target: str) -> None:
        address = printable(address)
        offer = self._opened.pop(address, None) or self._known(address, target)
        offer.address, offer.ready, offer.reason = address, True, ""
        self._tell("tunnel", f"visitors of {address} reach {target}")

    def knockLinkMade(self, address: str, link: str) -> None:
        for offer in self._offers.values():
            if offer.address == printable(address):
                offer.knockLink = printable(link)
        self._whole.changed()

    def _known(self, address: str, target: str) -> Offer:
        offers = self._offers.values()
        known = [each for each in offers if each.address == address]
        # Some dialects report a tunnel only here, even one that was refused.
        known += [e for e in offers if e.target == target and not e.address]
        return known[0] if known else self._offer(address, target)

    def tunnelFailed(self, wanted: str, reason: TunnelError) -> None:
        text = _said(reason)
        for forward in self._forwards.values():
            if forward.spec not in self._offers and forward.wanted == wanted:
                self._offer(forward.spec, forward.target)
        for offer in self._offers.values():
            if wanted in (offer.spec, offer.uri) or (
                wanted == offer.wanted and not offer.ready
            ):
                offer.ready, offer.reason = False, text
        self._tell("tunnel", f"no tunnel for {printable(wanted)}: {text}", "error")

    def tunnelClosed(self, uri: str) -> None:
        for offer in self._offers.values():
            if offer.uri == uri:
                offer.ready = False
        self._whole.changed()

    def forwardWithdrawn(self, spec: str) -> None:
        """Remove a forward. Its visitors, who may stay for a while, still count."""
        offer = self._offers.pop(spec, None)
        if offer is not None:
            self._stray.take(offer)
            self._tell("tunnel", f"{offer.address or spec} is no longer offered")

    def portReady(self, address: str, what: str) -> None:
        offer = self._offer(address, what)
        offer.address, offer.ready, offer.isLocal = printable(address), True, True
        if not self._connects:
            self._enter("online")
        self._tell("tunnel", f"visitors of {address} reach {what}")

    # Visitors

    def _offerOf(self, target: str, tunnel: str = "") -> Offer:
        if tunnel:
            for offer in self._offers.values():
                if offer.uri == tunnel:
                    return offer
        return (self._offersAt(target) or [self._stray])[0]

    def visitorConnected(self, visit: Visit) -> None:
        offer = self._offerOf(visit.target, visit.tunnel)
        offer.visits[visit] = self._seconds()
        offer.visitorsTotal += 1
        self._whole.tellVisit(partial(_came, visit.visitor, visit.target))

    def visitorGone(self, visit: Visit, reason: TunnelError | None) -> None:
        for offer in (*self._offers.values(), self._stray, self._whole.former):
            since = offer.visits.pop(visit, None)
            if since is not None:
                break
        else:
            return
        bytesIn, bytesOut = visit.bytesIn, visit.bytesOut
        offer.bytesIn += bytesIn
        offer.bytesOut += bytesOut
        seconds = self._seconds() - since
        said = partial(_left, visit.visitor, seconds, bytesIn, bytesOut, reason)
        self._whole.tellVisit(said)

    def serviceFailed(self, target: str, reason: TunnelError) -> None:
        self._offerOf(target).refused += 1
        self._tell("refusal", f"a visitor was turned away: {_said(reason)}", "warn")

    def serviceMissing(self, target: str) -> None:
        for offer in self._offersAt(target):
            offer.listens = False
        said = f"nothing listens at {target} yet; start the service"
        self._tell("tunnel", said, "warn")

    def serviceFound(self, target: str) -> None:
        for offer in self._offersAt(target):
            offer.listens = True
        self._tell("tunnel", f"{target} listens now")

    def _offersAt(self, target: str) -> list[Offer]:
        return [offer for offer in self._offers.values() if offer.target == target]

    def serviceOnDemand(self, target: str, state: str, said: str) -> None:
        for offer in self._offersAt(target):
            offer.demand = "" if state == "up" else said
        level = "warn" if state == "failed" else "info"
        self._tell("tunnel", f"{target} {said}", level)

    def serviceProven(self, target: str) -> None:
        for offer in self._offersAt(target):
            offer.proven = self._seconds()

    def serviceHealth(self, target: str, isWell: bool, reason: str) -> None:
        for offer in self._offersAt(target):
            offer.health = "" if isWell else reason
        said = f"{target} is well" if isWell else f"{target} is not well: {reason}"
        self._tell("tunnel", said, "info" if isWell else "warn")

    def serviceSpeaks(self, target: str, kind: str) -> None:
        for offer in self._offersAt(target):
            offer.speaks = kind
        self._whole.changed()

    def visitorRefused(self, target: str, reason: TunnelError) -> None:
        self.serviceFailed(target, reason)

    # What is shown

    def describe(self) -> dict[str, object]:
        """The connection to the server, as plain data."""
        now = self._seconds()
        state: str = self._state
        left = round(self._until - now, 3)
        retryIn = left if left > 0 and state in ("waiting", "online") else None
        if state == "waiting" and retryIn is None:
            state = "connecting"
        if self._whole.isStopping and state != "stopped":
            state = "stopping"
        trip = self._roundTrip if self._state == "online" else 0.0
        return {
            "server": self._server,
            "dialect": self._dialect,
            "state": state,
            "stateSeconds": round(now - self._since, 3),
            "reason": self._reason,
            "retryIn": retryIn,
            "stopsIn": self._whole.stopsIn if state == "stopping" else None,
            "roundTrip": round(trip, 6) or None,
        }

    def tunnels(self) -> list[dict[str, object]]:
        """The tunnels, as plain data."""
        now = self._seconds()
        return [
            {"server": self._server, **offer.describe(now)}
            for offer in self._offers.values()
        ]


def _said(reason: TunnelError) -> str:
    """Shorten a reason, of which many are kept and sent with every status."""
    return printable(str(reason))


def _came(visitor: str, target: str) -> str:
    return f"{printable(visitor) or 'a visitor'} came to {target}"


def _left(
    visitor: str, seconds: float, down: int, up: int, reason: TunnelError | None
) -> str:
    lasted = age(seconds) if seconds >= 10 else f"{seconds:.1f} s"
    why = f": {_said(reason)}" if reason is not None else ""
    return (
        f"{printable(visitor) or 'a visitor'} left after {lasted},"
        f" {amount(down)} down, {amount(up)} up{why}"
    )


class ProcessStatus:
    """
    What all clients of this process do.

    @param seconds: The clock.
    @param now: The time of day.

    @ivar events: What happened lately.
    @ivar changed: Called when there is something new to be seen.
    @ivar more: Makes what others add to L{describe}.
    @ivar isStopping: Whether the process was told to stop.
    @ivar former: Counts of former clients.
    """

    def __init__(
        self, seconds: Callable[[], float], now: Callable[[], float] = time.time
    ) -> None:
        self.seconds = seconds
        self.events = RecentEvents(now)
        self.changed: Callable[[], None] = lambda: None
        self.more: Callable[[], dict[str, object]] = dict
        self.isStopping = False
        self._stopsAt = 0.0
        self._began = self._sampled = seconds()
        self._clients: list[ClientStatus] = []
        self.former = Offer()
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self._meter = RateMeter(seconds)
        self._numbers = 0

    def follow(
        self, server: str, connects: bool = True, forwards: Sequence[Forward] = ()
    ) -> ClientStatus:
        """
        Follow one more client.

        @param server: The server, as messages name it.
        @param connects: Whether the client stays connected.
        @param forwards: What it offers at first.
        """
        client = ClientStatus(self, server, connects, forwards)
        self._clients.append(client)
        return client

    def forget(self, client: ClientStatus) -> None:
        """
        Remove a client that has ended. When all of them end, its last state can still
        be seen.
        """
        if not self.isStopping and client in self._clients:
            self._clients.remove(client)
            for offer in client.offers:
                self.former.take(offer)
            self.changed()

    def stopping(self, grace: float = 0.0) -> None:
        """
        Note that the process was told to stop, and waits for its visitors.

        @param grace: Seconds that it waits, at most.
        """
        self.isStopping = True
        self._stopsAt = self.seconds() + grace
        self.changed()

    @property
    def stopsIn(self) -> float:
        """Seconds until the process stops waiting for visitors."""
        return round(max(0.0, self._stopsAt - self.seconds()), 3)

    def tell(
        self, kind: str, text: str | Callable[[], str], level: str = "info"
    ) -> None:
        """Note an event."""
        same = text if isinstance(text, str) else None
        self.events.add(kind, text, level, same=same)
        self.changed()

    def tellVisit(self, text: Callable[[], str]) -> None:
        """Note the beginning or the end of a visit."""
        self.events.addFlood(text)
        self.changed()

    @property
    def _offers(self) -> list[Offer]:
        own = [offer for client in self._clients for offer in client.offers]
        return [*own, self.former]

    def sample(self) -> None:
        """Measure the rates; to be called about once a second."""
        now = self.seconds()
        passed = now - self._sampled
        if passed < 0.5:
            return
        self._sampled = now
        offers = self._offers
        for offer in offers:
            offer.sample(passed)
        rateIn, rateOut = (sum(each.rates[way] for each in offers) for way in (0, 1))
        self._samples.append((rateIn, rateOut))

    def describe(self, events: int = EVENTS) -> dict[str, object]:
        """
        Everything but the visitors, as plain data.

        @param events: How many events.
        """
        offers = self._offers
        counts = [offer.counts() for offer in offers]
        rates = self._samples[-1] if self._samples else (0.0, 0.0)
        return {
            "program": "client",
            "version": VERSION,
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
            **self.more(),
        }

    def tunnels(self) -> list[dict[str, object]]:
        """The tunnels, as plain data."""
        return [tunnel for client in self._clients for tunnel in client.tunnels()]

    def visitors(self, most: int = VISITORS) -> list[dict[str, object]]:
        """
        The visitors who are here, as plain data.

        @param most: How many; those who have moved most are included.
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
        if not visit.number:
            # Most are never seen.
            self._numbers += 1
            visit.number = self._numbers
        return {
            "id": str(visit.number),
            "from": printable(visit.visitor),
            "address": address,
            "target": visit.target,
            "seconds": round(self.seconds() - since, 3),
            "bytesIn": bytesIn,
            "bytesOut": bytesOut,
            "rateIn": round(rateIn),
            "rateOut": round(rateOut),
        }


def statusTicks(reactor: Any, status: ProcessStatus) -> Service:
    """
    Make a service that has a status measure its rates.

    @param reactor: Tells time.
    """
    ticks = TimerService(1.0, status.sample)
    ticks.clock = reactor
    return ticks
