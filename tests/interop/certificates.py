"""A certificate for C{localhost}, made when a test needs it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)


@dataclass(frozen=True)
class Certificate:
    """
    A self-signed certificate, which is also its own authority.

    @ivar key: the file of the private key, PEM.
    @ivar cert: the file of the certificate, PEM.
    @ivar trust: a directory with nothing but the certificate, to be trusted.
    """

    key: Path
    cert: Path
    trust: Path


def makeCertificate(directory: Path) -> Certificate:
    """
    Write a new key and certificate for C{localhost} and 127.0.0.1.

    @param directory: where to write; it must exist.
    """
    trust = directory / "trust"
    trust.mkdir()
    made = Certificate(directory / "key.pem", trust / "cert.pem", trust)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    made.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    made.cert.write_bytes(cert.public_bytes(Encoding.PEM))
    return made
