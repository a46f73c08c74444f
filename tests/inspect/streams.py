"""Streams of requests and responses, for the tests of inspection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.task import Clock

from tristunnel.forwards.forward import Forward, parseForward
from tristunnel.inspect.exchange import Exchange
from tristunnel.inspect.record import Limits, Record
from tristunnel.inspect.tap import Tap

__all__ = ["STREAMS", "Seen", "aForward", "aRecord", "passing"]

INFO: Mapping[str, object] = {"visitor": "192.0.2.7:4711"}


def aForward() -> Forward:
    return parseForward(Clock(), "8080=localhost:3000")


def aRecord(limits: Limits = Limits(), clock: Any = None) -> Record:  # noqa: B008
    seconds = (clock or Clock()).seconds
    return Record(limits, seconds, lambda: 1_700_000_000.0 + seconds())


@dataclass(frozen=True)
class Seen:
    """
    What is known of an exchange, but for times.

    @ivar line: The method, the target and the status.
    """

    line: str
    asked: bytes = b""
    answered: bytes = b""
    problem: str = ""
    messages: tuple[str, ...] = ()

    @classmethod
    def of(cls, exchange: Exchange) -> Seen:
        head, response = exchange.answer, exchange.response
        status = "-" if head is None else str(head.status)
        first = f"{exchange.asked.method.decode()} {exchange.asked.target.decode()}"
        return cls(
            f"{first} {status}",
            bytes(exchange.request.kept),
            b"" if response is None else bytes(response.kept),
            exchange.problem,
            tuple(
                f"{'>' if frame.fromVisitor else '<'}{frame.kept.decode('latin-1')}"
                for frame in exchange.frames
            ),
        )


_GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
_HEAD = _GET.replace(b"GET", b"HEAD")
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_TO_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
_CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
)
_UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_SWITCH = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
_DEFLATES = _SWITCH[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
# RFC 7692, 7.2.3.2: twice "Hello", the second one with the first as its context.
_TWICE = bytes.fromhex("c107f248cdc9c90700 c105f200110000")

STREAMS: Mapping[str, tuple[list[bytes], list[bytes], list[Seen]]] = {
    "one": ([_GET], [_OK], [Seen("GET /a 200", b"", b"ok")]),
    "kept alive": (
        [_GET, _GET],
        [_OK, _CHUNKED],
        [Seen("GET /a 200", b"", b"ok"), Seen("GET /a 200", b"", b"abcde")],
    ),
    "pipelined": (
        [_GET + _HEAD + _HEAD + _GET],
        [_OK + _TO_HEAD + _TO_HEAD + _OK],
        [
            Seen("GET /a 200", b"", b"ok"),
            Seen("HEAD /a 200"),
            Seen("HEAD /a 200"),
            Seen("GET /a 200", b"", b"ok"),
        ],
    ),
    "what looks like a response": (
        [_GET + _HEAD + _GET],
        [_OK.replace(b"2\r\n\r\nok", b"9\r\n\r\nHTTP/1.1 ") + _TO_HEAD + _OK],
        [
            Seen("GET /a 200", b"", b"HTTP/1.1 "),
            Seen("HEAD /a 200"),
            Seen("GET /a 200", b"", b"ok"),
        ],
    ),
    "a body": (
        [b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz"],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n"],
        [Seen("POST /b 204", b"xyz")],
    ),
    "chunks": (
        [
            b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"4\r\nwxyz\r\n0\r\n\r\n"
        ],
        [b"HTTP/1.1 304 Same\r\nContent-Length: 7\r\n\r\n"],
        [Seen("POST /b 304", b"wxyz")],
    ),
    "more than is kept": (
        [
            b"POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n" + b"r" * 40,
            _GET,
        ],
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + b"s" * 50,
            b"HTTP/1.1 200 OK\r\n\r\n" + b"t" * 60,
        ],
        [Seen("POST /c 200", b"r" * 16, b"s" * 16), Seen("GET /a 200", b"", b"t" * 16)],
    ),
    "until the end": (
        [_GET],
        [b"HTTP/1.0 200 OK\r\n\r\nabc"],
        [Seen("GET /a 200", b"", b"abc")],
    ),
    "closed too early": (
        [_GET],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nabc"],
        [
            Seen(
                "GET /a 200",
                b"",
                b"abc",
                "the service closed the connection before its answer was complete",
            )
        ],
    ),
    "no answer": (
        [_GET],
        [],
        [
            Seen(
                "GET /a -",
                problem="the service closed the connection before its answer was"
                " complete",
            )
        ],
    ),
    "an answer to nobody": (
        [],
        [b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n"],
        [],
    ),
    "no upgrade": (
        [_UPGRADE + _GET],
        [_OK, _OK],
        [Seen("GET /ws 200", b"", b"ok"), Seen("GET /a 200", b"", b"ok")],
    ),
    "a WebSocket": (
        [_UPGRADE, bytes.fromhex("818537fa213d7f9f4d5158")],
        [_SWITCH + b"\x81\x02hi\x89\x01p"],
        [Seen("GET /ws 101", messages=("<hi", "<p", ">Hello"))],
    ),
    "a WebSocket behind a request": (
        [_GET + _UPGRADE],
        [_OK + _SWITCH + b"\x81\x02hi"],
        [
            Seen("GET /a 200", b"", b"ok"),
            Seen("GET /ws 101", messages=("<hi",)),
        ],
    ),
    "a compressed WebSocket": (
        [_UPGRADE],
        [_DEFLATES + _TWICE],
        [Seen("GET /ws 101", messages=("<Hello", "<Hello"))],
    ),
    "another protocol": ([b"SSH-2.0-x\r\n"], [b"SSH-2.0-y\r\n"], []),
    "another protocol behind a request": (
        [_GET, b"\x16\x03\x01"],
        [_OK],
        [Seen("GET /a 200", b"", b"ok")],
    ),
    "two answers that differ in length": (
        [_GET],
        [_OK.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n")],
        [Seen("GET /a -", problem="not shown from here on: ...")],
    ),
}
"""What visitors and services send in turn, and what is seen of it where 16 bytes of a
body are kept."""


def passing(record: Record, name: str, cuts: Any = None) -> list[bool]:
    """
    Have a stream pass a tap.

    @param cuts: Cuts bytes into pieces; C{None} for whole ones.
    @return: Whether the tap has let go, once for each time it did.
    """
    cut = cuts or (lambda data: [data])
    asked, answered, _ = STREAMS[name]
    detached: list[bool] = []
    tap = Tap(record, aForward(), INFO, lambda: detached.append(True))
    for index in range(max(len(asked), len(answered))):
        for direction, take in ((asked, tap.asked), (answered, tap.answered)):
            for data in direction[index : index + 1]:
                for piece in cut(data):
                    take(piece)
    tap.answeringEnded()
    tap.broken(None)
    return detached
