"""
Whom a reverse proxy speaks for: C{X-Forwarded-For} and C{X-Forwarded-Proto}, which are
accepted only from proxies that were named.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.web.server import Request

from tristunnel.errors import badOption
from tristunnel.util.hosts import addressOf

__all__ = ["Forwarded", "parseTrustedProxies"]

UNIX = "unix"
"""The name for proxies that connect to a UNIX socket."""


def parseTrustedProxies(
    texts: Iterable[str],
) -> tuple[list[IPv4Network | IPv6Network], bool]:
    """
    Read addresses and networks.

    @return: The networks, and whether UNIX sockets are meant too.
    @raise TunnelError: C{bad-option}.
    """
    networks, unix = [], False
    for text in texts:
        if text == UNIX:
            unix = True
            continue
        try:
            networks.append(ip_network(text, strict=False))
        except ValueError:
            raise badOption(
                f"--trusted-proxy {text!r} is not an address; write 127.0.0.1,"
                " 10.0.0.0/8 or unix"
            ) from None
    return networks, unix


class Forwarded:
    """
    Finds out where a request comes from.

    @param trusted: The addresses of proxies, as text; none by default.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self.trust(trusted)

    def trust(self, trusted: Iterable[str]) -> None:
        """
        Trust these proxies and no others.

        @param trusted: As for the class.
        @raise TunnelError: C{bad-option}; nothing has changed then.
        """
        self._networks, self._unix = parseTrustedProxies(trusted)

    def _trusts(self, host: str | None) -> bool:
        """
        Whether an address is a proxy's.

        @param host: C{None} for a UNIX socket.
        """
        if host is None:
            return self._unix
        address = addressOf(host)
        return address is not None and any(address in each for each in self._networks)

    def speaksFor(self, host: str) -> bool:
        """Whether an address is that of a trusted proxy."""
        return bool(self._networks) and self._trusts(host)

    def isByProxy(self, request: Request) -> bool:
        """Whether a trusted proxy hands us C{request}."""
        if not (self._networks or self._unix):
            return False
        peer: Any = request.getClientAddress()
        return self._trusts(getattr(peer, "host", None))

    def peer(self, request: Request) -> Any:
        """
        Find where C{request} comes from, as an address; its port is 0 if a proxy says
        so.
        """
        peer = request.getClientAddress()
        if not self.isByProxy(request):
            return peer
        said = b",".join(
            request.requestHeaders.getRawHeaders(b"x-forwarded-for", [])
        ).decode("latin-1")
        host = self.clientOf("", said)
        kind = IPv6Address if ":" in host else IPv4Address
        return kind("TCP", host, 0) if host else peer

    def clientOf(self, host: str, said: str) -> str:
        """
        Find out for whom a trusted proxy speaks.

        @param host: The proxy's own address.
        @param said: What C{X-Forwarded-For} says.
        @return: An address; C{host} if nothing is said.
        """
        # The last entries were written by the proxies nearest to us.
        for entry in reversed(said.split(",")):
            text = entry.strip()
            if text.startswith("["):
                text = text[1:].partition("]")[0]
            elif text.count(":") == 1:
                text = text.partition(":")[0]
            try:
                host = str(ip_address(text))
            except ValueError:
                break
            if not self._trusts(text):
                break
        return host

    def isSecure(self, request: Request) -> bool:
        """Whether whoever asks does so over TLS."""
        if self.isByProxy(request):
            said = request.getHeader(b"x-forwarded-proto")
            if said is not None:
                return said.split(b",")[0].strip().lower() in (b"https", b"wss")
        return bool(request.isSecure())
