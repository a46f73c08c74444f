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

from OpenSSL import SSL
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from tristunnel.dataplane.acceptor import Acceptor, listeningSocket
from tristunnel.dataplane.addresses import addressOf
from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.poller import Poller, pollerOf
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.transport_end import TransportEnd
from tristunnel.dataplane.tuning import resetIfKilled
from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import UNPRIVILEGED, PortRange, Reserve
from tristunnel.tls.server_context import serverTLS
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.endpoints import BACKLOG
from tristunnel.util.hosts import addressText, hostAndPort

__all__ = ["TCPListener", "TCPListeners"]

_WITHOUT_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
"""The errors of a machine without IPv6."""

Arrived = Callable[[End, str], None]


class Handshake(Structure):
    """
    A TLS handshake under way.

    @ivar leave: Cuts it short, to make room for another; to be set.
    """

    leave: Callable[[], object] | None

    def known(self) -> None:
        """Count it no longer, because it is over."""


class Handshakes(Structure):
    """Counts TLS handshakes under way."""

    def enter(self, address: IAddress | None) -> Handshake:
        """
        Count one.

        @raise TunnelError: If there are too many.
        """


class _Visitors:
    """
    Makes ends of the connections that an L{Acceptor} accepts.

    @param arrived: Told of each end when its bytes may pass.
    @param creator: Makes their TLS, or C{None}.
    @param handshakes: Counts those whose TLS is not up yet.
    """

    def __init__(
        self,
        poller: Poller,
        arrived: Arrived,
        creator: IOpenSSLServerConnectionCreator | None,
        handshakes: Handshakes | None,
    ) -> None:
        self._poller = poller
        self._arrived = arrived
        self._creator = creator
        self._handshakes = handshakes
        # What Twisted's creators of TLS ask a protocol for.
        self.factory: Any = self
        self.wrappedFactory = None

    def accepted(self, connection: socket.socket, peer: Any) -> None:
        try:
            RESERVE.checkSession()
            if self._creator is None:
                end = SocketEnd(self._poller, connection)
                end.start()
                self._arrived(end, hostAndPort(peer[0], peer[1]))
            else:
                self._shake(self._creator, connection, peer)
        except (TunnelError, OSError):
            # Visitors who wait for TLS, and raw clients, do not pass a tunnel's
            # filters. The listening socket's options make this a reset.
            self._poller.close(connection)

    def _shake(
        self,
        creator: IOpenSSLServerConnectionCreator,
        connection: socket.socket,
        peer: Any,
    ) -> None:
        """
        Begin TLS. Before that is up, it is not yet any tunnel's visitor, but is
        counted as somebody of whom nothing is known.
        """
        address = addressOf(connection.family, peer)
        counted = None
        if self._handshakes is not None:
            counted = self._handshakes.enter(address)

        def begun(end: SocketEnd) -> None:
            if counted is not None:
                counted.known()
            self._arrived(end, addressText(address))

        try:
            tls: SSL.Connection = serverTLS(creator, connection, self)
            end = SocketEnd(self._poller, connection, begun, tls)
            if counted is not None:
                end.whileWaiting(lambda reason: counted.known())
                counted.leave = end.abort
            end.begin()
        except BaseException:
            if counted is not None:
                counted.known()
            raise


class _RejectedConnection(Protocol):
    """A connection for which there is no descriptor."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.abortConnection()


class _VisitorFactory(ServerFactory[TransportEnd]):
    """
    Makes ends of the connections that a Twisted port accepts, where there is no
    epoll.
    """

    noisy = False

    def __init__(
        self, reactor: Any, arrived: Arrived, handshakes: Handshakes | None
    ) -> None:
        self._reactor = reactor
        self._arrived = arrived
        self._handshakes = handshakes

    def buildProtocol(self, addr: IAddress | None) -> TransportEnd:
        try:
            RESERVE.checkSession()
            counted = None
            if self._handshakes is not None:
                counted = self._handshakes.enter(addr)
        except TunnelError:
            return cast(TransportEnd, _RejectedConnection())

        def begun(end: End) -> None:
            if counted is not None:
                counted.known()
            self._arrived(end, addressText(addr))

        made = TransportEnd(self._reactor, begun)
        if counted is not None:
            made.whileWaiting(lambda reason: counted.known())
            counted.leave = lambda: made.transport.abortConnection()
        return made


class _TLSFactory(TLSMemoryBIOFactory):
    """
    Puts TLS over visitors' connections, and spends nothing on those that are
    closed at once.
    """

    def buildProtocol(self, addr: IAddress | None) -> Any:
        inner: Any = self.wrappedFactory.buildProtocol(addr)
        if isinstance(inner, _RejectedConnection):
            return inner
        return self.protocol(self, inner)


class TCPListener:
    """An L{IListener<tristunnel.model.place.IListener>} on a TCP port."""

    def __init__(
        self, scheme: str, interface: str, ports: list[IListeningPort]
    ) -> None:
        self._ports = ports
        here: Any = ports[0].getHost()
        self._address = (scheme, interface, int(here.port))

    @property
    def address(self) -> tuple[str, str, int]:
        """The scheme, the interface and the port."""
        return self._address

    @property
    def sockets(self) -> list[socket.socket]:
        """The listening sockets; none where there is no epoll."""
        return [port.connection for port in self._ports if isinstance(port, Acceptor)]

    def close(self) -> Awaitable[object]:
        """Stop listening."""
        return gatherResults(
            [maybeDeferred(port.stopListening) for port in self._ports]
        )


class TCPListeners:
    """
    Opens TCP ports for visitors.

    @param reactor: Listens and tells time.
    @param interface: The address to listen on; empty for all, IPv4 and IPv6.
    @param ports: Which ones may be given out.
    @param creator: Makes the visitors' TLS, or C{None} for plain TCP.
    @param kind: The kind under which its ports are reserved.

    @ivar ports: Which ones may be given out now.
    @ivar own: Those of them that the server has for itself.
    @ivar handshakes: Counts the visitors whose TLS is not up yet; C{None} for
        any number.
    @cvar bind: Makes a listening socket of an interface and a port.
    """

    bind: Callable[[str, int], socket.socket] = staticmethod(listeningSocket)

    def __init__(
        self,
        reactor: Any,
        interface: str = "",
        ports: PortRange = UNPRIVILEGED,
        creator: IOpenSSLServerConnectionCreator | None = None,
        kind: str = "tcp",
    ) -> None:
        self._reactor = reactor
        self._kind = kind
        self._interface = interface
        self.ports = ports
        self.own: set[int] = set()
        self.handshakes: Handshakes | None = None
        self._creator = creator

    @returnsDeferred
    async def open(
        self,
        options: TunnelOptions,
        arrived: Callable[[End, str], None],
        reserve: Reserve,
    ) -> TCPListener:
        """
        Listen for visitors.

        @param options: All that was asked of the tunnel; here its C{port} and
            C{prefer} count.
        @param arrived: Called with each visitor's end and address.
        @param reserve: Reserves a port.
        @raise TunnelError: C{port-taken}, C{port-not-permitted} or
            C{ports-exhausted}.
        """
        handshakes = None if self._creator is None else self.handshakes
        poller = pollerOf(self._reactor)
        listen: Callable[[str, int], IListeningPort]
        if poller is not None:
            visitors = _Visitors(poller, arrived, self._creator, handshakes)
            listen = partial(self._listenOurselves, poller, visitors)
        else:
            factory: Any = _VisitorFactory(self._reactor, arrived, handshakes)
            if self._creator is not None:
                factory = _TLSFactory(self._creator, False, factory)
                factory.noisy = False
            listen = partial(self._haveListened, factory)
        return await self.ports.choose(
            options.port,
            options.prefer,
            partial(self._listen, listen),
            partial(reserve, self._kind),
            self.own,
        )

    def _listen(
        self, listen: Callable[[str, int], IListeningPort], port: int
    ) -> TCPListener:
        """
        Listen on one port; where all interfaces are meant, on IPv4 and IPv6. Each
        has a socket of its own, so that a visitor's address is always of its own
        family.
        """
        try:
            ports = [listen(self._interface or "0.0.0.0", port)]
        except OSError as error:
            raise self._refusal(port, error) from None
        if not self._interface:
            here: Any = ports[0].getHost()
            try:
                ports.append(listen("::", int(here.port)))
            except OSError as error:
                if error.errno not in _WITHOUT_IPV6:
                    ports[0].stopListening()
                    if not port and error.errno == errno.EADDRINUSE:
                        # The kernel has only found a port that is free for IPv4.
                        return self._listen(listen, port)
                    raise self._refusal(int(here.port), error) from None
        scheme = "tcp" if self._creator is None else "tls"
        return TCPListener(scheme, self._interface, ports)

    def _listenOurselves(
        self, poller: Poller, visitors: _Visitors, interface: str, port: int
    ) -> Acceptor:
        """
        Listen in the poller.

        @raise OSError: If the port cannot be had.
        """
        bound = self.bind(interface, port)
        resetIfKilled(bound)
        made = Acceptor(poller, bound, visitors.accepted)
        try:
            made.startListening()
        except OSError:
            bound.close()
            raise
        return made

    def _haveListened(self, factory: Any, interface: str, port: int) -> Any:
        """
        Listen in the reactor.

        @raise OSError: If the port cannot be had.
        """
        if interface == "::":
            # The reactor would listen for IPv4, too.
            with self.bind(interface, port) as bound:
                return self._reactor.adoptStreamPort(
                    bound.fileno(), socket.AF_INET6, factory
                )
        try:
            return self._reactor.listenTCP(
                port, factory, backlog=BACKLOG, interface=interface
            )
        except CannotListenError as error:
            number = getattr(error.socketError, "errno", None)
            raise OSError(number or 0, str(error.socketError)) from None

    def _refusal(self, port: int, error: OSError) -> TunnelError:
        number = error.errno
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
            return TunnelError(
                "limit-reached", "the server has no file descriptor left"
            )
        return TunnelError("port-not-permitted", f"port {port}: {error.strerror}")
