"""Why TLS with a peer failed, in one line with the cure."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError
from tristunnel.tls.client_context import CertificateRefused, ServerVerification
from tristunnel.tls.contexts import opensslReasons

__all__ = ["explainTLSFailure", "whyNoTLS"]

_WANTS_CERTIFICATE = (
    "{host} requires a certificate of this client: give --certificate FILE, and "
    "--private-key FILE unless it is in the same."
)
_MAY_WANT_CERTIFICATE = (
    "{host} ended the TLS handshake; it probably requires a certificate of this "
    "client: give --certificate FILE, and --private-key FILE unless it is in the same."
)
_SILENT = (
    "{host} closed the connection before it showed a certificate: if it does not "
    "use TLS on this port, write tcp:{host}:{port} instead of tls:{host}:{port}."
)
_CERTIFICATE_UNLOVED = (
    "{host} does not accept the certificate of this client ({reason}): show one "
    "that is valid and signed by an authority of the server's client CA file."
)

# What OpenSSL's reasons have in them, by what it means.
_CERTIFICATE_REFUSED = (
    *("alert unknown ca", "alert bad certificate", "alert certificate"),
    *("alert unsupported certificate", "alert access denied"),
)
_NO_VERSION = (
    *("alert protocol version", "unsupported protocol", "no protocols available"),
    "version too low",
)
_NO_TLS = (
    *("wrong version number", "record layer failure", "packet length too long"),
    *("http request", "unknown protocol", "unexpected message", "not a tls"),
)

_Table = tuple[tuple[tuple[str, ...], str], ...]

_OF_SERVERS: _Table = (
    (("alert certificate required", "alert no certificate"), _WANTS_CERTIFICATE),
    (_CERTIFICATE_REFUSED, _CERTIFICATE_UNLOVED),
    (
        _NO_VERSION,
        "{host} and this client have no TLS version in common: the server must speak "
        "TLS 1.2 or 1.3.",
    ),
    (
        _NO_TLS,
        "{host} does not use TLS on this port: write tcp:{host}:{port} instead of "
        "tls:{host}:{port}, or name the port that does.",
    ),
    (
        ("alert unrecognized name",),
        "{host} has no certificate for that name: connect to a name that it serves.",
    ),
)

_OF_CLIENTS: _Table = (
    (
        ("peer did not return a certificate",),
        "the client showed no certificate, and --client-ca asks for one;"
        " start it with --certificate FILE --private-key FILE",
    ),
    (
        ("client certificate: revoked",),
        "the client's certificate was revoked (--client-crl)",
    ),
    (
        ("client certificate: ",),
        "the client's certificate cannot be looked up in --client-crl"
        " ({reason}): get a new list of its issuer",
    ),
    (
        ("certificate verify failed",),
        "the client's certificate is not signed by an authority in --client-ca",
    ),
    (
        _CERTIFICATE_REFUSED,
        "the client does not accept this server's certificate ({reason}); it can"
        " be given --pin or --ca",
    ),
    (_NO_VERSION, "the peer and this server have no TLS version in common"),
    (
        _NO_TLS,
        "the peer did not use TLS, which this port requires; connect with"
        " tls: instead of tcp:",
    ),
)


def _explained(table: _Table, reason: str) -> str:
    lowered = reason.lower()
    for needles, explanation in table:
        if any(needle in lowered for needle in needles):
            return explanation
    return ""


def explainTLSFailure(
    failure: Failure, hostname: str, creator: object, port: int = 0
) -> str | None:
    """
    Explain why a connection over TLS failed or was lost.

    @param failure: What C{connectionLost} or an endpoint reported.
    @param hostname: The server's name, as the user wrote it.
    @param creator: What made the connection: a L{ServerVerification} knows
        more than the failure does.
    @param port: The server's port, for examples; 0 if it is not known.
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
        return _SILENT.format(host=hostname, port=port or "PORT")
    reason = opensslReasons(value)
    if explanation := _explained(_OF_SERVERS, reason):
        return explanation.format(host=hostname, port=port or "PORT", reason=reason)
    if "alert handshake failure" in reason.lower():
        if verification is not None and verification.hasCertificate:
            return _CERTIFICATE_UNLOVED.format(host=hostname, reason=reason)
        # TLS 1.2 has only this alert for a missing certificate.
        return _MAY_WANT_CERTIFICATE.format(host=hostname)
    if not reason:
        return None
    return f"The TLS handshake with {hostname} failed: {reason}."


def whyNoTLS(failure: Failure) -> TunnelError | None:
    """
    Explain the end of a connection that got no further than TLS.

    @param failure: What C{connectionLost} was given.
    @return: C{protocol-error}, or C{None} if TLS was not the reason.
    """
    if not isinstance(failure.value, SSL.Error):
        return None
    reason = opensslReasons(failure.value)
    explanation = (
        _explained(_OF_CLIENTS, reason) or "the TLS handshake failed ({reason})"
    )
    return TunnelError("protocol-error", explanation.format(reason=reason))
