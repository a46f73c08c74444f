"""The processes of one server, as the secrets that they hand out name them."""

from __future__ import annotations

__all__ = ["memberIn", "memberMark"]


def memberMark(member: int | None) -> str:
    """
    What begins the tickets and names that one of several processes of a server makes,
    so that the others know whose they are.

    @param member: Its index; C{None} if it is the only one.
    """
    return "" if member is None else f"{member}."


def memberIn(text: str, members: int) -> int | None:
    """
    Read which of several processes has made a ticket or a name.

    @param members: How many there are.
    @return: Its index, or C{None} if none of them has.
    """
    mark, dot, _ = text[:3].partition(".")
    isIndex = dot and mark.isascii() and mark.isdecimal() and int(mark) < members
    return int(mark) if isIndex else None
