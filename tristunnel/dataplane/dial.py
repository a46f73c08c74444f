"""
Connecting to a TCP port, by name or address.
"""

from __future__ import annotations

from functools import lru_cache
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SOCK_STREAM,
    TCP_NODELAY,
    socket,
)
from typing import Any

from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import (
    ConnectionRefusedError,
    DNSLookupError,
    getConnectError,
)
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorSocket,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.lookups import isAddress, known, lookUp
from tristunnel.dataplane.tuning import resetIfKilled
from tristunnel.util.hosts import hostName
from tristunnel.util.platform import NON_BLOCKING
from tristunnel.util.repeating import stopTimer

__all__ = ["TIMEOUT", "HostEndpoint", "ServiceEndpoint", "adopted", "dial"]

TIMEOUT = 10.0
"""Seconds within which a service must accept a connection."""

NEXT_ADDRESS = 0.3
"""Seconds after which the next address of a name is tried in parallel."""


@lru_cache(256)
def _isHere(host: str) -> bool:
    """Whether an address always belongs to this machine."""
    return host == "::1" or (host.startswith("127.") and isIPAddress(host))


def _connected(host: str, port: int) -> socket | None:
    """
    Connect to a service of this machine.

    @return: The connection; C{None} if it was not established at once.
    """
    made = socket(AF_INET6 if ":" in host else AF_INET, SOCK_STREAM | NON_BLOCKING)
    if not NON_BLOCKING:
        made.setblocking(False)
    made.connect_ex((host, port))
    try:
        there = made.getpeername()
    except OSError:
        # Refused, or under way.
        made.close()
        return None
    if there == made.getsockname():
        # It is connected to itself, see C{_Dial}. Without a reset the port would stay
        # in use for a minute.
        resetIfKilled(made)
        made.close()
        return None
    return made


class _Dial(ClientFactory):
    """
    One connection attempt, without the wrappers of Twisted's endpoints, which would
    stay between the transport and the protocol.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory) -> None:
        self.connector: IConnector | None = None
        self.connected: Deferred[IProtocol] = Deferred(self._cancel)
        self._factory = factory

    def _cancel(self, connected: Deferred[IProtocol]) -> None:
        """Nobody wants the connection any more."""
        if self.connector is not None:
            self.connector.stopConnecting()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Make the protocol, and tell once it is connected.

        If nothing listens on the target port, and the port is in the range that the
        kernel uses for outgoing connections, the kernel may choose that very port for
        the connection, which is then connected to itself: TCP's simultaneous open.
        """
        transport: Any = getattr(self.connector, "transport", None)
        if transport is not None and transport.getHost() == transport.getPeer():
            # Without a reset the port would stay in use for a minute.
            transport.abortConnection()
            self._failed(Failure(ConnectionRefusedError("nothing listens there")))
            return None
        protocol: Any = self._factory.buildProtocol(addr)  # type: ignore[arg-type] # IProtocolFactory omits None
        if protocol is None:
            return None
        made = protocol.makeConnection

        def makeConnection(transport: Any) -> None:
            del protocol.makeConnection
            made(transport)
            if not self.connected.called:
                self.connected.callback(protocol)

        protocol.makeConnection = makeConnection
        return protocol

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._failed(reason)

    def _failed(self, reason: Failure) -> None:
        """Tell who waits."""
        if not self.connected.called:
            self.connected.errback(reason)


def dial(
    reactor: Any,
    host: str,
    port: int,
    factory: IProtocolFactory,
    timeout: float = TIMEOUT,
    bindAddress: tuple[str, int] | None = None,
) -> Deferred[IProtocol]:
    """
    Connect to an IP address.

    @param timeout: Seconds within which the connection must be established.
    @param bindAddress: The local address of the connection.
    @return: Fires with the protocol once it is connected.
    """
    polled = hasattr(reactor, "poller")
    if (
        bindAddress is None
        and not polled
        and _isHere(host)
        and IReactorSocket.providedBy(reactor)
    ):
        try:
            here = _connected(host, port)
        except OSError:
            # No descriptor is left; the reactor will report that.
            here = None
        if here is not None:
            return adopted(reactor, here, factory)
    attempt = _Dial(factory)
    attempt.connector = reactor.connectTCP(host, port, attempt, timeout, bindAddress)
    return attempt.connected


def adopted(
    reactor: Any, connection: socket, factory: IProtocolFactory
) -> Deferred[IProtocol]:
    """Hand an established connection to the reactor."""
    adopting = _Adopting(factory)
    # The reactor takes a copy of the descriptor.
    with connection:
        try:
            reactor.adoptStreamConnection(
                connection.fileno(), connection.family, adopting
            )
        except OSError as error:
            if adopting.protocol is not None:
                raise
            # The other side has broken it already.
            return fail(getConnectError(error))
    return succeed(adopting.protocol)


class _Adopting(Factory[Protocol]):
    """Hands out another factory's protocol, and keeps it."""

    noisy = False
    protocol: Any = None

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory

    def buildProtocol(self, addr: IAddress | None) -> Any:
        self.protocol = self._factory.buildProtocol(addr)  # type: ignore[arg-type] # IProtocolFactory omits None
        return self.protocol


class _Race:
    """
    Tries the addresses of a host: the next one as soon as the previous one has failed,
    or in parallel if that one is slow (RFC 8305).
    """

    def __init__(self, endpoint: HostEndpoint, factory: IProtocolFactory) -> None:
        self._endpoint = endpoint
        self._factory = factory
        self._waiting: list[str] = []
        self._dialling: list[Deferred[IProtocol]] = []
        self._next: IDelayedCall | None = None
        self._won: Deferred[IProtocol] = Deferred(lambda _: self._stop())

    def run(self, addresses: list[str]) -> Deferred[IProtocol]:
        """
        Try them.

        @return: Fires with the first protocol, or fails as the last attempt.
        """
        self._waiting = addresses
        self._dial()
        return self._won

    def _dial(self) -> None:
        """Try one more."""
        self._stopWaiting()
        dialling = self._endpoint.dial(self._waiting.pop(0), self._factory)
        self._dialling.append(dialling)
        dialling.addBoth(self._over, dialling)
        # On this machine the attempt has succeeded or failed by now.
        if self._waiting and self._next is None:
            later = self._endpoint.reactor.callLater
            self._next = later(NEXT_ADDRESS, self._dial)

    def _over(self, result: IProtocol | Failure, dialling: Deferred[IProtocol]) -> None:
        """One has won, or lost."""
        self._dialling.remove(dialling)
        if self._won.called:
            return
        if not isinstance(result, Failure):
            self._stop()
            self._won.callback(result)
        elif self._waiting:
            self._dial()
        elif not self._dialling:
            self._won.errback(result)

    def _stop(self) -> None:
        """Try no more."""
        self._waiting = []
        self._stopWaiting()
        for each in list(self._dialling):
            each.cancel()

    def _stopWaiting(self) -> None:
        """Wait no longer before the next one."""
        stopTimer(self._next)
        self._next = None


@implementer(IStreamClientEndpoint)
class HostEndpoint:
    """
    A TCP port of a host.

    Twisted's C{HostnameEndpoint} refuses names that are no domain names (C{my_db}),
    waits for its look-up without a limit, and accepts a connection to itself.

    @param reactor: Connects, looks names up and tells time.
    @param host: A name or an address, as people write it.
    @param timeout: Seconds within which an address must answer.
    @param bindAddress: The local address of the connections.
    @raise ValueError: If C{host} is neither; the message says why.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> None:
        self.reactor = reactor
        self._host = hostName(host)
        self._isAddress = isAddress(self._host)
        self._port = port
        self._timeout = timeout
        self._bindAddress = bindAddress
        # Whether the last address that answered was an IPv6 address.
        self._wasIPv6: bool | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if self._isAddress:
            return self.dial(self._host, protocolFactory)
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        """Look the name up, and connect."""
        answer = await lookUp(self.reactor, self._host)
        try:
            return await self._race(answer.addresses, factory)
        except CancelledError:
            raise
        except Exception:
            moved = [] if answer.isNew else await self._moved(answer.addresses)
            if not moved:
                raise
        return await self._race(moved, factory)

    async def _moved(self, before: list[str]) -> list[str]:
        """Look the name up again, in case its addresses have changed."""
        try:
            answer = await lookUp(self.reactor, self._host, again=True)
        except DNSLookupError:
            return []
        return [each for each in answer.addresses if each not in before]

    async def _race(self, addresses: list[str], factory: IProtocolFactory) -> IProtocol:
        """
        Connect to one of several addresses. Those of the family that answered last time
        come first.
        """
        order = sorted(addresses, key=lambda each: (":" in each) is not self._wasIPv6)
        if self._wasIPv6 is None:
            order = list(addresses)
        if len(order) == 1:
            protocol = await self.dial(order[0], factory)
        else:
            protocol = await _Race(self, factory).run(order)
        transport: Any = getattr(protocol, "transport", None)
        if transport is not None:
            self._wasIPv6 = ":" in getattr(transport.getPeer(), "host", "")
        return protocol

    def dial(self, address: str, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect to one address of the host."""
        return dial(
            self.reactor, address, self._port, factory, self._timeout, self._bindAddress
        )


class ServiceEndpoint(HostEndpoint):
    """
    A TCP service, to which a connection is made for every visitor.

    @ivar limitsTime: Whether it gives up on its own, after L{TIMEOUT}.
    """

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        super().__init__(reactor, host, port, TIMEOUT)
        self.limitsTime = self._isAddress

    def connectNow(self) -> socket | None:
        """
        Connect to a service of this machine at once.

        @return: A non-blocking connection; C{None} if the service is elsewhere,
            refuses, or takes a while. L{connect} then connects, or says why it cannot.
        """
        for address in [self._host] if self._isAddress else known(self._host):
            if not _isHere(address):
                return None
            try:
                made = _connected(address, self._port)
            except OSError:
                # No descriptor is left; connect() will report that.
                return None
            if made is not None:
                # No keepalive: the kernel tells when a program of this machine dies.
                made.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
                resetIfKilled(made)
                return made
        return None
