"""
The protocol that a peer seems to speak, judged by its first bytes.

Most "wrong first bytes" are an honest mistake in a command line, so the log
line that closes such a connection says which one.
"""

from __future__ import annotations

__all__ = ["HTTP_METHODS", "describeFirstBytes", "looksLikeTLS", "spokenBy"]

HTTP_METHODS = (
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI ",
)
"""The beginnings of HTTP requests."""

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\x16\x03", "a TLS hello"),
    (b"\x15\x03", "a TLS alert"),
    *((method, "an HTTP request") for method in HTTP_METHODS),
    (b"HTTP/", "an HTTP answer"),
    (b"SSH-", "an SSH banner"),
    (b"220 ", "an SMTP or FTP greeting"),
    (b"PROXY ", "a PROXY protocol header"),
    (b"\r\n\r\n\x00\r\nQUIT\n", "a PROXY protocol header"),
    (b"W3PTUNL", "the framed protocol"),
    (b"\x05", "a SOCKS request"),
    (b"\x03\x00\x00", "a remote desktop request"),
)


def describeFirstBytes(data: bytes) -> str:
    """
    Say in a few words what C{data} is the beginning of.

    @param data: The first bytes received; a few are enough.
    """
    if not data:
        return "nothing"
    for beginning, name in _BEGINNINGS:
        if data.startswith(beginning):
            return name
    return f"something unknown ({data[:16]!r})"


def looksLikeTLS(data: bytes) -> bool:
    """Whether C{data} begins a TLS record of a handshake or an alert."""
    return data[:2] in (b"\x16\x03", b"\x15\x03")


def spokenBy(answer: bytes, question: bytes = b"") -> str:
    """
    Tell which protocol a service speaks.

    @param answer: The first bytes that it sends.
    @param question: What it was sent: a browser's TLS hello says that HTTP is meant
        (RFC 7301).
    @return: C{"http"}, C{"https"} or C{"other"}.
    """
    if answer.startswith(b"HTTP/1."):
        return "http"
    if looksLikeTLS(answer) and looksLikeTLS(question) and b"\x08http/1.1" in question:
        return "https"
    return "other"
