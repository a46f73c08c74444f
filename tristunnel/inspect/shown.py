"""
Exchanges as plain data, for pages and programs: without secrets unless they are asked
for.
"""

from __future__ import annotations

from typing import Any

from tristunnel.inspect.curl import curlOf
from tristunnel.inspect.exchange import Exchange, Frame, Part
from tristunnel.inspect.masks import maskedHeader, maskedTarget
from tristunnel.inspect.text import bodyOf, payloadOf
from tristunnel.wire.http import Headers
from tristunnel.wire.websocket import BINARY, CLOSE, PING, PONG, TEXT

__all__ = ["detailOf", "headersOf", "summaryOf", "targetOf"]

_OPCODES = {TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def targetOf(exchange: Exchange, reveal: bool) -> str:
    """The path and the query of a request."""
    target = _text(exchange.asked.target)
    return target if reveal else maskedTarget(target)


def headersOf(headers: Headers, reveal: bool) -> list[list[str]]:
    """Names and values, in their order."""
    pairs = [(_text(name), _text(value)) for _, name, value in headers]
    return [
        [name, value if reveal else maskedHeader(name, value)] for name, value in pairs
    ]


def _since(exchange: Exchange, time: float | None) -> float | None:
    return None if time is None else round(time - exchange.request.began, 6)


def summaryOf(exchange: Exchange, reveal: bool = False) -> dict[str, Any]:
    """
    An exchange in short.

    @param reveal: Whether secrets are shown.
    """
    response, head = exchange.response, exchange.answer
    return {
        "id": exchange.number,
        "version": exchange.version,
        "time": round(exchange.time, 3),
        "target": exchange.forward.target,
        "visitor": exchange.visitor,
        "method": _text(exchange.asked.method),
        "host": _text(exchange.asked.host),
        "path": targetOf(exchange, reveal),
        "status": None if head is None else head.status,
        "firstByte": _since(exchange, exchange.firstByte),
        "seconds": _since(exchange, exchange.ended),
        "requestSize": exchange.request.size,
        "responseSize": 0 if response is None else response.size,
        "over": exchange.isOver,
        "problem": exchange.problem,
        "messages": len(exchange.frames) + exchange.framesGone,
        "replayOf": exchange.replayOf,
    }


def _part(part: Part | None, reveal: bool) -> dict[str, Any] | None:
    if part is None:
        return None
    return {
        "version": part.head.version,
        "headers": headersOf(part.head.headers, reveal),
        "trailers": headersOf(part.trailers, reveal),
        "body": bodyOf(part, reveal),
    }


def _frame(exchange: Exchange, frame: Frame) -> dict[str, Any]:
    isText = frame.opcode == TEXT and not frame.note
    if frame.opcode == CLOSE and len(frame.kept) >= 2:
        code = int.from_bytes(frame.kept[:2], "big")
        kind, text = "text", f"{code} {_text(frame.kept[2:])}".strip()
    else:
        kind, text = payloadOf(frame.kept, isText)
    return {
        "seconds": _since(exchange, frame.time),
        "fromVisitor": frame.fromVisitor,
        "opcode": _OPCODES.get(frame.opcode, str(frame.opcode)),
        "kind": kind,
        "text": text,
        "size": frame.size,
        "kept": len(frame.kept),
        "note": frame.note,
    }


def detailOf(exchange: Exchange, reveal: bool = False) -> dict[str, Any]:
    """
    All that is known of an exchange.

    @param reveal: Whether secrets are shown.
    """
    head = exchange.answer
    return {
        **summaryOf(exchange, reveal),
        "reason": "" if head is None else _text(head.reason),
        "interim": list(exchange.interim),
        "request": _part(exchange.request, reveal),
        "response": _part(exchange.response, reveal),
        "frames": [_frame(exchange, frame) for frame in exchange.frames],
        "framesGone": exchange.framesGone,
        "curl": curlOf(exchange, reveal),
    }
