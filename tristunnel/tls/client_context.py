"""
The client's side of TLS: verifying that this is the right server.

This happens inside the handshake, so that a wrong server never gets a byte from the
application, least of all the credentials.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence

from cryptography.x509 import Certificate
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from tristunnel.errors import badOption, printable
from tristunnel.tls.contexts import acceptableProtocols, clientContext
from tristunnel.tls.pem import (
    alternativeNames,
    certificateNames,
    loadAuthorities,
    loadOwnCertificate,
)
from tristunnel.util.files import PathLike, pathText
from tristunnel.util.hosts import parseHost
from tristunnel.util.watch import Reloading
from tristunnel.wire.invitation import PIN_BYTES

__all__ = ["CertificateRefused", "ServerVerification"]


_Codes = SSL.X509VerificationCodes

_NO_TRUST = frozenset(
    {
        _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT,
        _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
        _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN,
        _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        _Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        _Codes.ERR_CERT_UNTRUSTED,
    }
)
"""The errors of OpenSSL for a certificate that nobody trusted has signed."""

_SHOWN_NAMES = 10
_SHOWN_LENGTH = 100


class CertificateRefused(SSL.Error):
    """
    A server's certificate is not acceptable.

    It looks like one of OpenSSL's own errors, so that it travels through
    Twisted's TLS to C{connectionLost} as they do.

    @ivar kind: C{"pin"}, C{"issuer"}, C{"name"}, C{"expired"},
        C{"not-yet-valid"} or C{"other"}.
    @ivar message: One line with the cause and the cure.
    @ivar fingerprint: That of the certificate that was seen, if it is known.
    """

    def __init__(self, kind: str, message: str, fingerprint: str | None) -> None:
        # Twisted looks into the first argument for (library, function, reason).
        super().__init__([("tristunnel", "", message)])
        self.kind = kind
        self.message = message
        self.fingerprint = fingerprint

    def __str__(self) -> str:
        return self.message


@implementer(IOpenSSLClientConnectionCreator)
class ServerVerification:
    """
    Makes a client's TLS connections to one server, and verifies its certificate.

    @ivar hostname: The name or address that the certificate must have.
    @ivar hasCertificate: Whether this client has a certificate to show.
    @ivar attempts: How many connections were made.
    @ivar seen: The fingerprint of the certificate that was seen last, or
        C{None} when no server ever showed one.
    @ivar isVouchedFor: Whether authorities that the platform trusts vouch for that
        certificate and name; known only for pins with C{asksAuthorities}.
    @ivar refusal: Why the newest connection's certificate was refused, or
        C{None}.
    """

    _log = Logger()

    onSockets = True
    """Whether TLS can be made directly on a socket."""

    def __init__(
        self,
        hostname: str,
        *,
        trustRoots: PathLike | None = None,
        pins: Sequence[bytes] = (),
        asksAuthorities: bool = False,
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
        @param pins: SHA-256 digests of certificates, 32 bytes each, or as much of
            them as an invitation has. The server must show one of these; who signed
            it, its name and its age then do not matter.
        @param asksAuthorities: Whether to find out nevertheless if authorities vouch
            for it.
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
        if not all(len(pin) in (32, PIN_BYTES) for pin in pins):
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
        self.isVouchedFor = False
        self.refusal: CertificateRefused | None = None
        self._host = host
        self._trustRoots = trustRoots
        self._pins = tuple(pins)
        self._asksAuthorities = asksAuthorities
        self._insecure = insecure
        self._certificate = certificate
        self._privateKey = privateKey
        paths = [
            path for path in (trustRoots, certificate, privateKey) if path is not None
        ]
        self._context = Reloading(paths, self._load, seconds)

    def _load(self) -> SSL.Context:
        authorities = own = None
        if self._trustRoots is not None:
            authorities = loadAuthorities(self._trustRoots)
        elif self._insecure or (self._pins and not self._asksAuthorities):
            authorities = ()
        if self._certificate is not None:
            own = loadOwnCertificate(self._certificate, self._privateKey)
        return clientContext(
            self._verify,
            SSL.VERIFY_NONE if self._insecure else SSL.VERIFY_PEER,
            authorities,
            own,
            "" if self._certificate is None else pathText(self._certificate),
        )

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        self.attempts += 1
        self.refusal = None
        self.isVouchedFor = self._asksAuthorities
        # Asked of the type: a layer of Twisted would ask the transport below it.
        below = None
        if getattr(type(tlsProtocol), "takesTLS", False):
            below = tlsProtocol.connection
        connection = SSL.Connection(self._context.get(), below)
        connection.set_connect_state()
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
                self.seen = _digestOf(certificate)
            if self._insecure:
                return True
            if self._pins:
                # The pinned certificate is right whoever signed it, whatever
                # it is called and however old it is.
                if depth == 0:
                    self._checkPin(_digestOf(certificate))
                self._ask(certificate, depth, ok)
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
                f"The certificate of {self.hostname} cannot be read: give the "
                f"server another one.",
                self.seen,
            )
            raise self.refusal from None
        return True

    def _checkPin(self, seen: str) -> None:
        digest = bytes.fromhex(seen)
        # All are compared, so that the time taken reveals nothing.
        matches = [hmac.compare_digest(digest[: len(p)], p) for p in self._pins]
        if any(matches):
            return
        raise _pinRefusal(self.hostname, seen, self._pins)

    def _ask(self, certificate: X509, depth: int, ok: int) -> None:
        """Find out what the result would be without pins."""
        if not ok:
            self.isVouchedFor = False
        elif depth == 0 and self.isVouchedFor:
            try:
                self._checkName(certificate)
            except CertificateRefused:
                self.isVouchedFor = False

    def _checkName(self, certificate: X509) -> None:
        own = certificate.to_cryptography()
        try:
            if isinstance(self._host, str):
                verify_certificate_hostname(own, self._host)
            else:
                verify_certificate_ip_address(own, str(self._host))
        except (VerificationError, CertificateError):
            raise _nameRefusal(self.hostname, own, _digestOf(certificate)) from None

    def _chainRefusal(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int
    ) -> CertificateRefused:
        own: X509 | None = certificate
        if depth > 0:
            chain = connection.get_peer_cert_chain()
            own = chain[0] if chain else None
        seen = None if own is None else _digestOf(own)
        if seen is not None:
            self.seen = seen
        kind, message = _chainProblem(
            self.hostname, certificate, error, depth, seen, self._trustRoots
        )
        return CertificateRefused(kind, message, seen)


def _digestOf(certificate: X509) -> str:
    # From the bytes: even a certificate that is not understood here can be pinned.
    return hashlib.sha256(dump_certificate(FILETYPE_ASN1, certificate)).hexdigest()


def _listNames(certificate: Certificate) -> str:
    names = certificateNames(certificate)
    shown = [printable(name, _SHOWN_LENGTH) for name in names[:_SHOWN_NAMES]]
    if len(names) > _SHOWN_NAMES:
        shown.append(f"{len(names) - _SHOWN_NAMES} more")
    return ", ".join(shown) or "no name at all"


def _codeName(error: int) -> str:
    for name, number in vars(_Codes).items():
        if name.startswith("ERR_") and number == error:
            return name.removeprefix("ERR_").replace("_", " ").lower()
    return f"error {error}"


def _pinRefusal(hostname: str, seen: str, pins: Sequence[bytes]) -> CertificateRefused:
    expected = " or ".join(pin.hex() for pin in pins)
    return CertificateRefused(
        "pin",
        f"The certificate of {hostname} has the fingerprint {seen}, but {expected} "
        f"is pinned: if the server has a new certificate, compare the fingerprint "
        f"there and write --pin {seen}; otherwise, this is not your server.",
        seen,
    )


def _nameRefusal(
    hostname: str, certificate: Certificate, seen: str
) -> CertificateRefused:
    if not alternativeNames(certificate) and certificateNames(certificate):
        kind = "DNS" if isinstance(parseHost(hostname), str) else "IP"
        return CertificateRefused(
            "name",
            f"The server's certificate has a name only in its common name "
            f"({_listNames(certificate)}), which is no longer accepted: issue it again"
            " with "
            f"subjectAltName={kind}:{hostname}, or write --pin {seen}.",
            seen,
        )
    return CertificateRefused(
        "name",
        f"The server's certificate is for {_listNames(certificate)}, not for "
        f"{hostname}: connect to one of its names, or write --pin {seen}.",
        seen,
    )


def _chainProblem(
    hostname: str,
    certificate: X509,
    error: int,
    depth: int,
    seen: str | None,
    trustRoots: PathLike | None,
) -> tuple[str, str]:
    """Find the kind of OpenSSL's problem with the chain, and the words for it."""
    pin = f"--pin {seen or 'SHA256'}"
    if error in _NO_TRUST:
        trusted = (
            "this machine trusts"
            if trustRoots is None
            else f"is in {pathText(trustRoots)}"
        )
        issuer = (
            "self-signed, and not known here"
            if error == _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT
            else f"not signed by an authority that {trusted}"
        )
        return (
            "issuer",
            f"The certificate of {hostname} is {issuer}; its fingerprint is "
            f"{seen or 'not known'}: if that is your server's, write {pin}, or name "
            f"its authority with --ca FILE.",
        )
    whose = (
        f"The certificate of {hostname}"
        if depth == 0
        else f"A certificate in the chain of {hostname}"
    )
    if error == _Codes.ERR_CERT_HAS_EXPIRED:
        until = certificate.to_cryptography().not_valid_after_utc
        return (
            "expired",
            f"{whose} expired on {until:%Y-%m-%d %H:%M} UTC: renew it on the server, "
            f"or correct this machine's clock, or write {pin}.",
        )
    if error == _Codes.ERR_CERT_NOT_YET_VALID:
        since = certificate.to_cryptography().not_valid_before_utc
        return (
            "not-yet-valid",
            f"{whose} is not valid before {since:%Y-%m-%d %H:%M} UTC: correct this "
            f"machine's clock or the server's, or write {pin}.",
        )
    return (
        "other",
        f"{whose} is not acceptable ({_codeName(error)}): give the server another "
        f"one, or write {pin}.",
    )
