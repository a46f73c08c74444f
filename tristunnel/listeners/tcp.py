"""
Visitors over TCP, with or without TLS.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.listeners.ports import UNPRIVILEGED, PortRange
from tristunnel.relay.descriptors import RESERVE
from tristunnel.relay.kernel import closeNow
from tristunnel.relay.sockets import SocketEnd

__all__ = ["TCPListener", "TCPListeners", "addressText"]

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel may allow fewer."""


def addressText(address: object) -> str:
    """
    Write an address as C{HOST:PORT}, and one of IPv4 on a dual-stack socket
    as what it is.
    """
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        name = getattr(address, "name", None)
        return f"unix:{name.decode(errors='replace')}" if name else "unix"
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Surplus(Protocol):
    """
    A connection that nobody has a descriptor for.
    """

    def connectionMade(self) -> None:
        """
        Close it.
        """
        closeNow(self.transport)


class _VisitorFactory(ServerFactory[SocketEnd]):
    """
    Makes an end of each visitor's connection.
    """

    noisy = False

    def __init__(
        self, reactor: IReactorTime, arrived: Callable[[End, str], None]
    ) -> None:
        self._reactor = reactor
        self._arrived = arrived

    def buildProtocol(self, addr: IAddress | None) -> SocketEnd:
        """
        Announce the visitor once its bytes may pass.
        """
        try:
            RESERVE.checkSession()
        except TunnelError:
            # Those who wait for TLS, and raw clients, are not asked at a
            # tunnel's door.
            return cast(SocketEnd, Surplus())
        return SocketEnd(
            self._reactor, lambda end: self._arrived(end, addressText(addr))
        )


class TCPListener:
    """
    An L{IListener<tristunnel.interfaces.IListener>} on a TCP port.
    """

    def __init__(self, scheme: str, interface: str, port: IListeningPort) -> None:
        self._port = port
        here: Any = port.getHost()
        self._address = (scheme, interface, int(here.port))

    @property
    def address(self) -> tuple[str, str, int]:
        """
        The scheme, the interface and the port.
        """
        return self._address

    def close(self) -> Awaitable[object]:
        """
        Stop listening.
        """
        return maybeDeferred(self._port.stopListening)


class TCPListeners:
    """
    Opens TCP ports for visitors.

    @param reactor: Listens and tells time.
    @param interface: The address to listen on; empty for all, IPv4 and IPv6.
    @param ports: Which ones may be given out.
    @param creator: Makes the visitors' TLS, or C{None} for plain TCP.
    """

    def __init__(
        self,
        reactor: Any,
        interface: str = "",
        ports: PortRange = UNPRIVILEGED,
        creator: IOpenSSLServerConnectionCreator | None = None,
    ) -> None:
        self._reactor = reactor
        self._interface = interface
        self._ports = ports
        self._creator = creator

    def open(
        self, port: int, prefer: int, arrived: Callable[[End, str], None]
    ) -> TCPListener:
        """
        Listen for visitors.

        @param port: The one to listen on; 0 for any.
        @param prefer: With C{port} 0, the one to take if it is free; 0 for
            none.
        @param arrived: Called with each visitor's end and address.
        @raise TunnelError: C{port-taken}, C{port-not-permitted} or
            C{ports-exhausted}.
        """
        factory: Any = _VisitorFactory(self._reactor, arrived)
        scheme = "tcp"
        if self._creator is not None:
            scheme = "tls"
            factory = TLSMemoryBIOFactory(self._creator, False, factory)
            factory.noisy = False
        return self._ports.choose(port, prefer, partial(self._listen, scheme, factory))

    def _listen(self, scheme: str, factory: Any, port: int) -> TCPListener:
        """
        Listen on one port; where all interfaces are meant, on IPv6 and IPv4
        at once if the machine has both.
        """
        interfaces = [self._interface] if self._interface else ["::", "0.0.0.0"]
        while True:
            interface = interfaces.pop(0)
            try:
                listening = self._reactor.listenTCP(
                    port, factory, backlog=BACKLOG, interface=interface
                )
            except CannotListenError as error:
                number = getattr(error.socketError, "errno", None)
                if number == errno.EADDRINUSE or not interfaces:
                    raise self._refusal(port, error, number) from None
            else:
                return TCPListener(scheme, self._interface, listening)

    def _refusal(
        self, port: int, error: CannotListenError, number: int | None
    ) -> TunnelError:
        """
        Say why a port cannot be had.
        """
        if number == errno.EADDRINUSE:
            return TunnelError(
                "port-taken",
                f"port {port} is in use on the server; choose another, or 0 for any",
            )
        if number in (errno.EACCES, errno.EPERM):
            return TunnelError(
                "port-not-permitted",
                f"the server may not listen on port {port}; choose one above 1023,"
                " or give the server CAP_NET_BIND_SERVICE",
            )
        if number in (errno.EMFILE, errno.ENFILE):
            return TunnelError("limit-reached", "the server has no descriptor left")
        return TunnelError("port-not-permitted", f"port {port}: {error.socketError}")
