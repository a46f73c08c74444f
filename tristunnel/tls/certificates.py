"""Self-signed certificates, and fingerprints by which people recognize them."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tristunnel.errors import badOption
from tristunnel.tls.pem import loadCertificates
from tristunnel.util.files import PathLike, pathText, writeNewSecret
from tristunnel.util.hosts import parseHost

__all__ = [
    "FILE_NAME",
    "VALID_DAYS",
    "fingerprint",
    "fingerprintOfFile",
    "parseFingerprint",
    "selfSigned",
]

FILE_NAME = "server.pem"
"""The file that L{selfSigned} makes, which Twisted's C{ssl:} expects too."""

VALID_DAYS = 825
"""The days for which a self-signed certificate is valid: the longest time
that every platform accepts."""

_PREFIX = re.compile(r"sha-?256(?: fingerprint)?[:=]", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){31}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=?")
_SHOWN = 100


def fingerprint(certificate: x509.Certificate) -> str:
    """
    Give the name by which a certificate is pinned.

    @param certificate: The certificate.
    @return: The SHA-256 of its DER encoding, 64 lower-case hexadecimal digits.
    """
    return certificate.fingerprint(SHA256()).hex()


def fingerprintOfFile(path: PathLike) -> str:
    """
    Give the fingerprint of the first certificate in a PEM file.

    @param path: The file.
    @return: 64 lower-case hexadecimal digits.
    @raise TunnelError: C{bad-option}, when there is no certificate in it.
    """
    return fingerprint(loadCertificates(path)[0])


def parseFingerprint(text: str) -> bytes:
    """
    Read a fingerprint in any of the ways in which programs write them.

    @param text: 64 hexadecimal digits, with colons between the bytes or
        without, or the base64 of the 32 bytes; C{sha256:} may come first, or
        what C{openssl x509 -fingerprint -sha256} puts there.
    @return: The 32 bytes.
    @raise TunnelError: C{bad-option}, when it is none of these.
    """
    # A fingerprint has at most 95 characters; do not search in megabytes.
    clipped = text.strip()[: 2 * _SHOWN]
    bare = _PREFIX.sub("", clipped, count=1) if _PREFIX.match(clipped) else clipped
    bare = bare.strip()
    if _HEX.fullmatch(bare):
        return bytes.fromhex(bare.replace(":", ""))
    if _BASE64.fullmatch(bare):
        try:
            return base64.b64decode(bare.rstrip("=") + "=", validate=True)
        except binascii.Error:  # pragma: no cover
            pass
    raise badOption(
        f"{clipped[:_SHOWN]!r} is not the SHA-256 fingerprint of a certificate: "
        f"write 64 hexadecimal digits, with or without colons."
    )


def _generalName(name: str) -> x509.GeneralName:
    host = parseHost(name)
    if host is None:
        raise badOption(
            f"{name[:_SHOWN]!r} is neither a host name nor an IP address: a "
            f"certificate cannot be made for it."
        )
    return x509.DNSName(host) if isinstance(host, str) else x509.IPAddress(host)


def _make(hostnames: Sequence[str]) -> bytes:
    names = list(dict.fromkeys(_generalName(name) for name in hostnames))
    if not names:
        raise badOption(
            "A certificate needs a name: give at least one host name or address."
        )
    key = ec.generate_private_key(ec.SECP256R1())
    # A common name has at most 64 characters; nothing looks at it anyway.
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, str(names[0].value)[:64])]
    )
    # The clock of the other side may be behind.
    start = datetime.now(UTC) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .sign(key, SHA256())
    )
    return key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ) + certificate.public_bytes(Encoding.PEM)


def selfSigned(directory: PathLike, hostnames: Sequence[str]) -> Path:
    """
    Make sure that there is a certificate: C{server.pem}, with its private key.

    A file that is there already is left alone, whatever is in it.

    @param directory: Where to put it; made when it does not exist.
    @param hostnames: The names and IP addresses that it is for.
    @return: The path of the file.
    @raise TunnelError: C{bad-option}, when a name is wrong or the file cannot
        be written.
    """
    path = Path(pathText(directory)) / FILE_NAME
    if os.path.lexists(path):
        return path
    data = _make(hostnames)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        writeNewSecret(path, data)
    except OSError as error:
        raise badOption(
            f"{path} cannot be written ({error.strerror}): name a directory that "
            f"this program may write to, or name a certificate."
        ) from None
    return path
