"""
The header of the PROXY protocol, which tells a service who connects.

HAProxy's specification is followed:
U{https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import pack

__all__ = ["PROXY_HEADERS", "Place", "ProxyHeader", "proxyHeaderV1", "proxyHeaderV2"]

Place = tuple[IPv4Address | IPv6Address, int]
"""An address and a port."""

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_FAMILY_UNKNOWN, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_AUTHORITY = 0x02
_LONGEST_AUTHORITY = 255


@dataclass(frozen=True)
class ProxyHeader:
    """
    What the header says.

    @ivar source: Where the visitor came from; C{None} if that is no IP address.
    @ivar destination: Where the visitor connected; C{None} if it is unknown.
    @ivar authority: The name that the visitor asked for, or empty.
    """

    source: Place | None = None
    destination: Place | None = None
    authority: str = ""

    @property
    def places(self) -> tuple[Place, Place] | None:
        """
        Both addresses, of the same family, as the header needs them: an unknown
        destination is that family's C{0.0.0.0} or C{::}.
        """
        if self.source is None:
            return None
        destination = self.destination
        if destination is None or destination[0].version != self.source[0].version:
            port = 0 if destination is None else destination[1]
            destination = type(self.source[0])(0), port
        return self.source, destination


def proxyHeaderV1(header: ProxyHeader | None) -> bytes:
    """
    Write the header as a line of text.

    @param header: C{None} for a connection without a visitor, such as a health check.
    """
    places = None if header is None else header.places
    if places is None:
        return b"PROXY UNKNOWN\r\n"
    (source, sourcePort), (there, port) = places
    family = "TCP4" if source.version == 4 else "TCP6"
    return f"PROXY {family} {source} {there} {sourcePort} {port}\r\n".encode("ascii")


def proxyHeaderV2(header: ProxyHeader | None) -> bytes:
    """
    Write the binary header.

    @param header: As for L{proxyHeaderV1}.
    """
    if header is None:
        return _SIGNATURE + pack("!BBH", _LOCAL, _FAMILY_UNKNOWN, 0)
    family, body = _FAMILY_UNKNOWN, b""
    if (places := header.places) is not None:
        (source, sourcePort), (there, port) = places
        family = _TCP4 if source.version == 4 else _TCP6
        body = source.packed + there.packed + pack("!HH", sourcePort, port)
    if header.authority:
        name = header.authority.encode()[:_LONGEST_AUTHORITY]
        body += pack("!BH", _AUTHORITY, len(name)) + name
    return _SIGNATURE + pack("!BBH", _PROXY, family, len(body)) + body


PROXY_HEADERS: Mapping[str, Callable[[ProxyHeader | None], bytes]] = {
    "v1": proxyHeaderV1,
    "v2": proxyHeaderV2,
}
"""The versions of the header."""
