"""
Exchanges as an HTTP Archive: HAR 1.2
(U{http://www.softwareishard.com/blog/har-12-spec/}).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from tristunnel.inspect.curl import urlOf
from tristunnel.inspect.exchange import Exchange, Part
from tristunnel.inspect.masks import maskedForm
from tristunnel.inspect.shown import headersOf
from tristunnel.version import VERSION
from tristunnel.wire.websocket import BINARY, TEXT

__all__ = ["harOf"]

_MOST_FIELDS = 1000


def harOf(exchanges: Iterable[Exchange], reveal: bool) -> dict[str, Any]:
    """
    Write an archive. What is not over yet is in it as far as it has come.

    @param reveal: Whether secrets are in it.
    """
    return {
        "log": {
            "version": "1.2",
            "creator": {"name": "tristunnel", "version": VERSION},
            "pages": [],
            "entries": [_entry(exchange, reveal) for exchange in exchanges],
        }
    }


def _milliseconds(fro: float | None, to: float | None) -> float:
    return 0.0 if fro is None or to is None else round(max(0.0, to - fro) * 1000, 3)


def _entry(exchange: Exchange, reveal: bool) -> dict[str, Any]:
    request = exchange.request
    # What has not ended was sent when the answer began.
    sent = request.ended if request.ended is not None else exchange.firstByte
    first = exchange.firstByte
    if sent is not None and first is not None:
        sent = min(sent, first)
    timings = {
        "send": _milliseconds(request.began, sent),
        "wait": _milliseconds(sent, first),
        "receive": _milliseconds(first, exchange.ended),
    }
    began = datetime.fromtimestamp(exchange.time, UTC)
    entry = {
        "startedDateTime": began.isoformat(timespec="milliseconds"),
        "time": round(sum(timings.values()), 3),
        "request": _request(exchange, reveal),
        "response": _response(exchange, reveal),
        "cache": {},
        "timings": timings,
        "connection": exchange.visitor or "unknown",
        "comment": exchange.problem,
    }
    if exchange.frames:
        entry["_webSocketMessages"] = [
            {
                "type": "send" if frame.fromVisitor else "receive",
                "time": round(exchange.time + frame.time - request.began, 6),
                "opcode": frame.opcode,
                "data": _data(frame.kept, frame.opcode == TEXT)[0],
            }
            for frame in exchange.frames
            if frame.opcode in (TEXT, BINARY)
        ]
    return entry


def _headers(part: Part, reveal: bool) -> list[dict[str, str]]:
    return _pairs(headersOf(part.head.headers, reveal))


def _pairs(pairs: Iterable[Iterable[str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs]


def _cookies(part: Part, header: str, reveal: bool) -> list[dict[str, str]]:
    found = []
    for name, value in headersOf(part.head.headers, reveal):
        if name.lower() == header:
            parts = value.split(";")
            for each in parts[:1] if header == "set-cookie" else parts:
                said, _, text = each.strip().partition("=")
                found.append((said, text))
    return _pairs(found)


def _data(body: bytes, isText: bool = True) -> tuple[str, bool]:
    """
    @return: A body as text, and whether it is written in base64.
    """
    try:
        return (body.decode("utf-8"), False) if isText else _inBase64(body)
    except UnicodeDecodeError:
        return _inBase64(body)


def _inBase64(body: bytes) -> tuple[str, bool]:
    return b64encode(body).decode("ascii"), True


def _cut(part: Part) -> str:
    kept = len(part.kept)
    return "" if kept == part.size else f"only the first {kept} bytes were kept"


def _request(exchange: Exchange, reveal: bool) -> dict[str, Any]:
    part, url = exchange.request, urlOf(exchange, reveal)
    query = parse_qsl(url.partition("?")[2], keep_blank_values=True)
    made: dict[str, Any] = {
        "method": exchange.asked.method.decode("latin-1"),
        "url": url,
        "httpVersion": f"HTTP/{part.head.version}",
        "cookies": _cookies(part, "cookie", reveal),
        "headers": _headers(part, reveal),
        "queryString": _pairs(query[:_MOST_FIELDS]),
        "headersSize": -1,
        "bodySize": part.size,
        "comment": _cut(part),
    }
    if part.size:
        kind = part.head.get(b"content-type").decode("latin-1")
        text, isCoded = _data(bytes(part.kept))
        if kind.lower().startswith("application/x-www-form-urlencoded") and not reveal:
            text = text if isCoded else maskedForm(text)
        made["postData"] = {
            "mimeType": kind,
            "text": text,
            "comment": "in base64" if isCoded else "",
        }
    return made


def _response(exchange: Exchange, reveal: bool) -> dict[str, Any]:
    part, head = exchange.response, exchange.answer
    if part is None or head is None:
        # As browsers write it where none came.
        return {
            "status": 0,
            "statusText": "",
            "httpVersion": "unknown",
            "cookies": [],
            "headers": [],
            "content": {"size": 0, "mimeType": "x-unknown"},
            "redirectURL": "",
            "headersSize": -1,
            "bodySize": -1,
        }
    text, isCoded = _data(bytes(part.kept))
    content: dict[str, Any] = {
        "size": part.size,
        "mimeType": head.get(b"content-type").decode("latin-1") or "x-unknown",
        "text": text,
        "comment": _cut(part),
    }
    if isCoded:
        content["encoding"] = "base64"
    located = [
        value
        for name, value in headersOf(head.headers, reveal)
        if name.lower() == "location"
    ]
    return {
        "status": head.status,
        "statusText": head.reason.decode("utf-8", "replace"),
        "httpVersion": f"HTTP/{head.version}",
        "cookies": _cookies(part, "set-cookie", reveal),
        "headers": _headers(part, reveal),
        "content": content,
        "redirectURL": located[0] if located else "",
        "headersSize": -1,
        "bodySize": part.size,
    }
