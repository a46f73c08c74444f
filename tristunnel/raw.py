"""
Tunnels whose client's end is any program that can open a TCP connection, as
the Tristero tunnel service has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tristunnel.errors import TunnelError
from tristunnel.rendezvous import Rendezvous
from tristunnel.tunnel import Tunnel, hostAndPort

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from tristunnel.interfaces import End
    from tristunnel.options import TunnelOptions
    from tristunnel.service import Caller, TunnelService

__all__ = ["UNCLAIMED", "RawClientSide", "viaTCP", "viaTLS"]

UNCLAIMED = 300.0
"""Seconds that a raw tunnel stays open while no client's end is there."""


class RawClientSide(Rendezvous):
    """
    Raw connections to a tunnel's URI.

    @param service: Ends the tunnel if nobody claims it.
    @param tunnel: The tunnel.
    """

    def __init__(self, service: TunnelService, tunnel: Tunnel) -> None:
        super().__init__(service.reactor)
        self._service = service
        self._tunnel = tunnel
        self._unclaimed: IDelayedCall | None = None
        self._watch()

    def clientArrived(self, client: End) -> None:
        """
        Somebody claims the tunnel; no more connections come to the URI than
        there may be visitors.
        """
        tunnel = self._tunnel
        if tunnel.visitorLimit and (
            tunnel.served + self.waitingClients >= tunnel.visitorLimit
        ):
            client.reset(TunnelError("limit-reached"))
            return
        self._stopWatch()
        super().clientArrived(client)

    def _clientLeft(self, client: End) -> None:
        """
        A client's connection left before a visitor came. In a tunnel for one
        visitor, that was its end.
        """
        super()._clientLeft(client)
        if self._tunnel.visitorLimit == 1:
            self._service.discard(
                [self._tunnel], TunnelError("closed", "the client's end has left")
            )
        elif not self.waitingClients:
            self._watch()

    def _watch(self) -> None:
        """
        Begin to wait for a client's end.
        """
        if self._unclaimed is None and self._closed is None:
            self._unclaimed = self._reactor.callLater(UNCLAIMED, self._late)

    def _stopWatch(self) -> None:
        """
        Wait no longer.
        """
        if self._unclaimed is not None and self._unclaimed.active():
            self._unclaimed.cancel()
        self._unclaimed = None

    def _late(self) -> None:
        """
        Nobody claimed the tunnel.
        """
        self._unclaimed = None
        if self._tunnel.streams:
            self._watch()
            return
        self._service.discard(
            [self._tunnel],
            TunnelError("expired", f"nobody connected to its URI for {UNCLAIMED:g} s"),
        )

    def close(self, reason: TunnelError) -> None:
        """
        Turn everybody away.
        """
        self._stopWatch()
        super().close(reason)


def _via(
    scheme: str,
    service: TunnelService,
    tunnel: Tunnel,
    caller: Caller,
    options: TunnelOptions,
) -> None:
    """
    Open a port for the client's end.
    """
    listeners = service.listeners.get(scheme)
    if listeners is None:
        raise TunnelError(
            "bad-option",
            f"via {scheme!r} needs a certificate: start the server with --certificate",
        )
    tunnel.visitorLimit = options.visitors or 1
    side = RawClientSide(service, tunnel)
    try:
        tunnel.clientListener = listeners.open(
            0, 0, lambda end, address: side.clientArrived(end)
        )
    except TunnelError as refusal:
        side.close(refusal)
        raise
    tunnel.clientSide = side
    port = tunnel.clientListener.address[2]
    tunnel.uri = f"{scheme}://{hostAndPort(tunnel.hostname, port)}"


def viaTCP(
    service: TunnelService, tunnel: Tunnel, caller: Caller, options: TunnelOptions
) -> None:
    """
    The client's ends are TCP connections.
    """
    _via("tcp", service, tunnel, caller, options)


def viaTLS(
    service: TunnelService, tunnel: Tunnel, caller: Caller, options: TunnelOptions
) -> None:
    """
    The client's ends are TLS connections.
    """
    _via("tls", service, tunnel, caller, options)
