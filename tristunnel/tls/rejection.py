"""
Why a peer did not get through our side of TLS, in one line for the log.
"""

from __future__ import annotations

from OpenSSL import SSL
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError
from tristunnel.tls.contexts import opensslReasons

__all__ = ["whyNoTLS"]

_EXPLANATIONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("peer did not return a certificate",),
        "the client showed no certificate, and --client-ca asks for one;"
        " it is given one with --certificate FILE --private-key FILE",
    ),
    (
        ("client certificate: revoked",),
        "the client's certificate was revoked, says --client-crl",
    ),
    (
        ("client certificate: ",),
        "the client's certificate cannot be looked up in --client-crl"
        " ({reason}): get a new list of its issuer",
    ),
    (
        ("certificate verify failed",),
        "the client's certificate is not of an authority in --client-ca",
    ),
    (
        (
            "alert unknown ca",
            "alert bad certificate",
            "alert certificate",
            "alert unsupported certificate",
        ),
        "the client does not accept this server's certificate ({reason}); it can"
        " be given --pin or --ca",
    ),
    (
        ("unsupported protocol", "version too low", "alert protocol version"),
        "the peer and this server have no TLS version in common",
    ),
    (
        (
            "http request",
            "wrong version number",
            "record layer failure",
            "packet length too long",
            "unknown protocol",
            "unexpected message",
        ),
        "the peer spoke no TLS, and this port has it; a client is to connect with"
        " tls: instead of tcp:",
    ),
)
"""What OpenSSL's reasons have in them, and what to say then."""


def whyNoTLS(failure: Failure) -> TunnelError | None:
    """
    Explain the end of a connection that got no further than TLS.

    @param failure: What C{connectionLost} was given.
    @return: C{protocol-error}, or C{None} if TLS was not the reason.
    """
    if not isinstance(failure.value, SSL.Error):
        return None
    reason = opensslReasons(failure.value)
    lowered = reason.lower()
    for needles, explanation in _EXPLANATIONS:
        if any(needle in lowered for needle in needles):
            return TunnelError("protocol-error", explanation.format(reason=reason))
    return TunnelError("protocol-error", f"the TLS handshake failed ({reason})")
