"""
HTTP errors in plain words: one line of text, never a page and never a
traceback.
"""

from __future__ import annotations

from twisted.web.resource import Resource
from twisted.web.server import Request

__all__ = ["ErrorText", "errorText"]


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
    """

    isLeaf = True

    def __init__(self, code: int, message: str) -> None:
        """
        @param code: The HTTP status.
        @param message: One line for people.
        """
        super().__init__()
        self._code = code
        self._message = message

    def render(self, request: Request) -> bytes:
        """
        Answer with the error.
        """
        return errorText(request, self._code, self._message)
