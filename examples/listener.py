"""
A listener of one's own: ports for visitors from this machine only.

C{docs/extending.rst} goes through it. C{HereListeners} is one line in the table
of listeners; C{openTunnel} then takes its key as C{listener}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import ServerFactory

from tristunnel.dataplane.transport_end import Arriving
from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.listeners.table import ListenerSettings
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import UNPRIVILEGED, Reserve


class Visitors(ServerFactory):
    """Makes an end of each visitor's connection."""

    noisy = False

    def __init__(self, reactor: Any, arrived: Callable[[End, str], None]) -> None:
        self._reactor = reactor
        self._arrived = arrived

    def buildProtocol(self, addr: IAddress | None) -> Arriving:
        """Announce the visitor as soon as its bytes may pass."""
        where = f"{getattr(addr, 'host', '')}:{getattr(addr, 'port', 0)}"
        return Arriving(self._reactor, lambda end: self._arrived(end, where))


class HereListener:
    """An L{IListener<tristunnel.model.place.IListener>}: one open port."""

    def __init__(self, port: IListeningPort) -> None:
        self._port = port
        # Kept, since it is asked for when the port is closed already.
        here: Any = port.getHost()
        self._address = ("tcp", "127.0.0.1", int(here.port))

    @property
    def address(self) -> tuple[str, str, int]:
        """The scheme, the interface and the port."""
        return self._address

    def close(self) -> Awaitable[object]:
        """Let nobody in any more; streams go on."""
        return maybeDeferred(self._port.stopListening)


class HereListeners:
    """Opens ports; what the server asks for each tunnel."""

    def __init__(self, settings: ListenerSettings) -> None:
        self._reactor = settings.reactor

    async def open(
        self,
        options: TunnelOptions,
        arrived: Callable[[End, str], None],
        reserve: Reserve,
    ) -> HereListener:
        """
        Listen for visitors.

        @param options: All that was asked of the tunnel. C{port} is the one to
            listen on, 0 for any; C{prefer}, then the one to take if it is free.
        @param arrived: Called with each visitor's end and address.
        @param reserve: Has a port for this tunnel alone, also among the other
            processes of the server.
        @raise TunnelError: C{port-taken}.
        """
        factory = Visitors(self._reactor, arrived)

        def listen(port: int) -> HereListener:
            try:
                listening = self._reactor.listenTCP(port, factory, 50, "127.0.0.1")
            except CannotListenError:
                raise TunnelError("port-taken", f"port {port} is in use here") from None
            return HereListener(listening)

        return await UNPRIVILEGED.choose(
            options.port, options.prefer, listen, partial(reserve, "loopback")
        )
