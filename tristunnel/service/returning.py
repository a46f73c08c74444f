"""
Leases for clients that do not know of leases: a client that is known by its login gets
back what it asks for again, as long as that is kept.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable
from hashlib import sha256

from twisted.internet.interfaces import IReactorTime

from tristunnel.model.book import IBook
from tristunnel.model.permissions import Identity
from tristunnel.model.record import Change, TunnelRecord
from tristunnel.service.leases import Lease, LeaseHolder, Leases

__all__ = ["Returning", "maySomebodyReturn"]

REMEMBERED = 65536
"""Leases that are remembered while nobody has them."""

_MARK = "-"
"""Separates the two parts of such a lease's id: what it is for, and a random part."""


def maySomebodyReturn(identity: Identity) -> bool:
    """Whether a client can be told from others by its login alone."""
    return not (identity.anonymous or identity.issued)


class Returning:
    """
    Knows which of these leases nobody has at the moment, at any process of the server:
    the book tells each process of all of them.

    @param reactor: Tells time.
    @param leases: The leases of this process.
    @param book: The book.

    @ivar secret: Gets a secret that all processes of the server have, and nobody else.
    """

    def __init__(self, reactor: IReactorTime, leases: Leases, book: IBook) -> None:
        own = secrets.token_bytes(32)
        self.secret: Callable[[], bytes] = lambda: own
        self._reactor = reactor
        self._leases = leases
        # Until when each is kept, the oldest first.
        self._away: dict[str, float] = {}
        book.watch(self.changed)

    def changed(self, change: Change) -> None:
        """Take a change in the book."""
        if _MARK not in change.id:
            return
        self._away.pop(change.id, None)
        if change.kind == "away":
            now = self._reactor.seconds()
            self._away[change.id] = now + self._leases.seconds
            for known, until in list(self._away.items()):
                if until > now and len(self._away) <= REMEMBERED:
                    break
                del self._away[known]

    def left(self, leases: Iterable[str]) -> None:
        """
        Learn of leases that nobody has, from who had them and before the book tells.
        """
        until = self._reactor.seconds() + self._leases.seconds
        self._away.update((lease, until) for lease in leases)

    def tagOf(self, identity: Identity, what: str) -> str:
        """
        Say what a lease is for.

        @param what: What its client asks for, in words that it will use again.
        """
        return self._made(f"tag\0{identity.name}\0{what}")[:16]

    def _made(self, text: str) -> str:
        return hmac.new(self.secret(), text.encode(), sha256).hexdigest()

    async def take(
        self, identity: Identity, what: str, holder: LeaseHolder
    ) -> tuple[Lease, list[TunnelRecord]]:
        """
        Take a lease of the client's that nobody has, or make one.

        @param what: See L{tagOf}.
        @param holder: The session that has it from now on.
        @return: The lease, and the tunnels of it that are not here yet.
        @raise TunnelError: If the book cannot be asked.
        """
        tag = self.tagOf(identity, what)
        for known in [each for each in self._away if each.startswith(tag + _MARK)]:
            # Nobody else in this process may take it meanwhile.
            del self._away[known]
            claimed = await self._leases.claim(
                known, self._made(known), identity, holder
            )
            if claimed is not None:
                return claimed
        identifier = f"{tag}{_MARK}{secrets.token_hex(8)}"
        made = self._made(identifier)
        return await self._leases.grantAs(identifier, made, identity, holder), []
