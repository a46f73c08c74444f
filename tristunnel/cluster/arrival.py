"""
Visitors who came in at another member, at the one that has their tunnel's client.

The member where they came in holds what they say until it hears that they are served,
so that it can find another way for those who are not, or tell them why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from tristunnel.dataplane.carried import CarriedFlow
from tristunnel.dataplane.connection_end import ConnectionEnd
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.transport_end import Arriving, TransportEnd
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End
from tristunnel.model.tunnel import Tunnel
from tristunnel.util.hosts import parsePlace

__all__ = ["PATIENCE", "Finds", "RelayedArriving", "RelayedSocket", "arrive"]

PATIENCE = 60.0
"""Seconds in which a visitor is served or refused: the client may have to be asked, and
to dial."""

Finds = Callable[[str], Tunnel]
"""Finds a tunnel of this member whose client is there, by its id; or raises
L{TunnelError}."""


def _placeFrom(text: str) -> IAddress | None:
    """
    Read an address as L{addressText<tristunnel.util.hosts.addressText>} writes it.

    @return: C{None} for what is not an IP address.
    """
    try:
        host, port = parsePlace(text)
    except ValueError:
        return None
    made: type[IPv4Address | IPv6Address] = IPv6Address if ":" in host else IPv4Address
    return made("TCP", host, port)


class _Relayed(ConnectionEnd):
    """The end of a visitor who has connected to another member."""

    if not TYPE_CHECKING:
        __slots__ = ()

    _told: Callable[[TunnelError | None], object] | None
    _host: IAddress | None
    _wake: Callable[[], None] | None

    @property
    def heard(self) -> Callable[[], None] | None:
        """
        Called when the visitor sends something. To set it tells the other member that
        the visitor may do so.
        """
        return self._wake

    @heard.setter
    def heard(self, heard: Callable[[], None] | None) -> None:
        self._wake = heard
        if heard is not None:
            self._tell(None)

    def tells(
        self, told: Callable[[TunnelError | None], object], host: IAddress | None
    ) -> None:
        """
        Set who is told what becomes of the visitor.

        @param told: Called once: with C{None} when it is served, or with why not.
        @param host: Where it came to.
        """
        self._told, self._host = told, host

    @property
    def hostAddress(self) -> IAddress | None:
        """Where the visitor has connected to, at another member."""
        return self._host

    def _tell(self, reason: TunnelError | None) -> bool:
        told, self._told = self._told, None
        if told is not None:
            told(reason)
        return told is not None

    def join(self, peer: End, closed: Closed) -> None:
        self._tell(None)
        super().join(peer, closed)

    def write(self, data: bytes) -> None:
        """
        Send bytes; the client's end, which is joined first, may have some already.
        """
        if self._told is not None:
            self._tell(None)
        super().write(data)

    def finish(self) -> None:
        """Send no more, likewise."""
        self._tell(None)
        super().finish()

    def reset(self, reason: TunnelError) -> None:
        if self._tell(reason):
            super().finish()
        else:
            super().reset(reason)

    def say(self, line: bytes) -> None:
        """Send something before the visitor's own bytes."""
        self._transmit(line)


def arrive(
    tunnel: Tunnel,
    end: Any,
    visitor: str,
    host: str,
    told: Callable[[TunnelError | None], object],
) -> None:
    """
    Have a visitor arrive at its tunnel.

    @param end: A L{RelayedSocket}, or what L{RelayedArriving} makes.
    @param visitor: Where the visitor comes from.
    @param host: Where it came to.
    @param told: Called once: with C{None} when it is served, or with why not.
    """
    end.tells(told, _placeFrom(host))
    arrived = CarriedFlow(end) if tunnel.protocol == "udp" else end
    tunnel.visitorArrived(arrived, visitor)


class RelayedSocket(_Relayed, SocketEnd):
    """Such an end that is a socket of our own."""

    __slots__ = ("_host", "_told", "_wake")


class _RelayedTransport(_Relayed, TransportEnd):
    """Such an end on a transport of Twisted's."""


class RelayedArriving(Arriving):
    """Makes such ends."""

    socketEnd = RelayedSocket
    transportEnd = _RelayedTransport
