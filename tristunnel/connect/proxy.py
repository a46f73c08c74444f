"""
Connecting through a proxy: an HTTP proxy, by its CONNECT method, or a SOCKS 5 proxy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.dataplane.lookups import lookUp
from tristunnel.errors import TunnelError, badOption, protocolError
from tristunnel.util.hosts import basicLogin, hostAndPort
from tristunnel.util.quantities import retryAfter
from tristunnel.wire.socks import ClientHandshake

__all__ = ["HTTPHandshake", "ProxiedEndpoint", "Proxy", "parseProxy"]

OPTION = "--proxy"

PROXY_TIMEOUT = 30.0
"""The seconds that the proxy has to connect us."""

_MAX_HEAD = 64 * 1024


_PORTS = {"http": 3128, "socks5": 1080, "socks5h": 1080}
"""The kinds of proxy, and their usual ports."""


class _Handshake(Protocol):
    """
    Speaks to a proxy until it has connected us.

    @ivar buffer: Once it is done, bytes from beyond the proxy.
    """

    buffer: bytes

    def takeOutgoing(self) -> bytes:
        pass

    def feed(self, data: bytes) -> bool:
        """
        Take bytes of the proxy's.

        @return: Whether the connection is made.
        @raise TunnelError: What the proxy did, after its name.
        """


@dataclass(frozen=True)
class Proxy:
    """
    A proxy.

    @ivar endpoint: How it is reached.
    @ivar where: Its host and port, as messages name it.
    @ivar login: User and password, or C{None}.
    @ivar source: Where it was named: the option, or a variable.
    @ivar kind: C{http}; C{socks5h}; or C{socks5}, for which host names are resolved
        here.
    """

    endpoint: IStreamClientEndpoint
    where: str
    login: tuple[str, str] | None = field(default=None, repr=False)
    source: str = OPTION
    kind: str = "http"

    def __str__(self) -> str:
        return self.where if self.source == OPTION else f"{self.where} ({self.source})"


def parseProxy(reactor: Any, url: str, source: str = OPTION) -> Proxy:
    """
    Read C{http://USER:PASSWORD@HOST:PORT}, or the same with C{socks5h://} or
    C{socks5://}; C{socks://} is what GNOME calls the first.

    @param source: Where the proxy was named. A variable may leave out the scheme.
    @raise TunnelError: C{bad-option}. It does not repeat the URL, which may
        hold a password.
    """
    url = url.strip()
    if source != OPTION and "://" not in url:
        url = f"http://{url}"
    kinds = {"socks4": "a SOCKS 4 proxy", "https": "a proxy that is reached by TLS"}
    for scheme, what in kinds.items():
        if url.lower().startswith(scheme):
            raise badOption(
                f"{source} names {what}, which is not supported: use an HTTP or"
                " SOCKS 5 proxy, --proxy http://HOST:PORT or socks5h://HOST:PORT, or"
                " connect without one, --proxy none"
            )
    try:
        parts = urlsplit(url)
        kind = "socks5h" if parts.scheme == "socks" else parts.scheme
        port = parts.port or _PORTS.get(kind, 0)
    except ValueError:
        parts, kind, port = urlsplit(""), "", 0
    if kind not in _PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise badOption(
            f"{source} takes http://USER:PASSWORD@HOST:PORT, socks5h://..., or none"
        )
    login = None
    if parts.username is not None:
        login = unquote(parts.username), unquote(parts.password or "")
    try:
        endpoint = HostEndpoint(reactor, parts.hostname, port)
    except ValueError as error:
        raise badOption(f"{source}: {error}") from None
    where = hostAndPort(parts.hostname, port)
    return Proxy(endpoint, where, login, source, kind)


_CLOSED = (
    "; it does not allow this port: have it allowed, or use 443, which most proxies"
    " allow"
)
_BEYOND = "; it cannot reach the server: check the server's name and port"
_CURES = {
    "403": _CLOSED,
    "405": _CLOSED,
    "407": "; give --proxy http://USER:PASSWORD@...",
    "502": _BEYOND,
    "503": _BEYOND,
    "504": _BEYOND,
}


class HTTPHandshake:
    """
    Asks an HTTP proxy for a connection.

    @param login: User and password, or C{None}.

    @ivar buffer: Once it is done, bytes from beyond the proxy.
    """

    def __init__(self, host: str, port: int, login: tuple[str, str] | None) -> None:
        where = hostAndPort(host, port)
        lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
        if login is not None:
            lines.append(f"Proxy-Authorization: {basicLogin(':'.join(login))}")
        self._request = "\r\n".join([*lines, "", ""]).encode("utf-8")
        self.buffer = b""

    def takeOutgoing(self) -> bytes:
        """Take the bytes to send."""
        taken, self._request = self._request, b""
        return taken

    def feed(self, data: bytes) -> bool:
        """
        Take bytes of the proxy's.

        @return: Whether the connection is made.
        @raise TunnelError: If it is not an HTTP proxy, or refuses.
        """
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            if len(self.buffer) > _MAX_HEAD:
                raise protocolError("sent no HTTP answer")
            return False
        line = head.partition(b"\r\n")[0].decode("latin-1")
        version, _, said = line.partition(" ")
        status = said[:3]
        if not version.startswith("HTTP/1.") or not status.isdecimal():
            raise protocolError("is not an HTTP proxy")
        if not status.startswith("2"):
            code = "auth-refused" if status == "407" else "session-lost"
            after = re.search(rb"(?im)^retry-after:([^\r\n]*)", head)
            raise TunnelError(
                code,
                f"answered {said[:100]}{_CURES.get(status, '')}",
                retryAfter(after[1].decode("latin-1")) if after else None,
            )
        self.buffer = rest
        return True


class _Asking(TwistedProtocol):
    """
    Speaks to the proxy, and then hands the transport to the protocol that wanted to
    connect.
    """

    transport: Any = None

    def __init__(
        self, handshake: _Handshake, factory: IProtocolFactory, where: str
    ) -> None:
        self.done: Deferred[IProtocol] = Deferred(
            lambda cancelled: self.transport.abortConnection()
        )
        self._handshake = handshake
        self._factory = factory
        self._where = where
        self._inner: IProtocol | None = None

    def connectionMade(self) -> None:
        self.transport.write(self._handshake.takeOutgoing())

    def dataReceived(self, data: bytes) -> None:
        try:
            done = self._handshake.feed(data)
        except TunnelError as error:
            self._refuse(error)
            return
        if more := self._handshake.takeOutgoing():
            self.transport.write(more)
        if done:
            self._connected(self._handshake.buffer)

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
        self.dataReceived = inner.dataReceived  # type: ignore[method-assign] # saves a call
        # So that the transport sees which interfaces the protocol provides.
        self.transport.protocol = inner
        inner.makeConnection(self.transport)
        self.done.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def _refuse(self, error: TunnelError) -> None:
        if not self.done.called:
            message = f"the proxy {self._where} {error.message}"
            self.done.errback(TunnelError(error.code.name, message, error.retryAfter))
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
@dataclass(eq=False)
class ProxiedEndpoint:
    """
    A host and port beyond a proxy.

    @ivar reactor: Tells time.
    @ivar proxy: The proxy.
    @ivar host: The host, which the proxy resolves unless its kind says otherwise.
    """

    reactor: IReactorTime
    proxy: Proxy
    host: str
    port: int
    timeout: float = PROXY_TIMEOUT

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory))
        return connecting.addTimeout(self.timeout, self.reactor, self._late)

    async def _connect(self, protocolFactory: IProtocolFactory) -> IProtocol:
        handshake = await self._handshake()
        asking = _Asking(handshake, protocolFactory, str(self.proxy))
        factory = Factory.forProtocol(lambda: asking)
        factory.noisy = False
        try:
            await self.proxy.endpoint.connect(factory)
        except CancelledError:
            raise
        except Exception as error:
            raise TunnelError(
                "session-lost", f"the proxy {self.proxy} was not reached: {error}"
            ) from None
        return await asking.done

    async def _handshake(self) -> _Handshake:
        proxy, host = self.proxy, self.host
        if proxy.kind == "http":
            return HTTPHandshake(host, self.port, proxy.login)
        if proxy.kind == "socks5":
            host = (await lookUp(self.reactor, host)).addresses[0]
        login = proxy.login and (proxy.login[0].encode(), proxy.login[1].encode())
        return ClientHandshake(host, self.port, login)

    def _late(self, value: object, seconds: float) -> NoReturn:
        raise TunnelError(
            "session-lost",
            f"the proxy {self.proxy} did not answer within {seconds:g} s",
        )
