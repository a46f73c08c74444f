"""Where a client finds its server: C{--connect}."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from tristunnel.connect.endpoints import EndpointParts, isKind, noEndpoint
from tristunnel.connect.greeting import ALWAYS, Greeting
from tristunnel.connect.route import ConnectOptions
from tristunnel.connect.websocket import WebSocketEndpoint, WebSocketURL, shownURL
from tristunnel.dataplane.tls import tlsOverClientEndpoint
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.tls.certificates import parseFingerprint
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.explanation import explainTLSFailure
from tristunnel.util.hosts import hostAndPort, hostName, parsePlace, portNumber
from tristunnel.util.words import nearest

__all__ = ["ServerAddress", "Trust", "parseAccessURI", "parseConnect", "parseTunnelURI"]


USUAL_PORT = 9000
"""The port of a server where nobody names another."""

USUAL_PATH = "/tunnel"
"""The path where servers take WebSockets unless told otherwise."""

_KINDS = ("tcp", "tls", "ws", "wss", "http", "https", "unix")


@dataclass(frozen=True)
class Trust:
    """
    How a client verifies its server, and the certificate that it shows itself.

    @ivar pins: SHA-256 digests, 32 bytes each, of acceptable certificates.
    @ivar ca: A file or directory with the certificate authorities to trust instead of
        the platform's.
    @ivar insecure: Whether any server is accepted.
    @ivar certificate: A PEM file with the client's own certificate; empty for
        none.
    @ivar privateKey: A PEM file with its key, if that is not in the same.
    """

    pins: Sequence[bytes] = ()
    ca: str = ""
    insecure: bool = False
    certificate: str = ""
    privateKey: str = ""

    def __bool__(self) -> bool:
        return bool(self.pins or self.ca or self.insecure or self.certificate)

    def verification(
        self, host: str, said: Mapping[str, str] = MappingProxyType({})
    ) -> ServerVerification:
        """
        Make what verifies a server.

        @param said: The keywords of its endpoint string, which our own settings
            override.
        """
        pins = self.pins
        if not pins and "pin" in said:
            pins = (parseFingerprint(said["pin"]),)
        # A key goes with its certificate.
        key = self.privateKey if self.certificate else said.get("privateKey")
        return ServerVerification(
            host,
            trustRoots=self.ca or said.get("trustRoots") or None,
            pins=pins,
            insecure=self.insecure,
            certificate=self.certificate or said.get("certificate") or None,
            privateKey=key or None,
        )


_ABOUT_TLS = "--pin, --ca, --insecure and --certificate need TLS; write"


@dataclass(frozen=True)
class ServerAddress:
    """
    A server, and how to reach it.

    @ivar where: As messages name it.
    @ivar host: The name that its certificate must have; empty for a UNIX socket.
    @ivar endpoint: How to connect.
    @ivar port: Its TCP port; 0 if it has none or it is unknown.
    @ivar link: How to connect without a WebSocket, where that is different.
    @ivar verification: Verifies its certificate, where there is TLS.
    @ivar trust: How it is verified.
    @ivar route: The way there.
    @ivar capability: C{id} and C{secret} of the one tunnel to serve, if it was
        named by a URI.
    @ivar access: C{id} and C{secret} of access to the one service to visit, if
        that was granted by a URI.
    """

    where: str
    host: str
    endpoint: IStreamClientEndpoint
    capability: Mapping[str, object] | None = None
    access: Mapping[str, object] | None = None
    port: int = 0
    link: IStreamClientEndpoint | None = None
    verification: ServerVerification | None = None
    trust: Trust = field(default_factory=Trust)
    route: ConnectOptions = field(default_factory=ConnectOptions)

    def at(self, reactor: Any, place: str) -> ServerAddress:
        """
        Make the address of the same server at another place. Whoever is there has to
        prove to be this server as before: by the server's name and not by the address.

        @param place: C{HOST:PORT}; empty for this address itself, where another process
            may answer.
        @raise TunnelError: C{protocol-error}, if C{place} is malformed.
        """
        if not place:
            return self
        try:
            host, port = parsePlace(place)
        except ValueError as error:
            raise TunnelError(
                "protocol-error",
                f"the server names {printable(place, 60)!r} as another address of its"
                f" own: {error}",
            ) from None
        below = self.route.reach(reactor, host, port)
        if self.verification is not None:
            below = tlsOverClientEndpoint(self.verification, below)
        endpoint = below
        if isinstance(self.endpoint, WebSocketEndpoint):
            endpoint = self.endpoint.over(below)
        where = f"{self.where} at {hostAndPort(host, port)}"
        return replace(self, where=where, endpoint=endpoint, port=port, link=below)

    @property
    def isWebSocket(self) -> bool:
        return "://" in self.where

    @property
    def isVerified(self) -> bool:
        """
        Whether what comes from there certainly comes from the right server, and from
        nobody on the way.
        """
        return self.verification is not None and not self.trust.insecure

    def greeting(self) -> Greeting:
        """
        Make the first greeting. W3P has no WebSockets, and URIs need the extension.
        """
        ours = self.isWebSocket or self.capability or self.access
        return Greeting(ALWAYS if ours else self.route.greeting)

    def explain(self, failure: Failure) -> TunnelError | None:
        """Explain why TLS failed, if that is the reason."""
        judge = self.verification
        if judge is None:
            return None
        why = explainTLSFailure(failure, self.host, judge, self.port)
        if why is None:
            return None
        pinned = judge.refusal is not None and judge.refusal.kind == "pin"
        return TunnelError("bad-pin" if pinned else "session-lost", why)

    def notReached(self, failure: Failure) -> TunnelError:
        """Explain why there is no connection to the server."""
        why = failure.getErrorMessage()
        if failure.check(ConnectionRefusedError):
            why = "the connection was refused; does the server run there, on this port?"
        elif failure.check(TimeoutError, TCPTimedOutError):
            why = f"nothing answered; does a firewall block TCP port {self.port} there?"
        elif isinstance(failure.value, ConnectError) and failure.value.osError:
            why = os.strerror(failure.value.osError)
        return self.explain(failure) or TunnelError(
            "session-lost", f"{self.where} was not reached: {why}"
        )


def parseConnect(
    reactor: Any, description: str, trust: Trust, route: ConnectOptions | None = None
) -> ServerAddress:
    """
    Read C{--connect}.

    @param route: The way there.
    @raise TunnelError: C{bad-option}, with the cause and the cure.
    """
    route = route or ConnectOptions()
    if description.startswith(("w3p:", "w3ps:")):
        # Without the URI, which has a secret in it.
        raise badOption(
            "--connect names a server; write --tunnel for the URI of a tunnel, and"
            " tunnel-access --access for that of an access"
        )
    written = description = description.strip()
    if "#" in description and "/" not in description:
        # Not repeated either.
        raise badOption(
            "--connect names a server; accept an invitation by: tristunnel join"
            " INVITATION"
        )
    try:
        description = _inFull(description)
    except ValueError as error:
        raise _noServer(written, str(error)) from None
    kind = description.partition(":")[0].lower()
    if kind in ("ws", "wss"):
        return _overWebSocket(reactor, description, trust, route)
    if route.headers:
        raise badOption("--header needs a WebSocket; write --connect ws://HOST/PATH")
    if kind == "ssl":
        raise badOption(
            "--connect ssl: does not verify the server; write tls:HOST:PORT, with"
            " --pin or"
            " --ca for a private certificate"
        )
    if trust and kind != "tls":
        raise badOption(f"{_ABOUT_TLS} --connect tls:HOST:PORT")
    try:
        parts = EndpointParts(description)
    except Exception as error:
        raise _wrong(written, error) from None
    if parts.port and not parts["endpoint"]:
        route = route.towards(reactor, parts.kind, parts.host, parts.port)
    try:
        if route.proxy is not None and not parts.isPlain:
            raise ValueError(
                f"{route.proxy.source} connects to tcp:HOST:PORT and the like only;"
                " --proxy none goes without"
            )
        endpoint = parts.endpoint(reactor, route.reach)
    except Exception as error:
        raise _wrong(written, error) from None
    address = ServerAddress(
        parts.text, parts.host, endpoint, port=parts.port, route=route
    )
    return _overTLS(address, parts, trust) if parts.kind == "tls" else address


_AS_WEB = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def _inFull(description: str) -> str:
    """
    Write a server's short form in full: C{HOST}, C{HOST:PORT} and C{[::1]:PORT} mean
    TLS, and C{https://HOST} a WebSocket at the usual path. Nothing else is tried if
    that fails: to go without TLS, write C{tcp:}, C{ws:} or C{http:}.

    @raise ValueError: What is wrong, in words.
    """
    kind, mark, place = description.partition("://")
    if not mark and kind.partition(":")[0].lower() in _AS_WEB:
        kind, mark, place = description.partition(":")
    kind = kind.lower()
    if mark and kind in _AS_WEB:
        return _asWebSocket(kind, place)
    if isKind(description) or kind.startswith("ssl:"):
        return description
    if re.fullmatch(r"[^:\[\]]+:[0-9]+:[0-9]+", description):
        raise ValueError("there are two ports in it")
    if mark or re.fullmatch(r"[a-z0-9]+:[^:\[\]]+:[0-9]+", description):
        kind = kind.partition(":")[0]
        raise ValueError(f"unknown type {kind!r}{nearest(kind, _KINDS, lists=False)}")
    if description.isdecimal():
        raise ValueError(f"the host is missing: HOST:{description}")
    if description.count("[") != description.count("]"):
        raise ValueError("an IPv6 address has two brackets, as [::1]")
    host, colon, port = description.rpartition(":")
    if isIPv6Address(description) or not colon or port.endswith("]"):
        host, port = description, str(USUAL_PORT)
    if not host:
        raise ValueError("the host is missing")
    return f"tls:{quoteStringArgument(hostName(host))}:{portNumber(port)}"


def _asWebSocket(kind: str, place: str) -> str:
    """
    Write a web address as a WebSocket's.

    @raise ValueError: What is wrong, in words.
    """
    if not place.isprintable():
        raise ValueError("there is a space in it")
    url = urlsplit(f"{_AS_WEB[kind]}://{place}")
    if not url.netloc:
        raise ValueError("the host is missing")
    _, colon, port = url.netloc.rpartition("]")[2].rpartition(":")
    if colon:
        portNumber(port)
    if kind not in ("ws", "wss") and url.path in ("", "/"):
        url = url._replace(path=USUAL_PATH)
    return urlunsplit(url)


def _wrong(description: str, error: Exception) -> TunnelError:
    """Say what is wrong with C{--connect}; endpoint parsers may raise anything."""
    return _noServer(description, noEndpoint(description, error))


def _noServer(description: str, why: str) -> TunnelError:
    shown = printable(shownURL(description), 60)
    return badOption(
        f"--connect {shown!r} is not a valid server ({printable(why, 120)}); write HOST"
        " or HOST:PORT for TLS, tcp:HOST:PORT without, https://HOST or unix:PATH"
    )


def _overWebSocket(
    reactor: Any, description: str, trust: Trust, route: ConnectOptions
) -> ServerAddress:
    url = WebSocketURL(description)
    route = route.towards(reactor, "wss" if url.secure else "ws", url.host, url.port)
    below = route.reach(reactor, url.host, url.port)
    creator: ServerVerification | None = None
    if url.secure:
        creator = trust.verification(url.host)
        below = tlsOverClientEndpoint(creator, below)
    elif trust:
        raise badOption(f"{_ABOUT_TLS} wss://")
    endpoint = WebSocketEndpoint(reactor, url, below, route.headers, route.pingInterval)
    return ServerAddress(
        url.where,
        url.host,
        endpoint,
        port=url.port,
        link=below,
        verification=creator,
        trust=trust,
        route=route,
    )


def parseTunnelURI(
    reactor: Any,
    uri: str,
    trust: Trust,
    connect: str = "",
    route: ConnectOptions | None = None,
) -> ServerAddress:
    """
    Read C{--tunnel}: C{w3p://HOST:PORT/ID#SECRET}, or C{w3ps:} over TLS.

    @param connect: Another place of the server than the URI says, or empty.
    @param route: The way there.
    @raise TunnelError: C{bad-option}, without the secret.
    """
    default, capability = _capabilityOf(uri, "--tunnel", "openTunnel", "")
    address = parseConnect(reactor, connect or default, trust, route)
    return replace(address, capability=capability)


def parseAccessURI(
    reactor: Any,
    uri: str,
    trust: Trust,
    connect: str = "",
    route: ConnectOptions | None = None,
) -> ServerAddress:
    """
    Read C{--access}: C{w3p://HOST:PORT/access/ID#SECRET}, or C{w3ps:} over
    TLS. The parameters are those of L{parseTunnelURI}.

    @raise TunnelError: C{bad-option}, without the secret.
    """
    default, access = _capabilityOf(uri, "--access", "grantAccess", "access/")
    address = parseConnect(reactor, connect or default, trust, route)
    return replace(address, access=access)


def _capabilityOf(
    uri: str, option: str, method: str, prefix: str
) -> tuple[str, Mapping[str, object]]:
    """
    Find the server that a URI names, and C{id} and C{secret}.

    @param method: The method that has returned the URI.
    @param prefix: The beginning of its path, behind the slash.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    path = parts.path.removeprefix("/")
    identifier = path.removeprefix(prefix)
    if (
        parts.scheme not in ("w3p", "w3ps")
        or not path.startswith(prefix)
        or not (host and port and identifier and parts.fragment)
    ):
        raise badOption(
            f"{option} takes the URI that {method} returned,"
            f" w3p://HOST:PORT/{prefix}ID#SECRET"
        )
    kind = "tls" if parts.scheme == "w3ps" else "tcp"
    # A colon in an IPv6 address would separate arguments.
    where = f"{kind}:{quoteStringArgument(host)}:{port}"
    return where, {"id": identifier, "secret": parts.fragment}


def _overTLS(
    address: ServerAddress, parts: EndpointParts, trust: Trust
) -> ServerAddress:
    creator = trust.verification(address.host, parts.keywords)
    endpoint = tlsOverClientEndpoint(creator, address.endpoint)
    return replace(
        address,
        where=f"tls:{hostAndPort(address.host, address.port)}",
        endpoint=endpoint,
        link=endpoint,
        verification=creator,
        trust=trust,
    )
