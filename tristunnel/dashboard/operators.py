"""
What a server shows to those who run it: metrics and the dashboard.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from twisted.web.resource import IResource

from tristunnel.dashboard.events import ServerEvents
from tristunnel.dashboard.history import RateHistory
from tristunnel.dashboard.metrics import metricsPage
from tristunnel.dashboard.pages import dashboardPages
from tristunnel.dashboard.view import Board
from tristunnel.http.browsers import Guard
from tristunnel.model.observer import ServerObserver, severalObservers
from tristunnel.service.counters import Counters, ReactorLag

if TYPE_CHECKING:
    from tristunnel.auth.tokens import TokenFile
    from tristunnel.http.callers import HTTPCallers
    from tristunnel.service.preauth import PreauthLimiter
    from tristunnel.service.tunnel_service import TunnelService

__all__ = ["Watch"]


class Watch:
    """
    Counts what happens at a server, and makes pages of it.

    @param reactor: Tells time.
    @param observers: Who else is told what happens.

    @ivar observer: To be told what happens.
    @ivar tally: What was counted.
    @ivar lag: How late the reactor is, and the beat of the graphs.
    """

    def __init__(self, reactor: Any, *observers: ServerObserver) -> None:
        self.tally = Counters(reactor.seconds)
        self.lag = ReactorLag(reactor)
        self._reactor = reactor
        self._events = ServerEvents()
        self.observer = severalObservers(
            ServerObserver, *observers, self.tally, self._events
        )

    def pages(
        self,
        service: TunnelService,
        callers: HTTPCallers,
        limiter: PreauthLimiter,
        asked: bool,
        names: Collection[str] | None = None,
        dashboard: bool = True,
        tokens: Sequence[TokenFile] = (),
    ) -> dict[bytes, IResource]:
        """
        Make the pages, by path.

        @param asked: Whether callers are asked who they are.
        @param names: The names of this server, or C{None} if nobody said.
        @param dashboard: Whether there is a dashboard.
        @param tokens: The tokens that are taken, for admins to revoke.
        """
        guard = Guard(asked, names)
        metrics = metricsPage(callers, service, self.tally, self.lag, limiter, guard)
        pages = {b"metrics": metrics}
        if dashboard:
            history = RateHistory(self._reactor)
            board = Board(
                service, self.tally, self._events, history, asked, files=tokens
            )
            pages.update(dashboardPages(callers, board, guard))
            self.lag.tick = lambda: history.sample(self.tally.tunnels)
        return pages

    def start(self) -> None:
        """Begin to measure, once the reactor runs, until it stops."""
        self._reactor.callWhenRunning(self.lag.start)
        self._reactor.addSystemEventTrigger("before", "shutdown", self.lag.stop)
