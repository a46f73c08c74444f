"""
A server and a client in the test's own process, and both ends of UDP flows.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Self

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.awaited import Awaited
from tests.support.notes import ClientNotes, ServerNotes
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.dataplane.datagrams import DatagramSocket
from tristunnel.dataplane.flows import IDLE
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.forwards.forward import parseForward
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.listeners.udp import UDPListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.service.tunnel_service import TunnelService

__all__ = ["Party", "UDPTestCase"]


class Party(Awaited):
    """
    Somebody who sends and takes datagrams: a visitor or a service.

    @ivar heard: What came, with the sender's address.
    @ivar count: How much came.
    @ivar failures: What the kernel reported.
    """

    def __init__(self, reactor: Any, skt: socket.socket) -> None:
        super().__init__()
        self.heard: list[tuple[bytes, Any]] = []
        self.count = 0
        self.failures: list[OSError] = []
        self.arrived: Callable[[bytes, Any], None] = lambda datagram, sender: None
        self.port = DatagramSocket(reactor, skt, self._arrived, self.failures.append)

    @classmethod
    def service(cls, reactor: Any, host: str = "127.0.0.1", port: int = 0) -> Party:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        skt = socket.socket(family, socket.SOCK_DGRAM)
        skt.bind((host, port))
        return cls(reactor, skt)

    @classmethod
    def visitor(cls, reactor: Any, port: int, host: str = "127.0.0.1") -> Party:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        skt = socket.socket(family, socket.SOCK_DGRAM)
        skt.connect((host, port))
        return cls(reactor, skt)

    @property
    def number(self) -> int:
        return int(self.port.address[1])

    def say(self, datagram: bytes, address: Any = None) -> None:
        self.port.send(datagram, address)

    def has(self, count: int) -> Deferred[Self]:
        return self.until(lambda it: it.count >= count)

    def _arrived(self, datagram: bytes, address: Any, local: Any) -> None:
        self.count += 1
        self.heard.append((datagram, address))
        self.arrived(datagram, address)
        self._look()


class UDPTestCase(TestCase):
    """
    A test with a server and a client.

    @ivar tunnels: The server's tunnel service.
    @ivar sessions: The server's sessions.
    """

    timeout = 120

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.notes = ServerNotes()
        self.seen = ClientNotes()

    def startServer(self, idle: float = IDLE, most: int = 10_000) -> None:
        """Start a server whose visitors come over TCP or UDP."""
        self.tunnels = TunnelService(
            self.reactor,
            MemoryBook(self.reactor),
            {
                "tcp": TCPListeners(self.reactor, "127.0.0.1"),
                "udp": UDPListeners(self.reactor, "", idle=idle, most=most),
            },
            self.notes,
            "127.0.0.1",
        )
        self.sessions = TunnelServerFactory(self.reactor, self.tunnels)
        port = self.reactor.listenTCP(0, self.sessions, interface="127.0.0.1")
        self.serverPort: int = port.getHost().port
        self.addCleanup(self._stopServer, port)

    async def _stopServer(self, port: Any) -> None:
        await port.stopListening()
        from tristunnel.errors import TunnelError

        over = TunnelError("shutting-down")
        self.sessions.close(over)
        await self.tunnels.close(over)

    async def startClient(self, *forwards: str) -> list[int]:
        """
        Start a client and wait for its tunnels.

        @param forwards: As on the command line.
        @return: The visitors' ports.
        """
        ready: Deferred[None] = Deferred()
        seen = self.seen

        def told(event: tuple[Any, ...]) -> None:
            if len(seen.named("tunnelReady")) == len(forwards) and not ready.called:
                ready.callback(None)

        seen.listeners.append(told)
        self.client = TunnelClientService(
            self.reactor,
            parseConnect(self.reactor, f"tcp:127.0.0.1:{self.serverPort}", Trust()),
            [parseForward(self.reactor, spec) for spec in forwards],
            {"id": "test"},
            seen,
            grace=0.0,
            delay=lambda failures, hint: 0.05,
        )
        self.client.startService()
        self.addCleanup(self.client.stopService)
        await ready
        ports = {}
        for address, target in seen.named("tunnelReady"):
            ports[target] = int(address.rpartition(":")[2])
        return [ports[parseForward(self.reactor, spec).target] for spec in forwards]

    def told(
        self, notes: ClientNotes | ServerNotes, name: str, count: int = 1
    ) -> Deferred[tuple[Any, ...]]:
        """
        Wait until an observer was told of something.

        @param count: How often.
        @return: Fires with what it was told last of it.
        """
        waiting: Deferred[tuple[Any, ...]] = Deferred()

        def look(event: object = None) -> None:
            events = notes.named(name)
            if len(events) >= count and not waiting.called:
                waiting.callback(events[-1])

        notes.listeners.append(look)
        look()
        return waiting

    def service(self, host: str = "127.0.0.1", port: int = 0) -> Party:
        party = Party.service(self.reactor, host, port)
        self.addCleanup(party.port.close)
        return party

    def visitor(self, port: int, host: str = "127.0.0.1") -> Party:
        party = Party.visitor(self.reactor, port, host)
        self.addCleanup(party.port.close)
        return party

    async def tunnel(self, **server: Any) -> tuple[Party, int]:
        """Start all for one UDP service; it, and the visitors' port."""
        service = self.service()
        self.startServer(**server)
        (port,) = await self.startClient(f"udp/0=127.0.0.1:{service.number}")
        return service, port
