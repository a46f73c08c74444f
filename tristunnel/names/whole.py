"""A connection that passes unchanged after its first request."""

from __future__ import annotations

from collections.abc import Callable

from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.errors import TunnelError
from tristunnel.names.exchange import Exchange
from tristunnel.names.pages import statusOf, textOf
from tristunnel.names.site import NameSite
from tristunnel.names.table import Route

__all__ = ["handOver"]


def handOver(
    transport: SocketTransport,
    site: NameSite,
    exchange: Exchange,
    route: Route,
    early: bytes,
    ended: Callable[[int], object],
) -> None:
    """
    Make a connection a tunnel's.

    @param exchange: Its first request.
    @param early: All that has come, with our own head.
    @param ended: Told how the request was answered; 0 if that is not known.
    """

    def lastWords(reason: TunnelError) -> bytes:
        status = statusOf(reason)
        ended(status)
        return site.page(exchange.head, status, textOf(reason), reason.retryAfter)

    def arrived(end: SocketEnd) -> None:
        end.begunBy(early)
        end.lastWords = lastWords
        route.arrived(end, exchange.origin.peer)

    SocketEnd.of(transport, arrived)
    ended(0)
