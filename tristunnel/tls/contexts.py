"""
The one TLS policy of the project, for both ends, and which client certificates a server
accepts: those by its authorities that are not revoked.

TLS 1.2 and newer, ephemeral keys and authenticated encryption only, no
compression, no renegotiation and no resumed sessions: with resumption a
certificate would be looked at only once, and pins and client certificates
rely on every handshake showing one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.x509 import Certificate, CertificateRevocationList, load_pem_x509_crl
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol

from tristunnel.errors import badOption
from tristunnel.tls.pem import OwnCertificate, loadAuthorities, pemFiles, readFile
from tristunnel.util.files import PathLike, pathText

__all__ = [
    "ClientTrust",
    "VerifyCallback",
    "acceptableProtocols",
    "clientContext",
    "loadClientTrust",
    "opensslReasons",
    "serverContext",
]

VerifyCallback = Callable[[SSL.Connection, X509, int, int, int], bool]
"""Verifies one certificate: connection, certificate, error number, depth, and whether
OpenSSL accepts it."""

# SSL_OP_NO_RENEGOTIATION, which pyOpenSSL has no name for.
_NO_RENEGOTIATION = 1 << 30

# For TLS 1.2; the suites of TLS 1.3 are all good. Without !aNULL a server
# would not have to show a certificate.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"


CRL_SUFFIXES = (".pem", ".crl")
"""The suffixes of files with lists, in a directory."""

_log = Logger()

_BLOCK = re.compile(
    rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL | re.ASCII
)

# OpenSSL's numbers, of which pyOpenSSL has the texts alone.
_REASONS = {
    3: "no list for the issuer",
    8: "list with a wrong signature",
    11: "list from the future",
    12: "list out of date",
    23: "revoked certificate",
    44: "no list for the issuer",
}


@dataclass(frozen=True)
class ClientTrust:
    """
    What is required of a client's certificate.

    @ivar authorities: The authorities that may have signed it; empty if clients need
        none.
    @ivar revocations: Lists of revoked certificates. Once there is one, certificates by
        an issuer without a list of its own are refused.
    """

    authorities: Sequence[Certificate] = ()
    revocations: Sequence[CertificateRevocationList] = ()

    def apply(self, context: SSL.Context) -> None:
        """Make a server's context require it."""
        if not self.authorities:
            return
        store = context.get_cert_store()
        assert store is not None
        # An intermediate authority will do: it was named on purpose.
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
    """Give the reason, where OpenSSL would only say that it failed."""
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
                    f"{file} has a damaged list in it: get it again."
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
    Load what is required of clients' certificates.

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


def opensslReasons(error: SSL.Error) -> str:
    """
    Read the reasons in an error of OpenSSL.

    @param error: The error.
    @return: Its reasons, joined by semicolons; perhaps none.
    """
    entries = error.args[0] if error.args else ()
    if not isinstance(entries, list | tuple):
        return ""
    return "; ".join(
        str(entry[-1]) for entry in entries if isinstance(entry, tuple) and entry
    )


def _policy() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(
        SSL.OP_NO_COMPRESSION
        | SSL.OP_CIPHER_SERVER_PREFERENCE
        | SSL.OP_NO_TICKET
        | _NO_RENEGOTIATION
    )
    # An idle connection gives its buffers back; a tunnel has many of those.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # OpenSSL wants one as soon as client certificates are asked for.
    context.set_session_id(secrets.token_bytes(16))
    context.set_cipher_list(_CIPHERS)
    return context


def _show(context: SSL.Context, own: OwnCertificate, origin: str) -> None:
    try:
        context.use_certificate(own.certificate)
        context.use_privatekey(own.privateKey)
        for each in own.chain:
            context.add_extra_chain_cert(each)
        context.check_privatekey()
    except SSL.Error as error:
        raise badOption(
            f"{origin} is refused by OpenSSL ({opensslReasons(error)}): make a new "
            f"certificate, with an EC P-256 key or an RSA key of 2048 bits or more."
        ) from None


def _trust(context: SSL.Context, authorities: Sequence[Certificate]) -> None:
    store = context.get_cert_store()
    assert store is not None
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    for each in authorities:
        store.add_cert(X509.from_cryptography(each))


def acceptableProtocols(protocol: TLSMemoryBIOProtocol) -> list[bytes]:
    """
    Ask the factory behind a TLS connection which protocols it speaks.

    @param protocol: The TLS connection.
    @return: ALPN names in order of preference, perhaps none.
    """
    negotiation = IProtocolNegotiationFactory(protocol.factory.wrappedFactory, None)
    return [] if negotiation is None else list(negotiation.acceptableProtocols())


def _selectProtocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    for name in acceptableProtocols(connection.get_app_data()):
        if name in offered:
            return name
    return SSL.NO_OVERLAPPING_PROTOCOLS  # type: ignore[return-value] # or this


def serverContext(
    own: OwnCertificate,
    origin: str,
    clients: ClientTrust | None = None,
    chooseName: Callable[[SSL.Connection], None] | None = None,
) -> SSL.Context:
    """
    Make a server's context.

    @param own: The certificate to show to clients.
    @param origin: The file that is from, for messages.
    @param clients: Which certificates clients must show, if any.
    @param chooseName: Called when a client asks for a server name; may switch
        the connection to another context.
    @return: A new context.
    @raise TunnelError: C{bad-option}, when OpenSSL refuses the certificate.
    """
    context = _policy()
    _show(context, own, origin)
    if clients is not None:
        clients.apply(context)
    if chooseName is not None:
        context.set_tlsext_servername_callback(chooseName)
    context.set_alpn_select_callback(_selectProtocol)
    return context


def clientContext(
    verify: VerifyCallback,
    mode: int,
    authorities: Sequence[Certificate] | None = None,
    own: OwnCertificate | None = None,
    origin: str = "",
) -> SSL.Context:
    """
    Make a client's context.

    @param verify: Judges the server's certificates.
    @param mode: C{VERIFY_PEER}, or C{VERIFY_NONE} when the result is not to be
        enforced.
    @param authorities: What to trust; C{None} for what the platform trusts.
    @param own: The certificate to show to a server that asks for one.
    @param origin: The file that is from, for messages.
    @return: A new context.
    @raise TunnelError: C{bad-option}, when OpenSSL refuses the certificate.
    """
    context = _policy()
    if authorities is None:
        context.set_default_verify_paths()
    else:
        _trust(context, authorities)
    if own is not None:
        _show(context, own, origin)
    context.set_verify(mode, verify)
    return context
