"""
Following one client: what it tells its observer becomes what is shown of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tristunnel.client.offer import Offer
from tristunnel.model.observer import ClientObserver
from tristunnel.util.words import age, amount, printable

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from tristunnel.client.status import ProcessStatus
    from tristunnel.errors import TunnelError
    from tristunnel.model.visit import Visit

__all__ = ["ClientStatus"]


class ClientStatus(ClientObserver):
    """
    Follows one client.

    @param whole: What all clients of this process do.
    @param server: The server, as messages name it.
    @param connects: Whether the client stays connected; if not, each of its
        visitors connects.
    """

    def __init__(self, whole: ProcessStatus, server: str, connects: bool) -> None:
        self._whole = whole
        self._seconds = whole.seconds
        self._server = printable(server)
        self._connects = connects
        self._since = whole.seconds()
        self._state = "connecting"
        self._reason = ""
        self._until = 0.0
        self._dialect = ""
        self._roundTrip = 0.0
        self._offers: dict[str, Offer] = {}
        # Of visitors whose tunnel is not known.
        self._stray = Offer("", "")

    @property
    def offers(self) -> tuple[Offer, ...]:
        return (*self._offers.values(), self._stray)

    # What the client tells

    def _enter(self, state: str, reason: str = "") -> None:
        self._state, self._reason = state, reason
        self._since = self._seconds()
        self._whole.changed()

    def _tell(
        self, kind: str, text: str | Callable[[], str], level: str = "info"
    ) -> None:
        self._whole.tell(kind, text, level)

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
        self._tell("session", f"not connected: {text}", "warn")

    def reconnectQueued(self, delay: float) -> None:
        self._until = self._seconds() + delay
        self._enter("waiting", self._reason)

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
        return offer

    def tunnelOpened(self, spec: str, uri: str, address: str, target: str) -> None:
        offer = self._offer(spec, target)
        offer.uri, offer.address = uri, printable(address)

    def tunnelReady(self, address: str, target: str) -> None:
        address = printable(address)
        known = [each for each in self._offers.values() if each.address == address]
        offer = known[0] if known else self._offer(address, target)
        offer.address, offer.ready, offer.reason = address, True, ""
        self._tell("tunnel", f"visitors of {address} reach {target}")

    def tunnelFailed(self, wanted: str, reason: TunnelError) -> None:
        text = _said(reason)
        for offer in self._offers.values():
            if wanted in (offer.spec, offer.uri):
                offer.ready, offer.reason = False, text
        self._tell("tunnel", f"no tunnel at {printable(wanted)}: {text}", "error")

    def tunnelClosed(self, uri: str) -> None:
        for offer in self._offers.values():
            if offer.uri == uri:
                offer.ready = False
        self._whole.changed()

    def forwardWithdrawn(self, spec: str) -> None:
        """
        A forward is offered no longer. Its visitors, who may stay for a while,
        still count.
        """
        offer = self._offers.pop(spec, None)
        if offer is not None:
            self._stray.take(offer)
            self._tell("tunnel", f"{offer.address or spec} is offered no longer")

    def portReady(self, address: str, what: str) -> None:
        offer = self._offer(address, what)
        offer.address, offer.ready, offer.isLocal = printable(address), True, True
        if not self._connects:
            self._enter("online")
        self._tell("tunnel", f"visitors of {address} reach {what}")

    # Visitors

    def _offerOf(self, target: str, tunnel: str = "") -> Offer:
        for offer in self._offers.values():
            if tunnel and offer.uri == tunnel:
                return offer
        for offer in self._offers.values():
            if offer.target == target:
                return offer
        return self._stray

    def visitorConnected(self, visit: Visit) -> None:
        offer = self._offerOf(visit.target, visit.tunnel)
        offer.visits[visit] = self._seconds()
        offer.visitorsTotal += 1
        self._whole.number(visit)
        self._tell("visitor", partial(_came, visit.visitor, visit.target))

    def visitorGone(self, visit: Visit, reason: TunnelError | None) -> None:
        for offer in (*self.offers, self._whole.former):
            since = offer.visits.pop(visit, None)
            if since is not None:
                break
        else:
            return
        bytesIn, bytesOut = visit.bytesIn, visit.bytesOut
        offer.bytesIn += bytesIn
        offer.bytesOut += bytesOut
        self._tell(
            "visitor",
            partial(
                _left, visit.visitor, self._seconds() - since, bytesIn, bytesOut, reason
            ),
        )

    def serviceFailed(self, target: str, reason: TunnelError) -> None:
        self._offerOf(target).refused += 1
        self._tell("refusal", f"a visitor was turned away: {_said(reason)}", "warn")

    def visitorRefused(self, target: str, reason: TunnelError) -> None:
        self.serviceFailed(target, reason)

    # What is shown

    def describe(self) -> dict[str, object]:
        """
        The connection to the server, as plain data.
        """
        now = self._seconds()
        state: str = self._state
        retryIn: float | None = None
        if state == "waiting":
            retryIn = round(self._until - now, 3)
            if retryIn <= 0:
                state, retryIn = "connecting", None
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
            "roundTrip": round(trip, 6) or None,
        }

    def tunnels(self) -> list[dict[str, object]]:
        """
        The tunnels, as plain data.
        """
        return [
            {"server": self._server, **offer.describe()}
            for offer in self._offers.values()
        ]


def _said(reason: TunnelError) -> str:
    """
    Shorten a reason, of which many are kept and sent with every status.
    """
    return printable(str(reason))


def _came(visitor: str, target: str) -> str:
    return f"{printable(visitor) or 'a visitor'} came to {target}"


def _left(
    visitor: str,
    seconds: float,
    bytesIn: int,
    bytesOut: int,
    reason: TunnelError | None,
) -> str:
    lasted = age(seconds) if seconds >= 10 else f"{seconds:.1f} s"
    why = f": {_said(reason)}" if reason is not None else ""
    return (
        f"{printable(visitor) or 'a visitor'} left after {lasted},"
        f" {amount(bytesIn)} down, {amount(bytesOut)} up{why}"
    )
