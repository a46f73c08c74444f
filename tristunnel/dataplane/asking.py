"""
What all have in common that ask others over HTTP, or whether they are there: how they
are reached, what is read of an answer, and why there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.tls.client_context import ServerVerification

__all__ = ["Body", "Enough", "TooLong", "Ways", "firstCause", "touch", "wayTo"]

PATIENCE = 10.0
"""Seconds in which a server accepts a connection."""


@implementer(IAgentEndpointFactory)
@dataclass(frozen=True)
class Ways:
    """
    How an C{Agent} reaches servers.

    @ivar way: Makes an endpoint of a URL.
    """

    way: Callable[[URI], IStreamClientEndpoint]

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self.way(uri)


def wayTo(
    reactor: Any, uri: URI, kind: type[HostEndpoint] = HostEndpoint
) -> IStreamClientEndpoint:
    """
    Reach a server by the data plane's sockets and look-ups, and verify it if its URL
    says C{https}.

    @param reactor: Connects, and tells time.
    @param kind: What connects.
    """
    host = uri.host.decode("ascii").strip("[]")
    below: Any = kind(reactor, host, uri.port, PATIENCE)
    if uri.scheme != b"https":
        return below  # type: ignore[no-any-return]
    return wrapClientTLS(ServerVerification(host), below)


class TooLong(Exception):
    """An answer is longer than who asked wants to have it."""


class Body(Protocol):
    """
    Collects the body of an answer.

    @param most: Bytes that it may have.

    @ivar complete: Fires with all of it; fails with L{TooLong}, or with what has cut it
        off. The connection is closed if that is cancelled.
    """

    transport: Any

    def __init__(self, most: int) -> None:
        self.complete: Deferred[bytes] = Deferred(self._abort)
        self._most = most
        self._pieces: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._most:
            self._pieces.append(data)
        elif not self.complete.called:
            self.complete.errback(TooLong())
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.complete.called:
            return
        # A body without a length ends with the connection.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.complete.callback(b"".join(self._pieces))
        else:
            self.complete.errback(reason)

    def _abort(self, _: object = None) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class Enough(Protocol):
    """A connection, or an answer's body, of which it is enough that it is there."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.loseConnection()


def touch(endpoint: IStreamClientEndpoint) -> Deferred[Any]:
    """
    Find out whether somebody accepts connections.

    @return: Fires once one was accepted, which is closed; fails as the endpoint does.
    """
    factory = Factory.forProtocol(Enough)
    factory.noisy = False
    return endpoint.connect(factory)


def firstCause(failure: Failure) -> Failure:
    """@return: What made a request fail, out of Twisted's wrappers."""
    # The request and the response have wrappers with this attribute each.
    while reasons := getattr(failure.value, "reasons", None):
        failure = reasons[0]
    return failure
