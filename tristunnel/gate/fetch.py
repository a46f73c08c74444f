"""
What OpenID providers are asked over HTTP: small answers of JSON, in bounded time.

Whoever may open a tunnel says which provider this server is to ask. So that nobody
reaches by it what only this server can reach, a provider must have public addresses and
TLS, unless the operator has named it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, FileBodyProducer, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.errors import TunnelError, printable
from tristunnel.tls.client_context import ServerVerification
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.version import VERSION

__all__ = ["MOST", "Fetcher", "Unreachable"]

MOST = 256 * 1024
"""Bytes of an answer."""

PATIENCE = 10.0
"""Seconds until it must be there."""


class Unreachable(Exception):
    """
    A provider does not answer as one does. The message says why.

    @ivar isRefusal: Whether it has answered, and says no.
    """

    def __init__(self, why: str, isRefusal: bool = False) -> None:
        super().__init__(why)
        self.isRefusal = isRefusal


class _PublicEndpoint(HostEndpoint):
    """A host of which each address is judged when it is dialled."""

    def dial(self, address: str, factory: IProtocolFactory) -> Deferred[IProtocol]:
        if not ip_address(address.partition("%")[0]).is_global:
            return fail(
                TunnelError(
                    "not-permitted",
                    f"{printable(self._host, 100)} is on a private network; the"
                    " server's operator can permit it by --oidc-issuer",
                )
            )
        return super().dial(address, factory)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    def __init__(self, reactor: Any, trusted: bool) -> None:
        self._reactor, self._trusted = reactor, trusted

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii").strip("[]")
        kind = HostEndpoint if self._trusted else _PublicEndpoint
        below: Any = kind(self._reactor, host, uri.port, PATIENCE)
        if uri.scheme == b"https":
            return wrapClientTLS(ServerVerification(host), below)
        if not self._trusted:
            raise Unreachable(
                f"{host} has no https://; the server's operator can permit it by"
                " --oidc-issuer"
            )
        return below  # type: ignore[no-any-return]


class _Body(Protocol):
    """Reads an answer, up to its bound."""

    def __init__(self, done: Deferred[bytes]) -> None:
        self._done = done
        self._data: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        self._data.append(data)
        if self._size > MOST and not self._done.called:
            transport: Any = self.transport
            transport.loseConnection()
            self._done.errback(Unreachable(f"its answer is over {MOST // 1024} KiB"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._done.called:
            return
        if reason.check(ResponseDone):
            self._done.callback(b"".join(self._data))
        else:
            self._done.errback(Unreachable("its answer was cut off"))


class Fetcher:
    """
    Asks a provider.

    @param reactor: Connects, and tells time.
    @param trusted: Whether the operator has named it.
    """

    def __init__(self, reactor: Any, trusted: bool) -> None:
        self._reactor = reactor
        endpoints = _Endpoints(reactor, trusted)
        self._agent = Agent.usingEndpointFactory(reactor, endpoints)

    def get(self, url: str) -> Deferred[dict[str, Any]]:
        """
        Read an object.

        @raise Unreachable: By the Deferred.
        """
        return self._ask(b"GET", url, {}, None)

    def post(
        self, url: str, form: bytes, headers: Mapping[str, str]
    ) -> Deferred[dict[str, Any]]:
        """
        Post a form, and read an object.

        @raise Unreachable: By the Deferred.
        """
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask(b"POST", url, {**kind, **headers}, form)

    def _ask(
        self, method: bytes, url: str, headers: Mapping[str, str], form: bytes | None
    ) -> Deferred[dict[str, Any]]:
        asking = self._request(method, url, headers, form)
        asking.addTimeout(PATIENCE, self._reactor, _late)
        return asking.addErrback(_plainly)

    @returnsDeferred
    async def _request(
        self, method: bytes, url: str, headers: Mapping[str, str], form: bytes | None
    ) -> dict[str, Any]:
        fields = {
            "User-Agent": f"tristunnel/{VERSION}",
            "Accept": "application/json",
            **headers,
        }
        body: Any = None if form is None else FileBodyProducer(BytesIO(form))
        response: Any = await self._agent.request(
            method,
            url.encode("ascii"),
            Headers({name: [value] for name, value in fields.items()}),
            body,
        )
        done: Deferred[bytes] = Deferred(
            lambda cancelled: response.deliverBody(Protocol())
        )
        response.deliverBody(_Body(done))
        data = await done
        if response.code != 200:
            refuses = 400 <= response.code < 500
            raise Unreachable(f"it answered {response.code}", refuses)
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise Unreachable("what it answered is no object of JSON")
        return said


def _late(result: Any, timeout: float) -> Any:
    if isinstance(result, Failure):
        raise Unreachable(f"it did not answer within {timeout:g} s")
    return result


def _plainly(failure: Failure) -> Any:
    """What went wrong, without what C{twisted.web} wraps around it."""
    reasons: Any = getattr(failure.value, "reasons", None)
    if reasons:
        return _plainly(reasons[0])
    if failure.check(Unreachable, CancelledError):
        return failure
    text = getattr(failure.value, "message", "") or failure.getErrorMessage()
    raise Unreachable(printable(str(text), 200))
