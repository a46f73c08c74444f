"""
The client's side of TLS: is this the server that was meant?

The answer is found inside the handshake, so that a wrong server never gets a
byte of the application, least of all the credentials.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence

from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from tristunnel.errors import badOption
from tristunnel.tls.contexts import acceptableProtocols, clientContext
from tristunnel.tls.pem import (
    loadAuthorities,
    loadIdentity,
)
from tristunnel.tls.refusal import (
    CertificateRefused,
    chainRefusal,
    digestOf,
    nameRefusal,
    pinRefusal,
)
from tristunnel.tls.watch import Reloading
from tristunnel.util.files import PathLike, pathText
from tristunnel.util.hosts import parseHost

__all__ = ["CertificateRefused", "ServerVerification"]


@implementer(IOpenSSLClientConnectionCreator)
class ServerVerification:
    """
    Makes a client's TLS connections to one server, and judges its certificate.

    @ivar hostname: The name or address that the certificate must have.
    @ivar hasCertificate: Whether this client has a certificate to show.
    @ivar attempts: How many connections were made.
    @ivar seen: The fingerprint of the certificate that was seen last, or
        C{None} when no server ever showed one.
    @ivar refusal: Why the newest connection's certificate was refused, or
        C{None}.
    """

    _log = Logger()

    def __init__(
        self,
        hostname: str,
        *,
        trustRoots: PathLike | None = None,
        pins: Sequence[bytes] = (),
        insecure: bool = False,
        certificate: PathLike | None = None,
        privateKey: PathLike | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Say which server is the right one.

        Without options: one whose certificate is for C{hostname} and signed by an
        authority that the platform trusts. Files are looked at again for later
        connections, at most once per second.

        @param hostname: The server's name or IP address.
        @param trustRoots: A PEM file, or a directory of them, with the only
            certificates to trust; the name is verified nevertheless.
        @param pins: SHA-256 digests of certificates, 32 bytes each. The server
            must show one of these; who signed it, its name and its age then do not
            matter.
        @param insecure: Whether to accept any server at all.
        @param certificate: A PEM file with this client's own certificate.
        @param privateKey: A PEM file with its private key; C{None} when that is in
            the certificate's file.
        @param seconds: A clock that counts seconds.
        @raise TunnelError: C{bad-option}, when options contradict each other or a
            file cannot be used.
        """
        host = parseHost(hostname)
        if host is None:
            raise badOption(
                f"{hostname[:100]!r} is neither a host name nor an IP address."
            )
        if insecure and (pins or trustRoots is not None):
            raise badOption(
                "'insecure' verifies nothing, so it contradicts --pin and --ca: "
                "leave it out."
            )
        if any(len(pin) != hashlib.sha256().digest_size for pin in pins):
            raise badOption("A pin is the SHA-256 of a certificate: 32 bytes.")
        if privateKey is not None and certificate is None:
            raise badOption(
                f"{pathText(privateKey)} is a private key without a certificate: "
                f"name that too."
            )
        self.hostname = hostname
        self.hasCertificate = certificate is not None
        self.attempts = 0
        self.seen: str | None = None
        self.refusal: CertificateRefused | None = None
        self._host = host
        self._trustRoots = trustRoots
        self._pins = tuple(pins)
        self._insecure = insecure
        self._certificate = certificate
        self._privateKey = privateKey
        paths = [
            path for path in (trustRoots, certificate, privateKey) if path is not None
        ]
        self._context = Reloading(paths, self._load, seconds)

    def _load(self) -> SSL.Context:
        authorities = identity = None
        if self._trustRoots is not None:
            authorities = loadAuthorities(self._trustRoots)
        elif self._pins or self._insecure:
            authorities = ()
        if self._certificate is not None:
            identity = loadIdentity(self._certificate, self._privateKey)
        return clientContext(
            self._verify,
            SSL.VERIFY_NONE if self._insecure else SSL.VERIFY_PEER,
            authorities,
            identity,
            "" if self._certificate is None else pathText(self._certificate),
        )

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        self.attempts += 1
        self.refusal = None
        connection = SSL.Connection(self._context.get())
        if isinstance(self._host, str):
            # Addresses are not allowed there.
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        if protocols := acceptableProtocols(tlsProtocol):
            connection.set_alpn_protos(protocols)
        return connection

    def _verify(
        self,
        connection: SSL.Connection,
        certificate: X509,
        error: int,
        depth: int,
        ok: int,
    ) -> bool:
        """
        Judge one certificate of the chain that the server showed.

        OpenSSL asks for every certificate, from the root down to the server's
        own, and once more for each thing that it dislikes. An exception ends
        the handshake with an alert and comes out of C{do_handshake}, because
        this is the callback of the context.

        @param connection: The connection.
        @param certificate: The certificate.
        @param error: What OpenSSL dislikes.
        @param depth: 0 for the server's own certificate.
        @param ok: 0 when OpenSSL dislikes something.
        @return: C{True}.
        @raise CertificateRefused: When the certificate is not acceptable.
        """
        try:
            if depth == 0:
                self.seen = digestOf(certificate)
            if self._insecure:
                return True
            if self._pins:
                # The pinned certificate is right whoever signed it, whatever
                # it is called and however old it is.
                if depth == 0:
                    self._checkPin(digestOf(certificate))
                return True
            if not ok:
                raise self._chainRefusal(connection, certificate, error, depth)
            if depth == 0:
                self._checkName(certificate)
        except CertificateRefused as refusal:
            self.refusal = refusal
            raise
        except Exception:
            self._log.failure(
                "While judging the certificate of {host}", host=self._host
            )
            self.refusal = CertificateRefused(
                "other",
                f"The certificate of {self.hostname} cannot be understood: give the "
                f"server another one.",
                self.seen,
            )
            raise self.refusal from None
        return True

    def _checkPin(self, seen: str) -> None:
        digest = bytes.fromhex(seen)
        # All of them, so that the time taken tells nothing.
        matches = [hmac.compare_digest(digest, pin) for pin in self._pins]
        if any(matches):
            return
        raise pinRefusal(self.hostname, seen, self._pins)

    def _checkName(self, certificate: X509) -> None:
        own = certificate.to_cryptography()
        try:
            if isinstance(self._host, str):
                verify_certificate_hostname(own, self._host)
            else:
                verify_certificate_ip_address(own, str(self._host))
        except (VerificationError, CertificateError):
            raise nameRefusal(self.hostname, own, digestOf(certificate)) from None

    def _chainRefusal(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int
    ) -> CertificateRefused:
        own: X509 | None = certificate
        if depth > 0:
            chain = connection.get_peer_cert_chain()
            own = chain[0] if chain else None
        seen = None if own is None else digestOf(own)
        if seen is not None:
            self.seen = seen
        return chainRefusal(
            self.hostname, certificate, error, depth, seen, self._trustRoots
        )
