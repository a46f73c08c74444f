"""
Telling several observers what happens at a client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tristunnel.model.observer import ClientObserver

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from tristunnel.errors import TunnelError
    from tristunnel.model.visit import Visit

__all__ = ["SeveralClientObservers"]


class SeveralClientObservers(ClientObserver):
    """
    Passes on what it is told.

    @param observers: To whom, in this order.
    """

    def __init__(self, *observers: ClientObserver) -> None:
        self._observers = observers

    def connected(self, peer: IAddress) -> None:
        for each in self._observers:
            each.connected(peer)

    def credentialsSent(self, peer: IAddress) -> None:
        for each in self._observers:
            each.credentialsSent(peer)

    def acknowledged(self, dialect: str) -> None:
        for each in self._observers:
            each.acknowledged(dialect)

    def tunnelReady(self, address: str, target: str) -> None:
        for each in self._observers:
            each.tunnelReady(address, target)

    def tunnelFailed(self, wanted: str, reason: TunnelError) -> None:
        for each in self._observers:
            each.tunnelFailed(wanted, reason)

    def tunnelOpened(self, spec: str, uri: str, address: str, target: str) -> None:
        for each in self._observers:
            each.tunnelOpened(spec, uri, address, target)

    def tunnelClosed(self, uri: str) -> None:
        for each in self._observers:
            each.tunnelClosed(uri)

    def forwardWithdrawn(self, spec: str) -> None:
        for each in self._observers:
            each.forwardWithdrawn(spec)

    def disconnected(self, reason: TunnelError) -> None:
        for each in self._observers:
            each.disconnected(reason)

    def reconnectQueued(self, delay: float) -> None:
        for each in self._observers:
            each.reconnectQueued(delay)

    def gaveUp(self, reason: TunnelError) -> None:
        for each in self._observers:
            each.gaveUp(reason)

    def serviceConnected(self, target: str) -> None:
        for each in self._observers:
            each.serviceConnected(target)

    def serviceFailed(self, target: str, reason: TunnelError) -> None:
        for each in self._observers:
            each.serviceFailed(target, reason)

    def serviceGone(
        self, target: str, received: int, sent: int, reason: TunnelError | None
    ) -> None:
        for each in self._observers:
            each.serviceGone(target, received, sent, reason)

    def portReady(self, address: str, what: str) -> None:
        for each in self._observers:
            each.portReady(address, what)

    def visitorRefused(self, target: str, reason: TunnelError) -> None:
        for each in self._observers:
            each.visitorRefused(target, reason)

    def roundTripMeasured(self, seconds: float) -> None:
        for each in self._observers:
            each.roundTripMeasured(seconds)

    def stopped(self) -> None:
        for each in self._observers:
            each.stopped()

    def visitorConnected(self, visit: Visit) -> None:
        for each in self._observers:
            each.visitorConnected(visit)

    def visitorGone(self, visit: Visit, reason: TunnelError | None) -> None:
        for each in self._observers:
            each.visitorGone(visit, reason)
