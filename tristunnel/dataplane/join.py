"""
Joining the two ends of a stream.
"""

from __future__ import annotations

from tristunnel.dataplane.pipes import canSplice
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.splice import spliceBoth
from tristunnel.interfaces import Closed, EitherEnd

__all__ = ["ANSWER_LINGER", "LINGER", "join"]

LINGER = 10.0
"""Seconds of silence after which a visitor's end-of-file is passed on to an end that
cannot end one direction alone, although the visitor still awaited an answer."""

ANSWER_LINGER = 0.25
"""The same, once the answer has begun. Most visitors leave on its last byte, and
those who sent their end in the midst of it have it come without such gaps."""


def join(one: EitherEnd, other: EitherEnd, closed: Closed) -> None:
    """
    Let bytes pass between two ends, by the fastest way there is: within the
    kernel between two plain sockets, by copying everywhere else.

    @param one: The end that is told first of its peer.
    @param closed: Called for each end when it is entirely over.
    """
    if (
        isinstance(one, SocketEnd)
        and isinstance(other, SocketEnd)
        and one.isPlain
        and other.isPlain
        and canSplice()
    ):
        spliceBoth(one, other)
    one.join(other, closed)
    other.join(one, closed)
