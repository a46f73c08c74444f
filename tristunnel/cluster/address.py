"""Where a cluster's engine is: C{redis://:PASSWORD@10.0.0.5/0?name=prod}."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from twisted.internet.endpoints import UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from tristunnel.cluster.engine import Engine
from tristunnel.cluster.sentinel import SentinelEndpoint
from tristunnel.config.settings import redacted
from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.errors import badOption
from tristunnel.tls.client_context import ServerVerification

__all__ = ["EngineAddress", "parseEngine"]

PORT = 6379
SENTINEL_PORT = 26379

_NAME = re.compile("[A-Za-z0-9_.-]{1,64}")
_PIN = re.compile("[0-9a-fA-F]{64}")
_SCHEMES = (
    "redis",
    "rediss",
    "redis+unix",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
)
_MOST_SENTINELS = 16


@dataclass(frozen=True)
class EngineAddress:
    """
    An engine, and a cluster's name in it.

    @ivar places: Its host and port; of several Sentinels each one's. Or the path of
        its socket, and 0.
    @ivar isSecure: Whether there is TLS.
    @ivar primary: What Sentinels call the engine; empty without Sentinels.
    @ivar database: The number of the database.
    @ivar username: As whom to log in; empty for the default user.
    @ivar password: Likewise; empty for no login.
    @ivar name: Tells apart the clusters that share an engine.
    @ivar ca: A file of certificates to be trusted in place of the machine's.
    @ivar pin: The SHA-256 of the engine's certificate; or empty.
    @ivar sentinelLogin: User and password of the Sentinels; both may be empty.
    """

    places: tuple[tuple[str, int], ...]
    isSecure: bool = False
    primary: str = ""
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    name: str = "tristunnel"
    ca: str = ""
    pin: bytes = b""
    sentinelLogin: tuple[str, str] = field(default=("", ""), repr=False)

    def connection(self, reactor: Any, patience: float) -> Engine:
        """
        Make a connection to the engine.

        @param patience: Seconds in which an answer must come.
        """
        return Engine(
            self.endpoint(reactor),
            self.name,
            self.database,
            self.username,
            self.password,
            patience,
        )

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """Make the way there."""
        if not self.primary:
            return self._wayTo(reactor, *self.places[0])
        # They have a login of their own; none is the rule.
        ask: list[Callable[[], Engine]] = [
            partial(_sentinel, self._wayTo(reactor, *place), *self.sentinelLogin)
            for place in self.places
        ]
        wayTo = partial(self._wayTo, reactor)
        return SentinelEndpoint(reactor, ask, self.primary, wayTo)

    def _wayTo(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
        if not port:
            return UNIXClientEndpoint(reactor, host)
        way = HostEndpoint(reactor, host, port)
        if not self.isSecure:
            return way
        return wrapClientTLS(self.verification(host), way)

    def verification(self, host: str) -> ServerVerification:
        """
        Make what verifies an engine.

        @raise TunnelError: C{bad-option}.
        """
        pins = [self.pin] if self.pin else []
        return ServerVerification(host, trustRoots=self.ca or None, pins=pins)


def _sentinel(way: IStreamClientEndpoint, user: str, password: str) -> Engine:
    return Engine(way, "sentinel", 0, user, password)


def parseEngine(text: str) -> EngineAddress:
    """
    Read an engine's URL.

    @raise TunnelError: C{bad-option}; a password in it is not shown.
    """
    shown = str(redacted("cluster", text))[:100]
    try:
        parts = urlsplit(text)
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        login, _, hosts = parts.netloc.rpartition("@")
        isSentinel = parts.scheme.endswith("+sentinel")
        usual = SENTINEL_PORT if isSentinel else PORT
        places = tuple(_place(each, usual) for each in hosts.split(","))
    except ValueError as problem:
        raise badOption(f"{shown!r} cannot be read ({problem})") from None
    if parts.scheme not in _SCHEMES:
        raise badOption(
            f"{shown!r} is not an engine; write redis://HOST/0, rediss://HOST/0 for"
            " TLS, redis+unix:PATH, or redis+sentinel://HOST,HOST/PRIMARY/0"
        )
    isUNIX = parts.scheme in ("redis+unix", "unix")
    isSecure = parts.scheme.startswith("rediss")
    known = _known(isUNIX, isSecure, isSentinel)
    if query.keys() - known or parts.fragment:
        raise badOption(f"{shown!r} may have {', '.join(sorted(known))} after ?, only")
    path, primary = parts.path, ""
    if isUNIX:
        places, path = ((path, 0),), query.get("db", "")
    elif isSentinel:
        primary, _, path = path.strip("/").partition("/")
        if not primary:
            raise badOption(f"{shown!r} does not say what Sentinels call the engine")
    if not all(host for host, _ in places):
        raise badOption(f"{shown!r} says no {'path' if isUNIX else 'host'}")
    if len(places) > (_MOST_SENTINELS if isSentinel else 1):
        raise badOption(f"{shown!r} names too many hosts")
    database = path.strip("/") or "0"
    if not (database.isdecimal() and int(database) < 10_000):
        raise badOption(f"{shown!r}: the database is a number, such as 0")
    name = query.get("name", "tristunnel")
    if not _NAME.fullmatch(name):
        raise badOption(
            f"{shown!r}: a cluster's name has at most 64 letters, digits, '-', '_'"
            " and '.'"
        )
    username, _, password = login.partition(":")
    user, _, secret = query.get("sentinel", "").partition(":")
    address = EngineAddress(
        places,
        isSecure,
        primary,
        int(database),
        unquote(username),
        unquote(password),
        name,
        query.get("ca", ""),
        _pin(query.get("pin", ""), shown),
        (user, secret),
    )
    if isSecure:
        for host, _ in places:
            address.verification(host)
    return address


def _known(isUNIX: bool, isSecure: bool, isSentinel: bool) -> set[str]:
    """What may be said after the question mark."""
    return {
        "name",
        *(("db",) if isUNIX else ()),
        *(("ca", "pin") if isSecure else ()),
        *(("sentinel",) if isSentinel else ()),
    }


def _place(text: str, usual: int) -> tuple[str, int]:
    """
    @raise ValueError: If it is no host, with or without a port.
    """
    # The library knows what has brackets.
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port or usual


def _pin(text: str, shown: str) -> bytes:
    digits = text.replace(":", "")
    if digits and not _PIN.fullmatch(digits):
        raise badOption(f"{shown!r}: pin is the SHA-256 of a certificate, 64 digits")
    return bytes.fromhex(digits)
