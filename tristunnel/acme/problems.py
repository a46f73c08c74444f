"""Refusals by an authority, explained in words that say what to do."""

from __future__ import annotations

from acme import errors, messages
from requests import ConnectionError as NoConnection
from requests import RequestException, Timeout
from requests.exceptions import SSLError

from tristunnel.errors import TunnelError, printable

__all__ = ["AuthorityProblem", "problemOf", "refusalOf"]

_CURES = {
    "rateLimited": "wait, or use fewer names: a wildcard (DNS-01) covers all of a"
    " domain",
    "rejectedIdentifier": "it gives no certificates for this name",
    "caa": "a CAA record of the domain forbids it: add the authority's name there",
    "dns": "make a DNS entry for the name that leads to this server",
    "connection": "let the authority reach port 80 or 443 of this server",
    "unauthorized": "the name leads to another machine, or a proxy before this one"
    " answers in its place",
    "incorrectResponse": "the name leads to another machine, or a proxy before this one"
    " answers in its place",
    "tls": "let the authority reach port 443 of this server, with nothing before it"
    " that ends TLS",
    "invalidContact": "give --acme an e-mail address that receives mail",
    "unsupportedContact": "give --acme an e-mail address that receives mail",
    "externalAccountRequired": "choose another authority with --acme-directory",
    "userActionRequired": "its terms have changed: read them, remove its directory in"
    " accounts/ of the state directory, and start again",
}
"""What to do, by the codes of RFC 8555, section 6.7."""


class AuthorityProblem(TunnelError):
    """
    Why there is no certificate.

    @param retryAfter: Seconds that the authority asks for, or C{None}.
    """

    def __init__(self, message: str, retryAfter: float | None = None) -> None:
        super().__init__("not-permitted", message, retryAfter)


def refusalOf(error: messages.Error) -> str:
    """Explain an authority's error, with the cure."""
    said = printable(str(error.detail or error.title or error.typ), 300)
    code = error.code or str(error.typ).rpartition(":")[2]
    cure = _CURES.get(code, "")
    return f"{said} ({code})" + (f"; {cure}" if cure else "")


def problemOf(
    failure: BaseException, hint: float | None, directory: str
) -> AuthorityProblem:
    """
    Explain why a request failed.

    @param failure: The library's exception.
    @param hint: Seconds after which the authority wants to be asked again.
    @param directory: The URL of the authority's directory.
    """
    if isinstance(failure, messages.Error):
        return AuthorityProblem(refusalOf(failure), hint)
    if isinstance(failure, errors.IssuanceError):
        return AuthorityProblem(refusalOf(failure.error), hint)
    if isinstance(failure, SSLError):
        why = "its certificate is not trusted; give --acme-ca FILE if it is your own"
    elif isinstance(failure, Timeout | errors.TimeoutError):
        why = "no answer in time; it is tried again"
    elif isinstance(failure, NoConnection | RequestException):
        why = (
            f"it cannot be reached ({type(failure).__name__}): correct"
            " --acme-directory, or let this server connect to it, through HTTPS_PROXY"
            " if need be"
        )
    elif isinstance(failure, TunnelError):
        return AuthorityProblem(failure.message, hint)
    else:
        text = printable(str(failure), 200) or type(failure).__name__
        why = f"what it answers is not ACME ({text})"
    return AuthorityProblem(f"{directory}: {why}", hint)
