"""
Reasons in zlayer's messages, which have room for text only.
"""

from __future__ import annotations

import re

from tristunnel.errors import CODES, TunnelError, printable

__all__ = ["IN_USE", "reasonIn", "shorten"]

IN_USE = "Token already in use"
"""What zlayer's server says of a second client with one token."""


def shorten(text: str) -> str:
    """Make a line of what a peer wrote, for logs and messages."""
    return printable(" ".join(text.split()), 300)


def reasonIn(text: str, code: str, lead: str = "") -> TunnelError:
    """
    Make a reason of what a peer says. Ours ends it with its code.

    @param code: The code for other programs' words.
    @param lead: What to put before those.
    """
    text = shorten(text)
    found = re.search(r" \[([a-z-]+)\]$", text)
    if found is not None and found[1] in CODES:
        return TunnelError.said(found[1], text[: found.start()])
    return TunnelError.said(code, lead + text if text else "")
