"""Which service runs a client, by the dialect it speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tristunnel.client.options import ClientOptions
from tristunnel.client.visitor import (
    LocalPort,
    Route,
    VisitorService,
    bySession,
    byWebSocket,
)
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.framed.client_direct import Carrier
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.relay.client_service import RelayHostService
from tristunnel.dialects.vtunnel.client_service import VTunnelClientService
from tristunnel.dialects.zlayer.client_service import ZLayerClientService, tokenOf
from tristunnel.dialects.zlayer.client_service import backoff as zlayerBackoff
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.observer import ClientObserver

__all__ = [
    "DIALECTS",
    "VISITING",
    "ClientDialect",
    "GaveUp",
    "carrierOf",
    "makeClient",
]

GaveUp = Callable[[TunnelError], None]
"""Called with the reason when a client makes no more attempts."""


def makeClient(
    reactor: Any, options: ClientOptions, observer: ClientObserver, gaveUp: GaveUp
) -> Any:
    """
    Make the service of a client.

    @return: A service with a C{stopNow}.
    """
    options.server.way.tell(options.server.where)
    return DIALECTS[options["dialect"]].make(reactor, options, observer, gaveUp)


def _framed(
    reactor: Any, options: ClientOptions, observer: ClientObserver, gaveUp: GaveUp
) -> Any:
    lease = ClientLease()
    if not (options["tunnel"] or options["listen"]):
        lease = ClientLease.forClient(
            options.stateDirectory,
            options.server.where,
            [forward.spec for forward in options.forwards],
            reactor,
        )
    client = TunnelClientService(
        reactor,
        options.server,
        options.forwards,
        options["credentials"],
        observer,
        lease,
        options["grace"],
        gaveUp,
        carrier=carrierOf(options),
    )
    client.tunnelOptions = options.policy.describe()
    if not options["listen"]:
        return client
    route = bySession(client, options["service"])
    port = _port(reactor, options, route, options["service"], observer, gaveUp)
    return VisitorService(client, port)


def carrierOf(options: ClientOptions) -> Carrier:
    """
    How streams travel. A proxy need not pass on that one direction of a
    connection is over, so by itself none is used for single streams.
    """
    kind = str(options["carrier"])
    if options.server.way.proxy is not None and kind == "auto":
        kind = "session"
    return Carrier(kind, options["spares"], options["sessions"])


def _vtunnel(
    reactor: Any, options: ClientOptions, observer: ClientObserver, gaveUp: GaveUp
) -> Any:
    return VTunnelClientService(
        reactor,
        options.server,
        options.forwards,
        observer=observer,
        grace=options["grace"],
        gaveUp=gaveUp,
    )


def _zlayer(
    reactor: Any, options: ClientOptions, observer: ClientObserver, gaveUp: GaveUp
) -> Any:
    return ZLayerClientService(
        reactor,
        options.server,
        options.forwards,
        options["credentials"],
        observer,
        grace=options["grace"],
        gaveUp=gaveUp,
        delay=zlayerBackoff,
    )


def _relay(
    reactor: Any, options: ClientOptions, observer: ClientObserver, gaveUp: GaveUp
) -> Any:
    if options["listen"]:
        where = options.server.where
        route = byWebSocket(options.server)
        port = _port(reactor, options, route, where, observer, gaveUp)
        return VisitorService(None, port)
    return RelayHostService(
        reactor,
        options.server,
        options.forwards[0],
        observer,
        options["grace"],
        gaveUp,
    )


def _port(
    reactor: Any,
    options: ClientOptions,
    route: Route,
    what: str,
    observer: ClientObserver,
    gaveUp: GaveUp,
) -> LocalPort:
    port = LocalPort(
        reactor,
        options.localEndpoint,
        options["listen"],
        route,
        what,
        options["grace"],
        gaveUp,
    )
    port.observer = observer
    return port


def _checkVTunnel(options: ClientOptions) -> None:
    if not all(forward.port for forward in options.forwards):
        raise badOption(
            "vtunnel's ports are chosen: --forward PORT=TARGET, for example"
            " 9000=localhost:3000"
        )


def _checkRelay(options: ClientOptions) -> None:
    if len(options.forwards) > 1 - bool(options["listen"]):
        raise badOption(
            "--dialect relay has one end: --forward =TARGET, or --listen ENDPOINT"
        )


@dataclass(frozen=True)
class ClientDialect:
    """
    A dialect, as clients speak it.

    @ivar make: Makes the service of a client.
    @ivar hasSessions: Whether it is our own server's, with all that a session has:
        private tunnels, services, policies. Any other is spoken over a WebSocket,
        whose request has a header for credentials.
    @ivar hasUDP: Whether it carries datagrams.
    @ivar check: Raises L{TunnelError} for options that it has no word for.
    """

    make: Callable[[Any, ClientOptions, ClientObserver, GaveUp], Any]
    hasSessions: bool = False
    hasUDP: bool = False
    check: Callable[[ClientOptions], object] = bool


DIALECTS = {
    "framed": ClientDialect(_framed, hasSessions=True, hasUDP=True),
    "vtunnel": ClientDialect(_vtunnel, check=_checkVTunnel),
    "zlayer": ClientDialect(
        _zlayer, hasUDP=True, check=lambda options: tokenOf(options["credentials"])
    ),
    "relay": ClientDialect(_relay, check=_checkRelay),
}
"""By name, as C{--dialect} has it."""

VISITING = "relay"
"""The dialect of a client that listens, and visits no service by name."""
