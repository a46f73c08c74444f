"""Where requests come from, for services and for the limits on visitors."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IAddress

from tristunnel.util.hosts import addressOf, addressText, hostAndPort
from tristunnel.wire.http import RequestHead

__all__ = ["NO_PROXIES", "Origin", "Origins", "Proxies"]


class Proxies(Protocol):
    """Knows which proxies may say where their visitors come from."""

    def speaksFor(self, host: str) -> bool:
        """Whether an address is that of a trusted proxy."""

    def clientOf(self, host: str, said: str) -> str:
        """
        Find out where a request comes from.

        @param host: The address of the connection.
        @param said: All that C{X-Forwarded-For} says.
        """


class _NoProxies:
    def speaksFor(self, host: str) -> bool:
        return False

    def clientOf(self, host: str, said: str) -> str:
        return host


NO_PROXIES = _NoProxies()
"""No proxy is trusted."""


class Origin:
    """
    Where a connection's requests come from, as their services are told.

    @param address: The visitor's, without a port.
    @param scheme: C{b"http"} or C{b"https"}.

    @param peer: As tunnels are told of the visitor: C{HOST:PORT}.
    @param chain: What C{X-Forwarded-For} says; empty for the address alone.

    @ivar address: The same, as text.
    """

    __slots__ = ("_for", "_host", "_lines", "address", "peer", "scheme")

    def __init__(self, address: str, scheme: bytes, peer: str, chain: bytes) -> None:
        self.address, self.scheme, self.peer = address, scheme, peer
        text = address.encode("ascii", "replace")
        said = chain or text
        self._lines = b"X-Forwarded-For: %s\r\nX-Forwarded-Proto: %s\r\n" % (
            said,
            scheme,
        )
        node = b'"[%s]"' % text if b":" in text else text
        self._for = b"Forwarded: for=%s;proto=%s" % (node, scheme)
        self._host = (b"", b"")

    def lines(self, host: bytes) -> bytes:
        """The headers that tell of it, for a request to C{host}."""
        known, lines = self._host
        if known != host:
            lines = b'%sX-Forwarded-Host: %s\r\n%s;host="%s"\r\n' % (
                self._lines,
                host,
                self._for,
                host,
            )
            self._host = host, lines
        return lines


class Origins:
    """
    Finds out where the requests of a connection come from.

    @param proxies: Knows which proxies may say that.
    @param peer: The far side of the connection.
    @param secure: Whether it has TLS.
    """

    __slots__ = ("_host", "_own", "_proxies")

    def __init__(self, proxies: Proxies, peer: IAddress, secure: bool) -> None:
        host = getattr(peer, "host", None) or "unknown"
        # At a port for both families, an IPv4 address is mapped to IPv6.
        self._host = str(addressOf(host) or host)
        scheme = b"https" if secure else b"http"
        self._own = Origin(self._host, scheme, addressText(peer), b"")
        self._proxies = proxies if proxies.speaksFor(self._host) else None

    def of(self, head: RequestHead) -> Origin:
        """
        Find where a request comes from; for most connections this is always the same.
        """
        if self._proxies is None:
            return self._own
        # A proxy may add a line of its own after those that it was sent.
        said = b", ".join(head.all(b"x-forwarded-for"))
        address = self._proxies.clientOf(self._host, said.decode("latin-1"))
        scheme = (head.all(b"x-forwarded-proto") or [b""])[-1].lower()
        if scheme not in (b"http", b"https"):
            scheme = self._own.scheme
        if not said:
            return Origin(address, scheme, self._own.peer, b"")
        chain = b"%s, %s" % (said, self._host.encode("ascii", "replace"))
        return Origin(address, scheme, hostAndPort(address, 0), chain)
