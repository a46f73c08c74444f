"""What the holders of tokens use at other members of a server."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from tristunnel.service.rights import TunnelRights
from tristunnel.service.siblings import Siblings
from tristunnel.util.repeating import RepeatingService

__all__ = ["INTERVAL", "UsedElsewhere", "limitedTogether"]

INTERVAL = 1.0
"""Seconds after which the others know how many visitors there are here."""


class UsedElsewhere:
    """
    Applies the limits on all clients of a token's holder to all members together, give
    or take the visitors who come within L{INTERVAL}.

    @param siblings: The others.
    @param rights: Applies the limits here.
    """

    def __init__(self, siblings: Siblings, rights: TunnelRights) -> None:
        self._siblings = siblings
        self._rights = rights
        self._told: tuple[set[str], dict[str, int]] = set(), {}
        # By member, and by the holder's name.
        self._heard: dict[str, dict[str, int]] = {}
        siblings.publish("visitors", self._hear)
        rights.elsewhere = self._count

    def look(self) -> None:
        """Tell the others what has changed here; to be called again and again."""
        now = self._siblings.names, self._rights.visitors()
        if now != self._told:
            self._told = now
            self._siblings.tell("visitors", self._siblings.name, now[1])
        self._rights.shareRates()

    def _hear(self, member: str, visitors: dict[str, int]) -> None:
        self._heard[member] = visitors
        for gone in set(self._heard) - self._siblings.names - {member}:
            del self._heard[gone]

    def _count(self, holder: str) -> int:
        names = self._siblings.names
        return sum(
            visitors.get(holder, 0)
            for member, visitors in self._heard.items()
            if member in names
        )


def limitedTogether(
    reactor: IReactorTime, siblings: Siblings, rights: TunnelRights
) -> RepeatingService:
    """
    Make a service that applies these limits.

    @param reactor: Tells time.
    """
    return RepeatingService(reactor, UsedElsewhere(siblings, rights).look, INTERVAL)
