"""
The framed protocol's bytes: two handshake messages, then frames.

The base is the W3P tunnel's wire format (its README's "Protocol
Specification"; checked against exchanges recorded from the real program).
Every message begins with a big-endian u32 that counts the bytes after it.
Frame types above 0x03 belong to tristunnel's negotiated extension, specified
in C{docs/protocol.rst}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple

from tristunnel.errors import TunnelError, protocolError

__all__ = [
    "MAGIC",
    "MAX_CONTROL",
    "MAX_DATAGRAM",
    "MAX_FRAME",
    "MAX_HANDSHAKE",
    "Frame",
    "FrameDecoder",
    "FrameType",
    "HandshakeDecoder",
    "decodeCredit",
    "decodeObject",
    "encodeCredit",
    "encodeFrame",
    "encodeHandshake",
    "encodeObject",
    "frameHeader",
    "packHeader",
]

MAGIC = b"W3PTUNL"
"""The first bytes of each side's first message."""

MAX_HANDSHAKE = 64 * 1024
"""Most bytes of handshake JSON that are read before anybody is known."""

MAX_FRAME = 1024 * 1024
"""Largest frame length accepted; real W3P peers send up to 64 KiB and 5."""

MAX_CONTROL = 256 * 1024
"""Most payload bytes of a frame that must be held whole (all but data)."""

MAX_DATAGRAM = 65_507
"""Most payload bytes of a datagram frame: what UDP over IPv4 can carry."""

_LENGTH = Struct("!I")
_HEADER = Struct("!IIB")
_CREDIT = Struct("!Q")

_ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_QUOTE: Callable[[Any], str] = json.encoder.encode_basestring
_DECODER = json.JSONDecoder()


class FrameType(IntEnum):
    """The codes of frames; W3P knows L{DATA}, L{CLOSE} and L{ERROR} only."""

    CONTROL = 0x00
    DATA = 0x01
    CLOSE = 0x02
    ERROR = 0x03
    EOF = 0x04
    WINDOW = 0x05
    DATAGRAM = 0x06
    ENDING = 0x07
    MOVE = 0x08
    MOVED = 0x09
    OPEN = 0x20
    OPENED = 0x21
    REFUSED = 0x22
    PING = 0x30
    PONG = 0x31
    GOAWAY = 0x41


class Frame(NamedTuple):
    """
    One frame, or as much of a data frame as has come.

    A data frame's payload is handed on in the pieces it arrives in, so a
    decoder never holds one: the stream is a byte stream and does not care.
    """

    stream: int
    kind: int
    payload: bytes


_DATA = int(FrameType.DATA)

_HEAD = _HEADER.size
_unpackHeader = _HEADER.unpack_from

# Without the detour by way of Python that a named tuple's own constructor takes.
_frame = tuple.__new__


class FrameDecoder:
    """
    Turn bytes into L{Frame}s.

    @param maxFrame: The largest length field accepted, in bytes.
    """

    def __init__(self, maxFrame: int = MAX_FRAME) -> None:
        self._maxFrame = maxFrame
        self._partial = bytearray()
        self._needed = 0
        self._stream = 0
        self._remaining = 0

    def feed(self, data: bytes) -> list[Frame]:
        """
        Take the next bytes of the connection.

        @param data: Any number of bytes.
        @return: The frames that they complete, in order.
        @raise TunnelError: C{protocol-error}; the connection cannot go on.
        """
        frames: list[Frame] = []
        if self._needed:
            self._partial += data
            if len(self._partial) < self._needed:
                return frames
            data = bytes(self._partial)
            self._partial.clear()
            self._needed = 0
        start, end = 0, len(data)
        if self._remaining and data:
            piece = data[: self._remaining]
            start = len(piece)
            self._remaining -= start
            frames.append(_frame(Frame, (self._stream, _DATA, piece)))
        while end - start >= _HEAD:
            length, stream, kind = _unpackHeader(data, start)
            bound = self._maxFrame if kind == _DATA else MAX_CONTROL + 5
            if not 5 <= length <= bound:
                raise _wrongLength(length, kind, bound)
            payload, after = start + _HEAD, start + length + 4
            if after > end:
                if kind != _DATA:
                    self._keep(data, start, after - start)
                    return frames
                self._stream, self._remaining = stream, after - end
                if payload == end:
                    return frames
                after = end
            frames.append(_frame(Frame, (stream, kind, data[payload:after])))
            start = after
        if start < end:
            self._keep(data, start, _HEAD)
        return frames

    def _keep(self, data: bytes, offset: int, needed: int) -> None:
        self._partial += data[offset:]
        self._needed = needed


def _wrongLength(length: int, kind: int, bound: int) -> TunnelError:
    if length < 5:
        return protocolError(f"a frame of {length} bytes is shorter than its head")
    return protocolError(
        f"a frame of {length} bytes (type 0x{kind:02x}) is longer than"
        f" the {bound} accepted here"
    )


class HandshakeDecoder:
    """
    Read a peer's first message: magic, length, JSON object.

    @param maxLength: Most bytes of JSON accepted.
    """

    def __init__(self, maxLength: int = MAX_HANDSHAKE) -> None:
        self._maxLength = maxLength
        self._bytes = bytearray()

    @property
    def received(self) -> bytes:
        """What has come so far, for telling what the peer speaks."""
        return bytes(self._bytes[:64])

    def feed(self, data: bytes) -> tuple[dict[str, object], bytes] | None:
        """
        Take the next bytes of the connection.

        @return: The object and the bytes that follow it, once it is whole.
        @raise TunnelError: C{protocol-error}, with what is wrong.
        """
        buffer = self._bytes
        buffer += data
        start = len(MAGIC)
        if buffer[:start] != MAGIC[: len(buffer)]:
            raise protocolError("the first bytes are not the framed protocol's")
        if len(buffer) < start + _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(buffer, start)
        if length > self._maxLength:
            raise protocolError(
                f"a handshake of {length} bytes is longer than the"
                f" {self._maxLength} accepted here"
            )
        start += _LENGTH.size
        if len(buffer) < start + length:
            return None
        message = decodeObject(bytes(buffer[start : start + length]))
        return message, bytes(buffer[start + length :])


def decodeObject(payload: bytes) -> dict[str, object]:
    """
    Read a JSON object.

    @raise TunnelError: C{protocol-error} if it is anything else.
    """
    try:
        # RecursionError: a few kilobytes of "[" are enough for it.
        message = _decoded(payload)
    except (ValueError, RecursionError):
        raise protocolError("the message is not JSON") from None
    if not isinstance(message, dict):
        raise protocolError(
            f"the message is a JSON {type(message).__name__}, not an object"
        )
    return message


def _decoded(payload: bytes) -> object:
    """
    Read JSON.

    @raise ValueError: If it is not JSON.
    """
    try:
        # As programs write it: with nothing around it.
        text = payload.decode()
        message, end = _DECODER.raw_decode(text)
        if end == len(text):
            return message
    except ValueError:
        pass
    return json.loads(payload)


def encodeObject(message: Mapping[str, object]) -> bytes:
    """Write a JSON object as compactly as W3P does."""
    try:
        # One of strings alone goes out with every visitor.
        text = ""
        for name, value in message.items():
            text += f",{_QUOTE(name)}:{_QUOTE(value)}"
        text = "{" + text[1:] + "}"
    except TypeError:
        text = _ENCODE(message)
    # A lone surrogate, which a peer's escape can bring in, stays an escape.
    return text.encode(errors="backslashreplace")


def encodeHandshake(message: Mapping[str, object]) -> bytes:
    """Write a side's first message."""
    body = encodeObject(message)
    return MAGIC + _LENGTH.pack(len(body)) + body


packHeader = _HEADER.pack
"""Packs the fields of L{frameHeader}: a length five bytes greater than the payload's, a
stream and a type."""


def frameHeader(stream: int, kind: int, size: int) -> bytes:
    """Write the nine bytes before a payload of C{size} bytes."""
    return _HEADER.pack(size + 5, stream, kind)


def encodeFrame(stream: int, kind: int, payload: bytes = b"") -> bytes:
    """Write a whole frame."""
    return _HEADER.pack(len(payload) + 5, stream, kind) + payload


encodeCredit: Callable[[int], bytes] = _CREDIT.pack
"""Writes the payload of a window or ping frame, a u64."""


def decodeCredit(payload: bytes) -> int:
    """
    Read the payload of a window or ping frame.

    @raise TunnelError: C{protocol-error} if it is not eight bytes.
    """
    if len(payload) != _CREDIT.size:
        raise protocolError(f"expected 8 bytes, got {len(payload)}")
    (credit,) = _CREDIT.unpack(payload)
    return int(credit)
