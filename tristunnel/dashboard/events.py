"""The latest events, for the dashboard."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tristunnel.model.observer import ServerObserver
from tristunnel.util.events import RecentEvents
from tristunnel.util.hosts import addressText

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from tristunnel.errors import TunnelError
    from tristunnel.model.permissions import Identity
    from tristunnel.model.record import TunnelRecord
    from tristunnel.model.tunnel import Stream, Tunnel

__all__ = ["ServerEvents", "titleOf"]


def titleOf(tunnel: Tunnel | TunnelRecord) -> str:
    """Find a title for a tunnel: its name, its address, or its id."""
    return tunnel.name or tunnel.address or tunnel.id


class ServerEvents(RecentEvents, ServerObserver):
    """
    Keeps the events that it is told of. A flood of refusals pushes out no others.

    @param now: The time of day.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        super().__init__(now, "refusal")

    def done(self, owner: str, text: str) -> None:
        """
        Keep what a caller did on the dashboard.

        @param owner: Who may see it, besides the operator.
        """
        self._tell("plain", owner, text)

    def _tell(self, level: str, owner: str, text: str) -> None:
        self.add("event", text, level, owner)

    def _refused(self, owner: str, text: str, *what: str) -> None:
        self.add("refusal", text, "bad", owner, same=(owner, *what))

    # ServerObserver

    def clientConnected(self, peer: IAddress, identity: Identity, dialect: str) -> None:
        text = f"Client {identity.shown} connected from {addressText(peer)}"
        self._tell("good", identity.name, f"{text} ({dialect})")

    def clientGone(
        self, peer: IAddress, identity: Identity, reason: TunnelError
    ) -> None:
        self._tell(
            "plain",
            identity.name,
            f"Client {identity.shown} at {addressText(peer)} left: {reason}",
        )

    def tunnelCreated(self, tunnel: Tunnel) -> None:
        where = tunnel.page or tunnel.address or "no public address"
        name = f" {tunnel.name}" if tunnel.name else ""
        self._tell(
            "good",
            tunnel.owner.name,
            f"Tunnel{name} of {tunnel.owner.shown} is open at {where}",
        )

    def tunnelDestroyed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        self._tell(
            "plain",
            tunnel.owner.name,
            f"Tunnel {titleOf(tunnel)} of {tunnel.owner.shown} is closed: {reason}",
        )

    def visitorRefused(self, stream: Stream, reason: TunnelError) -> None:
        tunnel = stream.tunnel
        self._refused(
            tunnel.owner.name,
            f"Visitor {stream.visitorAddress} of {titleOf(tunnel)} was turned away:"
            f" {reason}",
            tunnel.id,
            reason.code.name,
        )

    def authenticationFailed(self, peer: IAddress, reason: TunnelError) -> None:
        text = f"Client at {addressText(peer)} was turned away: {reason}"
        self._refused("", text, "client", reason.code.name)

    def peerRefused(self, peer: IAddress, reason: TunnelError) -> None:
        text = f"Connection from {addressText(peer)} closed: {reason}"
        self._refused("", text, "peer", reason.code.name)
