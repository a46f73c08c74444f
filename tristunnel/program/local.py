"""A tunnel server within the program, for testing what is exposed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.endpoints import serverFromString

from tristunnel.auth.realm import Authenticator
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.listeners.udp import UDPListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.program.thread import ReactorThread
from tristunnel.server.ports import ServerPort
from tristunnel.server.service import TunnelServerService
from tristunnel.service.tunnel_service import TunnelService

__all__ = ["localServer"]


@contextmanager
def localServer(
    authenticator: Authenticator | None = None, port: int = 0
) -> Iterator[str]:
    """
    Run a tunnel server on the loopback interface.

    @param authenticator: Who may open tunnels; anybody on this machine by default.
    @param port: The port where it listens; 0 for any.
    @return: For C{with}: the server's address, as C{server=} takes it.
    """
    thread = ReactorThread.current()
    reactor = thread.reactor
    here = "127.0.0.1"

    async def start() -> TunnelServerService:
        listeners: Any = {
            "tcp": TCPListeners(reactor, here),
            "udp": UDPListeners(reactor, here),
        }
        tunnels = TunnelService(reactor, MemoryBook(reactor), listeners, hostname=here)
        sessions = TunnelServerFactory(reactor, tunnels, authenticator)
        endpoint = f"tcp:{port}:interface={here}"
        listening = ServerPort(endpoint, serverFromString(reactor, endpoint))
        ports = [(listening, sessions)]
        service = TunnelServerService(reactor, ports, sessions, tunnels, 0)
        service.startService()
        return service

    async def stop() -> None:
        await service.stopService()

    service = thread.start(start).result()
    try:
        (number,) = service.numbers.values()
        yield f"tcp:{here}:{number}"
    finally:
        thread.start(stop).result()
