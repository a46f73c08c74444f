"""
Why a server's certificate is not acceptable, and what to do about it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.x509 import Certificate
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate

from tristunnel.tls.pem import alternativeNames, certificateNames
from tristunnel.util.files import PathLike, pathText
from tristunnel.util.hosts import parseHost
from tristunnel.util.words import printable

__all__ = [
    "CertificateRefused",
    "chainRefusal",
    "digestOf",
    "nameRefusal",
    "pinRefusal",
]

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
"""The ways in which OpenSSL says that nobody trusted signed the certificate."""

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


def digestOf(certificate: X509) -> str:
    """
    Give the fingerprint of a certificate that OpenSSL shows.

    @param certificate: The certificate.
    @return: 64 lower-case hexadecimal digits.
    """
    # From the bytes, because even a certificate that is not understood here
    # can be pinned.
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


def pinRefusal(hostname: str, seen: str, pins: Sequence[bytes]) -> CertificateRefused:
    """
    Say that the server's certificate is none of the pinned ones.

    @param hostname: The server.
    @param seen: The fingerprint of its certificate.
    @param pins: The digests that were expected.
    @return: The error to raise.
    """
    expected = " or ".join(pin.hex() for pin in pins)
    return CertificateRefused(
        "pin",
        f"The certificate of {hostname} has the fingerprint {seen}, but {expected} "
        f"is pinned: if the server has a new certificate, compare the fingerprint "
        f"there and write --pin {seen}; else this is not your server.",
        seen,
    )


def nameRefusal(
    hostname: str, certificate: Certificate, seen: str
) -> CertificateRefused:
    """
    Say that the server's certificate is for other names.

    @param hostname: The server, by the name that was meant.
    @param certificate: Its certificate.
    @param seen: The certificate's fingerprint.
    @return: The error to raise.
    """
    if not alternativeNames(certificate) and certificateNames(certificate):
        kind = "DNS" if isinstance(parseHost(hostname), str) else "IP"
        return CertificateRefused(
            "name",
            f"The server's certificate has a name only in its common name "
            f"({_listNames(certificate)}), which no longer counts: issue it anew with "
            f"subjectAltName={kind}:{hostname}, or write --pin {seen}.",
            seen,
        )
    return CertificateRefused(
        "name",
        f"The server's certificate is for {_listNames(certificate)}, not for "
        f"{hostname}: connect to a name that it is for, or write --pin {seen}.",
        seen,
    )


def chainRefusal(
    hostname: str,
    certificate: X509,
    error: int,
    depth: int,
    seen: str | None,
    trustRoots: PathLike | None,
) -> CertificateRefused:
    """
    Say what OpenSSL dislikes about the server's chain.

    @param hostname: The server.
    @param certificate: The certificate that is disliked.
    @param error: Why.
    @param depth: 0 for the server's own certificate.
    @param seen: The fingerprint of the server's own certificate, if known.
    @param trustRoots: The file of what is trusted; C{None} for the platform.
    @return: The error to raise.
    """
    pin = f"--pin {seen or 'SHA256'}"
    if error in _NO_TRUST:
        trusted = (
            "this machine trusts"
            if trustRoots is None
            else f"is in {pathText(trustRoots)}"
        )
        itself = (
            " but by itself" if error == _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT else ""
        )
        return CertificateRefused(
            "issuer",
            f"The certificate of {hostname} is not signed by an authority that "
            f"{trusted}{itself}; its fingerprint is {seen or 'not known'}: if that is "
            f"your server's, write {pin}, or name its authority with --ca FILE.",
            seen,
        )
    whose = (
        f"The certificate of {hostname}"
        if depth == 0
        else f"A certificate in the chain of {hostname}"
    )
    if error == _Codes.ERR_CERT_HAS_EXPIRED:
        until = certificate.to_cryptography().not_valid_after_utc
        return CertificateRefused(
            "expired",
            f"{whose} expired on {until:%Y-%m-%d %H:%M} UTC: renew it on the server, "
            f"or correct this machine's clock, or write {pin}.",
            seen,
        )
    if error == _Codes.ERR_CERT_NOT_YET_VALID:
        since = certificate.to_cryptography().not_valid_before_utc
        return CertificateRefused(
            "not-yet-valid",
            f"{whose} is not valid before {since:%Y-%m-%d %H:%M} UTC: correct this "
            f"machine's clock or the server's, or write {pin}.",
            seen,
        )
    return CertificateRefused(
        "other",
        f"{whose} is not acceptable ({_codeName(error)}): give the server another "
        f"one, or write {pin}.",
        seen,
    )
