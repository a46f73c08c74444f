"""Addresses as QR codes, for terminals."""

from __future__ import annotations

import segno

__all__ = ["qrLines"]

_QUIET = 2
"""Light modules around a QR code; cameras need some."""


def qrLines(address: str, unicode: bool = True, coloured: bool = True) -> list[str]:
    """
    Draw an address as a QR code that a phone can read off a terminal.

    @param unicode: Whether half blocks can be written, which make it small.
    @param coloured: Whether colours can be: then the code is black on white,
        else light modules are drawn, as on a dark terminal.
    @return: Lines, all of the same width.
    """
    code = segno.make(address, micro=False, error="m")
    rows = [list(row) for row in code.matrix_iter(border=_QUIET)]
    if not unicode:
        # The same the other way round: what is drawn is light.
        return ["".join("  " if dark else "##" for dark in row) for row in rows]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        signs = [
            " \u2584\u2580\u2588"[(not up) * 2 + (not down)]
            for up, down in zip(upper, lower, strict=True)
        ]
        line = "".join(signs)
        lines.append(f"\x1b[97;40m{line}\x1b[0m" if coloured else line)
    return lines
