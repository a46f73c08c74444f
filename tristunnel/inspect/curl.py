"""
A request as a command for C{curl}.
"""

from __future__ import annotations

from base64 import b64encode
from shlex import quote

from tristunnel.inspect.exchange import Exchange
from tristunnel.inspect.masks import maskedForm, maskedHeader, maskedTarget

__all__ = ["curlOf", "urlOf"]

_OF_CONNECTION = frozenset(
    (
        *(b"connection", b"content-length", b"expect", b"host", b"keep-alive"),
        *(b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    )
)
"""Headers that are about a connection, and that C{curl} writes itself."""


def _isOurs(name: bytes) -> bool:
    """Whether a header is one that the server puts into each request."""
    return name in _OF_CONNECTION or name.startswith((b"x-forwarded-", b"forwarded"))


def urlOf(exchange: Exchange, reveal: bool) -> str:
    """The URL that a visitor asked for."""
    head = exchange.asked
    isSecure = head.get(b"x-forwarded-proto").strip().lower() == b"https"
    target = head.target.decode("utf-8", "replace")
    shown = target if reveal else maskedTarget(target)
    path = shown if shown.startswith("/") else ""
    return f"http{'s' if isSecure else ''}://{head.host.decode('latin-1')}{path}"


def curlOf(exchange: Exchange, reveal: bool) -> str:
    """
    Write the command that asks for the same, in the words of a POSIX shell.

    @param reveal: Whether secrets are in it.
    """
    head, part = exchange.asked, exchange.request
    method = head.method.decode("latin-1")
    words = ["curl", "-i", "--globoff", "--path-as-is"]
    if method == "HEAD":
        words.append("--head")
    elif method != ("POST" if part.size else "GET"):
        words += ["-X", quote(method)]
    for lower, name, value in head.headers:
        if not _isOurs(lower):
            shown = value.decode("utf-8", "replace")
            told = name.decode("latin-1")
            shown = shown if reveal else maskedHeader(told, shown)
            words += ["-H", quote(f"{told}: {shown}" if shown else f"{told};")]
    before = ""
    if part.size:
        before, data = _data(exchange, reveal)
        words += ["--data-binary", data]
        if not head.get(b"content-type"):
            words += ["-H", "Content-Type:"]
    return f"{before}{' '.join(words)} {quote(urlOf(exchange, reveal))}"


def _data(exchange: Exchange, reveal: bool) -> tuple[str, str]:
    """What feeds C{curl} a body, and how it is told of that."""
    body = bytes(exchange.request.kept)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    isText = bool(text) and "\0" not in text and not text.startswith("@")
    if not isText:
        return f"printf %s {b64encode(body).decode('ascii')} | base64 -d | ", "@-"
    kind = exchange.asked.get(b"content-type").lower()
    if not reveal and kind.startswith(b"application/x-www-form-urlencoded"):
        text = maskedForm(text)
    return "", quote(text)
