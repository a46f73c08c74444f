"""
Which exchanges are meant: C{method:POST status:5xx path:/api words}.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tristunnel.errors import badOption, printable
from tristunnel.inspect.exchange import Exchange, Part

__all__ = ["Matches", "parseFilter"]

Matches = Callable[[Exchange], bool]
"""Whether an exchange is meant."""

_MOST = 500
_STATUS = re.compile(r"[1-5](?:xx|[0-9]{2})", re.IGNORECASE)
_WORD = re.compile(r'(?:([a-z]+):)?(?:"([^"]*)"|(\S+))')


def _method(value: str) -> Matches:
    wanted = value.upper().encode("utf-8")
    return lambda exchange: exchange.asked.method == wanted


def _status(value: str) -> Matches:
    if not _STATUS.fullmatch(value):
        raise badOption(
            f"status:{printable(value, 20)} is none; write status:404 or 5xx"
        )
    digits = value.lower().rstrip("x")

    def matches(exchange: Exchange) -> bool:
        head = exchange.answer
        return head is not None and str(head.status).startswith(digits)

    return matches


def _path(value: str) -> Matches:
    wanted = value.encode("utf-8")
    return lambda exchange: wanted in exchange.asked.target


def _host(value: str) -> Matches:
    wanted = value.lower().encode("utf-8")
    return lambda exchange: wanted in exchange.asked.host.lower()


def _has(part: Part | None, wanted: bytes) -> bool:
    return part is not None and (
        wanted in bytes(part.kept).lower()
        or any(
            wanted in name or wanted in v.lower() for name, _, v in part.head.headers
        )
    )


def _text(value: str) -> Matches:
    wanted = value.lower().encode("utf-8")

    def matches(exchange: Exchange) -> bool:
        return (
            wanted
            in exchange.asked.method.lower() + b" " + exchange.asked.target.lower()
            or _has(exchange.request, wanted)
            or _has(exchange.response, wanted)
            or any(wanted in frame.kept.lower() for frame in exchange.frames)
        )

    return matches


_KINDS: dict[str, Callable[[str], Matches]] = {
    "method": _method,
    "status": _status,
    "path": _path,
    "host": _host,
    "text": _text,
}


def parseFilter(text: str) -> Matches:
    """
    Read a filter: words, all of which must match. C{method:}, C{status:}, C{path:} and
    C{host:} are looked for where they say, other words anywhere: in the request line,
    in headers, and in what is kept of bodies and messages. Quotes keep spaces.

    @raise TunnelError: C{bad-option}.
    """
    if len(text) > _MOST:
        raise badOption(f"a filter has at most {_MOST} characters")
    parts: list[Matches] = []
    for kind, quoted, plain in _WORD.findall(text):
        value = quoted or plain
        if kind and kind not in _KINDS:
            # Such as http://..., which is text.
            kind, value = "text", f"{kind}:{value}"
        if value:
            parts.append(_KINDS[kind or "text"](value))
    return lambda exchange: all(matches(exchange) for matches in parts)
