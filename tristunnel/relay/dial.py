"""
Connecting to the same TCP service again and again, for every visitor.
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, SOCK_STREAM, socket
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import getConnectError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IProtocol,
    IProtocolFactory,
    IReactorSocket,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["REMEMBERED", "TIMEOUT", "ServiceEndpoint", "dial"]

TIMEOUT = 10.0
"""Seconds in which a service must accept a connection."""

REMEMBERED = 30.0
"""Seconds for which the address that a name led to is dialled directly."""


def _isHere(host: str) -> bool:
    """
    Whether an address is this machine's own, always.
    """
    return host == "::1" or (host.startswith("127.") and isIPAddress(host))


def _connected(host: str, port: int) -> socket | None:
    """
    Connect to a service of this machine.

    @return: The connection, which is there at once, or C{None} if it is not.
    """
    made = socket(AF_INET6 if ":" in host else AF_INET, SOCK_STREAM)
    made.setblocking(False)
    where = (host, port)
    # The first call connects; the second one tells how it went.
    if made.connect_ex(where) == 0 or made.connect_ex(where) == 0:
        return made
    made.close()
    return None


class _Dial(ClientFactory):
    """
    One connection attempt, without the layers of Twisted's endpoints: those
    would stay between the transport and the protocol.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory) -> None:
        self.connector: IConnector | None = None
        self.connected: Deferred[IProtocol] = Deferred(self._cancel)
        self._factory = factory

    def _cancel(self, connected: Deferred[IProtocol]) -> None:
        """
        Nobody wants the connection any more.
        """
        if self.connector is not None:
            self.connector.stopConnecting()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Make the protocol, and tell once it is connected.
        """
        protocol: Any = self._factory.buildProtocol(addr)  # type: ignore[arg-type]
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
        """
        There is no connection.
        """
        if not self.connected.called:
            self.connected.errback(reason)


def dial(
    reactor: Any, host: str, port: int, factory: IProtocolFactory
) -> Deferred[IProtocol]:
    """
    Connect to an IP address.

    @return: Fires with the protocol once it is connected.
    """
    if _isHere(host) and IReactorSocket.providedBy(reactor):
        try:
            here = _connected(host, port)
        except OSError:
            # No descriptor; the reactor knows what to say.
            here = None
        if here is not None:
            return _adopted(reactor, here, factory)
    attempt = _Dial(factory)
    attempt.connector = reactor.connectTCP(host, port, attempt, TIMEOUT)
    return attempt.connected


def _adopted(
    reactor: Any, connection: socket, factory: IProtocolFactory
) -> Deferred[IProtocol]:
    """
    Give the reactor a connection that is there.
    """
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
    """
    Hands out another factory's protocol, and remembers it.
    """

    noisy = False
    protocol: Any = None

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Make the protocol.
        """
        self.protocol = self._factory.buildProtocol(addr)  # type: ignore[arg-type]
        return self.protocol


@implementer(IStreamClientEndpoint)
class ServiceEndpoint:
    """
    A TCP service. A name is looked up as ever, and the address that answered
    is remembered for a while, since a lookup costs more than all the rest.

    @param reactor: Connects and tells time.
    @param host: A name or an address.

    @ivar limitsTime: It gives up by itself, after L{TIMEOUT}.
    """

    limitsTime = True

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        self._reactor = reactor
        self._port = port
        self._byName = HostnameEndpoint(reactor, host, port, TIMEOUT)
        self._isAddress = isIPAddress(host) or isIPv6Address(host)
        self._address = host if self._isAddress else ""
        self._until = 0.0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect to the service.
        """
        if self._isAddress:
            return dial(self._reactor, self._address, self._port, protocolFactory)
        if self._address and self._reactor.seconds() < self._until:
            dialled = dial(self._reactor, self._address, self._port, protocolFactory)
            dialled.addErrback(self._moved)
            return dialled
        connecting: Deferred[IProtocol] = self._byName.connect(protocolFactory)
        connecting.addCallback(self._remember)
        return connecting

    def _remember(self, protocol: IProtocol) -> IProtocol:
        """
        Keep the address that answered.
        """
        transport: Any = getattr(protocol, "transport", None)
        host = getattr(transport.getPeer(), "host", "") if transport else ""
        if isIPAddress(host) or isIPv6Address(host):
            self._address = host
            self._until = self._reactor.seconds() + REMEMBERED
        return protocol

    def _moved(self, failure: Failure) -> Failure:
        """
        The next visitor has the name looked up again.
        """
        self._address = ""
        return failure
