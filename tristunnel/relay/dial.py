"""
Connecting to the same TCP service again and again, for every visitor.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["REMEMBERED", "TIMEOUT", "ServiceEndpoint", "dial"]

TIMEOUT = 10.0
"""Seconds in which a service must accept a connection."""

REMEMBERED = 30.0
"""Seconds for which the address that a name led to is dialled directly."""


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
    attempt = _Dial(factory)
    attempt.connector = reactor.connectTCP(host, port, attempt, TIMEOUT)
    return attempt.connected


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
