"""
What lies between a client and its server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint

from tristunnel.client.greeting import AUTO
from tristunnel.client.proxy import ProxiedEndpoint, Proxy
from tristunnel.errors import TunnelError
from tristunnel.relay.dial import HostEndpoint
from tristunnel.text.hosts import hostName

__all__ = ["Way", "parseHeader"]

PING_INTERVAL = 30.0
"""Seconds between a WebSocket's pings."""


@dataclass(frozen=True)
class Way:
    """
    How a client gets through to its server.

    @ivar proxy: An HTTP proxy to connect through, or C{None}.
    @ivar headers: What a WebSocket's request says beyond what it must.
    @ivar pingInterval: Seconds between a WebSocket's pings, 0 for none.
    @ivar greeting: Whether the handshake names our extension, one of
        L{GREETINGS<tristunnel.client.greeting.GREETINGS>}.
    """

    proxy: Proxy | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pingInterval: float = PING_INTERVAL
    greeting: str = AUTO

    def reach(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
        """
        Make the endpoint of a TCP port.
        """
        if self.proxy is not None:
            return ProxiedEndpoint(reactor, self.proxy, hostName(host), port)
        return HostEndpoint(reactor, host, port)


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
