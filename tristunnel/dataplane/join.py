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
cannot half-close, although the visitor was still waiting for an answer."""

ANSWER_LINGER = 0.25
"""The same if the answer had begun by then. Most visitors leave with its last byte, and
to one that sent its end in the middle of the answer, the rest comes without such
gaps."""

GIVEN_UP = 1.0
"""If a visitor without an answer sends its end this many seconds after its last bytes,
the end is passed on at once. One that ends a request does so together with it; one that
has waited, and ends then, is not waiting any more."""


class EndPatience:
    """
    How long a visitor's end-of-file is withheld from an end that cannot half-close,
    because passing it on would cut off the answer.

    From the end-of-file alone, nobody can tell a visitor that has left from one that
    has only finished its request. Once the answer comes, a visitor that has left
    refuses it.

    @param now: The time, in seconds.

    @ivar unanswered: Whether a request has had no answer yet.
    @ivar heardAt: When the last bytes of an answer came, or else when the connection
        began.
    """

    __slots__ = ("_askedAt", "_seconds", "heardAt", "unanswered")

    def __init__(self, now: float) -> None:
        self.unanswered = False
        self.heardAt = now
        self._askedAt = now
        self._seconds = ANSWER_LINGER

    def asked(self, now: float) -> None:
        """Note that the visitor has sent something."""
        self.unanswered = True
        self._askedAt = now

    def heard(self, now: float) -> None:
        """Note that an answer came, or more of one; or that nobody was reading it."""
        self.unanswered = False
        self.heardAt = now

    def ended(self, now: float) -> None:
        """The visitor sends no more."""
        if self.unanswered and now - self._askedAt <= GIVEN_UP:
            self._seconds, self.heardAt = LINGER, now

    def left(self, now: float) -> float:
        """For how many more seconds to withhold its end; 0 or less to pass it on."""
        return self.heardAt + self._seconds - now


def join(one: EitherEnd, other: EitherEnd, closed: Closed) -> None:
    """
    Let bytes pass between two ends in the fastest way there is: within the kernel
    between two plain sockets, and by copying everywhere else.

    @param one: The end that is told of its peer first.
    @param closed: Called for each end when it is entirely over.
    """
    # A cheap test first: isinstance() with an abstract class runs Python code.
    if hasattr(one, "splice") and hasattr(other, "splice"):
        spliceIfPlain(one, other)
    one.join(other, closed)
    other.join(one, closed)


def spliceIfPlain(one: object, other: object) -> None:
    """
    Have the kernel move the bytes between two ends, if both are plain sockets that it
    does not move bytes for already.
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
