"""
One port for several TLS servers: the name in a client's hello, and the protocols that
it offers, decide whose the connection is. TLS for a tunnel's name goes on to the tunnel
untouched; all other TLS ends here, with the certificate for its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.x509 import Certificate
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.tls import serverTLSFactory
from tristunnel.errors import TunnelError
from tristunnel.names.table import NameTable
from tristunnel.server.sorting import Sorting, SortingFactory
from tristunnel.tls.named import NamedCertificates, covers
from tristunnel.tls.pem import isExpired
from tristunnel.tls.server_context import ReloadingCertificate
from tristunnel.wire.client_hello import CHALLENGE, ClientHello, readClientHello
from tristunnel.wire.first_bytes import HTTP_METHODS, describeFirstBytes, looksLikeTLS
from tristunnel.wire.http_answer import wholeResponse

__all__ = ["Certificates", "Served", "TLSNamesFactory", "WithContext"]

_KIND = "tls-name"

_WITHOUT_TLS = wholeResponse(
    400, b"400 Bad Request: this port takes TLS only; open it by https://\n"
)
"""What a browser is told that came without TLS."""


@implementer(IOpenSSLServerConnectionCreator)
class WithContext:
    """
    Makes TLS connections with a context.

    @param context: The context.
    """

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        return SSL.Connection(self._context)


@dataclass(eq=False)
class Certificates:
    """
    Chooses the certificate that a client is shown.

    @ivar default: Has the one for names without another one.
    @ivar sources: Where one for a name is looked for, in order.
    """

    default: IOpenSSLServerConnectionCreator
    sources: tuple[NamedCertificates, ...] = ()

    def creatorFor(self, name: str) -> IOpenSSLServerConnectionCreator:
        """
        Choose a certificate.

        @param name: What the client asks for; empty if it does not say.
        """
        found = self._find(name)
        return self.default if found is None else found

    def _find(self, name: str) -> ReloadingCertificate | None:
        found = [each.find(name) for each in self.sources if name]
        there = [each for each in found if each is not None]
        # One that has expired is better than one for another name.
        good = [each for each in there if not isExpired(each.certificate)]
        return next(iter(good or there), None)

    def believed(self, name: str) -> bool:
        """
        Whether browsers will trust the certificate for a name: it is for that name, has
        not expired, and is not self-signed.
        """
        found = self._find(name)
        shown: Any = self.default if found is None else found
        certificate: Certificate | None = shown.certificateFor(name)
        return (
            certificate is not None
            and certificate.issuer != certificate.subject
            and not isExpired(certificate)
            and covers(certificate, name)
        )


@dataclass(frozen=True)
class Served:
    """
    What is behind TLS that ends here.

    @ivar factory: Serves it.
    @ivar certificates: What is shown.
    """

    factory: IProtocolFactory
    certificates: Certificates


@implementer(IHandshakeListener)
class _Challenged(Protocol):
    """
    Ends a connection of an authority, which has seen what it came for once TLS is up.

    @param gone: Called when it has gone.
    """

    transport: Any

    def __init__(self, gone: Callable[[], None]) -> None:
        self._gone = gone

    def handshakeCompleted(self) -> None:
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone()


class _Sorting(Sorting):
    """Waits for a hello."""

    awaited = "TLS hello"

    def sort(self, data: bytes) -> int:
        if not looksLikeTLS(data) and not b"\x16\x03".startswith(data):
            self._plain(data)
            return 0
        try:
            hello = readClientHello(data)
        except ValueError as problem:
            self.refuse(TunnelError("protocol-error", f"the peer sent {problem}"))
            return 0
        if isinstance(hello, int):
            return hello
        self._sort(hello)
        return 0

    def _plain(self, data: bytes) -> None:
        plain = self._parent.plain
        if plain is None:
            said = describeFirstBytes(data)
            self.refuse(
                TunnelError(
                    "protocol-error",
                    f"the peer sent {said}, and this port takes TLS only; connect with"
                    " tls: or https:",
                ),
                _WITHOUT_TLS if data.startswith(HTTP_METHODS) else b"",
            )
        else:
            address: Any = self._address
            made: Any = plain.buildProtocol(address)
            self.handOn(made)

    def _sort(self, hello: ClientHello) -> None:
        parent, name = self._parent, hello.serverName
        route = parent.table.find(_KIND, name) if name else None
        if CHALLENGE in hello.protocols and route is None:
            # Unknown names cost nothing, since there is no answer for them.
            context = parent.challenge(name)
            if context is None:
                self.refuse(
                    TunnelError("protocol-error", "no challenge waits for that name")
                )
                return
            # It is counted among those of whom nothing is known until it has gone.
            answering = Factory.forProtocol(lambda: _Challenged(self.forget))
            made = serverTLSFactory(WithContext(context), answering)
            self.handOver(made.buildProtocol(self._address))
        elif route is not None:
            self.giveTo(route)
        elif not self._isElsewhere(name):
            served = parent.own if parent.isOwn(name) else parent.visitors
            creator = served.certificates.creatorFor(name)
            secure = serverTLSFactory(creator, served.factory)
            self.handOn(secure.buildProtocol(self._address))

    def _isElsewhere(self, name: str) -> bool:
        """
        Pass a web site's visitor on to the process that has the site, before TLS
        begins, if there is one.
        """
        web = self._parent.table.find("http", name) if name else None
        return web is not None and self.passOn(web)


@dataclass(eq=False, kw_only=True)
class TLSNamesFactory(SortingFactory):
    """
    Serves a port with several names.

    @ivar table: The names of tunnels.
    @ivar own: Serves connections for the server itself. No other name leads there: it
        may ask for clients' certificates.
    @ivar visitors: Serves those for all other names.
    @ivar isOwn: Whether a name, perhaps an empty one, is the server's own.
    @ivar challenge: Gives the context that answers an authority, by a name, or C{None}.
    @ivar plain: Serves connections without TLS; C{None} to refuse them.
    """

    sorting = _Sorting

    table: NameTable
    own: Served
    visitors: Served
    isOwn: Callable[[str], bool]
    challenge: Callable[[str], SSL.Context | None] = lambda name: None
    plain: IProtocolFactory | None = None
