"""
One-time tickets: what proves that a fresh connection belongs to a session.
"""

from __future__ import annotations

import hmac
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["LIFETIME", "Ticket", "Tickets", "Use"]

LIFETIME = 30.0
"""Seconds in which a ticket must be used."""

Use = Callable[[Any, dict[str, object]], bool]
"""Takes the L{TunnelServerProtocol<tristunnel.sessions.server.TunnelServerProtocol>}
that the ticket came on, and what else came with it; tells whether it could."""


@dataclass(eq=False, slots=True)
class Ticket:
    """
    A ticket that has not been used.

    @ivar name: Finds it.
    @ivar secret: Proves it.
    @ivar use: What it is good for; belongs to the session that granted it.
    @ivar expires: When it is void, in seconds.
    """

    name: str
    secret: bytes
    use: Use
    expires: float

    @property
    def text(self) -> str:
        """
        As it travels.
        """
        return f"{self.name}.{self.secret.decode('ascii')}"


class Tickets:
    """
    The tickets of a server.

    @param seconds: The clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._byName: dict[str, Ticket] = {}
        self._inOrder: deque[Ticket] = deque()

    def __len__(self) -> int:
        return len(self._byName)

    def grant(self, use: Use) -> Ticket:
        """
        Make a ticket.
        """
        now = self._seconds()
        inOrder = self._inOrder
        while inOrder and inOrder[0].expires <= now:
            self._byName.pop(inOrder.popleft().name, None)
        ticket = Ticket(
            secrets.token_hex(8),
            secrets.token_urlsafe(24).encode("ascii"),
            use,
            now + LIFETIME,
        )
        self._byName[ticket.name] = ticket
        inOrder.append(ticket)
        return ticket

    def revoke(self, ticket: Ticket) -> None:
        """
        Make a ticket void; doing it twice is no error.
        """
        self._byName.pop(ticket.name, None)
        # What waits for its time in the queue keeps nothing else alive.
        ticket.use = _void

    def redeem(self, text: object) -> Use | None:
        """
        Use a ticket up.

        @param text: What the peer sent.
        @return: What it is good for, or C{None}.
        """
        if not isinstance(text, str):
            return None
        name, _, secret = text.partition(".")
        ticket = self._byName.get(name)
        given = secret.encode("utf-8", "surrogatepass")
        wanted = b"-" * 32 if ticket is None else ticket.secret
        if not hmac.compare_digest(given, wanted) or ticket is None:
            return None
        use = ticket.use
        self.revoke(ticket)
        return use if ticket.expires > self._seconds() else None


def _void(arrival: Any, offer: dict[str, object]) -> bool:
    """
    What a void ticket is good for.
    """
    return False
