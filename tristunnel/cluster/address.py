"""Where a cluster's engine is: C{redis://:PASSWORD@10.0.0.5/0?name=prod}."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from twisted.internet.endpoints import (
    HostnameEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from tristunnel.config.settings import redacted
from tristunnel.errors import badOption

__all__ = ["EngineAddress", "parseEngine"]

PORT = 6379

_NAME = re.compile("[A-Za-z0-9_.-]{1,64}")
_SCHEMES = ("redis", "rediss", "redis+unix")


@dataclass(frozen=True)
class EngineAddress:
    """
    An engine, and a cluster's name in it.

    @ivar scheme: C{redis}, C{rediss} for TLS, or C{redis+unix}.
    @ivar host: Its name or address; or the path of its socket.
    @ivar port: Its port.
    @ivar database: The number of the database.
    @ivar username: As whom to log in; empty for the default user.
    @ivar password: Likewise; empty for no login.
    @ivar name: Tells apart the clusters that share an engine.
    """

    scheme: str
    host: str
    port: int = PORT
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    name: str = "tristunnel"

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """Make the way there."""
        if self.scheme == "redis+unix":
            return UNIXClientEndpoint(reactor, self.host)
        way = HostnameEndpoint(reactor, self.host, self.port)
        if self.scheme == "redis":
            return way
        secure: IStreamClientEndpoint = wrapClientTLS(
            optionsForClientTLS(self.host), way
        )
        return secure


def parseEngine(text: str) -> EngineAddress:
    """
    Read an engine's URL.

    @raise TunnelError: C{bad-option}; a password in it is not shown.
    """
    shown = str(redacted("cluster", text))[:100]
    try:
        parts = urlsplit(text)
        port = parts.port or PORT
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError as problem:
        raise badOption(f"{shown!r} cannot be read ({problem})") from None
    if parts.scheme not in _SCHEMES:
        raise badOption(
            f"{shown!r} is no engine; write redis://HOST/0, rediss://HOST/0 for TLS, or"
            " redis+unix:PATH"
        )
    unknown = query.keys() - {"name", "db"}
    if unknown or parts.fragment:
        raise badOption(f"{shown!r} may have ?name=NAME and db=NUMBER, and no more")
    isUNIX = parts.scheme == "redis+unix"
    host = parts.path if isUNIX else parts.hostname or ""
    if not host:
        raise badOption(f"{shown!r} says no {'path' if isUNIX else 'host'}")
    database = query.get("db", "") if isUNIX else parts.path.strip("/")
    if database and not (database.isdecimal() and int(database) < 10_000):
        raise badOption(f"{shown!r}: the database is a number, such as 0")
    name = query.get("name", "tristunnel")
    if not _NAME.fullmatch(name):
        raise badOption(
            f"{shown!r}: a cluster's name has at most 64 letters, digits, '-', '_'"
            " and '.'"
        )
    return EngineAddress(
        parts.scheme,
        host,
        port,
        int(database or 0),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        name,
    )
