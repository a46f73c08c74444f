"""How long a visitor's connection may be idle, send nothing, or take nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tristunnel.dataplane.deadlines import Key, deadlinesOf
from tristunnel.names.exchange import Exchange
from tristunnel.names.site import NameSite

__all__ = ["BODY", "HALF_OPEN", "IDLE", "Patience"]

BODY = 60.0
"""Seconds in which the next bytes of a request's body must arrive."""

IDLE = 60.0
"""Seconds in which the next request's head must arrive."""

HALF_OPEN = 30.0
"""Seconds without a byte of the response after which a visitor who has ended its
direction is taken to have left."""


class Patience:
    """
    Waits for heads of requests, and for visitors who may have left.

    One timer serves all requests that come until it is due, so that none of them costs
    a timer of its own.

    @param site: Knows which connections are idle.
    @param late: Called when a head, or the rest of a body, has not come in time.
    @param leave: Ends the connection, to make room for another.
    """

    __slots__ = ("_deadline", "_late", "_site", "_until", "leave")

    def __init__(
        self, site: NameSite, late: Callable[[], object], leave: Callable[[], object]
    ) -> None:
        self._site = site
        self._late = late
        self.leave = leave
        self._deadline: Key | None = None
        self._until = 0.0

    def begin(self, seconds: float = IDLE) -> None:
        """Wait so many seconds for a head."""
        site = self._site
        self._until = site.seconds() + seconds
        site.idle[self] = None
        if len(site.idle) > site.mostIdle:
            next(iter(site.idle)).leave()
        if self._deadline is None:
            self._deadline = deadlinesOf(site.reactor).add(seconds, self._look)

    def came(self) -> None:
        """Note that the head has come."""
        self._site.idle.pop(self, None)

    def stop(self) -> None:
        """Stop waiting."""
        self._site.idle.pop(self, None)
        if self._deadline is not None:
            deadlinesOf(self._site.reactor).cancel(self._deadline)
            self._deadline = None

    def _look(self) -> None:
        self._deadline = None
        if self not in self._site.idle:
            # It is being answered; then the next head is awaited anew.
            return
        left = self._until - self._site.seconds()
        if left > 0:
            self._deadline = deadlinesOf(self._site.reactor).add(left, self._look)
        else:
            self._late()

    def body(self, exchange: Exchange, isHeld: Callable[[], object]) -> None:
        """
        Wait for the rest of a request's body, of which the next bytes must come in
        time.

        @param isHeld: Whether it cannot come now, since nobody takes it.
        """
        exchange.isWatched = True

        def rests() -> None:
            answered = exchange.response is not None and not exchange.responseDone
            if isHeld() or answered:
                # A service that answers already may listen for as long as it likes.
                self.body(exchange, isHeld)
            else:
                self._late()

        self.watch(lambda: exchange.came, rests, BODY)

    def watch(
        self,
        taken: Callable[[], Any],
        stuck: Callable[[], object],
        seconds: float = HALF_OPEN,
    ) -> None:
        """
        Look now and then whether something makes progress, until L{stop} is called.

        @param taken: Returns what changes with each progress.
        @param stuck: Called once if there is none.
        @param seconds: How long there may be none.
        """
        self.stop()
        before = taken()

        def look() -> None:
            self._deadline = None
            if taken() == before:
                stuck()
            else:
                self.watch(taken, stuck, seconds)

        self._deadline = deadlinesOf(self._site.reactor).add(seconds, look)
