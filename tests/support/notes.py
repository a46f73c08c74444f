"""
Observers that write down what they are told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress

from tristunnel.errors import TunnelError
from tristunnel.model.observer import ClientObserver, ServerObserver
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream, Tunnel

__all__ = ["ClientNotes", "ServerNotes"]


class _Notes:
    """
    Writes down what it is told, as tuples.

    @ivar events: What was told, oldest first.
    @ivar listeners: Called with each event.
    """

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.listeners: list[Callable[[tuple[Any, ...]], None]] = []

    def note(self, *event: Any) -> None:
        """Write down, and tell whoever wants to know at once."""
        self.events.append(event)
        for listener in self.listeners:
            listener(event)

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """The rest of all events of a name."""
        return [event[1:] for event in self.events if event[0] == name]


class ServerNotes(_Notes, ServerObserver):
    """
    Writes down what a server tells.

    @ivar peers: Where clients came from.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[str] = []

    def clientConnected(self, peer: IAddress, identity: Identity, dialect: str) -> None:
        self.peers.append(getattr(peer, "host", ""))
        self.note("clientConnected", identity.name, dialect)

    def clientGone(
        self, peer: IAddress, identity: Identity, reason: TunnelError
    ) -> None:
        self.note("clientGone", identity.name, reason.code.name)

    def requestNoted(self, identity: Identity, text: str, refused: bool) -> None:
        self.note("requestNoted", identity.name, text, refused)

    def authenticationFailed(self, peer: IAddress, reason: TunnelError) -> None:
        self.note("authenticationFailed", reason.code.name)

    def tunnelCreated(self, tunnel: Tunnel) -> None:
        self.note("tunnelCreated", tunnel.address)

    def tunnelDestroyed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        self.note("tunnelDestroyed", tunnel.address, reason.code.name)

    def visitorConnected(self, stream: Stream) -> None:
        self.note("visitorConnected", stream.visitorAddress)

    def visitorRefused(self, stream: Stream, reason: TunnelError) -> None:
        self.note("visitorRefused", stream.visitorAddress, reason.code.name)

    def visitorGone(self, stream: Stream) -> None:
        reason = stream.reason.code.name if stream.reason else ""
        self.note("visitorGone", stream.bytesIn, stream.bytesOut, reason)

    def peerRefused(self, peer: IAddress, reason: TunnelError) -> None:
        self.note("peerRefused", reason.code.name, reason.message)

    def roundTripMeasured(self, seconds: float) -> None:
        self.note("roundTripMeasured", seconds)


class ClientNotes(_Notes, ClientObserver):
    """Writes down what a client tells."""

    def connected(self, peer: IAddress) -> None:
        self.note("connected")

    def credentialsSent(self, peer: IAddress) -> None:
        self.note("credentialsSent")

    def acknowledged(self, dialect: str) -> None:
        self.note("acknowledged", dialect)

    def tunnelReady(self, address: str, target: str) -> None:
        self.note("tunnelReady", address, target)

    def tunnelFailed(self, wanted: str, reason: TunnelError) -> None:
        self.note("tunnelFailed", wanted, reason.code.name)

    def disconnected(self, reason: TunnelError) -> None:
        self.note("disconnected", reason.code.name, reason.message)

    def reconnectQueued(self, delay: float) -> None:
        self.note("reconnectQueued", delay)

    def gaveUp(self, reason: TunnelError) -> None:
        self.note("gaveUp", reason.code.name)

    def serviceConnected(self, target: str) -> None:
        self.note("serviceConnected", target)

    def serviceFailed(self, target: str, reason: TunnelError) -> None:
        self.note("serviceFailed", target, reason.code.name)

    def serviceGone(
        self, target: str, received: int, sent: int, reason: TunnelError | None
    ) -> None:
        code = reason.code.name if reason else ""
        self.note("serviceGone", target, received, sent, code)
