"""
Visitors over TCP, with or without TLS.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast
from typing import Protocol as Structure

from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.kernel import closeNow
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import UNPRIVILEGED, PortRange
from tristunnel.util.hosts import addressText

__all__ = ["TCPListener", "TCPListeners"]

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel may allow fewer."""

_WITHOUT_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
"""What a machine says that has no IPv6."""


class RejectedConnection(Protocol):
    """
    A connection that nobody has a descriptor for.
    """

    def connectionMade(self) -> None:
        """
        Close it.
        """
        closeNow(self.transport)


class Handshake(Structure):
    """
    A TLS handshake under way.

    @ivar leave: Cuts it short, to make room for another; to be set.
    """

    leave: Callable[[], object] | None

    def known(self) -> None:
        """
        It is over.
        """


class Handshakes(Structure):
    """
    Whoever counts TLS handshakes under way.
    """

    def enter(self, address: IAddress | None) -> Handshake:
        """
        Count one.

        @raise TunnelError: If there are too many.
        """


class _VisitorFactory(ServerFactory[SocketEnd]):
    """
    Makes an end of each visitor's connection.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        arrived: Callable[[End, str], None],
        limiter: Handshakes | None = None,
    ) -> None:
        self._reactor = reactor
        self._arrived = arrived
        self._limiter = limiter

    def buildProtocol(self, addr: IAddress | None) -> SocketEnd:
        """
        Announce the visitor once its bytes may pass.
        """
        try:
            RESERVE.checkSession()
        except TunnelError:
            # Those who wait for TLS, and raw clients, are not asked at a
            # tunnel's door.
            return cast(SocketEnd, RejectedConnection())
        if self._limiter is not None:
            return self._counted(self._limiter, addr)
        return SocketEnd(
            self._reactor, lambda end: self._arrived(end, addressText(addr))
        )

    def _counted(self, limiter: Handshakes, addr: IAddress | None) -> SocketEnd:
        """
        Make an end that is counted until TLS is up: before that, it is not yet
        any tunnel's visitor.
        """
        try:
            pending = limiter.enter(addr)
        except TunnelError:
            return cast(SocketEnd, RejectedConnection())

        def begun(end: SocketEnd) -> None:
            pending.known()
            self._arrived(end, addressText(addr))

        made = SocketEnd(self._reactor, begun)
        made.whileWaiting(lambda reason: pending.known())
        pending.leave = lambda: made.transport.abortConnection()
        return made


class _TLSFactory(TLSMemoryBIOFactory):
    """
    Puts TLS over visitors' connections, and spends nothing on those that are
    closed at once.
    """

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Begin TLS, if there is room for the visitor.
        """
        inner: Any = self.wrappedFactory.buildProtocol(addr)
        return (
            inner
            if isinstance(inner, RejectedConnection)
            else self.protocol(self, inner)
        )


class TCPListener:
    """
    An L{IListener<tristunnel.model.tunnel.IListener>} on a TCP port.
    """

    def __init__(
        self, scheme: str, interface: str, ports: list[IListeningPort]
    ) -> None:
        self._ports = ports
        here: Any = ports[0].getHost()
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
        return gatherResults(
            [maybeDeferred(port.stopListening) for port in self._ports]
        )


def _boundV6(port: int) -> socket.socket:
    """
    Make a socket that listens on all IPv6 addresses and on no other.
    """
    made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("::", port))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


class TCPListeners:
    """
    Opens TCP ports for visitors.

    @param reactor: Listens and tells time.
    @param interface: The address to listen on; empty for all, IPv4 and IPv6.
    @param ports: Which ones may be given out.
    @param creator: Makes the visitors' TLS, or C{None} for plain TCP.

    @ivar ports: Which ones may be given out now.
    @ivar own: Those of them that the server has for itself.
    @ivar handshakes: Counts the visitors whose TLS is not up yet; C{None} for
        any number.
    @cvar bindV6: Makes a socket that listens on a port, for IPv6 alone.
    """

    bindV6 = staticmethod(_boundV6)

    def __init__(
        self,
        reactor: Any,
        interface: str = "",
        ports: PortRange = UNPRIVILEGED,
        creator: IOpenSSLServerConnectionCreator | None = None,
    ) -> None:
        self._reactor = reactor
        self._interface = interface
        self.ports = ports
        self.own: set[int] = set()
        self.handshakes: Handshakes | None = None
        self._creator = creator

    def open(
        self, options: TunnelOptions, arrived: Callable[[End, str], None]
    ) -> TCPListener:
        """
        Listen for visitors.

        @param options: All that was asked of the tunnel; here its C{port} and
            C{prefer} count.
        @param arrived: Called with each visitor's end and address.
        @raise TunnelError: C{port-taken}, C{port-not-permitted} or
            C{ports-exhausted}.
        """
        limiter = None if self._creator is None else self.handshakes
        factory: Any = _VisitorFactory(self._reactor, arrived, limiter)
        scheme = "tcp"
        if self._creator is not None:
            scheme = "tls"
            factory = _TLSFactory(self._creator, False, factory)
            factory.noisy = False
        return self.ports.choose(
            options.port,
            options.prefer,
            partial(self._listen, scheme, factory),
            self.own,
        )

    def _listen(self, scheme: str, factory: Any, port: int) -> TCPListener:
        """
        Listen on one port; where all interfaces are meant, on IPv4 and IPv6.
        Each has a socket of its own: of an IPv4 visitor on one for both,
        Twisted has the C library write the address.
        """
        ports = [self._listenOn(self._interface or "0.0.0.0", factory, port)]
        if not self._interface:
            number = int(ports[0].getHost().port)
            try:
                ports += self._listenOnV6(factory, number)
            except OSError as error:
                ports[0].stopListening()
                if not port and error.errno == errno.EADDRINUSE:
                    # What the kernel found is free for IPv4 only.
                    return self._listen(scheme, factory, port)
                refused = CannotListenError("::", number, error)
                raise self._refusal(number, refused, error.errno) from None
        return TCPListener(scheme, self._interface, ports)

    def _listenOn(self, interface: str, factory: Any, port: int) -> Any:
        """
        Listen on one address.
        """
        try:
            return self._reactor.listenTCP(
                port, factory, backlog=BACKLOG, interface=interface
            )
        except CannotListenError as error:
            number = getattr(error.socketError, "errno", None)
            raise self._refusal(port, error, number) from None

    def _listenOnV6(self, factory: Any, port: int) -> list[Any]:
        """
        Listen on all of the machine's IPv6 addresses, if it has IPv6.

        @raise OSError: If the port cannot be had.
        """
        try:
            bound = self.bindV6(port)
        except OSError as error:
            if error.errno in _WITHOUT_IPV6:
                return []
            raise
        # The reactor takes a copy of the descriptor.
        with bound:
            number = bound.fileno()
            return [self._reactor.adoptStreamPort(number, socket.AF_INET6, factory)]

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
