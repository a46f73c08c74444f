"""
Reading from a stream's end, and what holds it::

    ======== ============================================= ========================
    reading  left when                                     next
    ======== ============================================= ========================
    open     HoldableEnd.hold, for any reason              held
    held     HoldableEnd.release, for the last reason      open
    either   the far side sends no more, or the            over: nothing is read
             connection is gone
    ======== ============================================= ========================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall

from tristunnel.dataplane.rate import CombinedRateLimiter, RateLimiter

__all__ = ["READING_FIELDS", "HoldableEnd"]

READING_FIELDS = (
    "_eof",
    "_held",
    "_over",
    "_reactor",
    "_rule",
    "_ruleTimer",
    "received",
)
"""The names for C{__slots__} in each subclass of L{HoldableEnd}, which has none: so it
can be combined with another base class that has some."""


class HoldableEnd(ABC):
    """
    An end whose reading can be held, or slowed down by a rate.

    @ivar received: Bytes read so far.
    @ivar _eof: Whether the far side sends no more.
    @ivar _over: Whether the connection is gone.
    """

    if not TYPE_CHECKING:
        # The slots of the fields are in the subclasses, see READING_FIELDS.
        __slots__ = ()

    PEER, RULE, PIPE, UNJOINED = 1, 2, 4, 8
    """Why reading is held: the peer has asked for it, a rate limiter has, a pipe is
    full, or there is no peer yet."""

    received: int
    _reactor: Any
    _eof: bool
    _held: int
    _over: bool
    _rule: RateLimiter | None
    _ruleTimer: IDelayedCall | None

    def _prepareReading(self, reactor: Any) -> None:
        """
        Set all fields.

        @param reactor: Tells time.
        """
        self.received = 0
        self._reactor = reactor
        self._eof = self._over = False
        self._held = 0
        self._rule = None
        self._ruleTimer = None

    # For subclasses

    @abstractmethod
    def _stopReading(self) -> None:
        """Read no more for now."""

    @abstractmethod
    def _goOnReading(self) -> None:
        """Read again."""

    # What reading is held by

    def hold(self, why: int = PEER) -> None:
        """
        Read no more.

        @param why: One of L{PEER}, L{RULE}, L{PIPE} and L{UNJOINED}.
        """
        if not (self._held or self._over or self._eof):
            self._stopReading()
        self._held |= why

    def release(self, why: int) -> None:
        """
        Read again, unless there is another reason not to. Never after the end, which
        would then be reported twice.
        """
        if self._held & why:
            self._held &= ~why
            if not (self._held or self._over or self._eof):
                self._goOnReading()

    def pauseReading(self) -> None:
        """Read no more for now."""
        self.hold(self.PEER)

    def resumeReading(self) -> None:
        """Read again."""
        self.release(self.PEER)

    # Counts and rates

    def obey(self, rule: RateLimiter) -> None:
        """Have C{rule} slow down reading, in addition to the rules that do already."""
        self._rule = (
            rule if self._rule is None else CombinedRateLimiter(self._rule, rule)
        )

    def obeyAgain(self) -> None:
        """A rate has changed: read on until the limiter says how long to wait."""
        self._stopRuleTimer()
        self.release(self.RULE)

    def allowance(self, most: int) -> int:
        """How many bytes may be read before L{counted} is called."""
        return most if self._rule is None else min(most, self._rule.atOnce)

    def counted(self, amount: int) -> None:
        """Count bytes that were read, whichever way they were passed on."""
        self.received += amount
        if self._rule is not None:
            delay = self._rule.charge(amount)
            if delay > 0 and not self._over:
                self.hold(self.RULE)
                self._stopRuleTimer()
                self._ruleTimer = self._reactor.callLater(delay, self._ruleOver)

    def _ruleOver(self) -> None:
        """The rate lets us read again."""
        self._ruleTimer = None
        self.release(self.RULE)

    def _stopRuleTimer(self) -> None:
        """Forget the rate's delay."""
        if self._ruleTimer is not None:
            self._ruleTimer.cancel()
            self._ruleTimer = None

    def _stopTimers(self) -> None:
        """Wait for nothing any more."""
        if self._ruleTimer is not None:
            self._stopRuleTimer()
