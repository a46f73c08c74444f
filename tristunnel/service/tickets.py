"""One-time tickets, which prove that a new connection belongs to a session."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tristunnel.errors import TunnelError

__all__ = ["LIFETIME", "Ticket", "TicketBook", "Tickets", "Use"]

LIFETIME = 30.0
"""Seconds in which a ticket must be used."""

Use = Callable[[Any, dict[str, object]], bool]
"""Takes the L{ServerConnection
<tristunnel.dialects.framed.server_connection.ServerConnection>} that the ticket came
on, and what else came with it; tells whether it could."""


@dataclass(eq=False, slots=True)
class Ticket:
    """
    A ticket that has not been used.

    @ivar name: Finds it.
    @ivar secret: Proves it.
    @ivar use: What it is good for; belongs to the session that granted it.
    @ivar expires: When it is void, in seconds.
    @ivar gone: Called once, when it was used or is void.
    """

    name: str
    secret: bytes = field(repr=False)
    use: Use
    expires: float
    gone: Callable[[Ticket], object]

    @property
    def text(self) -> str:
        """As it travels."""
        return f"{self.name}.{self.secret.decode('ascii')}"


class Tickets:
    """
    The tickets of a server.

    @param seconds: The clock.

    @ivar mark: The beginning of all tickets of this process, by which other processes
        of the same server know whose they are.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.mark = ""
        self._seconds = seconds
        # In the order in which they expire.
        self._byName: OrderedDict[str, Ticket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._byName)

    def grant(
        self, use: Use, gone: Callable[[Ticket], object] = lambda ticket: None
    ) -> Ticket:
        """Make a ticket. Sessions do so by their L{TicketBook}."""
        self.expire()
        ticket = Ticket(
            self.mark + secrets.token_hex(8),
            secrets.token_urlsafe(24).encode("ascii"),
            use,
            self._seconds() + LIFETIME,
            gone,
        )
        self._byName[ticket.name] = ticket
        return ticket

    def expire(self) -> None:
        """Forget those whose time is over."""
        now = self._seconds()
        while self._byName:
            ticket = next(iter(self._byName.values()))
            if ticket.expires > now:
                return
            self.revoke(ticket)

    def revoke(self, ticket: Ticket) -> None:
        """Make a ticket void. It may be called twice."""
        if self._byName.pop(ticket.name, None) is not None:
            ticket.gone(ticket)

    def redeem(self, text: object) -> Use | None:
        """
        Use a ticket up.

        @param text: What the peer sent.
        @return: What it is good for, or C{None}.
        """
        if not isinstance(text, str):
            return None
        name, _, secret = text.rpartition(".")
        ticket = self._byName.get(name)
        given = secret.encode("utf-8", "surrogatepass")
        wanted = b"-" * 32 if ticket is None else ticket.secret
        if not hmac.compare_digest(given, wanted) or ticket is None:
            return None
        self.revoke(ticket)
        return ticket.use if ticket.expires > self._seconds() else None


class TicketBook:
    """
    All tickets of one session that have not been used: a limited number of each kind,
    which are valid as long as the session and for the same peer.

    @param tickets: The server's.
    @param admits: Whether the session may have a connection that shows one.
    """

    def __init__(
        self, tickets: Tickets, admits: Callable[[Any], bool] = lambda arrival: True
    ) -> None:
        self._tickets = tickets
        self._admits = admits
        self._out: dict[str, OrderedDict[Ticket, None]] = {}
        self._closed = False

    def out(self, kind: str) -> int:
        """How many of a kind are neither used nor void."""
        self._tickets.expire()
        return len(self._out.get(kind, ()))

    def grant(self, kind: str, most: int, use: Use) -> Ticket:
        """
        Make a ticket; if there would be more than C{most} of its kind, the
        oldest is void.

        @raise TunnelError: C{session-lost}, when the session is over.
        """
        if self._closed or most < 1:
            raise TunnelError("session-lost")
        out = self._out.setdefault(kind, OrderedDict())
        while len(out) >= most:
            self.revoke(next(iter(out)))

        def admitted(arrival: Any, offer: dict[str, object]) -> bool:
            return not self._closed and self._admits(arrival) and use(arrival, offer)

        ticket = self._tickets.grant(admitted, out.pop)
        out[ticket] = None
        return ticket

    def revoke(self, ticket: Ticket) -> None:
        """Make a ticket void. It may be called twice."""
        self._tickets.revoke(ticket)

    def close(self) -> None:
        """Make all tickets void, because the session is over."""
        self._closed = True
        for out in self._out.values():
            for ticket in list(out):
                self.revoke(ticket)
