"""
What people write for a machine, as certificates have it.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

import idna

__all__ = ["hostName", "parseHost"]

# Underscores are in no valid host name, but in the names of real machines.
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)")
_LONGEST = 253


def parseHost(text: str) -> IPv4Address | IPv6Address | str | None:
    """
    Read a host name or an IP address.

    @param text: For example C{example.com.}, C{bücher.example},
        C{*.example.com}, C{192.0.2.1}, C{[::1]} or C{fe80::1%eth0}.
    @return: The address without its zone, or the name in lower case and in
        ASCII (A-labels) without the last dot; C{None} when it is neither.
    """
    if len(text) > 4 * _LONGEST:
        return None
    bare = text.strip().removesuffix(".").lower()
    unbracketed = bare[1:-1] if bare[:1] == "[" and bare[-1:] == "]" else bare
    try:
        return ip_address(unbracketed.partition("%")[0])
    except ValueError:
        pass
    wildcard, rest = ("*.", bare[2:]) if bare.startswith("*.") else ("", bare)
    if not rest.isascii():
        try:
            rest = idna.encode(rest, uts46=True).decode("ascii")
        except UnicodeError:
            return None
    if len(rest) > _LONGEST or not all(map(_NAME.fullmatch, rest.split("."))):
        return None
    return wildcard + rest


def hostName(text: object) -> str:
    """
    Read what a peer calls a host, for a URI.

    @return: An address without its zone, or a name in ASCII; empty when
        C{text} is neither.
    """
    host = parseHost(text) if isinstance(text, str) else None
    return "" if host is None or str(host).startswith("*") else str(host)
