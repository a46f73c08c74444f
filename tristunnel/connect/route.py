"""
What lies between a client and its server.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from tristunnel.connect.environment import isExempt, variableFor
from tristunnel.connect.greeting import AUTO
from tristunnel.connect.proxy import ProxiedEndpoint, Proxy, parseProxy
from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.errors import TunnelError
from tristunnel.util.hosts import hostName

__all__ = [
    "NONE",
    "PROXY_VARIABLE",
    "ConnectOptions",
    "connectOptionsBy",
    "parseHeader",
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
    How a client gets through to its server.

    @ivar proxy: An HTTP proxy to connect through, or C{None}.
    @ivar environment: The variables that may name one for a server; C{None} if
        they are not to be looked at.
    @ivar exempt: Which of them names a proxy that is not for this server.
    @ivar headers: What a WebSocket's request says beyond what it must.
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

        @param kind: How it is spoken to: C{tcp}, C{tls}, C{ws}, C{wss}, C{http}
            or C{https}.
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
        """
        Make the endpoint of a TCP port.
        """
        if self.proxy is not None:
            return ProxiedEndpoint(reactor, self.proxy, hostName(host), port)
        return HostEndpoint(reactor, host, port)

    def tell(self, where: str) -> None:
        """
        Log what the way to a server is, if it is not the direct one.
        """
        if self.proxy is not None:
            _log.info(
                "The way to {where} is through the proxy {proxy}",
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
    Make the way that C{--proxy} asks for.

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
        raise TunnelError(
            "bad-option",
            "--header takes NAME=VALUE, for example 'Authorization=Bearer TOKEN'",
        )
    if not value.isprintable():
        raise TunnelError("bad-option", f"--header {name}: the value is not one line")
    if name.lower() in _OURS or name.lower().startswith("sec-websocket"):
        raise TunnelError("bad-option", f"--header {name} is the program's own to say")
    return name, value
