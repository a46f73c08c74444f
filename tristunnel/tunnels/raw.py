"""
Tunnels whose client's end is any program that can open a TCP connection, as
the Tristero tunnel service has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tristunnel.errors import TunnelError
from tristunnel.text.hosts import hostAndPort
from tristunnel.tunnels.rendezvous import Rendezvous
from tristunnel.tunnels.tunnel import Tunnel

if TYPE_CHECKING:
    from tristunnel.interfaces import End
    from tristunnel.tunnels.options import TunnelOptions
    from tristunnel.tunnels.service import Caller, TunnelService

__all__ = ["UNCLAIMED", "RawClientSide", "viaTCP", "viaTLS"]

UNCLAIMED = 300.0
"""Seconds that a raw tunnel without C{ttl} stays open, at least, while no
client's end is there; at most twice as long."""


class RawClientSide(Rendezvous):
    """
    Raw connections to a tunnel's URI.

    @param service: Ends the tunnel when its client's end has left.
    @param tunnel: The tunnel.
    """

    def __init__(self, service: TunnelService, tunnel: Tunnel) -> None:
        super().__init__(service.reactor, shared=service.waiting)
        self._service = service
        self._tunnel = tunnel

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
        super().clientArrived(client)

    def _clientLeft(self, client: End, reason: TunnelError | None) -> None:
        """
        A client's connection left before a visitor came. In a tunnel for one
        visitor, that was its end; unless it has left something, in good order
        (as over TLS, where nobody can stop sending and still listen).
        """
        if reason is None and client.received:
            return
        super()._clientLeft(client, reason)
        if self._tunnel.visitorLimit == 1:
            self._service.discard(
                [self._tunnel], TunnelError("closed", "the client's end has left")
            )

    def served(self) -> bool:
        """
        Whether a client's end is there, waiting or with a visitor. One that
        has said all it had to say cannot be told from one that has left.
        """
        return any(stream.client is not None for stream in self._tunnel.streams) or any(
            not getattr(client, "ended", False) for client in self._clients
        )


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
    tunnel.clientSide = side = RawClientSide(service, tunnel)
    tunnel.clientListener = listeners.open(
        0, 0, lambda end, address: side.clientArrived(end)
    )
    if not options.ttl:
        service.keepWhile(tunnel, UNCLAIMED, side.served)
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
