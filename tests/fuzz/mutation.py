"""
Bytes that are nearly right.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["mutate"]

_NUMBERS = (b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00")
_WORDS = (
    b"[" * 100,
    b'{"a":' * 50,
    b"9" * 400,
    b"1e999",
    b"NaN",
    b"\\ud800",
    b"\x00",
    b"\r\n\r\n",
    b"W3PTUNL",
    b"\xff\xfe",
    b"%00",
    b"&lt;",
    b"<!DOCTYPE a>",
    b"Transfer-Encoding: chunked\r\n",
    b"null",
    b"-1",
    b"::1",
)


def mutate(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        size = len(data)
        at = chance.randrange(size + 1)
        kind = chance.randrange(8)
        if kind == 0 and size:
            data[at % size] ^= 1 << chance.randrange(8)
        elif kind == 1 and size:
            data[at % size] = chance.randrange(256)
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 3:
            del data[at : at + chance.randrange(1, 17)]
        elif kind == 4:
            data[at : at + 4] = chance.choice(_NUMBERS)
        elif kind == 5:
            data[at:at] = chance.choice(_WORDS)
        elif kind == 6:
            begin = chance.randrange(size + 1)
            data[at:at] = data[begin : begin + chance.randrange(1, 65)]
        else:
            other = chance.choice(seeds)
            data[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(data)
