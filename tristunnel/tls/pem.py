"""
Certificates and private keys from PEM files.

Whatever is wrong with a file is said in one line with the file's name, the
cause and the cure, because the reader of that line has only the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import (
    Certificate,
    DNSName,
    ExtensionNotFound,
    IPAddress,
    SubjectAlternativeName,
    load_pem_x509_certificate,
)
from cryptography.x509.oid import NameOID

from tristunnel.errors import TunnelError, badOption
from tristunnel.util.files import PathLike, pathText, warnIfOpen, withoutMark

__all__ = [
    "CERTIFICATE_SUFFIXES",
    "MAXIMUM_FILE_SIZE",
    "OwnCertificate",
    "PrivateKey",
    "alternativeNames",
    "certificateNames",
    "certificatesIn",
    "isExpired",
    "keysIn",
    "loadAuthorities",
    "loadCertificates",
    "loadOwnCertificate",
    "loadPrivateKey",
    "pemFiles",
    "readFile",
    "samePublicKey",
]

PrivateKey = (
    EllipticCurvePrivateKey | Ed448PrivateKey | Ed25519PrivateKey | RSAPrivateKey
)
"""The kinds of private key that a TLS certificate can have."""

MAXIMUM_FILE_SIZE = 4 * 1024 * 1024
"""The most bytes of a PEM file; a system's bundle has about 250,000."""

CERTIFICATE_SUFFIXES = frozenset({".pem", ".crt", ".cer"})
"""The suffixes of the files that are read in a directory of authorities."""

_KEY_BLOCK = re.compile(
    rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL
)
_CERTIFICATE_BLOCK = re.compile(
    rb"-----BEGIN ((?:X509 )?CERTIFICATE)-----.*?-----END \1-----", re.DOTALL
)


def readFile(path: PathLike) -> bytes:
    """
    Read a whole PEM file.

    @param path: The file.
    @return: Its bytes, at most L{MAXIMUM_FILE_SIZE} of them.
    @raise TunnelError: C{bad-option}, when it is missing, may not be read, is not a
        file or is too large.
    """
    path = pathText(path)
    try:
        # A pipe would block for ever, so look before opening.
        found = os.stat(path)
        if not S_ISREG(found.st_mode):
            raise badOption(f"{path} is not a file: name the PEM file itself.")
        if found.st_size > MAXIMUM_FILE_SIZE:
            raise badOption(
                f"{path} is too large to be a PEM file ({found.st_size} bytes): "
                f"name a file of at most {MAXIMUM_FILE_SIZE} bytes."
            )
        with open(path, "rb") as file:
            return withoutMark(file.read(MAXIMUM_FILE_SIZE))
    except FileNotFoundError:
        raise badOption(
            f"{path} does not exist: correct the path, or create the file."
        ) from None
    except PermissionError:
        raise badOption(
            f"{path} cannot be read: permission denied; let the user that runs "
            f"this program (uid {getattr(os, 'geteuid', int)()}) read it."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise badOption(f"{path} cannot be read: {reason}.") from None


def _notPEM(path: PathLike, data: bytes, wanted: str) -> TunnelError:
    path = pathText(path)
    if not data.strip():
        return badOption(f"{path} is empty: write the {wanted} into it.")
    if data[:1] == b"\x30":
        tool = "x509" if wanted == "certificate" else "pkey"
        return badOption(
            f"{path} is not PEM but looks like DER: convert it with "
            f"'openssl {tool} -inform DER -in {path} -out FILE.pem'."
        )
    if b"-----BEGIN " in data:
        return badOption(
            f"{path} has no {wanted} in it: name the file that has the {wanted}."
        )
    return badOption(
        f"{path} is not PEM: name a file with '-----BEGIN {wanted.upper()}-----' in it."
    )


def certificatesIn(path: PathLike, data: bytes) -> tuple[Certificate, ...]:
    """
    Find the certificates in a PEM file's bytes.

    @param path: The file, for messages.
    @param data: The bytes.
    @return: All certificates in the file's order, perhaps none.
    @raise TunnelError: C{bad-option}, when one of them is damaged.
    """
    try:
        return tuple(
            load_pem_x509_certificate(block.group())
            for block in _CERTIFICATE_BLOCK.finditer(data)
        )
    except (ValueError, UnsupportedAlgorithm):
        raise badOption(
            f"{pathText(path)} has a damaged certificate in it: get the file again."
        ) from None


def keysIn(path: PathLike, data: bytes) -> tuple[PrivateKey, ...]:
    """
    Find the private keys in a PEM file's bytes.

    @param path: The file, for messages.
    @param data: The bytes.
    @return: All keys in the file's order, perhaps none.
    @raise TunnelError: C{bad-option}, when one of them is encrypted, damaged
        or of a kind that TLS does not use.
    """
    path = pathText(path)
    keys: list[PrivateKey] = []
    for block in _KEY_BLOCK.finditer(data):
        try:
            key = load_pem_private_key(block.group(), None)
        except TypeError:
            raise badOption(
                f"{path} has an encrypted private key, and nobody is there to type "
                f"the passphrase: write it decrypted with 'openssl pkey -in {path} "
                f"-out FILE.pem'."
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise badOption(
                f"{path} has a damaged private key in it: get the file again."
            ) from None
        if not isinstance(key, PrivateKey):
            raise badOption(
                f"{path} has a private key that TLS cannot use: make an EC, Ed25519 "
                f"or RSA key."
            )
        keys.append(key)
    return tuple(keys)


def loadCertificates(path: PathLike) -> tuple[Certificate, ...]:
    """
    Load all certificates of a PEM file.

    @param path: The file.
    @return: At least one certificate, in the file's order.
    @raise TunnelError: C{bad-option}, when there is none or the file cannot be
        used.
    """
    data = readFile(path)
    certificates = certificatesIn(path, data)
    if not certificates:
        raise _notPEM(path, data, "certificate")
    return certificates


def loadPrivateKey(path: PathLike) -> PrivateKey:
    """
    Load the first private key of a PEM file.

    @param path: The file, which may hold certificates as well.
    @return: The key.
    @raise TunnelError: C{bad-option}, when there is none or the file cannot be
        used.
    """
    data = readFile(path)
    keys = keysIn(path, data)
    if not keys:
        raise _notPEM(path, data, "private key")
    # Keys are often shared with a group on purpose.
    warnIfOpen(path, os.stat(pathText(path)).st_mode & 0o007, "a private key")
    return keys[0]


def pemFiles(path: Path, suffixes: Container[str]) -> list[Path]:
    """
    Find the PEM files that a path names.

    @param path: A file, or a directory with such files.
    @param suffixes: How those are called, in lower case.
    @return: The files, sorted.
    @raise TunnelError: C{bad-option}, when the directory cannot be read.
    """
    if not path.is_dir():
        return [path]
    try:
        return sorted(
            each
            for each in path.iterdir()
            if each.suffix.lower() in suffixes and each.is_file()
        )
    except OSError as error:
        raise badOption(f"{path} cannot be read: {error.strerror}.") from None


def loadAuthorities(path: PathLike) -> tuple[Certificate, ...]:
    """
    Load the certificates to trust from a file or a directory.

    @param path: A PEM file, or a directory whose files with one of
        L{CERTIFICATE_SUFFIXES} are PEM files.
    @return: At least one certificate.
    @raise TunnelError: C{bad-option}, when there is none or a file cannot be
        used.
    """
    path = Path(pathText(path))
    if not path.is_dir():
        return loadCertificates(path)
    found = tuple(
        certificate
        for file in pemFiles(path, CERTIFICATE_SUFFIXES)
        for certificate in certificatesIn(file, readFile(file))
    )
    if not found:
        raise badOption(
            f"{path} has no certificates in it: put PEM files that end in .pem or "
            f".crt there, or name a file."
        )
    return found


def _encoded(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def samePublicKey(certificate: Certificate, key: PrivateKey) -> bool:
    """
    Tell whether a private key is the one of a certificate.

    @param certificate: The certificate.
    @param key: The private key.
    @return: Whether they belong together.
    """
    try:
        return _encoded(certificate.public_key()) == _encoded(key.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return False


def alternativeNames(certificate: Certificate) -> tuple[str, ...]:
    """
    List the names that count when a server is verified.

    @param certificate: The certificate.
    @return: Its DNS names in lower case and its IP addresses.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(
            SubjectAlternativeName
        )
    except (ExtensionNotFound, ValueError):
        return ()
    names = extension.value.get_values_for_type(DNSName)
    addresses = extension.value.get_values_for_type(IPAddress)
    return (*(name.lower() for name in names), *map(str, addresses))


def certificateNames(certificate: Certificate) -> tuple[str, ...]:
    """
    List the names that a certificate is for.

    @param certificate: The certificate.
    @return: Its L{alternativeNames}; the common name when it has none, which
        no client of today looks at.
    """
    if names := alternativeNames(certificate):
        return names
    try:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return ()
    return tuple(str(each.value).lower() for each in common[:1])


def isExpired(certificate: Certificate) -> bool:
    """
    Tell whether a certificate's time is over.

    @param certificate: The certificate.
    @return: Whether it was valid only until some time in the past.
    """
    return certificate.not_valid_after_utc < datetime.now(UTC)


@dataclass(frozen=True)
class OwnCertificate:
    """
    The certificate that one end of a TLS connection shows to the other.

    @ivar certificate: Its own certificate.
    @ivar privateKey: The key that belongs to it.
    @ivar chain: The certificates of the authorities between it and a root, to
        be sent along.
    """

    certificate: Certificate
    privateKey: PrivateKey
    chain: Sequence[Certificate] = ()


def loadOwnCertificate(
    certificatePath: PathLike, keyPath: PathLike | None = None
) -> OwnCertificate:
    """
    Load a certificate, its chain and its private key.

    @param certificatePath: A PEM file with the certificate first and its chain
        after it.
    @param keyPath: A PEM file with the private key; C{None} when that is in
        the certificate's file.
    @return: All three.
    @raise TunnelError: C{bad-option}, when a file cannot be used or the two do
        not belong together.
    """
    keyPath = certificatePath if keyPath is None else keyPath
    certificates = loadCertificates(certificatePath)
    key = loadPrivateKey(keyPath)
    first, *rest = certificates
    if not samePublicKey(first, key):
        if any(samePublicKey(each, key) for each in rest):
            raise badOption(
                f"{pathText(certificatePath)} has its certificates in the wrong "
                f"order: put the one that belongs to the private key first."
            )
        raise badOption(
            f"{pathText(keyPath)} has a private key that does not match the "
            f"certificate in {pathText(certificatePath)}: name two files that "
            f"belong together."
        )
    return OwnCertificate(first, key, tuple(rest))
