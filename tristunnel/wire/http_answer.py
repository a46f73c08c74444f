"""
Answers of our own where no service answers a request: whole HTTP responses, and a plain
page for people.
"""

from __future__ import annotations

import html
from http import HTTPStatus

__all__ = ["HTML", "htmlPage", "phraseOf", "wholeResponse"]

HTML = b"text/html; charset=utf-8"
_TEXT = b"text/plain; charset=utf-8"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 1.1em/1.5 system-ui, sans-serif; max-width: {width}em; margin: 15vh auto;
  padding: 0 1em; color: #222; background: #fff }}
h1 {{ font-size: 1.5em; overflow-wrap: anywhere }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #1b1b1b }} }}
{style}</style>
<h1>{title}</h1>
{body}
</html>
"""


def htmlPage(title: str, body: str, style: str = "", width: int = 36) -> bytes:
    """
    Write a page that loads nothing else.

    @param title: Text.
    @param body: What follows the title, in HTML.
    @param style: More CSS, with a line end.
    @param width: The width of the column, in ems.
    """
    shown = html.escape(title)
    return _PAGE.format(title=shown, body=body, style=style, width=width).encode()


def phraseOf(status: int) -> str:
    """
    The phrase of a status.

    @raise ValueError: If there is no such status.
    """
    return HTTPStatus(status).phrase


def wholeResponse(
    status: int,
    body: bytes,
    headers: bytes = b"",
    kind: bytes = _TEXT,
    withBody: bool = True,
) -> bytes:
    """
    Write a whole response, after which the connection is closed.

    @param headers: Lines to be added, each with its line end.
    @param kind: Its C{Content-Type}.
    @param withBody: Whether it answers anything but a HEAD.
    """
    return b"".join(
        (
            b"HTTP/1.1 %d %b\r\n" % (status, phraseOf(status).encode("ascii")),
            b"Content-Type: %b\r\n" % kind,
            b"Content-Length: %d\r\n" % len(body),
            b"Cache-Control: no-store\r\n",
            b"X-Content-Type-Options: nosniff\r\n",
            headers,
            b"Connection: close\r\n\r\n",
            body if withBody else b"",
        )
    )
