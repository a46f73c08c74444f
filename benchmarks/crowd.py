"""
Many clients of a tristunnel server in one process: C{python -m benchmarks.crowd
CONNECT SERVICE COUNT}, where C{SERVICE} is a local port.
"""

from __future__ import annotations

import sys
from typing import Any

from tristunnel.connect.address import Trust, parseConnect
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.forwards.forward import parseForward
from tristunnel.model.observer import ClientObserver
from tristunnel.util.descriptor_limit import raiseDescriptorLimit

AT_ONCE = 16
"""Clients that may be on their way at the same time."""


class Crowd(ClientObserver):
    """
    Starts a client whenever one has arrived.

    @param reactor: Their reactor.
    @param connect: The server, as C{--connect} takes it.
    @param service: The port of the service that all of them offer.
    @param count: How many there shall be.
    """

    def __init__(self, reactor: Any, connect: str, service: int, count: int) -> None:
        self._reactor = reactor
        trust = Trust(insecure=not connect.startswith(("tcp:", "ws:")))
        self._server = parseConnect(reactor, connect, trust)
        self._forward = parseForward(reactor, f"0=127.0.0.1:{service}")
        self._count = count
        self._ready = 0
        self._clients: list[TunnelClientService] = []

    def start(self) -> None:
        """Send the first ones."""
        for _ in range(min(AT_ONCE, self._count)):
            self._another()

    def tunnelReady(self, address: str, target: str) -> None:
        """One has arrived."""
        self._ready += 1
        if self._ready == self._count:
            print("all there", flush=True)
        elif len(self._clients) < self._count:
            self._another()

    def _another(self) -> None:
        """Start a client."""
        client = TunnelClientService(
            self._reactor, self._server, [self._forward], observer=self
        )
        self._clients.append(client)
        client.startService()


def main(words: list[str]) -> None:
    """Stay connected until the process is ended."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    raiseDescriptorLimit()
    crowd = Crowd(reactor, words[0], int(words[1]), int(words[2]))
    reactor.callWhenRunning(crowd.start)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
