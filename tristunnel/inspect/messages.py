"""The messages of a WebSocket that is inspected."""

from __future__ import annotations

import re
import zlib
from sys import maxsize

from tristunnel.inspect.exchange import Exchange, Frame
from tristunnel.inspect.record import Record
from tristunnel.wire.http import Head
from tristunnel.wire.websocket import BINARY, TEXT, FrameReader, Piece

__all__ = ["COMPRESSED", "Deflate", "MessageTap"]

COMPRESSED = "compressed, and not unpacked here"
"""The note on a message whose bytes are shown as they passed."""

INFLATED = 1024 * 1024
"""Bytes to which a message may grow when it is unpacked; a thousandth of them on the
wire can be enough."""

_TAIL = b"\0\0\xff\xff"


class Deflate:
    """
    What the two ends have agreed on for permessage-deflate (RFC 7692).

    @param head: The head of the response that opens the WebSocket.

    @ivar agreed: Whether messages may be compressed.
    @ivar forgets: Whether the visitor, and the service, compress each message by
        itself.
    """

    def __init__(self, head: Head) -> None:
        said = b",".join(head.all(b"sec-websocket-extensions")).lower()
        words = {word.strip() for word in re.split(b"[,;]", said)}
        self.agreed = b"permessage-deflate" in words
        self.forgets = (
            b"client_no_context_takeover" in words,
            b"server_no_context_takeover" in words,
        )


class MessageTap:
    """
    One direction of a WebSocket.

    @param record: Where messages are kept.
    @param exchange: What has opened the WebSocket.
    @param fromVisitor: Which direction.
    @param deflate: What was agreed on.
    """

    def __init__(
        self, record: Record, exchange: Exchange, fromVisitor: bool, deflate: Deflate
    ) -> None:
        self._record = record
        self._exchange = exchange
        self._fromVisitor = fromVisitor
        self._reader = FrameReader(
            fromVisitor, {TEXT: maxsize, BINARY: maxsize}, deflate.agreed
        )
        self._forgets = deflate.forgets[not fromVisitor]
        self._inflater = zlib.decompressobj(-15)
        # Without all of the earlier ones, no later message can be unpacked.
        self._canInflate = True
        self._forget()

    def _forget(self) -> None:
        self._kept = bytearray()
        self._size = self._inflated = 0
        self._note = ""

    def feed(self, data: bytes) -> None:
        """
        Take bytes.

        @raise Violation: If they are not a WebSocket's.
        """
        for piece in self._reader.feed(data):
            if piece.opcode in (TEXT, BINARY):
                self._took(piece)
            else:
                self._tell(piece.opcode, piece.payload, len(piece.payload), "")

    def _took(self, piece: Piece) -> None:
        payload, compressed = piece.payload, self._reader.compressed
        self._size += len(payload)
        if compressed and not self._note:
            payload = self._inflate(payload, _TAIL if piece.ends else b"")
        self._keep(payload)
        if piece.ends:
            if compressed and self._forgets:
                self._inflater = zlib.decompressobj(-15)
                self._canInflate = True
            isPlain = compressed and not self._note
            size = self._inflated if isPlain else self._size
            self._tell(piece.opcode, bytes(self._kept), size, self._note)
            self._forget()

    def _keep(self, data: bytes) -> None:
        room = self._record.limits.body - len(self._kept)
        if room > 0:
            self._kept += data[:room]

    def _inflate(self, data: bytes, tail: bytes) -> bytes:
        """
        Unpack what came of a message, or note that it cannot be.

        @param tail: The bytes that the sender has left out at its end.
        """
        if self._canInflate:
            try:
                room = INFLATED - self._inflated
                plain = self._inflater.decompress(data + tail, room + 1)
            except zlib.error:
                self._canInflate = False
            else:
                self._inflated += len(plain)
                self._canInflate = len(plain) <= room
                if self._canInflate:
                    return plain
        self._note = COMPRESSED
        self._kept.clear()
        return data

    def _tell(self, opcode: int, payload: bytes, size: int, note: str) -> None:
        record = self._record
        frame = Frame(record.seconds(), self._fromVisitor, opcode, payload, size, note)
        record.framePassed(self._exchange, frame)
