"""The endpoint strings of servers and services that a client connects to."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
)
from twisted.plugin import getPlugins

from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.errors import TunnelError
from tristunnel.util.endpoints import splitEndpoint, whyNoEndpoint
from tristunnel.util.hosts import hostName, portNumber

__all__ = ["EndpointParts", "isKind", "noEndpoint"]

_KIND = re.compile(r"([a-z]+):(/*)(.*)", re.IGNORECASE | re.DOTALL)
_OUR_OWN = ("tcp", "tls")
_WAY = {"bindAddress", "endpoint", "timeout"}
_TCP = {"bindAddress", "host", "port", "timeout"}
_TLS = _TCP | {"certificate", "endpoint", "pin", "privateKey", "trustRoots"}


@cache
def _kinds() -> set[str]:
    """Find the kinds of client endpoint that are installed, which takes a while."""
    plugins = getPlugins(IStreamClientEndpointStringParserWithReactor)
    return {"tcp", "unix"} | {plugin.prefix for plugin in plugins}


class EndpointParts:
    """
    A client's endpoint string, taken apart. C{tcp://HOST:PORT}, as addresses
    are printed, is C{tcp:HOST:PORT}, and so with C{tls:}.

    @param text: The string.
    @raise ValueError: What is wrong, in words, or whatever a parser raises.

    @ivar text: The string as Twisted takes it.
    @ivar kind: The part before the first colon.
    @ivar keywords: The parts of the form C{name=value}.
    @ivar host: For C{tcp:} and C{tls:}, as L{hostName} writes it.
    """

    def __init__(self, text: str) -> None:
        found = _KIND.fullmatch(text)
        kind = found[1].lower() if found else ""
        if found and kind in (*_OUR_OWN, "unix"):
            slashes, rest = found[2], found[3]
            if kind == "unix":
                rest = slashes + rest
            elif slashes == "//":
                rest = rest.removesuffix("/")
            elif slashes:
                raise ValueError(f"write {kind}:HOST:PORT")
            text = f"{kind}:{rest}"
        self.text = text
        self.kind, parts, self.keywords = splitEndpoint(text)
        self.host, self.port = "", 0
        if self.kind == "unix" and not ((parts and parts[0]) or self["path"]):
            raise ValueError("the path is missing")
        if self.kind in _OUR_OWN:
            self._place(parts)

    @property
    def isPlain(self) -> bool:
        """Whether it is just a host and a port."""
        return self.kind in _OUR_OWN and not self.keywords.keys() & _WAY

    def __getitem__(self, keyword: str) -> str:
        return self.keywords.get(keyword, "")

    def _place(self, parts: list[str]) -> None:
        known = _TLS if self.kind == "tls" else _TCP
        if unknown := sorted(set(self.keywords) - known):
            there = ", ".join(sorted(known))
            raise ValueError(f"it has no {unknown[0]}=; there is {there}")
        if isIPv6Address(":".join(parts[:-1])):
            # Without brackets, it can mean nothing else.
            parts = [":".join(parts[:-1]), parts[-1]]
        if len(parts) > 2:
            raise ValueError("it has too many parts")
        if not (host := parts[0] if parts else self["host"]):
            raise ValueError("the host is missing")
        self.port = portNumber(parts[1] if len(parts) > 1 else self["port"])
        self.host = hostName(host)

    def endpoint(
        self,
        reactor: Any,
        reach: Callable[[Any, str, int], IStreamClientEndpoint] = HostEndpoint,
    ) -> IStreamClientEndpoint:
        """
        Make the endpoint; for C{tls:}, the one below TLS.

        @param reach: Makes the endpoint of a mere host and port.
        @raise Exception: Whatever a parser raises.
        """
        if self.isPlain:
            return reach(reactor, self.host, self.port)
        if self["endpoint"] or self.kind not in _OUR_OWN:
            below: IStreamClientEndpoint = clientFromString(
                reactor, self["endpoint"] or self.text
            )
            return below
        bind = self["bindAddress"]
        return HostEndpoint(
            reactor,
            self.host,
            self.port,
            float(self["timeout"] or 30),
            (hostName(bind), 0) if bind else None,
        )


def isKind(text: str) -> bool:
    """Whether a text begins with a kind of endpoint, and not with a host's name."""
    kind = text.partition(":")[0]
    return kind in _kinds() or kind.lower() in (*_OUR_OWN, "unix")


def noEndpoint(text: str, error: Exception) -> str:
    """
    Explain in plain words what is wrong with a client's endpoint string, or a host and
    a port.

    @param error: The exception that was raised for it.
    """
    if isinstance(error, TunnelError):
        return error.message
    kind, _, rest = text.partition(":")
    if kind.lower() in ("http", "https"):
        return "HTTP goes over TCP, or TLS: leave the scheme and the path out"
    if isKind(text):
        return whyNoEndpoint(kind.lower(), error)
    if not rest or rest[0] in "0123456789" or text[0] == "[":
        return f"write localhost:{text}" if text.isdecimal() else str(error)
    return whyNoEndpoint(kind, ValueError(f"Unknown endpoint type: {kind!r}"))
