"""
WebSocket frames written and read by hand (RFC 6455, 5.2), and a connection without
any.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.task import Clock

from tristunnel.errors import TunnelError

__all__ = ["BINARY", "CLOSE", "CONTINUE", "PING", "PONG", "TEXT", "Frame", "frame"]
__all__ += ["RecordingConnection", "closePayload", "readFrames", "upgrade"]

CONTINUE, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

_MASK = b"\x01\x02\x03\x04"


class Frame(NamedTuple):
    """One frame as it was read."""

    opcode: int
    payload: bytes
    fin: bool
    masked: bool


def _xor(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    number = int.from_bytes(data, "big") ^ int.from_bytes(key, "big")
    return number.to_bytes(size, "big")


def frame(
    opcode: int,
    payload: bytes = b"",
    fin: bool = True,
    mask: bool = True,
    length: int | None = None,
    rsv: int = 0,
) -> bytes:
    """
    Write a frame.

    @param mask: Whether it is masked, as a client's must be.
    @param length: The length to announce, if it is not the payload's.
    """
    size = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    return head + (_MASK + _xor(payload, _MASK) if mask else payload)


def closePayload(code: int, text: str = "") -> bytes:
    return struct.pack("!H", code) + text.encode()


def readFrames(data: bytes) -> list[Frame]:
    frames, at = [], 0
    while len(data) - at >= 2:
        first, second = data[at], data[at + 1]
        size, begin = second & 0x7F, at + 2
        if size == 126:
            (size,) = struct.unpack_from("!H", data, begin)
            begin += 2
        elif size == 127:
            (size,) = struct.unpack_from("!Q", data, begin)
            begin += 8
        mask = b""
        if second & 0x80:
            mask, begin = data[begin : begin + 4], begin + 4
        if len(data) < begin + size:
            break
        payload = data[begin : begin + size]
        frames.append(
            Frame(
                first & 15,
                _xor(payload, mask) if mask else payload,
                bool(first & 0x80),
                bool(mask),
            )
        )
        at = begin + size
    return frames


def upgrade(path: str = "/tunnel", **headers: str) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: server:9000",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class RecordingConnection:
    """
    A connection that keeps what is written.

    @ivar failed: Why it was closed, or C{None}.
    @ivar paused: Whether reading is.
    """

    decode: Callable[[bytes], Any]
    peerAddress = None
    chosen = ""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.effort = 0
        self.written: list[bytes] = []
        self.failed: TunnelError | None = None
        self.paused = False
        self.closed = False
        self.producer: Any = None
        self.wholeUpTo = 0
        self.canSend = True

    def sendWhole(self, data: bytes) -> None:
        self.written.append(data)

    sendBytes = sendText = sendWhole

    def sendEmpty(self) -> None:
        self.sendWhole(b"")

    def registerProducer(self, producer: object) -> None:
        self.producer = producer

    def pauseReading(self) -> None:
        self.paused = True

    def resumeReading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.closed = True
        self.canSend = False

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        self.failed = self.failed or reason
        self.canSend = False

    def messages(self) -> list[Any]:
        written, self.written = self.written, []
        return [self.decode(data) for data in written]
