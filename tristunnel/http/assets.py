"""
What pages for browsers share: the headers that limit what a page may do, and the files
that belong to it.
"""

from __future__ import annotations

from twisted.web.resource import Resource
from twisted.web.server import Request

__all__ = ["Asset", "protect"]

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    b" connect-src 'self'; form-action 'self'; base-uri 'none';"
    b" frame-ancestors 'none'"
)


def protect(request: Request) -> None:
    """Have a browser run nothing but our own files, and not store the answer."""
    for name, value in (
        (b"Content-Security-Policy", _POLICY),
        (b"X-Frame-Options", b"DENY"),
        (b"X-Content-Type-Options", b"nosniff"),
        # Not no-referrer, with which browsers post forms without an Origin.
        (b"Referrer-Policy", b"same-origin"),
        (b"Cross-Origin-Resource-Policy", b"same-origin"),
        (b"Cross-Origin-Opener-Policy", b"same-origin"),
        (b"Cache-Control", b"no-store"),
    ):
        request.setHeader(name, value)


class Asset(Resource):
    """
    A file that belongs to pages; the same for everybody.

    @param data: Its content.
    @param kind: Its content type.
    """

    isLeaf = True

    def __init__(self, data: bytes, kind: bytes) -> None:
        super().__init__()
        self._data = data
        self._kind = kind

    def render_GET(self, request: Request) -> bytes:
        protect(request)
        request.setHeader(b"Content-Type", self._kind)
        # It is asked for again each time, so that it fits the page of an updated
        # program.
        request.setHeader(b"Cache-Control", b"no-cache")
        return self._data
