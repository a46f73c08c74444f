"""
A WebSocket's frames, once it is open (RFC 6455, 5).

A reader of bytes and a writer of messages, for either role. Nothing is kept but
the head of a frame, or a control frame, that is not whole yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from secrets import token_bytes
from struct import Struct
from typing import Any, NamedTuple

from autobahn.websocket.xormasker import create_xor_masker  # type: ignore[attr-defined] # chosen at run time

__all__ = [
    "BAD_PAYLOAD",
    "BINARY",
    "CLOSE",
    "CONTROL",
    "MESSAGE",
    "PING",
    "PONG",
    "PROTOCOL_ERROR",
    "SMALL",
    "TEXT",
    "TOO_BIG",
    "FrameReader",
    "Piece",
    "Violation",
    "encodeMessage",
    "mask",
]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
"""Opcodes; 0 continues a message."""

PROTOCOL_ERROR, BAD_PAYLOAD, TOO_BIG = 1002, 1007, 1009
"""Close codes for what a peer does wrong here (7.4.1)."""

CONTROL = 125
"""The most bytes of a control frame."""

SMALL = 64
"""Frames with fewer bytes of payload than this cost more to read than they carry."""

MESSAGE = 256 * 1024
"""Bytes of the longest message we send: common libraries refuse 1 MiB."""

# Autobahn's native code, which works in place; what autobahn makes of it takes
# four times as long, with an object and three copies for each call.
_MASKER = create_xor_masker(bytes(4), 0)
_FFI: Any = getattr(_MASKER, "ffi", None)
_NATIVE: Any = getattr(_MASKER, "lib", None)

_FIN, _RESERVED, _RSV1, _MASKED = 0x80, 0x70, 0x40, 0x80
_MESSAGES = (TEXT, BINARY)
_SHORT, _LONG = 126, 127
_SIXTEEN = Struct("!BBH")
_SIXTY_FOUR = Struct("!BBQ")


class Violation(Exception):
    """
    The peer broke the rules; nothing more may be read from it.

    @ivar code: The close code that says so.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Piece(NamedTuple):
    """
    A piece of a message, or a control frame.

    @ivar opcode: The message's opcode, also in its continuations.
    @ivar payload: The bytes, without their mask.
    @ivar ends: Whether it is the last of the message.
    """

    opcode: int
    payload: bytes
    ends: bool


class FrameReader:
    """
    Turn bytes into messages, in the pieces that they arrive in.

    @param masked: Whether the peer has to mask its frames: a client has to, a
        server must not.
    @param deflates: Whether messages may be compressed, as permessage-deflate says
        (RFC 7692). They are returned as they came.

    @ivar most: Bytes of the longest message accepted, by opcode. It may change
        between two messages.
    @ivar size: Bytes of the present message as far as its frames have begun.
    @ivar compressed: Whether that is compressed.
    @ivar small: How many control frames, and frames of less than L{SMALL} bytes,
        have come.
    """

    def __init__(
        self, masked: bool, most: dict[int, int], deflates: bool = False
    ) -> None:
        self.most = most
        self.size = 0
        self.compressed = False
        self.small = 0
        self._masked = masked
        self._deflates = deflates
        self._partial = b""
        # Of the present message, and of its present frame.
        self._opcode = 0
        self._remaining = 0
        self._fin = False
        self._key = b""

    @property
    def held(self) -> int:
        """How many bytes are kept for the next ones to complete."""
        return len(self._partial)

    def feed(self, data: bytes) -> Iterator[Piece]:
        """
        Take the next bytes of the connection. They are read lazily, as the pieces are
        iterated over; what is not iterated over is lost.

        @raise Violation: Everything before the violation was handed out.
        """
        if self._partial:
            data = self._partial + data
            self._partial = b""
        at, end = 0, len(data)
        while at < end:
            if self._remaining == 0:
                head = self._head(data, at)
                if not head:
                    self._partial = data[at:]
                    return
                start = at
                at += head
                if data[start] & 8:
                    yield self._control(data[start] & 15, data[start + 2 : at])
                    continue
                if at == end and self._remaining > 0:
                    return
            size = min(self._remaining, end - at)
            if self._masked:
                piece = _unmasked(memoryview(data)[at : at + size], self._key)
                turn = size & 3
                self._key = self._key[turn:] + self._key[:turn]
            else:
                piece = data[at : at + size]
            at += size
            self._remaining -= size
            ends = self._fin and not self._remaining
            opcode = self._opcode
            if ends:
                self._opcode = 0
            yield Piece(opcode, piece, ends)

    def _control(self, opcode: int, payload: bytes) -> Piece:
        if self._masked:
            payload = _unmasked(payload[4:], payload[:4])
        return Piece(opcode, payload, True)

    def _head(self, data: bytes, at: int) -> int:
        """
        Read the head of a data frame, or see that a control frame is whole.

        @return: Its length in bytes, or 0 if it is not complete.
        @raise Violation: For what is wrong with it.
        """
        there = len(data) - at
        if there < 2:
            return 0
        first, length = data[at], data[at + 1] & 0x7F
        self._check(first, data[at + 1])
        if first & 8:
            whole = 2 + 4 * self._masked + length
            if there < whole:
                return 0
            self.small += 1
            return whole
        head = 2
        if length >= _SHORT:
            head = 4 if length == _SHORT else 10
            if there < head:
                return 0
            least = length
            length = int.from_bytes(data[at + 2 : at + head], "big")
            if length < (_SHORT if least == _SHORT else 1 << 16) or length >> 63:
                raise Violation(
                    PROTOCOL_ERROR, f"a frame's length, {length}, in a wrong form"
                )
        if self._masked:
            head += 4
            if there < head:
                return 0
            self._key = data[at + head - 4 : at + head]
        self._begin(first, length)
        return head

    def _check(self, first: int, second: int) -> None:
        """
        Judge the first two bytes of a frame.

        @raise Violation: For what is wrong with them.
        """
        opcode = first & 15
        wrong = ""
        if first & _RESERVED and not self._mayCompress(first):
            wrong = "RSV bits without an extension"
        elif bool(second & _MASKED) != self._masked:
            wrong = "an unmasked frame" if self._masked else "a masked frame"
        elif opcode & 8:
            if opcode > PONG:
                wrong = f"a control frame of the reserved opcode {opcode}"
            elif not first & _FIN:
                wrong = "a control frame in fragments"
            elif second & 0x7F > CONTROL:
                wrong = f"a control frame longer than {CONTROL} bytes"
            elif opcode == CLOSE and second & 0x7F == 1:
                wrong = "half a close code"
        elif opcode > BINARY:
            wrong = f"a frame of the reserved opcode {opcode}"
        elif opcode and self._opcode:
            wrong = "a message inside of a fragmented message"
        elif not (opcode or self._opcode):
            wrong = "a continuation outside of a message"
        if wrong:
            raise Violation(PROTOCOL_ERROR, wrong)

    def _mayCompress(self, first: int) -> bool:
        """Whether the RSV bits say at most that a message is compressed."""
        opcode = first & 15
        return self._deflates and first & _RESERVED == _RSV1 and opcode in _MESSAGES

    def _begin(self, first: int, length: int) -> None:
        """
        Begin a data frame.

        @raise Violation: If it makes its message too long.
        """
        if first & 15:
            self._opcode = first & 15
            self.size = 0
            self.compressed = bool(first & _RSV1)
        self.size += length
        self.small += length < SMALL
        if self.size > self.most[self._opcode]:
            kind = "text" if self._opcode == TEXT else "binary"
            raise Violation(
                TOO_BIG,
                f"a {kind} message of {self.size} bytes is longer than the"
                f" {self.most[self._opcode]} accepted here",
            )
        self._remaining = length
        self._fin = bool(first & _FIN)


def encodeMessage(
    opcode: int, pieces: Sequence[bytes], isMasked: bool
) -> Sequence[bytes | bytearray]:
    """
    Write a message as one frame.

    @param pieces: Its bytes. Without a mask they are not copied.
    @param isMasked: Whether to mask it, as a client has to.
    @return: The frame, in pieces.
    """
    size = sum(map(len, pieces))
    bit = _MASKED if isMasked else 0
    if size < _SHORT:
        head = bytes((_FIN | opcode, bit | size))
    elif size < 1 << 16:
        head = _SIXTEEN.pack(_FIN | opcode, bit | _SHORT, size)
    else:
        head = _SIXTY_FOUR.pack(_FIN | opcode, bit | _LONG, size)
    if not isMasked:
        return [head, *pieces]
    # Nobody who can choose the bytes may be able to predict it (10.3).
    key = token_bytes(4)
    frame = bytearray().join((head, key, *pieces))
    mask(frame, key, len(head) + 4)
    return [frame]


def _unmasked(data: bytes | memoryview, key: bytes) -> bytes:
    buffer = bytearray(data)
    mask(buffer, key)
    return bytes(buffer)


def mask(buffer: bytearray, key: bytes, start: int = 0) -> None:
    """
    Mask or unmask bytes in place.

    @param key: The four bytes of the mask, from the one for the first byte on.
    @param start: Where the first byte is.
    """
    size = len(buffer) - start
    if _NATIVE is not None:
        masker = _NATIVE.nvx_xormask_new(key)
        place = _FFI.from_buffer("uint8_t[]", buffer)
        _NATIVE.nvx_xormask_process(masker, place + start, size)
        _NATIVE.nvx_xormask_free(masker)
        return
    number = int.from_bytes((key * (size // 4 + 1))[:size], "little")
    number ^= int.from_bytes(memoryview(buffer)[start:], "little")
    buffer[start:] = number.to_bytes(size, "little")
