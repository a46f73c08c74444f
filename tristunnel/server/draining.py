"""
Draining a member of a server that is to be stopped: its clients go elsewhere first, so
that nobody's stream breaks, and new visitors need not wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from tristunnel.dialects.base.server import ServerSessions
from tristunnel.errors import TunnelError
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.util.process import Drain

__all__ = ["AT_ONCE", "MOVING", "Draining"]

AT_ONCE = 0.05
"""Seconds after which clients are told to come back whom others can take."""

MOVING = 5.0
"""Seconds that a stopping member waits for its clients to have gone elsewhere."""

PATIENCE = 10.0
"""Seconds after which a client that stays, and has no visitor, is disconnected: it
knows nothing of other members, and comes back to one of them."""

_LOOK = 1.0


class Draining:
    """
    Sends the clients of a server elsewhere.

    @param reactor: Tells time.
    @param sessions: Its sessions.
    @param tunnels: Its tunnels.
    @param elsewhere: Says where clients may go instead, as in L{TunnelError.elsewhere}.

    @ivar isOn: Whether no clients are taken.
    """

    def __init__(
        self,
        reactor: Any,
        sessions: ServerSessions,
        tunnels: TunnelService,
        elsewhere: Callable[[], tuple[str, ...]],
    ) -> None:
        self.isOn = False
        self._reactor = reactor
        self._sessions = sessions
        self._tunnels = tunnels
        self._elsewhere = elsewhere
        self._since = 0.0
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._moving: Drain | None = None
        self._isOver = False
        self._waiting: list[Deferred[None]] = []

    def turn(self, on: bool) -> None:
        """Begin or stop sending clients elsewhere. It may be called twice."""
        if on is self.isOn:
            return
        self.isOn = on
        if on:
            self._begin()
        else:
            self._sessions.stay()
            self._tunnels.leaving = None
            if self._looking.running:
                self._looking.stop()

    def _begin(self) -> None:
        reason = TunnelError(
            "shutting-down",
            "this member of the server is about to stop: go to another one",
            retryAfter=AT_ONCE,
        )
        reason.elsewhere = self._elsewhere()
        self._since = self._reactor.seconds()
        self._sessions.drain(reason)
        # The tunnels' own method is not used: visitors who come by way of other members
        # are served as before.
        self._tunnels.leaving = reason
        self._looking.start(_LOOK, now=False)

    def _look(self) -> None:
        """
        Disconnect the clients that do not go by themselves, when they have no visitors.
        """
        if self._reactor.seconds() - self._since < PATIENCE:
            return
        reason = TunnelError("shutting-down", retryAfter=1.0)
        for client in self._tunnels.clients:
            side: Any = client.side
            streams = getattr(side, "streams", None)
            if streams is not None and not streams():
                side.fail(reason)

    def numbers(self) -> dict[str, int]:
        """Count the clients, tunnels and streams that are here."""
        return {
            "clients": len(self._tunnels.clients),
            "tunnels": len(self._tunnels.tunnels),
            "streams": max(self._sessions.streams(), self._tunnels.streams()),
        }

    # At a stop

    def moved(self) -> Deferred[None]:
        """
        Send clients elsewhere, if there are other members.

        @return: Fires when all that can have gone, or after L{MOVING}.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if self._moving is None:
            hasOthers = bool(self._elsewhere())
            if hasOthers:
                self.turn(True)
            grace = MOVING if hasOthers else 0.0
            self._moving = Drain(self._reactor, self._staying, grace)
            self._moving.wait().addCallback(self._over)
        elif self._isOver:
            self._over(None)
        return waiting

    def _staying(self) -> int:
        """Count the clients that may still go."""
        return self._tunnels.leases.held if self._elsewhere() else 0

    def _over(self, result: None) -> None:
        self._isOver = True
        if self._looking.running:
            self._looking.stop()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def hurry(self) -> None:
        """Stop waiting."""
        if self._moving is not None:
            self._moving.hurry()
