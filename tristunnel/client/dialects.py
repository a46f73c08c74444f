"""Which service runs a client, by the dialect it speaks."""

from __future__ import annotations

from typing import Any

from tristunnel.client.options import ClientOptions
from tristunnel.client.visitor import LocalPort, VisitorService
from tristunnel.dialects.base.dialect import GaveUp
from tristunnel.dialects.table import DIALECTS
from tristunnel.model.observer import ClientObserver

__all__ = ["makeClient"]


def makeClient(
    reactor: Any, options: ClientOptions, observer: ClientObserver, gaveUp: GaveUp
) -> Any:
    """
    Make the service of a client.

    @return: A service with a C{stopNow}.
    """
    options.server.way.tell(options.server.where)
    dialect = DIALECTS[options["dialect"]]
    if not options["listen"]:
        return dialect.makeClient(reactor, options, observer, gaveUp)
    client, route, what = dialect.makeRoute(reactor, options, observer, gaveUp)
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
    return VisitorService(client, port)
