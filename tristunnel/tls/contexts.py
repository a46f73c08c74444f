"""
The one TLS policy of the project, for both ends.

TLS 1.2 and newer, ephemeral keys and authenticated encryption only, no
compression, no renegotiation and no resumed sessions: with resumption a
certificate would be looked at only once, and pins and client certificates
rely on every handshake showing one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from cryptography.x509 import Certificate
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.protocols.tls import TLSMemoryBIOProtocol

from tristunnel.errors import badOption
from tristunnel.tls.client_trust import ClientTrust
from tristunnel.tls.pem import Identity

__all__ = [
    "VerifyCallback",
    "acceptableProtocols",
    "clientContext",
    "opensslReasons",
    "serverContext",
]

VerifyCallback = Callable[[SSL.Connection, X509, int, int, int], bool]
"""Judges one certificate: connection, certificate, error number, depth, and
whether OpenSSL is content with it."""

# SSL_OP_NO_RENEGOTIATION, which pyOpenSSL has no name for.
_NO_RENEGOTIATION = 1 << 30

# For TLS 1.2; the suites of TLS 1.3 are all good. Without !aNULL a server
# would not have to show a certificate.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"


def opensslReasons(error: SSL.Error) -> str:
    """
    Say what OpenSSL said.

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


def _show(context: SSL.Context, identity: Identity, origin: str) -> None:
    try:
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.privateKey)
        for each in identity.chain:
            context.add_extra_chain_cert(each)
        context.check_privatekey()
    except SSL.Error as error:
        raise badOption(
            f"{origin} is refused by OpenSSL ({opensslReasons(error)}): make a new "
            f"certificate, with an EC P-256 key or an RSA key of 2048 bits or more."
        ) from None


def _trust(context: SSL.Context, authorities: Sequence[Certificate]) -> None:
    """Make a context trust certificates, and nothing else."""
    store = context.get_cert_store()
    assert store is not None
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    for each in authorities:
        store.add_cert(X509.from_cryptography(each))


def acceptableProtocols(protocol: TLSMemoryBIOProtocol) -> list[bytes]:
    """
    Ask the factory behind a TLS connection what it speaks.

    @param protocol: The TLS connection.
    @return: ALPN names in order of preference, perhaps none.
    """
    negotiation = IProtocolNegotiationFactory(protocol.factory.wrappedFactory, None)
    return [] if negotiation is None else list(negotiation.acceptableProtocols())


def _selectProtocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    for name in acceptableProtocols(connection.get_app_data()):
        if name in offered:
            return name
    return SSL.NO_OVERLAPPING_PROTOCOLS  # type: ignore[return-value]


def serverContext(
    identity: Identity,
    origin: str,
    clients: ClientTrust | None = None,
    chooseName: Callable[[SSL.Connection], None] | None = None,
) -> SSL.Context:
    """
    Make a server's context.

    @param identity: What to show to clients.
    @param origin: The file that is from, for messages.
    @param clients: Which certificates clients must show, if any.
    @param chooseName: Called when a client asks for a server name; may switch
        the connection to another context.
    @return: A new context.
    @raise TunnelError: C{bad-option}, when OpenSSL refuses the certificate.
    """
    context = _policy()
    _show(context, identity, origin)
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
    identity: Identity | None = None,
    origin: str = "",
) -> SSL.Context:
    """
    Make a client's context.

    @param verify: Judges the server's certificates.
    @param mode: C{VERIFY_PEER}, or C{VERIFY_NONE} when the judgement is not to
        be obeyed.
    @param authorities: What to trust; C{None} for what the platform trusts.
    @param identity: What to show to a server that asks for it.
    @param origin: The file that is from, for messages.
    @return: A new context.
    @raise TunnelError: C{bad-option}, when OpenSSL refuses the certificate.
    """
    context = _policy()
    if authorities is None:
        context.set_default_verify_paths()
    else:
        _trust(context, authorities)
    if identity is not None:
        _show(context, identity, origin)
    context.set_verify(mode, verify)
    return context
