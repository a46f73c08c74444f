"""Local ports of every kind, by what C{--listen} says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import implementer

from tristunnel.client.visitor import LocalPort
from tristunnel.errors import badOption
from tristunnel.listeners.udp import UDPListener
from tristunnel.util.endpoints import (
    listenInFull,
    serverEndpoint,
    splitEndpoint,
    whyNoEndpoint,
)
from tristunnel.util.hosts import addressOf, hostAndPort

__all__ = ["LocalDatagrams", "UDPPlace", "localEndpoint", "makeLocalPort"]


@implementer(IStreamServerEndpoint)
@dataclass(frozen=True)
class UDPPlace:
    """
    A place for datagrams of local visitors.

    @ivar reactor: Reads them, and tells time.
    @ivar interface: An IP address.
    @ivar port: 0 for any.
    """

    reactor: Any
    interface: str
    port: int

    def listen(self, protocolFactory: object) -> Deferred[Any]:
        """Take the port, as endpoints of streams do, without serving anybody yet."""
        return maybeDeferred(self.open, lambda flow, address: None)

    def open(self, arrived: Callable[[Any, str], None]) -> _Bound:
        """
        Let visitors in.

        @param arrived: Called with each one's end, and its address.
        @raise OSError: If the port cannot be had.
        """
        listener = UDPListener(self.reactor, arrived)
        listener.listen(self.interface, self.port)
        return _Bound(listener)


@dataclass(frozen=True)
class _Bound:
    """A UDP port, with the interface of other ports."""

    listener: UDPListener

    def getHost(self) -> IPv4Address:
        _, interface, port = self.listener.address
        return IPv4Address("UDP", interface, port)

    def stopListening(self) -> Any:
        return self.listener.close()


class LocalDatagrams(LocalPort):
    """
    The same for UDP: each of the visitors' addresses is a visitor, until it is silent
    for a while.
    """

    def listen(self) -> Any:
        where: Any = self.endpoint
        return where.open(lambda flow, address: self.arrived(flow))

    def addressOf(self, visitor: Any) -> str:
        return hostAndPort(*visitor.address[:2])


def makeLocalPort(reactor: Any, endpoint: Any, *others: Any) -> LocalPort:
    """
    Make a port for local visitors.

    @param endpoint: What L{localEndpoint} has made.
    @param others: The rest of what L{LocalPort<tristunnel.client.visitor.LocalPort>}
        takes.
    """
    kind = LocalDatagrams if isinstance(endpoint, UDPPlace) else LocalPort
    return kind(reactor, endpoint, *others)


def localEndpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """
    Read C{--listen}.

    @return: What L{makeLocalPort} takes.
    @raise TunnelError: C{bad-option}.
    """
    kind = description.partition(":")[0]
    if kind == "stdio":
        raise badOption(
            "--listen stdio: is not a port; for standard input and output there is:"
            " tristunnel connect SERVICE"
        )
    if kind == "udp":
        return _udpPlace(reactor, description)
    try:
        full = listenInFull(description, interface="127.0.0.1")
        return serverEndpoint(reactor, full)
    except Exception as error:
        # Endpoint parsers raise all kinds of errors.
        raise badOption(
            f"--listen {description!r} is not a valid endpoint"
            f" ({whyNoEndpoint(kind, error)});"
            " write for example tcp:25565:interface=127.0.0.1"
        ) from None


def _udpPlace(reactor: Any, description: str) -> UDPPlace:
    _, parts, keywords = splitEndpoint(description)
    port = parts[0] if len(parts) == 1 else ""
    interface = keywords.get("interface", "127.0.0.1")
    isPort = port.isascii() and port.isdecimal() and int(port[:6]) < 65536
    if not isPort or set(keywords) - {"interface"} or addressOf(interface) is None:
        raise badOption(
            f"--listen {description!r} is not a UDP port; write for example"
            " udp:5353:interface=127.0.0.1"
        )
    return UDPPlace(reactor, interface, int(port))
