"""
Dialling for somebody else: the other end of C{--listen ENDPOINT=TARGET}, at a server or
at another client, within what C{--dial-allow} names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from tristunnel.dataplane.reactor import polledReactor
from tristunnel.errors import TunnelError, printable, protocolError
from tristunnel.forwards.destinations import (
    UNIX,
    Destinations,
    PermittedEndpoint,
    parseDestination,
)
from tristunnel.forwards.inner import InnerEndpoint, OneProtocol
from tristunnel.forwards.onward import Gateway
from tristunnel.forwards.socks import Socks
from tristunnel.forwards.udp import Place, UDPService
from tristunnel.util.hosts import hostAndPort, parsePlace
from tristunnel.util.words import isName

__all__ = [
    "DIAL",
    "OPTION",
    "SOCKS",
    "DialRequest",
    "dialDestinations",
    "dialService",
    "dialTarget",
    "parseDialTarget",
]

DIAL = "dial"
"""The key in the handshake for who asks and who dials, and in a stream's opening for
the target."""

OPTION = "--dial-allow"

SOCKS = "socks:"
"""The target when whoever dials is a SOCKS proxy."""


def dialDestinations(texts: Iterable[str]) -> Destinations:
    """
    Read C{--dial-allow}.

    @raise TunnelError: C{bad-option}.
    """
    return Destinations(
        [parseDestination(each, OPTION, sockets=True) for each in texts],
        OPTION,
        separatesUDP=True,
    )


def parseDialTarget(text: str) -> tuple[str, str]:
    """
    Read C{HOST:PORT[@CLIENT]}, C{unix:PATH[@CLIENT]} or C{socks:[@CLIENT]}.

    @return: The target, in one way of writing it, and the client; empty for the server.
    @raise ValueError: With what is wrong.
    """
    target, at, client = text.rpartition("@")
    if not at:
        target, client = text, ""
    elif not isName(client):
        raise ValueError("a client's name has letters, digits, '-', '_' and '.'")
    if target.startswith(UNIX):
        if not target.startswith(f"{UNIX}/"):
            raise ValueError("a UNIX socket is named by its whole path")
        return target, client
    if target == SOCKS:
        return target, client
    return hostAndPort(*parsePlace(target)), client


@dataclass(frozen=True)
class DialRequest:
    """
    What somebody asks for.

    @ivar target: C{HOST:PORT}, C{unix:PATH}, or L{SOCKS}.
    @ivar client: The client that is to dial; empty for the server.
    @ivar isUDP: Whether it is about datagrams.
    """

    target: str
    client: str
    isUDP: bool

    @classmethod
    def read(cls, info: Mapping[str, object], isUDP: bool) -> DialRequest:
        """
        Read what a stream's opening says.

        @raise TunnelError: C{protocol-error}.
        """
        target, client = info.get(DIAL), info.get("client", "")
        if not (isinstance(target, str) and isinstance(client, str)):
            raise protocolError("what to dial is not a text")
        try:
            told, _ = parseDialTarget(target[:512])
        except ValueError as error:
            raise protocolError(f"what to dial is not understood: {error}") from None
        return cls(told, client[:64], isUDP)

    def __str__(self) -> str:
        shown = f"udp/{self.target}" if self.isUDP else self.target
        return printable(f"{shown}@{self.client}" if self.client else shown, 120)


def dialTarget(
    reactor: Any, request: DialRequest, destinations: Destinations
) -> IStreamClientEndpoint:
    """
    Make the endpoint of a requested target.

    @raise TunnelError: C{not-permitted}.
    """
    reactor = polledReactor(reactor)
    if request.target == SOCKS:
        return _proxyInto(reactor, destinations)
    if request.target.startswith(UNIX):
        destinations.checkPath(request.target)
        return UNIXClientEndpoint(reactor, request.target.removeprefix(UNIX))
    return PermittedEndpoint(reactor, *parsePlace(request.target), destinations)


def _proxyInto(reactor: Any, destinations: Destinations) -> InnerEndpoint:
    """Make a proxy whose visitors, who have been let in, say where they want to go."""
    if not destinations:
        raise TunnelError(
            "not-permitted", f"a SOCKS proxy leads nowhere here: give {OPTION}"
        )
    gateway = Gateway(reactor, OPTION, destinations)
    return InnerEndpoint(
        reactor, lambda info: OneProtocol(lambda: Socks(gateway, info))
    )


class _PermittedService(UDPService):
    """A UDP service, each of whose addresses is judged."""

    def __init__(
        self, reactor: Any, host: str, port: int, destinations: Destinations
    ) -> None:
        super().__init__(reactor, host, port)
        self._destinations = destinations
        destinations.checkAsked(self._host, port, True)

    def whereIs(self) -> Deferred[list[Place]]:
        finding = Deferred.fromCoroutine(
            self._destinations.find(self.reactor, self._host, self._port, True)
        )
        return finding.addCallback(self._found)


def dialService(
    reactor: Any, request: DialRequest, destinations: Destinations
) -> UDPService:
    """
    Make the requested UDP service.

    @raise TunnelError: C{not-permitted}.
    """
    if request.target.startswith(UNIX):
        raise TunnelError("not-permitted", "a UNIX socket has no datagrams here")
    if request.target == SOCKS:
        raise TunnelError("not-permitted", "a SOCKS proxy is reached by TCP")
    return _PermittedService(reactor, *parsePlace(request.target), destinations)
