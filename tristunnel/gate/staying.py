"""
Visitors who stay longer than a request: a WebSocket was let in when it began, and goes
on for as long as its visitor would be let in again.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IDelayedCall

from tristunnel.gate.visit import GateVisit
from tristunnel.model.gate import GateRules
from tristunnel.names.exchange import Connection
from tristunnel.names.table import Route

__all__ = ["LOOK", "Staying"]

LOOK = 5.0
"""Seconds from one look at those who stay to the next."""


class Staying:
    """
    Ends connections of visitors who have signed out, or whose time is up.

    @param reactor: Tells time.
    @param mayStay: Whether a visitor would still be let in.

    @ivar told: Called with the mark of each cookie that somebody has signed out with
        here, for other members of the server.
    """

    def __init__(self, reactor: Any, mayStay: Callable[[GateVisit], bool]) -> None:
        self._reactor = reactor
        self._mayStay = mayStay
        self._known: WeakKeyDictionary[Connection, tuple[GateVisit, Route, str]]
        self._known = WeakKeyDictionary()
        self._next: IDelayedCall | None = None
        self.told: Callable[[str], object] = lambda mark: None

    def __len__(self) -> int:
        return len(self._known)

    def add(
        self, connection: Connection, visit: GateVisit, route: Route, by: bytes
    ) -> None:
        """
        A visitor was let in whose connection may become a WebSocket.

        @param by: The cookie.
        """
        self._known[connection] = visit, route, _markOf(by)
        self._lookLater()

    def signedOut(self, by: bytes) -> None:
        """
        Somebody has signed out.

        @param by: The cookie.
        """
        mark = _markOf(by)
        self.told(mark)
        self.signedOutElsewhere(mark)

    def signedOutElsewhere(self, mark: str) -> None:
        """Somebody has signed out, here or at another member of the server."""
        for connection, (_, _, by) in list(self._known.items()):
            if by == mark:
                self._end(connection)

    def _end(self, connection: Connection) -> None:
        del self._known[connection]
        connection.breakOff()

    def _lookLater(self) -> None:
        if self._next is None and self._known:
            self._next = self._reactor.callLater(LOOK, self._look)

    def _look(self) -> None:
        self._next = None
        for connection, (visit, route, _) in list(self._known.items()):
            # Its owner may ask for something else by now.
            visit.rules = route.gate or GateRules()
            if visit.rules and not self._mayStay(visit):
                self._end(connection)
        self._lookLater()


def _markOf(cookie: bytes) -> str:
    return sha256(cookie).hexdigest()[:32]
