"""Which ids can be the name of a client."""

from __future__ import annotations

__all__ = ["MAX_NAME", "nameProblem"]

MAX_NAME = 256
"""The longest name, in characters."""


def nameProblem(name: str) -> str | None:
    """
    Say what is wrong with a name, which ends up in logs and on pages.

    @return: The reason without the name itself, or C{None} for a good name.
    """
    if not name:
        return "the id is empty"
    if len(name) > MAX_NAME:
        return f"the id is longer than {MAX_NAME} characters"
    if not name.isprintable():
        return "the id has characters that cannot be printed"
    return None
