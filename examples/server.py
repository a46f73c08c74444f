"""
A tunnel server inside a program of one's own.

Who may connect is decided by a function, in the manner of W3P's connection
filter, and what happens is told to an observer. Run it with the endpoint for
clients, tcp:9000 by default::

    python examples/server.py tcp:9000
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress
from twisted.internet.task import react

from tristunnel.auth.checkers import checkingCallable
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.errors import TunnelError
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.observer import ServerObserver
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.server.ports import ServerPort
from tristunnel.server.service import TunnelServerService
from tristunnel.service.tunnel_service import TunnelService

SECRETS = {"laptop": "correct horse battery staple"}


def connectionFilter(credentials: Mapping[str, object]) -> bool:
    """Decide whether a client may connect: yes or no, or a Deferred of either."""
    secret = SECRETS.get(str(credentials.get("id")))
    return secret is not None and credentials.get("secret") == secret


class Printing(ServerObserver):
    """Prints what happens."""

    def serverStarted(self, port: str, address: IAddress) -> None:
        """A port is open for clients."""
        print("Clients connect to", address, flush=True)

    def authenticationFailed(self, peer: IAddress, reason: TunnelError) -> None:
        """A client was not let in."""
        print("Turned away:", peer, reason, flush=True)

    def tunnelCreated(self, tunnel: Tunnel) -> None:
        """A tunnel is open for visitors."""
        print(tunnel.owner.name, "is at", tunnel.address, flush=True)

    def visitorGone(self, stream: Stream) -> None:
        """A visitor left."""
        print(
            f"{stream.visitorAddress} sent {stream.bytesIn} bytes"
            f" and got {stream.bytesOut}",
            flush=True,
        )


def makeServer(reactor: Any, endpoint: str) -> TunnelServerService:
    """Put a server together, as a service for one's own application."""
    listeners = {"tcp": TCPListeners(reactor, "127.0.0.1")}
    tunnels = TunnelService(reactor, MemoryBook(reactor), listeners, Printing())
    authenticator = Authenticator(portalFor([checkingCallable(connectionFilter)]))
    sessions = TunnelServerFactory(reactor, tunnels, authenticator)
    port = ServerPort(endpoint, serverFromString(reactor, endpoint))
    return TunnelServerService(reactor, [(port, sessions)], sessions, tunnels)


def main(reactor: Any, endpoint: str = "tcp:9000") -> Deferred[None]:
    """Run the server until the program is stopped."""
    server = makeServer(reactor, endpoint)
    server.startService()
    reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
