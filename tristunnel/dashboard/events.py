"""
The last things that happened, for whoever looks at the dashboard.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tristunnel.model.observer import ServerObserver
from tristunnel.util.addresses import addressText

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from tristunnel.auth.realm import Identity
    from tristunnel.errors import TunnelError
    from tristunnel.model.tunnel import Stream, Tunnel

__all__ = ["Event", "RecentEvents", "titleOf"]

KEPT = 200
"""Events that are kept, and as many refusals: a flood of refusals pushes out
nothing else."""


def titleOf(tunnel: Tunnel) -> str:
    """
    What to call a tunnel: its name, or its address, or its id.
    """
    return tunnel.name or tunnel.address or tunnel.id


@dataclass(eq=False)
class Event:
    """
    Something that happened.

    @ivar number: Counts up.
    @ivar when: Seconds since the epoch.
    @ivar kind: C{"good"}, C{"plain"} or C{"bad"}.
    @ivar owner: Whose it is; empty for the operator alone.
    @ivar text: One line.
    @ivar times: How often it happened in a row.
    """

    number: int
    when: float
    kind: str
    owner: str
    text: str
    times: int = 1


class RecentEvents(ServerObserver):
    """
    Keeps what it is told.

    @param now: The time of day.
    @param most: Events to keep.
    """

    def __init__(self, now: Callable[[], float] = time.time, most: int = KEPT) -> None:
        self._now = now
        self._number = 0
        self._events: deque[Event] = deque(maxlen=most)
        self._refusals: deque[Event] = deque(maxlen=most)
        # What the newest refusal was for, to count its repetitions.
        self._last: tuple[str, ...] = ()

    def latest(self, most: int, owner: str | None = None) -> list[Event]:
        """
        The newest events, newest first.

        @param owner: Whose; C{None} for all.
        """
        both = sorted(
            (*self._events, *self._refusals),
            key=lambda event: event.number,
            reverse=True,
        )
        if owner is not None:
            both = [event for event in both if event.owner == owner]
        return both[:most]

    def done(self, owner: str, text: str) -> None:
        """
        Keep what somebody did on the dashboard.

        @param owner: Who may see it, besides the operator.
        """
        self._tell("plain", owner, text)

    def _tell(self, kind: str, owner: str, text: str) -> None:
        self._number += 1
        self._events.append(Event(self._number, self._now(), kind, owner, text))

    def _refused(self, owner: str, text: str, *what: str) -> None:
        self._number += 1
        if self._refusals and self._last == (owner, *what):
            last = self._refusals.pop()
            times = last.times + 1
        else:
            times = 1
        self._last = (owner, *what)
        self._refusals.append(
            Event(self._number, self._now(), "bad", owner, text, times)
        )

    # ServerObserver

    def clientConnected(self, peer: IAddress, identity: Identity, dialect: str) -> None:
        """
        A client was let in.
        """
        text = f"Client {identity.name} connected from {addressText(peer)}"
        self._tell("good", identity.name, f"{text} ({dialect})")

    def clientGone(
        self, peer: IAddress, identity: Identity, reason: TunnelError
    ) -> None:
        """
        A session is over.
        """
        self._tell(
            "plain",
            identity.name,
            f"Client {identity.name} at {addressText(peer)} left: {reason}",
        )

    def tunnelCreated(self, tunnel: Tunnel) -> None:
        """
        A tunnel is open.
        """
        where = tunnel.address or "no public address"
        name = f" {tunnel.name}" if tunnel.name else ""
        self._tell(
            "good",
            tunnel.owner.name,
            f"Tunnel{name} of {tunnel.owner.name} is open at {where}",
        )

    def tunnelDestroyed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """
        A tunnel is over.
        """
        self._tell(
            "plain",
            tunnel.owner.name,
            f"Tunnel {titleOf(tunnel)} of {tunnel.owner.name} is closed: {reason}",
        )

    def visitorRefused(self, stream: Stream, reason: TunnelError) -> None:
        """
        A visitor was turned away.
        """
        tunnel = stream.tunnel
        self._refused(
            tunnel.owner.name,
            f"Visitor {stream.visitorAddress} of {titleOf(tunnel)} was turned away:"
            f" {reason}",
            tunnel.id,
            reason.code.name,
        )

    def authenticationFailed(self, peer: IAddress, reason: TunnelError) -> None:
        """
        A client was not let in.
        """
        text = f"Client at {addressText(peer)} was turned away: {reason}"
        self._refused("", text, "client", reason.code.name)

    def peerRefused(self, peer: IAddress, reason: TunnelError) -> None:
        """
        A connection was closed before anybody was known.
        """
        text = f"Connection from {addressText(peer)} closed: {reason}"
        self._refused("", text, "peer", reason.code.name)
