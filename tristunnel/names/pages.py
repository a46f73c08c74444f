"""
Answers to visitors who cannot be served: a page for browsers, a line for programs.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tristunnel.errors import TunnelError, badOption
from tristunnel.wire.http_answer import HTML, htmlPage, phraseOf, wholeResponse

__all__ = ["FORMS", "Pages", "loadPages", "statusOf", "textOf"]

STATUSES = (400, 403, 404, 405, 408, 414, 429, 431, 500, 501, 502, 503, 504, 505)
"""The statuses that have a page."""

_LONGEST = 256 * 1024

_STATUS = {
    "not-permitted": 403,
    "limit-reached": 503,
    "client-away": 503,
    "session-lost": 503,
    "displaced": 503,
    "shutting-down": 503,
    "closed": 503,
    "expired": 503,
    "unknown-tunnel": 404,
    "service-timeout": 504,
}

_TEXTS = {
    502: "The service behind this name does not answer; it may be down.",
    503: "The machine behind this name is not connected now; try again later.",
    504: "The service behind this name took too long to answer.",
}
"""What visitors are told in place of what the owner is told, who may know more: where
the service is."""

_NOT_HTTP = "The service behind this name answers in something that is not proper HTTP."


def textOf(refusal: TunnelError) -> str:
    """Find what a visitor is told of a refusal."""
    if refusal.code.name == "protocol-error":
        return _NOT_HTTP
    isFull = refusal.code.name == "limit-reached"
    return refusal.message if isFull else _TEXTS.get(statusOf(refusal), refusal.message)


def statusOf(refusal: TunnelError) -> int:
    """Find the status for a refusal; 502 for a problem of a service."""
    name = refusal.code.name
    if name == "limit-reached" and refusal.retryAfter is not None:
        # This is about what a visitor has done, and not about what the tunnel can do.
        return 429
    return _STATUS.get(name, 502)


@dataclass(frozen=True)
class Pages:
    """
    @ivar own: The operator's pages, by their status.
    @ivar signIn: The operator's page for visitors who are to sign in, which has
        L{FORMS} in it; empty for ours.
    """

    own: Mapping[int, bytes] = field(default_factory=dict)
    signIn: bytes = b""

    def response(
        self,
        status: int,
        text: str,
        accept: bytes = b"",
        headers: bytes = b"",
        withBody: bool = True,
    ) -> bytes:
        """
        Write a whole response, behind which the connection is closed.

        @param text: What is the matter, in a sentence.
        @param accept: What the visitor wants to have.
        @param headers: Lines to be added.
        @param withBody: Whether it answers anything but a HEAD.
        """
        title = f"{status} {phraseOf(status)}"
        if b"text/html" not in accept:
            body = f"{title}: {text}\n".encode()
            return wholeResponse(status, body, headers, withBody=withBody)
        page = self.own.get(status) or htmlPage(title, f"<p>{html.escape(text)}</p>")
        return wholeResponse(status, page, headers, HTML, withBody)


FORMS = b"<!-- sign-in -->"
"""Where the forms are in the operator's own page for signing in."""


def loadPages(directory: str) -> Pages:
    """
    Read the operator's pages.

    @param directory: With C{404.html}, C{502.html}, C{503.html} and others, and
        C{sign-in.html}; those that are missing are ours.
    @raise TunnelError: C{bad-option}, if one cannot be read or is too long.
    """
    if not directory:
        return Pages()
    place = Path(directory)
    if not place.is_dir():
        raise badOption(f"--error-pages {directory!r} is not a directory")
    found = {status: _page(place / f"{status}.html") for status in STATUSES}
    signIn = _page(place / "sign-in.html")
    if signIn and FORMS not in signIn:
        raise badOption(
            f"{place / 'sign-in.html'} does not say where its forms are: write"
            f" {FORMS.decode('ascii')} there"
        )
    return Pages({status: page for status, page in found.items() if page}, signIn)


def _page(path: Path) -> bytes:
    if not path.exists():
        return b""
    try:
        with path.open("rb") as file:
            page = file.read(_LONGEST + 1)
    except OSError as error:
        raise badOption(f"{path} cannot be read: {error.strerror}") from None
    if len(page) > _LONGEST:
        raise badOption(f"{path} is longer than {_LONGEST // 1024} KiB")
    return page
