"""
Pieces that wait to be sent, and how many of them are handed over at once.
"""

from __future__ import annotations

from collections import deque
from typing import Any

__all__ = ["JOINED", "NOTHING", "RECORD", "firstPieces", "joinedRecord"]

RECORD = 16 * 1024
"""Bytes of the longest TLS record, which is the most that OpenSSL handles at once."""

PIECES = 64
"""Pieces that are handed to the kernel in one call."""

JOINED = 64 * 1024
"""Bytes up to which pieces are joined, which costs less than passing each of them."""

NOTHING: deque[Any] = deque()
"""The queue of all connections in which nothing waits; nothing is ever put into it. An
empty queue for each would take two thirds of a kilobyte."""


def firstPieces(out: deque[bytes | memoryview]) -> list[bytes | memoryview]:
    """The first pieces, as many as are handed over at once."""
    if len(out) <= PIECES:
        return list(out)
    return [out[index] for index in range(PIECES)]


def joinedRecord(out: deque[bytes | memoryview]) -> bytes:
    """Join the first pieces to what one record takes."""
    pieces: list[bytes | memoryview] = []
    room = RECORD
    while out and room:
        piece = out.popleft()
        if len(piece) > room:
            whole = memoryview(piece)
            out.appendleft(whole[room:])
            piece = whole[:room]
        pieces.append(piece)
        room -= len(piece)
    joined = b"".join(pieces)
    out.appendleft(joined)
    return joined
