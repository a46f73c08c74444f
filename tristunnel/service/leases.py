"""Who may come back to which tunnels."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tristunnel.model.book import IBook
from tristunnel.model.permissions import Identity
from tristunnel.model.record import Claim, Place, TunnelRecord
from tristunnel.model.tunnel import IClientSide, Tunnel
from tristunnel.service.here import Here
from tristunnel.service.patience import inTime, leftUndone
from tristunnel.util.secret import newSecret, secretHash

__all__ = ["Lease", "LeaseHolder", "Leases"]

_MOST_FENCE = 2**48
"""No lease is taken over more often."""


class LeaseHolder(IClientSide, Protocol):
    """A session that can hold a lease."""

    def displaced(self) -> None:
        """The lease's rightful holder has come back on another connection."""


@dataclass(eq=False)
class Lease:
    """
    A client's claim to its tunnels, beyond the life of one connection, at the process
    that its session has reached.

    @ivar id: Public name of the lease.
    @ivar owner: Who got it; another identity cannot use it.
    @ivar place: As whom this process has it in the book.
    @ivar holder: The session that has it now.
    @ivar tunnels: What it keeps open here.
    @ivar due: When it expires, in seconds of the process's clock, while no session
        has it.
    """

    id: str
    owner: Identity
    place: Place
    holder: LeaseHolder | None = None
    tunnels: list[Tunnel] = field(default_factory=list)
    due: float | None = None


class Leases:
    """
    The leases of the sessions of this process. The book has all of them, and decides
    whose they are.

    @param reactor: Tells time.
    @param book: The book.
    @param here: The tunnels of this process.
    @param seconds: How long a lease outlives its session.

    @ivar meanwhile: Finds where visitors wait when their tunnel's client has just left;
        C{None} if they are turned away.
    """

    _log = Logger()
    meanwhile: Callable[[Tunnel], IClientSide | None]

    def __init__(
        self, reactor: IReactorTime, book: IBook, here: Here, seconds: float = 120.0
    ) -> None:
        self.seconds = seconds
        self._reactor = reactor
        self._book = book
        self._here = here
        self.meanwhile = lambda tunnel: None
        self._leases: dict[str, Lease] = {}

    @property
    def held(self) -> int:
        """How many have a session now."""
        return sum(lease.holder is not None for lease in self._leases.values())

    async def grant(self, owner: Identity, holder: LeaseHolder) -> tuple[Lease, str]:
        """
        Make a new lease.

        @return: The lease and its secret, which is kept nowhere else.
        @raise TunnelError: If the book cannot be asked.
        """
        secret, _ = newSecret()
        return await self.grantAs(secrets.token_hex(8), secret, owner, holder), secret

    async def grantAs(
        self, identifier: str, secret: str, owner: Identity, holder: LeaseHolder
    ) -> Lease:
        """
        Make a new lease.

        @param identifier: Its id, which none has had before.
        @param secret: What claims it.
        @raise TunnelError: If the book cannot be asked.
        """
        place = await inTime(
            self._reactor,
            self._book.grant(identifier, secretHash(secret).hex(), owner.name),
            lambda place: self._book.away(identifier, place, 0.0),
        )
        lease = Lease(identifier, owner, place, holder)
        self._leases[identifier] = lease
        return lease

    async def claim(
        self,
        leaseId: object,
        secret: object,
        owner: Identity,
        holder: LeaseHolder,
        shown: object = None,
    ) -> tuple[Lease, list[TunnelRecord]] | None:
        """
        Take over a lease from a session that may not know yet that it is dead, in this
        process or another one.

        @param shown: The highest fence of the lease that the client has seen, if it
            says so.
        @return: The lease, and the tunnels of it that are not here yet; C{None} if
            there is no lease of that name and secret for C{owner}.
        @raise TunnelError: If the book cannot be asked.
        """
        if not isinstance(leaseId, str) or not isinstance(secret, str):
            return None
        seen = shown if isinstance(shown, int) and 0 <= shown < _MOST_FENCE else 0
        claim: Claim | None = await inTime(
            self._reactor,
            self._book.claim(leaseId, secretHash(secret).hex(), owner.name, seen),
            lambda claim: self._book.away(
                leaseId, Place() if claim is None else claim.place, self.seconds
            ),
        )
        if claim is None:
            return None
        lease = self._leases.setdefault(leaseId, Lease(leaseId, owner, claim.place))
        lease.place, lease.due = claim.place, None
        previous, lease.holder = lease.holder, holder
        for tunnel in lease.tunnels:
            tunnel.clientSide = holder
        elsewhere = []
        for record in claim.records:
            held = self._here.get(record.id)
            if held is None:
                elsewhere.append(record)
            else:
                held.record = replace(held.record, place=claim.place)
        if previous is not None and previous is not holder:
            previous.displaced()
        return lease, elsewhere

    def holderLost(self, lease: Lease, holder: LeaseHolder) -> None:
        """Keep the tunnels of a session that is over for a while."""
        if lease.holder is not holder or self.find(lease.id) is not lease:
            return
        lease.holder = None
        for tunnel in lease.tunnels:
            tunnel.clientSide, tunnel.meanwhile = None, self.meanwhile(tunnel)
        if lease.tunnels:
            lease.due = self._reactor.seconds() + self.seconds
        else:
            del self._leases[lease.id]
        self._away(lease)

    def _away(self, lease: Lease) -> Deferred[None]:
        telling = inTime(
            self._reactor, self._book.away(lease.id, lease.place, self.seconds)
        )
        return telling.addErrback(
            leftUndone(self._log, "The book does not know that a client is away")
        )

    def unheld(self, tag: str) -> list[str]:
        """
        Find those that are kept here while no session has them.

        @param tag: How their ids begin.
        """
        return [
            each.id
            for each in self._leases.values()
            if each.holder is None and each.id.startswith(tag)
        ]

    def find(self, lease: str) -> Lease | None:
        """
        Look a lease up.

        @param lease: Its id.
        """
        return self._leases.get(lease)

    def of(self, tunnel: Tunnel) -> Lease | None:
        """The lease that keeps a tunnel open, or C{None}."""
        held = self._here.get(tunnel.id)
        return None if held is None else self.find(held.record.lease)

    def timeLeft(self, tunnel: Tunnel) -> float | None:
        """Seconds for which a lease without a session keeps a tunnel, or C{None}."""
        lease = self.of(tunnel)
        if lease is None or lease.due is None:
            return None
        return max(0.0, lease.due - self._reactor.seconds())

    def drop(self, lease: str, tunnel: Tunnel) -> None:
        """
        Remove a tunnel from its lease; a lease without a session and without tunnels is
        over.

        @param lease: Its id; one that is not known here is no error.
        """
        known = self.find(lease)
        if known is None:
            return
        if tunnel in known.tunnels:
            known.tunnels.remove(tunnel)
        if known.holder is None and not known.tunnels:
            del self._leases[lease]

    def forget(self, lease: str) -> Lease | None:
        """
        Remove a lease, which has expired or belongs to another process now.

        @param lease: Its id.
        @return: What is known of it; C{None}, if it was not here.
        """
        return self._leases.pop(lease, None)

    async def close(self) -> None:
        """
        Give up all leases, because the process stops; clients have their time to come
        back elsewhere.
        """
        leases = list(self._leases.values())
        self._leases.clear()
        for away in [self._away(lease) for lease in leases if lease.due is None]:
            await away
