"""
Telling several observers what happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tristunnel.model.observer import ServerObserver

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from tristunnel.auth.realm import Identity
    from tristunnel.errors import TunnelError
    from tristunnel.model.tunnel import Stream, Tunnel

__all__ = ["SeveralObservers"]


class SeveralObservers(ServerObserver):
    """
    Passes on what it is told.

    @param observers: To whom, in this order.
    """

    def __init__(self, *observers: ServerObserver) -> None:
        self._observers = observers

    def serverStarted(self, port: str, address: IAddress) -> None:
        """
        A port is open for clients.
        """
        for each in self._observers:
            each.serverStarted(port, address)

    def clientConnected(self, peer: IAddress, identity: Identity, dialect: str) -> None:
        """
        A client was let in.
        """
        for each in self._observers:
            each.clientConnected(peer, identity, dialect)

    def clientGone(
        self, peer: IAddress, identity: Identity, reason: TunnelError
    ) -> None:
        """
        A client's session is over.
        """
        for each in self._observers:
            each.clientGone(peer, identity, reason)

    def authenticationFailed(self, peer: IAddress, reason: TunnelError) -> None:
        """
        A client was not let in.
        """
        for each in self._observers:
            each.authenticationFailed(peer, reason)

    def tunnelCreated(self, tunnel: Tunnel) -> None:
        """
        A tunnel is open for visitors.
        """
        for each in self._observers:
            each.tunnelCreated(tunnel)

    def tunnelDestroyed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """
        A tunnel is over.
        """
        for each in self._observers:
            each.tunnelDestroyed(tunnel, reason)

    def visitorConnected(self, stream: Stream) -> None:
        """
        A visitor came.
        """
        for each in self._observers:
            each.visitorConnected(stream)

    def visitorRefused(self, stream: Stream, reason: TunnelError) -> None:
        """
        A visitor was turned away at the door.
        """
        for each in self._observers:
            each.visitorRefused(stream, reason)

    def visitorGone(self, stream: Stream) -> None:
        """
        A visitor left.
        """
        for each in self._observers:
            each.visitorGone(stream)

    def peerRefused(self, peer: IAddress, reason: TunnelError) -> None:
        """
        A connection was closed before anybody was known.
        """
        for each in self._observers:
            each.peerRefused(peer, reason)

    def requestNoted(self, identity: Identity, text: str, refused: bool) -> None:
        """
        A client has changed something, or was refused it.
        """
        for each in self._observers:
            each.requestNoted(identity, text, refused)

    def roundTripMeasured(self, seconds: float) -> None:
        """
        A client has answered a ping.
        """
        for each in self._observers:
            each.roundTripMeasured(seconds)
