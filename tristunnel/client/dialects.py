"""Which service runs a client, by the dialect it speaks."""

from __future__ import annotations

from collections.abc import Callable
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
from tristunnel.dialects.zlayer.client_service import ZLayerClientService
from tristunnel.dialects.zlayer.client_service import backoff as zlayerBackoff
from tristunnel.errors import TunnelError
from tristunnel.model.observer import ClientObserver

__all__ = ["DIALECTS", "GaveUp", "carrierOf", "makeClient"]

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
    return DIALECTS[options["dialect"]](reactor, options, observer, gaveUp)


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


DIALECTS: dict[str, Callable[[Any, ClientOptions, ClientObserver, GaveUp], Any]] = {
    "framed": _framed,
    "vtunnel": _vtunnel,
    "zlayer": _zlayer,
    "relay": _relay,
}
