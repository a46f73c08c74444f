"""
What the HTTP clients within this program have in common: how they reach a server, how
much of an answer they read, and how they find out why there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, FileBodyProducer, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.tls.client_context import ServerVerification
from tristunnel.version import VERSION

__all__ = ["Body", "Enough", "TooLong", "firstCause", "sendRequest", "touch", "wayTo"]

PATIENCE = 10.0
"""Seconds within which a server must accept a connection."""


@implementer(IAgentEndpointFactory)
@dataclass(frozen=True)
class _Ways:
    """How an C{Agent} reaches servers."""

    way: Callable[[URI], IStreamClientEndpoint]

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self.way(uri)


def wayTo(
    reactor: Any, uri: URI, kind: type[HostEndpoint] = HostEndpoint
) -> IStreamClientEndpoint:
    """
    Reach a server with the data plane's sockets and name look-ups, and verify its
    certificate if the URL says C{https}.

    @param reactor: Connects, and tells time.
    @param kind: What connects.
    """
    host = uri.host.decode("ascii").strip("[]")
    below: IStreamClientEndpoint = kind(reactor, host, uri.port, PATIENCE)
    if uri.scheme != b"https":
        return below
    return wrapClientTLS(ServerVerification(host), below)


def sendRequest(
    reactor: Any,
    way: Callable[[URI], IStreamClientEndpoint],
    method: bytes,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> Deferred[IResponse]:
    """
    Send a request to a server, on a connection of its own.

    @param way: Makes an endpoint from the URL.
    @return: Fires with the response once its headers have arrived. If it fails,
        L{firstCause} finds the reason.
    """
    fields = {"User-Agent": f"tristunnel/{VERSION}", **headers}
    asked: Any = None if body is None else FileBodyProducer(BytesIO(body))
    agent: Agent = Agent.usingEndpointFactory(reactor, _Ways(way))
    response: Deferred[IResponse] = agent.request(
        method,
        url.encode(),
        Headers({name: [value] for name, value in fields.items()}),
        asked,
    )
    return response


class TooLong(Exception):
    """An answer is longer than whoever asked is willing to read."""


class Body(Protocol):
    """
    Collects the body of an answer.

    @param most: Bytes that it may have.
    @param isCut: Whether the beginning is enough if there is more, or if it breaks off.

    @ivar complete: Fires with the body; fails with L{TooLong}, or with whatever cut the
        body short. Cancelling it closes the connection.
    """

    transport: Any

    def __init__(self, most: int, isCut: bool = False) -> None:
        self.complete: Deferred[bytes] = Deferred(self._abort)
        self._most, self._isCut = most, isCut
        self._pieces: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._most or self._isCut:
            self._pieces.append(data)
        if self._size > self._most and not self.complete.called:
            if self._isCut:
                self.complete.callback(b"".join(self._pieces)[: self._most])
            else:
                self.complete.errback(TooLong())
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.complete.called:
            return
        # A body without a length ends with the connection.
        if self._isCut or reason.check(ResponseDone, PotentialDataLoss):
            self.complete.callback(b"".join(self._pieces))
        else:
            self.complete.errback(reason)

    def _abort(self, _: object = None) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class Enough(Protocol):
    """Closes a connection, or the body of an answer, as soon as it is there."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.loseConnection()


def touch(endpoint: IStreamClientEndpoint) -> Deferred[Any]:
    """
    Find out whether anybody accepts connections.

    @return: Fires once a connection was accepted, which is then closed; fails as the
        endpoint does.
    """
    factory = Factory.forProtocol(Enough)
    factory.noisy = False
    return endpoint.connect(factory)


def firstCause(failure: Failure) -> Failure:
    """@return: What made a request fail, without Twisted's wrappers around it."""
    # Both wrappers, the request's and the response's, have this attribute.
    while reasons := getattr(failure.value, "reasons", None):
        failure = reasons[0]
    return failure
