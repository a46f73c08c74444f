"""
The ports that clients connect to: C{--port}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint

from tristunnel.dataplane.tls import tlsOverEndpoint
from tristunnel.errors import badOption
from tristunnel.server.proxied import behindProxy
from tristunnel.tls.certificates import selfSigned
from tristunnel.tls.directory import CertificateDirectory
from tristunnel.tls.server_context import CreatorInForce, ReloadingCertificate
from tristunnel.util.endpoints import (
    BACKLOG,
    listenInFull,
    serverEndpoint,
    splitEndpoint,
    unknownKeywords,
    whyNoEndpoint,
)

__all__ = ["SCHEMES", "ServerPort", "TLSFiles", "joined", "numberIn", "parsePort"]

SCHEMES = {
    "--http": ("http",),
    "--https": ("https", "tls"),
    "--minecraft": ("minecraft",),
    "--postgres": ("postgresql",),
}
"""The schemes of visitors of names, by the option of their port."""

ALONE = frozenset(("--minecraft", "--postgres"))
"""Options whose ports cannot be shared."""

_SORTED = ("--https", "--postgres")
"""Options whose TLS is begun by what serves the port."""

_CWD_CERTIFICATE = Path("server.pem")


@dataclass(frozen=True)
class TLSFiles:
    """
    The options that put TLS over a port.

    @ivar certificate: C{--certificate}, or empty.
    @ivar privateKey: C{--private-key}, or empty if it is in the same file.
    @ivar clientCA: C{--client-ca}, or empty.
    @ivar clientCRL: C{--client-crl}, or empty.
    """

    certificate: str = ""
    privateKey: str = ""
    clientCA: str = ""
    clientCRL: str = ""


@dataclass(frozen=True)
class ServerPort:
    """
    A port for clients.

    @ivar description: As the user wrote it.
    @ivar endpoint: Where to listen.
    @ivar fingerprint: The fingerprint of a certificate that was made for it here, so
        that clients can pin it; else empty.
    @ivar certificatePath: Where that certificate is.
    @ivar option: The option that named it.
    @ivar secure: Whether it speaks TLS.
    @ivar creator: Makes its TLS connections, if so.
    @ivar shown: The certificate that it shows: a PEM file or a directory of them.
    @ivar below: Where to listen without TLS, if it speaks TLS.
    @ivar serves: The options that named it: several may share one port.
    @ivar bare: Whether some of its clients encrypt by themselves, and come without TLS.
    @ivar ownCreator: The same for connections to the server itself, if those must show
        certificates and visitors need not.
    @ivar withoutTLS: Those of the options whose connections may come without TLS.
    """

    description: str
    endpoint: IStreamServerEndpoint
    fingerprint: str = ""
    certificatePath: str = ""
    option: str = "--port"
    secure: bool = False
    creator: CreatorInForce | None = None
    shown: str = ""
    below: IStreamServerEndpoint | None = None
    serves: frozenset[str] = frozenset()
    withoutTLS: frozenset[str] = frozenset()
    ownCreator: CreatorInForce | None = None
    bare: bool = False

    @property
    def listening(self) -> IStreamServerEndpoint:
        """Where to listen: without TLS, if what serves it begins that."""
        sorts = self.bare or any(map(self.serving, _SORTED))
        return self.below if sorts and self.below is not None else self.endpoint

    @property
    def schemes(self) -> list[str]:
        """
        The schemes of the visitors of names who come to it; none for a port of clients
        alone.
        """
        return [
            s for option in SCHEMES if self.serving(option) for s in SCHEMES[option]
        ]

    def serving(self, option: str) -> bool:
        """Whether an option has named it."""
        return option == self.option or option in self.serves

    @property
    def onlyNames(self) -> bool:
        """Whether it is for visitors alone."""
        return not (self.serving("--port") or self.serving("--rpc"))

    @property
    def place(self) -> object:
        """A value that is the same for two ports that are one."""
        prefix, parts, keywords = splitEndpoint(self.description)
        number = parts[0] if parts else keywords.get("port", "")
        if prefix not in ("tcp", "tcp6", "ssl"):
            return self.description
        everywhere = "::" if prefix == "tcp6" else ""
        # A free port is a different one each time.
        return (
            self if number == "0" else (number, keywords.get("interface", everywhere))
        )

    @property
    def number(self) -> int:
        """
        The number that its user wrote; 0 for any port, or for something else than a TCP
        port.
        """
        return numberIn(self.description)

    @property
    def proxied(self) -> bool:
        """Whether a balancer speaks for the clients."""
        return self.description.startswith("haproxy:")


def numberIn(description: str) -> int:
    """
    Read the number of a port that an endpoint listens on.

    @return: 0, if it is any port, or not a TCP port.
    """
    prefix, parts, keywords = splitEndpoint(listenInFull(description))
    text = parts[0] if parts else keywords.get("port", "")
    known = prefix in ("tcp", "tcp6", "ssl") and text.isdecimal() and len(text) < 6
    return int(text) if known else 0


def parsePort(
    reactor: Any,
    description: str,
    files: TLSFiles,
    stateDirectory: Path,
    hostnames: Sequence[str],
    option: str = "--port",
    trusts: Callable[[str], bool] = lambda host: False,
) -> ServerPort:
    """
    Read a server endpoint.

    @param stateDirectory: Where a certificate is made if there is none.
    @param hostnames: The names to make it for.
    @param option: The option that holds it, for messages.
    @param trusts: Whose PROXY headers are trusted, after C{haproxy:}.
    @raise TunnelError: C{bad-option}, with the cause and the cure.
    """
    description = listenInFull(description)
    prefix, parts, keywords = splitEndpoint(description)
    clients = (files.clientCA or None, files.clientCRL or None)
    if prefix == "ssl":
        return _ssl(
            reactor,
            option,
            description,
            parts,
            keywords,
            files,
            stateDirectory,
            hostnames,
        )
    if prefix == "tls":
        unknownKeywords(
            f"{option} tls:", keywords, {"path", "port", "interface", "backlog"}
        )
        directory = parts[0] if parts else keywords.get("path", "")
        port = parts[1] if len(parts) > 1 else keywords.get("port", "443")
        below = TCP6ServerEndpoint(
            reactor,
            _number(option, description, port),
            _number(option, description, keywords.get("backlog", str(BACKLOG))),
            keywords.get("interface", "::"),
        )
        creator = CreatorInForce(CertificateDirectory(directory, *clients))
        endpoint = tlsOverEndpoint(creator, below)
        return ServerPort(
            description, endpoint, "", "", option, True, creator, directory, below
        )
    endpoint = _plain(reactor, option, description, prefix, parts, keywords, trusts)
    if not files.certificate:
        return ServerPort(description, endpoint, option=option)
    creator = CreatorInForce(
        ReloadingCertificate(files.certificate, files.privateKey or None, *clients)
    )
    over = tlsOverEndpoint(creator, endpoint)
    return ServerPort(
        description, over, "", "", option, True, creator, files.certificate, endpoint
    )


def _plain(
    reactor: Any,
    option: str,
    description: str,
    prefix: str,
    parts: list[str],
    keywords: dict[str, str],
    trusts: Callable[[str], bool],
) -> IStreamServerEndpoint:
    if prefix in ("tcp", "tcp6") and parts and parts[0].isdecimal():
        _number(option, description, parts[0])
    if prefix == "haproxy":
        inner = description.partition(":")[2]
        prefix, parts, keywords = splitEndpoint(inner)
        below = _plain(reactor, option, inner, prefix, parts, keywords, trusts)
        return behindProxy(below, trusts)
    try:
        endpoint = serverEndpoint(reactor, description)
    except Exception as error:
        # Endpoint parsers raise all kinds of errors.
        raise badOption(
            f"{option} {description!r} is not a valid endpoint"
            f" ({whyNoEndpoint(prefix, error)}); write for example tcp:9000,"
            " ssl:9000 or unix:/run/tunnel.sock"
        ) from None
    return endpoint


def _ssl(
    reactor: Any,
    option: str,
    description: str,
    parts: list[str],
    keywords: dict[str, str],
    files: TLSFiles,
    stateDirectory: Path,
    hostnames: Sequence[str],
) -> ServerPort:
    known = {"port", "privateKey", "certKey", "interface", "backlog"}
    unknownKeywords(f"{option} ssl:", keywords, known)
    port = _number(option, description, parts[0] if parts else keywords.get("port", ""))
    backlog = _number(option, description, keywords.get("backlog", str(BACKLOG)))
    interface = keywords.get("interface", "")
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    below = kind(reactor, port, backlog, interface)
    clients = (files.clientCA or None, files.clientCRL or None)
    key = keywords.get("privateKey", files.privateKey)
    certificate = keywords.get("certKey", files.certificate) or key
    own = ""
    if not certificate:
        # Twisted's own default is server.pem in the current directory.
        if _CWD_CERTIFICATE.exists():
            certificate = str(_CWD_CERTIFICATE.absolute())
        else:
            certificate = own = str(selfSigned(stateDirectory, hostnames))
    shown = ReloadingCertificate(certificate, key or None, *clients)
    creator = CreatorInForce(shown)
    return ServerPort(
        description,
        tlsOverEndpoint(creator, below),
        shown.fingerprint if own else "",
        own,
        option,
        True,
        creator,
        certificate,
        below,
    )


def _withoutTLS(port: ServerPort) -> frozenset[str]:
    if port.serves:
        return port.withoutTLS
    return frozenset() if port.secure else frozenset((port.option,))


def joined(ports: Sequence[ServerPort], more: Sequence[ServerPort]) -> list[ServerPort]:
    """
    Merge the ports that several options name.

    @param ports: Those of one option, which are not merged with each other.
    @param more: Those of others.
    @return: All of them, C{ports} first.
    """
    made = list(ports)
    for port in more:
        places = [each.place for each in made]
        if port.place not in places:
            made.append(port)
            continue
        at = places.index(port.place)
        other = made[at]
        for one, two in ((port, other), (other, port)):
            if one.option in ALONE:
                raise badOption(
                    f"{one.option} {one.description} is the port of {two.option}, too;"
                    " give it one of its own"
                )
        secure = other if other.secure else port
        plain = next((each for each in (other, port) if not each.secure), None)
        # Visitors are not asked for certificates.
        shows = port if port.option == "--https" else secure
        made[at] = replace(
            secure,
            creator=shows.creator,
            ownCreator=secure.ownCreator or secure.creator,
            description=other.description,
            option=other.option,
            below=secure.below if plain is None else plain.endpoint,
            serves=frozenset((*other.serves, other.option, port.option)),
            withoutTLS=_withoutTLS(other) | _withoutTLS(port),
        )
    return made


def _number(option: str, description: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        raise badOption(f"{option} {description!r}: {text!r} is not a port number")
    return int(text)
