"""How late the reactor is."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.service.counters import Buckets

__all__ = ["INTERVAL", "ReactorLag"]

INTERVAL = 1.0
"""Seconds from one look to the next."""

_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class ReactorLag:
    """
    Measures by how much calls come later than they were asked for: what every
    visitor waits for in addition, when the process has too much to do.

    @param reactor: The one that is measured.

    @ivar seconds: What was measured.
    @ivar last: The last measure, in seconds.
    @ivar tick: Called with each look: for what is to be done once a second
        anyway.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.seconds = Buckets(_BOUNDS)
        self.last = 0.0
        self.tick: Callable[[], object] = lambda: None
        self._reactor = reactor
        self._due = 0.0
        self._call: IDelayedCall | None = None

    @property
    def timers(self) -> int:
        """How many calls the reactor is to make later; what leaks, grows here."""
        return len(self._reactor.getDelayedCalls())

    def start(self) -> None:
        """Begin to measure."""
        if self._call is None:
            self._wait()

    def stop(self) -> None:
        """Measure no more; doing it twice is no error."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait(self) -> None:
        # Not a LoopingCall, which would make up for what was late.
        self._due = self._reactor.seconds() + INTERVAL
        self._call = self._reactor.callLater(INTERVAL, self._look)

    def _look(self) -> None:
        self.last = max(0.0, self._reactor.seconds() - self._due)
        self.seconds.add(self.last)
        self._wait()
        self.tick()
