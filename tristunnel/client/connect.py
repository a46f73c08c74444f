"""
Where a client finds its server: C{--connect}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.endpoints import (
    HostnameEndpoint,
    clientFromString,
    quoteStringArgument,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError
from tristunnel.strings import splitEndpoint, unknownKeywords
from tristunnel.tls.client_context import clientConnectionCreator
from tristunnel.tls.explanation import explainTLSFailure

__all__ = ["ServerAddress", "Trust", "parseConnect", "parseTunnelURI"]


@dataclass(frozen=True)
class Trust:
    """
    Which server a client believes to be the right one.

    @ivar pins: SHA-256 digests, 32 bytes each, of acceptable certificates.
    @ivar ca: A file or directory of authorities to trust instead of the
        platform's.
    @ivar insecure: Whether anybody will do.
    """

    pins: Sequence[bytes] = ()
    ca: str = ""
    insecure: bool = False

    def __bool__(self) -> bool:
        return bool(self.pins or self.ca or self.insecure)


def _noExplanation(failure: Failure) -> str | None:
    """
    Without TLS there is nothing to explain.
    """
    return None


@dataclass(frozen=True)
class ServerAddress:
    """
    A server, and how to reach it.

    @ivar where: As messages name it.
    @ivar host: The name by which we know it; empty for a UNIX socket.
    @ivar endpoint: How to connect.
    @ivar explain: Makes one line of a TLS failure.
    @ivar capability: C{id} and C{secret} of the one tunnel to serve, if it was
        named by a URI.
    """

    where: str
    host: str
    endpoint: IStreamClientEndpoint
    explain: Callable[[Failure], str | None] = _noExplanation
    capability: Mapping[str, object] | None = None


def parseConnect(reactor: Any, description: str, trust: Trust) -> ServerAddress:
    """
    Read C{--connect}.

    @raise TunnelError: C{bad-option}, with the cause and the cure.
    """
    prefix, parts, keywords = splitEndpoint(description)
    if prefix == "ssl":
        raise TunnelError(
            "bad-option",
            "--connect ssl: verifies nothing; write tls:HOST:PORT, with --pin or"
            " --ca for a private certificate",
        )
    if prefix == "tls":
        return _overTLS(reactor, description, parts, keywords, trust)
    if trust:
        raise TunnelError(
            "bad-option",
            "--pin, --ca and --insecure are about TLS; write --connect tls:HOST:PORT",
        )
    host = ""
    try:
        if prefix == "tcp" and len(parts) == 2 and not keywords:
            host = parts[0].removeprefix("[").removesuffix("]")
            # Twisted's own tcp: knows IPv4 only.
            endpoint = HostnameEndpoint(reactor, host, int(parts[1]))
        else:
            endpoint = clientFromString(reactor, description)
            host = keywords.get("host", parts[0] if prefix == "tcp" and parts else "")
    except Exception as error:
        # Endpoint parsers raise whatever comes to hand.
        raise TunnelError(
            "bad-option",
            f"--connect {description!r} is no endpoint ({error}); write"
            " tcp:HOST:PORT, tls:HOST:PORT or unix:PATH",
        ) from None
    return ServerAddress(description, host, endpoint)


def parseTunnelURI(
    reactor: Any, uri: str, trust: Trust, connect: str = ""
) -> ServerAddress:
    """
    Read C{--tunnel}: C{w3p://HOST:PORT/ID#SECRET}, or C{w3ps:} over TLS.

    @param connect: Another way to the server than the URI says, or empty.
    @raise TunnelError: C{bad-option}, without the secret.
    """
    parts = urlsplit(uri)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    identifier = parts.path.removeprefix("/")
    if parts.scheme not in ("w3p", "w3ps") or not (
        host and port and identifier and parts.fragment
    ):
        raise TunnelError(
            "bad-option",
            "--tunnel takes the URI that openTunnel returned,"
            " w3p://HOST:PORT/ID#SECRET",
        )
    way = "tls" if parts.scheme == "w3ps" else "tcp"
    # A colon in an IPv6 address would separate arguments.
    default = f"{way}:{quoteStringArgument(host)}:{port}"
    address = parseConnect(reactor, connect or default, trust)
    return replace(address, capability={"id": identifier, "secret": parts.fragment})


def _overTLS(
    reactor: Any,
    description: str,
    parts: list[str],
    keywords: dict[str, str],
    trust: Trust,
) -> ServerAddress:
    """
    Read C{tls:HOST:PORT}, with Twisted's keywords for it.
    """
    known = {"host", "port", "certificate", "privateKey", "trustRoots"}
    known |= {"bindAddress", "timeout", "endpoint"}
    unknownKeywords("--connect tls:", keywords, known)
    host = parts[0] if parts else keywords.get("host", "")
    port = parts[1] if len(parts) > 1 else keywords.get("port", "")
    if not host or len(parts) > 2 or not port.isdecimal() or int(port) > 65535:
        raise TunnelError(
            "bad-option",
            f"--connect {description!r} is no endpoint; write tls:HOST:PORT",
        )
    host = host.removeprefix("[").removesuffix("]")
    creator = clientConnectionCreator(
        host,
        trustRoots=trust.ca or keywords.get("trustRoots"),
        pins=trust.pins,
        insecure=trust.insecure,
        certificate=keywords.get("certificate"),
        privateKey=keywords.get("privateKey"),
    )
    bind = keywords.get("bindAddress")
    try:
        if "endpoint" in keywords:
            below = clientFromString(reactor, keywords["endpoint"])
        else:
            below = HostnameEndpoint(
                reactor,
                host,
                int(port),
                float(keywords.get("timeout", 30)),
                None if bind is None else (bind, 0),
            )
    except Exception as error:
        raise TunnelError("bad-option", f"--connect {description!r}: {error}") from None
    return ServerAddress(
        f"tls:{host}:{port}",
        host,
        wrapClientTLS(creator, below),
        lambda failure: explainTLSFailure(failure, host, creator),
    )
