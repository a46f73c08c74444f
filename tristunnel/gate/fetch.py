"""
Asking OpenID providers over HTTP: small answers of JSON, in bounded time.

Whoever may open a tunnel says which provider this server is to ask. So that nobody can
use this to reach what only the server can reach, a provider must have public addresses
and TLS, unless the operator has named it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from twisted.web.client import URI, ResponseFailed

from tristunnel.dataplane.asking import Body, TooLong, firstCause, sendRequest, wayTo
from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.errors import TunnelError, printable
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["MOST", "Fetcher", "Unreachable"]

MOST = 256 * 1024
"""Bytes of an answer."""

PATIENCE = 10.0
"""Seconds in which it must come."""


class Unreachable(Exception):
    """
    A provider does not answer as it should. The message says why.

    @ivar isRefusal: Whether it has answered, and says no.
    """

    def __init__(self, why: str, isRefusal: bool = False) -> None:
        super().__init__(why)
        self.isRefusal = isRefusal


class _PublicEndpoint(HostEndpoint):
    """A host whose addresses are checked when they are dialled."""

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


class Fetcher:
    """
    Asks a provider.

    @param reactor: Connects, and tells time.
    @param trusted: Whether the operator has named it.
    """

    def __init__(self, reactor: Any, trusted: bool) -> None:
        self._reactor, self._trusted = reactor, trusted

    def _way(self, uri: URI) -> IStreamClientEndpoint:
        if self._trusted:
            return wayTo(self._reactor, uri)
        if uri.scheme != b"https":
            raise Unreachable(
                f"{uri.host.decode('ascii')} has no https://; the server's operator can"
                " permit it by --oidc-issuer"
            )
        return wayTo(self._reactor, uri, _PublicEndpoint)

    def get(self, url: str) -> Deferred[dict[str, Any]]:
        """
        Get a JSON object.

        @raise Unreachable: By the Deferred.
        """
        return self._ask(b"GET", url, {}, None)

    def post(
        self, url: str, form: bytes, headers: Mapping[str, str]
    ) -> Deferred[dict[str, Any]]:
        """
        Post a form, and get a JSON object.

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
        fields = {"Accept": "application/json", **headers}
        response: Any = await sendRequest(
            self._reactor, self._way, method, url, fields, form
        )
        body = Body(MOST)
        response.deliverBody(body)
        try:
            data = await body.complete
        except TooLong:
            raise Unreachable(f"its answer is longer than {MOST // 1024} KiB") from None
        except ResponseFailed:
            raise Unreachable("its answer was cut off") from None
        if response.code != 200:
            refuses = 400 <= response.code < 500
            raise Unreachable(f"it answered {response.code}", refuses)
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise Unreachable("its answer is not a JSON object")
        return said


def _late(result: Any, timeout: float) -> Any:
    if isinstance(result, Failure):
        raise Unreachable(f"it did not answer within {timeout:g} s")
    return result


def _plainly(failure: Failure) -> Any:
    """What went wrong, without what C{twisted.web} wraps around it."""
    cause = firstCause(failure)
    if cause.check(Unreachable, CancelledError):
        return cause
    text = getattr(cause.value, "message", "") or cause.getErrorMessage()
    raise Unreachable(printable(str(text), 200))
