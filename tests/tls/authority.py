"""Certificates for tests, made when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
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

__all__ = ["Authority", "certificateOf", "keyPEM", "makeAuthority"]


def keyPEM(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificateOf(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pem)[0]


def _generalName(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@dataclass(frozen=True)
class Authority:
    """Something that signs certificates."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: bytes = b""

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.pem)
        return path

    def issue(
        self,
        names: Sequence[str],
        notAfter: datetime | None = None,
        client: bool = False,
        notBefore: datetime | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        common: str = "nobody",
    ) -> tuple[bytes, bytes]:
        now = datetime.now(UTC)
        notAfter = now + timedelta(days=1) if notAfter is None else notAfter
        if notBefore is None:
            notBefore = min(now, notAfter) - timedelta(days=1)
        key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
        usage = (
            ExtendedKeyUsageOID.CLIENT_AUTH
            if client
            else ExtendedKeyUsageOID.SERVER_AUTH
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(names[0][:64] if names else common))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(notBefore)
            .not_valid_after(notAfter)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_generalName(name) for name in names]),
                critical=False,
            )
        pem = builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM)
        return pem + self.chain, keyPEM(key)

    def revoke(self, *pems: bytes, until: datetime | None = None) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - timedelta(days=1))
            .next_update(until or now + timedelta(days=1))
        )
        for pem in pems:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificateOf(pem).serial_number)
                .revocation_date(now - timedelta(hours=1))
                .build()
            )
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM)

    def intermediate(self) -> Authority:
        made = _make("intermediate", self)
        return Authority(made.certificate, made.key, made.pem + self.chain)


def _make(name: str, issuer: Authority | None) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = _name(name)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=365))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key if issuer is None else issuer.key, SHA256())
    )
    return Authority(certificate, key)


def makeAuthority(name: str = "test authority") -> Authority:
    return _make(name, None)
