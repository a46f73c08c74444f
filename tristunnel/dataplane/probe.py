"""
Whether a peer that may have vanished still answers.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.util.repeating import stopTimer

__all__ = ["PROBE", "Probe"]

PROBE = 5.0
"""Seconds within which a peer must send something."""


class Probe:
    """
    Asks a peer for a sign of life on request.

    @param reactor: Tells time.
    @param ask: Asks the peer; anything that it sends counts as an answer.

    @ivar open: Whether the peer is being asked; only then must L{heard} be called.
    """

    def __init__(self, reactor: IReactorTime, ask: Callable[[], object]) -> None:
        self.open = False
        self._reactor = reactor
        self._ask = ask
        self._closed = False
        self._late: IDelayedCall | None = None
        self._waiting: list[Deferred[bool]] = []

    def __call__(self) -> Deferred[bool]:
        """
        Find out whether the peer is there.

        @return: Fires with whether it has sent anything within L{PROBE} seconds.
        """
        if self._closed:
            return succeed(False)
        waiting: Deferred[bool] = Deferred()
        self._waiting.append(waiting)
        if not self.open:
            self.open = True
            self._late = self._reactor.callLater(PROBE, self._answer, False)
            self._ask()
        return waiting

    def heard(self) -> None:
        """Note that the peer has sent something."""
        if self.open:
            self._answer(True)

    def close(self) -> None:
        """Note that the peer is gone."""
        self._closed = True
        if self.open:
            self._answer(False)

    def _answer(self, alive: bool) -> None:
        """Tell everybody who waits."""
        self.open = False
        stopTimer(self._late)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(alive)
