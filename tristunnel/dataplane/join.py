"""
Joining the two ends of a stream.
"""

from __future__ import annotations

from tristunnel.dataplane.pipes import canSplice
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.splice import spliceBoth
from tristunnel.interfaces import Closed, EitherEnd

__all__ = [
    "ANSWER_LINGER",
    "GIVEN_UP",
    "LINGER",
    "EndPatience",
    "join",
    "spliceIfPlain",
]

LINGER = 3.0
"""Seconds of silence after which a visitor's end-of-file is passed on to an end that
cannot end one direction alone, although the visitor still awaited an answer."""

ANSWER_LINGER = 0.25
"""The same, if the answer had begun by then. Most visitors leave on its last byte,
and those who sent their end in the midst of it have it come without such gaps."""

GIVEN_UP = 1.0
"""Seconds after its last bytes from which on the end of a visitor without an answer
is passed on at once. The end of a request comes with it; who has waited first, and
ends then, waits no longer."""


class EndPatience:
    """
    For how long the end of what somebody sends is kept from an end that cannot end
    one direction alone, since it would cut off the answer.

    Whether a visitor has left or only has said its last, nobody can tell from its
    end-of-file; the answer, once it comes, is refused by one who has left.

    @param now: The time, in seconds.

    @ivar unanswered: Whether something was asked that has no answer yet.
    @ivar heardAt: When the last bytes of an answer came, or the connection.
    """

    __slots__ = ("_askedAt", "_seconds", "heardAt", "unanswered")

    def __init__(self, now: float) -> None:
        self.unanswered = False
        self.heardAt = now
        self._askedAt = now
        self._seconds = ANSWER_LINGER

    def asked(self, now: float) -> None:
        """The visitor has said something."""
        self.unanswered = True
        self._askedAt = now

    def heard(self, now: float) -> None:
        """An answer came, or more of one; or it was not listened to."""
        self.unanswered = False
        self.heardAt = now

    def ended(self, now: float) -> None:
        """The visitor sends no more."""
        if self.unanswered and now - self._askedAt <= GIVEN_UP:
            self._seconds, self.heardAt = LINGER, now

    def left(self, now: float) -> float:
        """How many seconds more its end is to be kept back; 0 or less for none."""
        return self.heardAt + self._seconds - now


def join(one: EitherEnd, other: EitherEnd, closed: Closed) -> None:
    """
    Let bytes pass between two ends, by the fastest way there is: within the
    kernel between two plain sockets, by copying everywhere else.

    @param one: The end that is told first of its peer.
    @param closed: Called for each end when it is entirely over.
    """
    # Most are not, of which an abstract class would be asked by way of Python.
    if getattr(one, "isPlain", False) and getattr(other, "isPlain", False):
        spliceIfPlain(one, other)
    one.join(other, closed)
    other.join(one, closed)


def spliceIfPlain(one: object, other: object) -> None:
    """
    Have the kernel move the bytes between two ends, if both are plain sockets, and none
    of theirs is in a pipe already.
    """
    if (
        isinstance(one, SocketEnd)
        and isinstance(other, SocketEnd)
        and one.isPlain
        and other.isPlain
        and canSplice()
        and not (one.splice or one.spliceToUs or other.splice or other.spliceToUs)
    ):
        spliceBoth(one, other)
