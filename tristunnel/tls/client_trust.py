"""
Which clients' certificates a server takes: those of its authorities, less those
that were revoked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.x509 import Certificate, CertificateRevocationList, load_pem_x509_crl
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.logger import Logger

from tristunnel.errors import badOption
from tristunnel.tls.pem import loadAuthorities, pemFiles, readFile
from tristunnel.util.files import PathLike, pathText

__all__ = ["ClientTrust", "loadClientTrust"]

CRL_SUFFIXES = (".pem", ".crl")
"""How files with lists are called, in a directory."""

_log = Logger()

_BLOCK = re.compile(
    rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL | re.ASCII
)

# OpenSSL's numbers, of which pyOpenSSL has the texts alone.
_REASONS = {
    3: "no list for the issuer",
    8: "list with a wrong signature",
    11: "list of the future",
    12: "list out of date",
    23: "revoked certificate",
    44: "no list for the issuer",
}


@dataclass(frozen=True)
class ClientTrust:
    """
    What is asked of a client's certificate.

    @ivar authorities: Who may have signed it; nobody, if clients need none.
    @ivar revocations: Lists of those that are good no more. Once there is one,
        an issuer without a list of its own vouches for nobody.
    """

    authorities: Sequence[Certificate] = ()
    revocations: Sequence[CertificateRevocationList] = ()

    def apply(self, context: SSL.Context) -> None:
        """Have a server's context ask for it."""
        if not self.authorities:
            return
        store = context.get_cert_store()
        assert store is not None
        # An intermediate authority will do, because whoever names it means it.
        flags = X509StoreFlags.PARTIAL_CHAIN
        for each in self.authorities:
            store.add_cert(X509.from_cryptography(each))
            context.add_client_ca(each)
        for revoked in self.revocations:
            store.add_crl(revoked)
            flags |= X509StoreFlags.CRL_CHECK
        store.set_flags(flags)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _judge)


def _judge(
    connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int
) -> bool:
    """Say why, where OpenSSL would say that it failed and no more."""
    if not ok and error in _REASONS:
        raise SSL.Error([("", "", f"client certificate: {_REASONS[error]}")])
    return bool(ok)


def loadRevocations(path: PathLike) -> tuple[CertificateRevocationList, ...]:
    """
    Load lists of revoked certificates.

    @param path: A PEM file, or a directory whose files with one of
        L{CRL_SUFFIXES} are PEM files.
    @return: At least one list.
    @raise TunnelError: C{bad-option}, when there is none or a file cannot be
        used.
    """
    path = Path(pathText(path))
    found: list[CertificateRevocationList] = []
    for file in pemFiles(path, CRL_SUFFIXES):
        for block in _BLOCK.finditer(readFile(file)):
            try:
                found.append(load_pem_x509_crl(block.group()))
            except ValueError:
                raise badOption(
                    f"{file} has a damaged list in it: get it anew."
                ) from None
    if not found:
        raise badOption(
            f"{path} has no list of revoked certificates in it: write one as PEM, with"
            " 'openssl crl -inform DER -in LIST -out FILE.pem' if need be."
        )
    for each in found:
        until = each.next_update_utc
        if until is not None and until < datetime.now(UTC):
            _log.error(
                "{path}: the list of {issuer} is out of date since {until}, so its"
                " clients are refused: get a new one.",
                path=str(path),
                issuer=each.issuer.rfc4514_string(),
                until=until.date(),
            )
    return tuple(found)


def loadClientTrust(
    authorities: PathLike | None, revocations: PathLike | None = None
) -> ClientTrust:
    """
    Load what is asked of clients' certificates.

    @param authorities: As for L{loadAuthorities}; C{None} when clients need no
        certificate.
    @param revocations: As for L{loadRevocations}; C{None} for no lists.
    @raise TunnelError: C{bad-option}, when a file cannot be used.
    """
    if authorities is None:
        return ClientTrust()
    return ClientTrust(
        loadAuthorities(authorities),
        () if revocations is None else loadRevocations(revocations),
    )
