"""Finding out whether a zlayer client is still there."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.errors import TunnelError
from tristunnel.util.repeating import stopTimer

__all__ = ["HEARTBEAT", "PROBE", "SILENCE", "SignsOfLife"]

HEARTBEAT = 30.0
"""Seconds between two heartbeats."""

SILENCE = 40.0
"""Seconds without a message after which a client is taken for dead."""

PROBE = 5.0
"""Seconds in which a client must answer when another one comes with its token."""


class SignsOfLife:
    """
    Sends heartbeats, and judges a silence.

    @param reactor: Tells time.
    @param beat: Sends a heartbeat.
    @param fail: Ends the session.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        beat: Callable[[], None],
        fail: Callable[[TunnelError], None],
    ) -> None:
        self._reactor = reactor
        self._send = beat
        self._fail = fail
        self._heard = reactor.seconds()
        self._timers: dict[str, IDelayedCall] = {}

    def heard(self) -> None:
        """The client said something."""
        self._heard = self._reactor.seconds()

    def start(self) -> None:
        """Send the first heartbeat, and begin to listen for silence."""
        self._beat()
        self._look()

    def _later(self, name: str, seconds: float, then: Callable[[], None]) -> None:
        self._timers[name] = self._reactor.callLater(seconds, then)

    def _beat(self) -> None:
        self._send()
        self._later("beat", HEARTBEAT, self._beat)

    def _look(self) -> None:
        left = SILENCE - (self._reactor.seconds() - self._heard)
        if left <= 0:
            self._fail(
                TunnelError(
                    "session-lost", f"the client sent nothing for {SILENCE:g} s"
                )
            )
        else:
            self._later("look", left, self._look)

    def probe(self) -> None:
        """Have the client show soon that it is still there."""
        timer = self._timers.get("probe")
        if timer is None or not timer.active():
            asked = self._reactor.seconds()
            self._send()
            self._later("probe", PROBE, lambda: self._probed(asked))

    def _probed(self, asked: float) -> None:
        if self._heard < asked:
            self._fail(TunnelError("displaced", "its token was used from elsewhere"))

    def stop(self) -> None:
        """Stop: the session is over."""
        timers, self._timers = self._timers, {}
        for timer in timers.values():
            stopTimer(timer)
