"""
The proxy that the environment names for a server, as curl and others have it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

__all__ = ["isExempt", "variableFor"]

_VARIABLES = {
    "tls": ("https_proxy", "HTTPS_PROXY"),
    # Not HTTP_PROXY: to a CGI program that is a header of whoever asks.
    "http": ("http_proxy",),
    "tcp": (),
}

_KINDS = {"wss": "tls", "https": "tls", "ws": "http"}


def variableFor(kind: str, environment: Mapping[str, str]) -> str:
    """
    Find the variable that names the proxy for a kind of connection.

    @param kind: C{tcp}, C{tls}, C{ws}, C{wss}, C{http} or C{https}.
    @param environment: The variables. An empty one names no proxy.
    @return: Its name; empty if there is none.
    """
    names = (*_VARIABLES[_KINDS.get(kind, kind)], "all_proxy", "ALL_PROXY")
    return next((name for name in names if environment.get(name, "").strip()), "")


def isExempt(host: str, port: int, environment: Mapping[str, str]) -> bool:
    """
    Whether C{NO_PROXY} names a server: by C{*}, by its name or that of a domain
    above it, by its address or a network around it, each perhaps with a port.

    @param host: Its name or address, without brackets.
    """
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    entries = re.split(r"[\s,]+", listed.strip().lower())
    return any(_names(entry, _bare(host), port) for entry in entries if entry)


def _names(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*):(\d{1,5})", entry)
    if found is not None:
        if int(found[2]) != port:
            return False
        entry = found[1]
    try:
        address = ip_address(host)
    except ValueError:
        name = _bare(entry.removeprefix("*").lstrip("."))
        return bool(name) and (host == name or host.endswith(f".{name}"))
    mapped = getattr(address, "ipv4_mapped", None)
    try:
        return (mapped or address) in ip_network(_bare(entry), strict=False)
    except ValueError:
        return False


def _bare(host: str) -> str:
    """
    A host as it is compared: names of other scripts as the DNS has them.
    """
    bare = host.lower().removeprefix("[").removesuffix("]").removesuffix(".")
    bare = bare.partition("%")[0]
    try:
        return bare if bare.isascii() else bare.encode("idna").decode("ascii")
    except UnicodeError:
        return bare
