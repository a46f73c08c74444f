"""A server's certificate from files, which is followed when it is renewed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from socket import socket
from typing import Any

from cryptography.x509 import Certificate
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from tristunnel.errors import badOption
from tristunnel.tls.certificates import fingerprint
from tristunnel.tls.contexts import loadClientTrust, serverContext
from tristunnel.tls.pem import isExpired, loadOwnCertificate
from tristunnel.util.files import PathLike, pathText
from tristunnel.util.watch import Reloading

__all__ = ["CreatorInForce", "ReloadingCertificate", "serverTLS"]


@dataclass(frozen=True)
class _Loaded:
    certificate: Certificate
    context: SSL.Context


@implementer(IOpenSSLServerConnectionCreator)
class ReloadingCertificate:
    """
    Shows one certificate, and its successor as soon as that is on the disk.

    Connections that exist keep what they began with.
    """

    _log = Logger()

    def __init__(
        self,
        certificate: PathLike,
        privateKey: PathLike | None = None,
        clientCA: PathLike | None = None,
        clientCRL: PathLike | None = None,
        *,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Load the files.

        @param certificate: A PEM file: the server's certificate, then the
            chain to be sent with it.
        @param privateKey: A PEM file with the private key; C{None} when it is
            in the certificate's file.
        @param clientCA: A PEM file, or a directory of them, with the
            authorities of which a client must show a certificate; C{None}
            when clients need none.
        @param clientCRL: A PEM file, or a directory of them, with lists of
            those that were revoked; C{None} for no lists.
        @param seconds: A clock that counts seconds; the files are looked at
            no more than once in each.
        @raise TunnelError: C{bad-option}, with one line that names the file,
            the cause and the cure.
        """
        self._certificatePath = certificate
        self._privateKeyPath = certificate if privateKey is None else privateKey
        self._clientCAPath = clientCA
        self._clientCRLPath = clientCRL
        watched = [certificate, self._privateKeyPath]
        watched += [path for path in (clientCA, clientCRL) if path is not None]
        self._loaded = Reloading(watched, self._load, seconds)

    def _load(self) -> _Loaded:
        own = loadOwnCertificate(self._certificatePath, self._privateKeyPath)
        clients = loadClientTrust(self._clientCAPath, self._clientCRLPath)
        origin = pathText(self._certificatePath)
        context = serverContext(own, origin, clients)
        if isExpired(own.certificate):
            if self._isGood():
                raise badOption(
                    f"the certificate in {origin} expired on"
                    f" {own.certificate.not_valid_after_utc.date()}, and the one"
                    " before did not: put a valid one there."
                )
            # Not an error: clients that pin the certificate do not mind.
            self._log.warn(
                "The certificate in {path} expired on {date}: renew it, or clients "
                "that do not pin it will refuse it.",
                path=origin,
                date=own.certificate.not_valid_after_utc.date(),
            )
        return _Loaded(own.certificate, context)

    def _isGood(self) -> bool:
        loaded = getattr(self, "_loaded", None)
        return loaded is not None and not isExpired(loaded.current.certificate)

    @property
    def certificate(self) -> Certificate:
        """The certificate in force, without a look at the disk."""
        return self._loaded.current.certificate

    def certificateFor(self, name: str) -> Certificate:
        """The certificate for clients that ask for a name."""
        return self.certificate

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the certificate in force, which clients pin."""
        return fingerprint(self.certificate)

    @property
    def path(self) -> str:
        """The certificate's file."""
        return pathText(self._certificatePath)

    @property
    def context(self) -> SSL.Context:
        """The context that shows the certificate, or its successor."""
        return self._loaded.get().context

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        return SSL.Connection(self.context)


@implementer(IOpenSSLServerConnectionCreator)
class CreatorInForce:
    """
    Makes TLS connections by another creator, which may be replaced while ports are
    open. Existing connections keep what they began with.

    @param creator: The one that makes them now.
    """

    def __init__(self, creator: IOpenSSLServerConnectionCreator) -> None:
        self.creator = creator

    def certificateFor(self, name: str) -> Certificate | None:
        """
        The certificate for clients that ask for a name; C{None} if the creator does not
        know.
        """
        find = getattr(self.creator, "certificateFor", None)
        found: Certificate | None = None if find is None else find(name)
        return found

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        return self.creator.serverConnectionForTLS(tlsProtocol)


def serverTLS(
    creator: IOpenSSLServerConnectionCreator, connection: socket, protocol: Any
) -> SSL.Connection:
    """
    Begin a server's TLS directly on a socket, without Twisted's memory buffer between.

    @param creator: Makes connections for Twisted's TLS; its context is used.
    @param connection: The socket, which does not block.
    @param protocol: Stands for the connection before C{creator} and the choice by ALPN:
        its C{factory} may have a C{wrappedFactory} that negotiates.
    @return: TLS before the handshake.
    """
    context = creator.serverConnectionForTLS(protocol).get_context()
    made = SSL.Connection(context, connection)
    made.set_app_data(protocol)
    made.set_accept_state()
    return made
