"""A service that is told where each visitor comes from: C{proxy=v2}."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from socket import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from tristunnel.dataplane.transport import SocketTransport
from tristunnel.util.hosts import addressOf, parsePlace
from tristunnel.wire.proxy_header import PROXY_HEADERS, Place, ProxyHeader

__all__ = ["ProxyHeaderEndpoint", "headerFor"]


def _place(text: object) -> Place | None:
    try:
        host, port = parsePlace(str(text))
    except ValueError:
        return None
    address = addressOf(host)
    return None if address is None else (address, port)


def headerFor(info: Mapping[str, object]) -> ProxyHeader:
    """
    Read what the server said of a visitor.

    @param info: C{visitor} and C{destination} as C{HOST:PORT}, and C{host}; as in the
        frame that opens a stream. What is missing or is something else counts as
        unknown.
    """
    host = info.get("host")
    return ProxyHeader(
        _place(info.get("visitor")),
        _place(info.get("destination")),
        host if isinstance(host, str) else "",
    )


@implementer(IStreamClientEndpoint)
@dataclass(frozen=True)
class ProxyHeaderEndpoint:
    """
    A service that expects the PROXY protocol's header first. L{connect} itself is for
    checks, and its header says that there is no visitor.

    @ivar version: A key of L{PROXY_HEADERS}.
    @ivar below: Where to connect.
    @ivar over: Adds to the connection what comes after the header, such as TLS.
    """

    version: str
    below: IStreamClientEndpoint
    over: Callable[[IStreamClientEndpoint], IStreamClientEndpoint] | None = None

    def forVisitor(self, info: Mapping[str, object]) -> IStreamClientEndpoint:
        """
        Make the endpoint of one visit.

        @param info: What the server said of the visitor.
        """
        return self._beginning(headerFor(info))

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        made: Deferred[IProtocol] = self._beginning(None).connect(protocolFactory)
        return made

    def _beginning(self, header: ProxyHeader | None) -> IStreamClientEndpoint:
        made = _Beginning(self.below, PROXY_HEADERS[self.version](header))
        return made if self.over is None else self.over(made)


def _never() -> None:
    return None


@implementer(IStreamClientEndpoint)
@dataclass(frozen=True)
class _Beginning:
    below: IStreamClientEndpoint
    header: bytes

    def connectNow(self) -> socket | None:
        """The same as L{ServiceEndpoint.connectNow}, of whatever can do that."""
        dial: Callable[[], socket | None] = getattr(self.below, "connectNow", _never)
        made = dial()
        if made is not None:
            try:
                # A new connection has room for these few bytes.
                made.sendall(self.header)
            except OSError:
                made.close()
                return None
        return made

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        made: Deferred[IProtocol] = self.below.connect(
            _Factory(protocolFactory, self.header)
        )
        return made


class _Factory(Factory[Protocol]):
    """Writes the header before anybody else may write."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, header: bytes) -> None:
        self._factory = factory
        self._header = header

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol: Any = self._factory.buildProtocol(addr)  # type: ignore[arg-type] # IProtocolFactory omits None
        if protocol is None:
            return None
        made = protocol.makeConnection

        def makeConnection(transport: Any) -> None:
            # Whoever dials may have replaced it by its own.
            vars(protocol).pop("makeConnection", None)
            transport.write(self._header)
            if isinstance(transport, SocketTransport):
                # TLS on the socket would take bytes that are still waiting.
                transport.flush()
            made(transport)

        protocol.makeConnection = makeConnection
        return protocol
