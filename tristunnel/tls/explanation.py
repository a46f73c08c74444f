"""
Why a TLS connection to a server failed, in one line with the cure.
"""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from tristunnel.tls.client_context import CertificateRefused, ServerVerification
from tristunnel.tls.contexts import opensslReasons

__all__ = ["explainTLSFailure"]

_NO_TLS = (
    "{host} speaks no TLS on this port: write tcp:{host}:PORT instead of "
    "tls:{host}:PORT, or name the port that has TLS."
)
_WANTS_CERTIFICATE = (
    "{host} requires a certificate of this client: give --certificate FILE, and "
    "--private-key FILE unless it is in the same."
)
_MAY_WANT_CERTIFICATE = (
    "{host} ended the TLS handshake; it probably requires a certificate of this "
    "client: give --certificate FILE, and --private-key FILE unless it is in the same."
)
_SILENT = (
    "{host} closed the connection before it showed a certificate: if it speaks no "
    "TLS on this port, write tcp:{host}:PORT instead of tls:{host}:PORT."
)
_CERTIFICATE_UNLOVED = (
    "{host} does not accept the certificate of this client ({reason}): show one "
    "that is valid and signed by an authority of the server's client CA file."
)
_VERSION = (
    "{host} and this client have no TLS version in common: the server must speak "
    "TLS 1.2 or 1.3."
)

_EXPLANATIONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("alert certificate required", "alert no certificate"), _WANTS_CERTIFICATE),
    (
        (
            "alert unknown ca",
            "alert bad certificate",
            "alert certificate expired",
            "alert certificate revoked",
            "alert certificate unknown",
            "alert unsupported certificate",
            "alert access denied",
        ),
        _CERTIFICATE_UNLOVED,
    ),
    (
        (
            "alert protocol version",
            "unsupported protocol",
            "no protocols available",
            "version too low",
        ),
        _VERSION,
    ),
    (
        (
            "wrong version number",
            "record layer failure",
            "packet length too long",
            "http request",
            "unknown protocol",
            "not a tls",
        ),
        _NO_TLS,
    ),
    (
        ("alert unrecognized name",),
        "{host} has no certificate for that name: connect to a name that it serves.",
    ),
)
"""What OpenSSL's reasons have in them, and what to say then."""

_HANDSHAKE_FAILURE = "alert handshake failure"


def explainTLSFailure(failure: Failure, hostname: str, creator: object) -> str | None:
    """
    Explain why a connection over TLS failed or was lost.

    @param failure: What C{connectionLost} or an endpoint reported.
    @param hostname: The server's name, as the user wrote it.
    @param creator: What made the connection: a L{ServerVerification} knows
        more than the failure does.
    @return: One line with the cause and the cure, or C{None} when the failure
        has nothing to do with TLS or nothing is known about it.
    """
    value = failure.value
    if isinstance(value, CertificateRefused):
        return value.message
    verification = creator if isinstance(creator, ServerVerification) else None
    if not isinstance(value, SSL.Error | ConnectionClosed):
        return None
    if verification is not None and verification.refusal is not None:
        return verification.refusal.message
    if isinstance(value, ConnectionClosed):
        # A server that never showed a certificate did not get far in TLS; our
        # own closes a plain port at the first byte that it does not like.
        if verification is None or not verification.attempts or verification.seen:
            return None
        return _SILENT.format(host=hostname)
    reason = opensslReasons(value)
    lowered = reason.lower()
    for needles, explanation in _EXPLANATIONS:
        if any(needle in lowered for needle in needles):
            return explanation.format(host=hostname, reason=reason)
    if _HANDSHAKE_FAILURE in lowered:
        if verification is not None and verification.hasCertificate:
            return _CERTIFICATE_UNLOVED.format(host=hostname, reason=reason)
        # TLS 1.2 has only this alert for a missing certificate.
        return _MAY_WANT_CERTIFICATE.format(host=hostname)
    if not reason:
        return None
    return f"The TLS handshake with {hostname} failed: {reason}."
