"""
The last word of a client that leaves its session.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from tristunnel.dialects.framed.liveness import Liveness
from tristunnel.util.process import FAREWELL
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.framed import decodeCredit

__all__ = ["Farewell"]


class Farewell:
    """
    The time until a server is known to have heard that this client leaves: it answers
    the ping that follows. What it had sent before has arrived by then.

    @param reactor: Tells time.
    @param liveness: Sends the ping.

    @ivar isAwaited: Whether visitors may still come that were under way.
    """

    __slots__ = ("_late", "_ping", "isAwaited")

    def __init__(self, reactor: IReactorTime, liveness: Liveness) -> None:
        self.isAwaited = True
        self._ping = liveness.ping()
        # A server that does not answer is not waited for.
        self._late = reactor.callLater(FAREWELL, self.end)

    def answered(self, payload: bytes) -> None:
        """The server has answered a ping, perhaps another one."""
        if decodeCredit(payload) == self._ping:
            self.end()

    def end(self) -> None:
        """Nothing comes any more. Doing it twice is no error."""
        self.isAwaited = False
        stopTimer(self._late)
