"""
Pictures of pages for the documentation, made small.

A page has few colours but for the edges of its letters. With those rounded a
little, all fit into a palette, and the file has a third of the size.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import chain

__all__ = ["smallPNG"]

FREQUENT = 160
"""Colours of the palette that are taken for being frequent."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(_SIGNATURE)
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + 8 + size]
        position += 12 + size


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(
        f">I4s{len(data)}sI", len(data), kind, data, zlib.crc32(kind + data)
    )


def _rows(data: bytes, width: int, depth: int) -> Iterator[bytes]:
    stride = width * depth
    before = bytearray(stride)
    for start in range(0, len(data), stride + 1):
        kind, row = data[start], bytearray(data[start + 1 : start + 1 + stride])
        for i in range(stride):
            left = row[i - depth] if i >= depth else 0
            up, corner = before[i], before[i - depth] if i >= depth else 0
            if kind == 1:
                row[i] = (row[i] + left) & 255
            elif kind == 2:
                row[i] = (row[i] + up) & 255
            elif kind == 3:
                row[i] = (row[i] + (left + up) // 2) & 255
            elif kind == 4:
                guess = left + up - corner
                near = min(
                    (abs(guess - left), 0, left),
                    (abs(guess - up), 1, up),
                    (abs(guess - corner), 2, corner),
                )
                row[i] = (row[i] + near[2]) & 255
        before = row
        yield bytes(row)


def _palette(colours: Counter[bytes]) -> dict[bytes, int]:
    palette = {c: i for i, (c, _) in enumerate(colours.most_common(FREQUENT))}
    # For each of the others, how far its nearest is, and which that is.
    others = {
        colour: min((_distance(colour, each), number) for each, number in known)
        for known in [list(palette.items())]
        for colour in colours
        if colour not in palette
    }
    while others and len(palette) < 256:
        farthest = max(others, key=lambda colour: others[colour][0])
        del others[farthest]
        number = palette[farthest] = len(palette)
        for colour, nearest in others.items():
            others[colour] = min(nearest, (_distance(colour, farthest), number))
    palette.update((colour, number) for colour, (_, number) in others.items())
    return palette


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def smallPNG(data: bytes) -> bytes:
    """Write a PNG file of 8 bits a channel anew, with a palette."""
    parts = list(_chunks(data))
    width, height, bits, colours = struct.unpack_from(">IIBB", dict(parts)[b"IHDR"])
    assert bits == 8 and colours in (2, 6), (bits, colours)
    depth = 3 if colours == 2 else 4
    packed = b"".join(part for kind, part in parts if kind == b"IDAT")
    pixels = [
        [row[i : i + 3] for i in range(0, len(row), depth)]
        for row in _rows(zlib.decompress(packed), width, depth)
    ]
    palette = _palette(Counter(chain.from_iterable(pixels)))
    lines = b"".join(b"\0" + bytes(map(palette.__getitem__, row)) for row in pixels)
    return (
        _SIGNATURE
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + _chunk(b"PLTE", b"".join(list(palette)[:256]))
        + _chunk(b"IDAT", zlib.compress(lines, 9))
        + _chunk(b"IEND", b"")
    )
