"""
A tunnel client inside a program of one's own, offering one service.

The service is any client endpoint. Run it with the server's endpoint and the
service's, and with the credentials in the environment::

    SECRET='correct horse battery staple' \\
        python examples/client.py tcp:localhost:9000 tcp:localhost:8080

It ends when the session does; C{TunnelClientService} is what comes back.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react

from tristunnel.dialects.framed.client import TunnelClientFactory, TunnelClientProtocol
from tristunnel.errors import TunnelError
from tristunnel.model.observer import ClientObserver


class Printing(ClientObserver):
    """Prints what happens."""

    def serviceConnected(self, target: str) -> None:
        """A visitor has reached the service."""
        print("A visitor of", target, flush=True)

    def serviceFailed(self, target: str, reason: TunnelError) -> None:
        """A visitor has not."""
        print("No visitor:", reason, flush=True)


async def offer(reactor: Any, server: str, service: str) -> TunnelClientProtocol:
    """Connect to a server and have it open a tunnel on any port."""
    endpoint = clientFromString(reactor, service)
    factory = TunnelClientFactory(
        reactor,
        lambda uri: (service, endpoint),
        {"id": "laptop", "secret": os.environ.get("SECRET", "")},
        Printing(),
    )
    session: Any = await clientFromString(reactor, server).connect(factory)
    await session.whenReady()
    uri = await session.call("openTunnel", port=0)
    print(
        "Visitors come to", await session.call("getTunnelAddress", uri=uri), flush=True
    )
    return session  # type: ignore[no-any-return] # the factory's


async def run(reactor: Any, server: str, service: str) -> None:
    """Offer the service until the session ends."""
    try:
        session = await offer(reactor, server, service)
    except TunnelError as refusal:
        raise SystemExit(str(refusal)) from None
    print("The end:", await session.whenOver())


def main(reactor: Any, server: str, service: str) -> Deferred[None]:
    """Let the reactor run it."""
    return Deferred.fromCoroutine(run(reactor, server, service))


if __name__ == "__main__":
    react(main, sys.argv[1:])
