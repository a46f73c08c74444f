"""
HTTP errors in plain words: one line of text, never a page and never a
traceback.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web.resource import Resource
from twisted.web.server import Request

from tristunnel.errors import TunnelError

__all__ = ["BROWSERS", "ErrorText", "errorText", "refusalOf", "refusalText"]

_STATUS = {
    "auth-refused": 401,
    "invitation-unknown": 401,
    "unknown-session": 404,
    "unknown-tunnel": 404,
    "limit-reached": 429,
    "shutting-down": 503,
    "client-away": 503,
    "internal": 500,
}
"""The HTTP statuses of refusals; others have 403."""

_PROGRAMS = ('Bearer realm="tristunnel"', 'Basic realm="tristunnel"')

BROWSERS = ('Basic realm="tristunnel", charset="UTF-8"',)
"""The challenge that makes a browser ask for a password."""


def refusalOf(
    refusal: TunnelError, challenges: Sequence[str] = _PROGRAMS
) -> tuple[int, list[tuple[str, str]]]:
    """
    Put a refusal into HTTP.

    @param challenges: How a sender may log in.
    @return: The status, and headers.
    """
    status = _STATUS.get(refusal.code.name, 403)
    headers = []
    if status == 401:
        headers += [("WWW-Authenticate", challenge) for challenge in challenges]
    if refusal.retryAfter is not None:
        headers.append(("Retry-After", str(max(1, round(refusal.retryAfter)))))
    return status, headers


def refusalText(
    request: Request, refusal: TunnelError, challenges: Sequence[str] = _PROGRAMS
) -> bytes:
    """
    Answer a request with a refusal.

    @param challenges: How its sender may log in.
    @return: The body to write.
    """
    status, headers = refusalOf(refusal, challenges)
    for name, value in headers:
        request.responseHeaders.addRawHeader(name, value)
    return errorText(request, status, refusal.message)


def errorText(request: Request, code: int, message: str) -> bytes:
    """
    Make an answer to C{request} an error.

    @param code: The HTTP status.
    @param message: One line for people, without a line end.
    @return: The body to write.
    """
    request.setResponseCode(code)
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    request.setHeader("Cache-Control", "no-store")
    request.setHeader("X-Content-Type-Options", "nosniff")
    if request.method == b"HEAD":
        return b""
    return message.encode("utf-8", "replace") + b"\n"


class ErrorText(Resource):
    """
    Answers everything with one error.

    @param code: The HTTP status.
    @param message: One line for people.
    """

    isLeaf = True

    def __init__(self, code: int, message: str) -> None:
        super().__init__()
        self._code = code
        self._message = message

    def render(self, request: Request) -> bytes:
        return errorText(request, self._code, self._message)
