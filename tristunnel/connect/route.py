"""
What lies between a client and its server: a proxy perhaps, which the environment
may name, as curl and others have it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from tristunnel.connect.greeting import AUTO
from tristunnel.connect.proxy import ProxiedEndpoint, Proxy, parseProxy
from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.errors import badOption
from tristunnel.util.hosts import hostName

__all__ = [
    "NONE",
    "PROXY_VARIABLE",
    "ConnectOptions",
    "connectOptionsBy",
    "isExempt",
    "parseHeader",
    "variableFor",
]

_log = Logger(namespace="tristunnel.client")

NONE = "none"
"""What C{--proxy} says for no proxy."""

PROXY_VARIABLE = "TRISTUNNEL_PROXY"
"""The environment variable that stands for C{--proxy}."""

PING_INTERVAL = 30.0
"""Seconds between a WebSocket's pings."""


@dataclass(frozen=True)
class ConnectOptions:
    """
    The way from a client to its server.

    @ivar proxy: A proxy to connect through, or C{None}.
    @ivar environment: The variables that may name one for a server; C{None} to ignore
        them.
    @ivar exempt: The one among them whose proxy is not for this server.
    @ivar headers: Additional headers of a WebSocket's request.
    @ivar pingInterval: Seconds between a WebSocket's pings, 0 for none.
    @ivar greeting: Whether the handshake names our extension, one of
        L{GREETINGS<tristunnel.connect.greeting.GREETINGS>}.
    """

    proxy: Proxy | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pingInterval: float = PING_INTERVAL
    greeting: str = AUTO
    environment: Mapping[str, str] | None = None
    exempt: str = ""

    def towards(self, reactor: Any, kind: str, host: str, port: int) -> ConnectOptions:
        """
        Find the way to one server.

        @param kind: The kind of connection: C{tcp}, C{tls}, C{ws}, C{wss}, C{http} or
            C{https}.
        @raise TunnelError: C{bad-option}, if the environment names a proxy that
            cannot be used.
        """
        around = self.environment
        if self.proxy is not None or around is None:
            return self
        variable = variableFor(kind, around)
        if not variable:
            return self
        if isExempt(host, port, around):
            return replace(self, exempt=variable)
        return replace(self, proxy=parseProxy(reactor, around[variable], variable))

    def reach(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
        """Make the endpoint of a TCP port."""
        if self.proxy is not None:
            return ProxiedEndpoint(reactor, self.proxy, hostName(host), port)
        return HostEndpoint(reactor, host, port)

    def log(self, where: str) -> None:
        """Log the way to a server, if it is not direct."""
        if self.proxy is not None:
            _log.info(
                "Connecting to {where} through the proxy {proxy}",
                where=where,
                proxy=str(self.proxy),
            )
        elif self.exempt:
            _log.info(
                "The way to {where} is without the proxy of {variable}, as NO_PROXY"
                " says",
                where=where,
                variable=self.exempt,
            )


def connectOptionsBy(
    reactor: Any,
    proxy: str,
    headers: Mapping[str, str] | None = None,
    pingInterval: float = PING_INTERVAL,
    environment: Mapping[str, str] = os.environ,
) -> ConnectOptions:
    """
    Read the way that C{--proxy} asks for.

    @param proxy: The proxy's URL; C{none} for no proxy; empty for what the
        environment says.
    @raise TunnelError: C{bad-option}.
    """
    if proxy and proxy != NONE:
        return ConnectOptions(parseProxy(reactor, proxy), headers or {}, pingInterval)
    around = None if proxy else environment
    return ConnectOptions(None, headers or {}, pingInterval, environment=around)


_TOKEN = frozenset("!#$%&'*+-.^_`|~")
_OURS = {"host", "upgrade", "connection"}


def parseHeader(text: str) -> tuple[str, str]:
    """
    Read C{NAME=VALUE} or C{NAME: VALUE}.

    @raise TunnelError: C{bad-option}, without the value, which may be secret.
    """
    ends = [at for at in (text.find("="), text.find(":")) if at > 0]
    name = text[: min(ends)] if ends else ""
    value = text[min(ends) + 1 :].strip() if ends else ""
    if not name or not all((c.isascii() and c.isalnum()) or c in _TOKEN for c in name):
        raise badOption(
            "--header takes NAME=VALUE, for example 'Authorization=Bearer TOKEN'"
        )
    if not value.isprintable():
        raise badOption(f"--header {name}: the value is not one line")
    if name.lower() in _OURS or name.lower().startswith("sec-websocket"):
        raise badOption(f"--header {name} is set by the program itself")
    return name, value


_VARIABLES = {
    "tls": ("https_proxy", "HTTPS_PROXY"),
    # Not HTTP_PROXY: for a CGI program, that is a header of the request.
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
    """Write a host for comparison: internationalized names as in the DNS."""
    bare = host.lower().removeprefix("[").removesuffix("]").removesuffix(".")
    bare = bare.partition("%")[0]
    try:
        return bare if bare.isascii() else bare.encode("idna").decode("ascii")
    except UnicodeError:
        return bare
