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
    """
    Write a private key.

    @param key: The key.
    @return: It as PEM, not encrypted.
    """
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificateOf(pem: bytes) -> x509.Certificate:
    """
    Read the first certificate of a PEM text.

    @param pem: The text.
    @return: The certificate.
    """
    return x509.load_pem_x509_certificates(pem)[0]


def _generalName(name: str) -> x509.GeneralName:
    """
    Turn text into a certificate's name.

    @param name: A host name or an IP address.
    @return: The name.
    """
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common: str) -> x509.Name:
    """
    Make a distinguished name.

    @param common: The common name.
    @return: The name.
    """
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@dataclass(frozen=True)
class Authority:
    """
    Something that signs certificates.

    @ivar certificate: Its own certificate.
    @ivar key: Its private key.
    @ivar chain: The certificates that lead from it to its root, itself first
        and the root left out; as PEM.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: bytes = b""

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def write(self, path: Path) -> Path:
        """
        Write its certificate to a file.

        @param path: The file.
        @return: The same path.
        """
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
        """
        Sign a certificate.

        @param names: The host names and IP addresses that it is for.
        @param notAfter: Until when it is valid; a day from now by default.
        @param client: Whether it is for clients instead of servers.
        @param notBefore: Since when it is valid; a day before now, or before
            C{notAfter}, by default.
        @param key: Its private key; a new one by default.
        @param common: The common name where there are no C{names}.
        @return: The certificate, followed by this authority's chain, and the
            private key; both as PEM.
        """
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

    def revoke(
        self, *pems: bytes, until: datetime | None = None, since: datetime | None = None
    ) -> bytes:
        """
        Sign a list of revoked certificates.

        @param pems: The certificates.
        @param until: When the next list is due; in a day by default.
        @param since: From when on the list is good; a day ago by default.
        @return: The list as PEM.
        """
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(since or now - timedelta(days=1))
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

    def intermediate(self, name: str = "intermediate") -> Authority:
        """
        Make an authority below this one.

        @param name: Its common name.
        @return: The new authority.
        """
        made = _make(name, self)
        return Authority(made.certificate, made.key, made.pem + self.chain)


def _make(name: str, issuer: Authority | None) -> Authority:
    """
    Make an authority.

    @param name: Its common name.
    @param issuer: Who signs its certificate; C{None} for itself.
    @return: The authority.
    """
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
    """
    Make a root authority.

    @param name: Its common name.
    @return: The authority.
    """
    return _make(name, None)
