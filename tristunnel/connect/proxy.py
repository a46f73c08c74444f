"""Connecting through an HTTP proxy, by its CONNECT method."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.errors import TunnelError, badOption
from tristunnel.util.hosts import basicLogin, hostAndPort
from tristunnel.util.quantities import retryAfter

__all__ = ["ProxiedEndpoint", "Proxy", "parseProxy"]

OPTION = "--proxy"

PROXY_TIMEOUT = 30.0
"""Seconds in which the proxy must have connected us."""

_MAX_HEAD = 64 * 1024


@dataclass(frozen=True)
class Proxy:
    """
    An HTTP proxy.

    @ivar endpoint: How it is reached.
    @ivar where: Its host and port, as messages name it.
    @ivar authorization: What C{Proxy-Authorization} says, or empty.
    @ivar source: What names it: the option, or a variable.
    """

    endpoint: IStreamClientEndpoint
    where: str
    authorization: str = ""
    source: str = OPTION

    def __str__(self) -> str:
        return self.where if self.source == OPTION else f"{self.where} ({self.source})"


def parseProxy(reactor: Any, url: str, source: str = OPTION) -> Proxy:
    """
    Read C{http://USER:PASSWORD@HOST:PORT}.

    @param source: What names the proxy. A variable may leave out the scheme.
    @raise TunnelError: C{bad-option}. It does not repeat the URL, which may
        hold a password.
    """
    url = url.strip()
    if source != OPTION and "://" not in url:
        url = f"http://{url}"
    kind = {"socks": "a SOCKS proxy", "https": "a proxy that is reached by TLS"}
    for scheme, what in kind.items():
        if url.lower().startswith(scheme):
            raise badOption(
                f"{source} names {what}, which is not supported yet: use an HTTP"
                " proxy, --proxy http://HOST:PORT, or connect without one, --proxy"
                " none"
            )
    try:
        parts = urlsplit(url)
        port = parts.port or 3128
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise badOption(f"{source} takes http://USER:PASSWORD@HOST:PORT, or none")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = basicLogin(pair)
    try:
        endpoint = HostEndpoint(reactor, parts.hostname, port)
    except ValueError as error:
        raise badOption(f"{source}: {error}") from None
    return Proxy(endpoint, hostAndPort(parts.hostname, port), authorization, source)


_PORTS = (
    "; it does not allow this port: have it allowed, or use 443, which most proxies"
    " allow"
)
_BEYOND = "; it cannot reach the server: check the server's name and port"
_CURES = {
    "403": _PORTS,
    "405": _PORTS,
    "407": "; give --proxy http://USER:PASSWORD@...",
    "502": _BEYOND,
    "503": _BEYOND,
    "504": _BEYOND,
}


class _Asking(Protocol):
    """Asks the proxy, and makes room for the protocol that wanted to connect."""

    transport: Any = None

    def __init__(self, request: bytes, factory: IProtocolFactory, where: str) -> None:
        self.done: Deferred[IProtocol] = Deferred(
            lambda cancelled: self.transport.abortConnection()
        )
        self._request = request
        self._factory = factory
        self._where = where
        self._answer = b""
        self._inner: IProtocol | None = None

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if not end:
            if len(self._answer) > _MAX_HEAD:
                self._refuse("protocol-error", "sent no HTTP answer")
            return
        line = head.partition(b"\r\n")[0].decode("latin-1")
        version, _, said = line.partition(" ")
        status = said[:3]
        if not version.startswith("HTTP/1.") or not status.isdecimal():
            self._refuse("protocol-error", "is not an HTTP proxy")
        elif not status.startswith("2"):
            code = "auth-refused" if status == "407" else "session-lost"
            after = re.search(rb"(?im)^retry-after:([^\r\n]*)", head)
            self._refuse(
                code,
                f"answered {said[:100]}{_CURES.get(status, '')}",
                retryAfter(after[1].decode("latin-1")) if after else None,
            )
        else:
            self._connected(rest)

    def _connected(self, rest: bytes) -> None:
        if self.done.called:
            self.transport.abortConnection()
            return
        inner = self._factory.buildProtocol(self.transport.getPeer())
        if inner is None:
            self.done.errback(CancelledError())
            self.transport.abortConnection()
            return
        self._inner = inner
        self.dataReceived = inner.dataReceived  # type: ignore[method-assign]
        # So that the transport sees what interfaces the protocol provides.
        self.transport.protocol = inner
        inner.makeConnection(self.transport)
        self.done.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def _refuse(self, code: str, what: str, after: float | None = None) -> None:
        if not self.done.called:
            self.done.errback(
                TunnelError(code, f"the proxy {self._where} {what}", after)
            )
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.done.called:
            self.done.errback(
                TunnelError(
                    "session-lost",
                    f"the proxy {self._where} closed the connection without an answer",
                )
            )


@implementer(IStreamClientEndpoint)
class ProxiedEndpoint:
    """
    A host and port beyond a proxy.

    @param reactor: Tells time.
    @param proxy: The proxy.
    @param host: The host, which the proxy resolves.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        proxy: Proxy,
        host: str,
        port: int,
        timeout: float = PROXY_TIMEOUT,
    ) -> None:
        self._reactor = reactor
        self._proxy = proxy
        where = hostAndPort(host, port)
        lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        self._request = "\r\n".join([*lines, "", ""]).encode("utf-8")
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory))
        return connecting.addTimeout(self._timeout, self._reactor, self._late)

    async def _connect(self, protocolFactory: IProtocolFactory) -> IProtocol:
        asking = _Asking(self._request, protocolFactory, str(self._proxy))
        factory = Factory.forProtocol(lambda: asking)
        factory.noisy = False
        try:
            await self._proxy.endpoint.connect(factory)
        except CancelledError:
            raise
        except Exception as error:
            raise TunnelError(
                "session-lost", f"the proxy {self._proxy} was not reached: {error}"
            ) from None
        return await asking.done

    def _late(self, value: object, seconds: float) -> NoReturn:
        raise TunnelError(
            "session-lost",
            f"the proxy {self._proxy} did not answer within {seconds:g} s",
        )
