"""
Access to a named service for a limited time: C{grantAccess}.

The URI that it returns, C{w3p://server:9000/access/ID#SECRET}, is all that a
visitor's side needs to reach the service until the time is over.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import Logger

from tristunnel.errors import TunnelError, badOption
from tristunnel.model.book import IBook
from tristunnel.model.permissions import Grant, Identity, Permissions
from tristunnel.model.policy import Network, parseNetworks
from tristunnel.model.record import AccessRecord
from tristunnel.service.patience import inTime, leftUndone
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.hosts import addressOf
from tristunnel.util.secret import isSecret, newSecret

__all__ = [
    "LONGEST_ACCESS",
    "Access",
    "AccessGrants",
    "isCapability",
    "mayReach",
    "serviceOf",
]

LONGEST_ACCESS = 30 * 86400.0
"""The longest time that access is granted for, in seconds."""

PER_OWNER = 1_000
"""Grants that one owner may have in force."""


def mayReach(identity: Identity, service: str, owner: Identity) -> bool:
    """
    Whether somebody may reach a named service: its owner may, and who has a
    grant for it.
    """
    grant = identity.grant
    if grant is not None and grant.permissions.reaches(service, owner.name):
        return True
    return identity == owner


def isCapability(identity: Identity) -> bool:
    """
    Whether somebody came with a capability that L{AccessGrants} issued, which
    is good for one service and nothing else.
    """
    return identity.grant is not None and bool(identity.grant.permissions.servicesOf)


def serviceOf(identity: Identity) -> str | None:
    """
    The service that a capability is for.

    @return: C{None} for everybody who came without one.
    """
    if identity.grant is None or not isCapability(identity):
        return None
    services = identity.grant.permissions.services
    return services[0] if services else None


@dataclass(eq=False)
class Access:
    """
    One capability, as this process has it.

    @ivar record: What the book says of it.
    @ivar owner: Who granted it.
    @ivar networks: Where it may be used from; empty for everywhere.
    @ivar until: When it ends, in seconds of the server's clock.
    @ivar grant: In force until then.
    """

    record: AccessRecord
    owner: Identity
    networks: tuple[Network, ...]
    until: float
    grant: Grant
    timer: IDelayedCall | None = None

    @property
    def id(self) -> str:
        """Short, unique and public."""
        return self.record.id

    @property
    def usesLeft(self) -> int | None:
        """Sessions that may still begin with it; C{None} for any number."""
        record = self.record
        return max(0, record.uses - record.used) if record.uses else None


class AccessGrants:
    """
    The capabilities that are in force. They are kept and counted in the book; this
    process knows what depends on them here.

    @param reactor: Tells time.
    @param book: The book.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, book: IBook) -> None:
        self._reactor = reactor
        self._book = book
        self._grants: dict[str, Access] = {}
        self._stopped = False
        # Ids that are being granted here; the book tells of them first.
        self._issuing: set[str] = set()

    def __len__(self) -> int:
        return len(self._grants)

    @returnsDeferred
    async def issue(
        self,
        owner: Identity,
        service: str,
        ttl: float,
        address: str = "",
        token: str = "",
        uses: int = 0,
        serviceOwner: Identity | None = None,
        countedAs: str = "",
    ) -> tuple[Access, str]:
        """
        Grant access.

        @param owner: Who grants it; it ends with the owner's own grant.
        @param ttl: Seconds.
        @param address: The address or network that it may be used from; empty
            for everywhere.
        @param token: The name that whoever uses it must log in by; empty for
            no login at all.
        @param uses: How many sessions may begin with it; 0 for any number.
        @param serviceOwner: Whose service it is, if not C{owner}'s.
        @param countedAs: Whose grants are counted together; by default, those
            of C{owner}'s name.
        @return: The access, and its secret, which is kept nowhere else.
        @raise TunnelError: C{bad-option} or C{limit-reached}, or if the book cannot be
            asked.
        """
        if not 0 < ttl <= LONGEST_ACCESS:
            raise badOption(
                f"ttl takes seconds, more than 0 and up to {LONGEST_ACCESS:.0f}"
            )
        if not 0 <= uses <= 1_000_000:
            raise badOption("uses takes 0 to 1000000")
        secret, kept = newSecret()
        wanted = AccessRecord(
            secrets.token_hex(8),
            kept.hex(),
            service,
            (serviceOwner or owner).name,
            owner.name,
            owner.anonymous,
            countedAs or owner.name,
            " ".join(map(str, _networks(address))),
            token,
            uses,
            until=self._book.now() + ttl,
        )
        self._issuing.add(wanted.id)
        try:
            record = await inTime(
                self._reactor,
                self._book.putAccess(wanted, PER_OWNER),
                lambda record: self._book.dropAccess(record.id),
            )
        finally:
            self._issuing.discard(wanted.id)
        return self._keep(record, owner, ttl), secret

    def _keep(self, record: AccessRecord, owner: Identity, left: float) -> Access:
        """
        Put access in force in this process.

        @param owner: Who granted it; with the grant that lets them do so, if that was
            here.
        @param left: Seconds until it is over.
        """
        permissions = Permissions(
            may=frozenset({"access"}),
            # Names hold no characters that a pattern would understand.
            services=(record.service,),
            servicesOf=record.serviceOwner,
        )
        access = Access(
            record,
            owner,
            parseNetworks(record.networks.split()),
            self._reactor.seconds() + left,
            Grant(
                permissions,
                "expired",
                parents=() if owner.grant is None else (owner.grant,),
            ),
        )
        self._grants[record.id] = access
        access.timer = self._reactor.callLater(
            left,
            access.grant.end,
            TunnelError("expired", "the time of this access has passed"),
        )
        # Also when the owner's token ends: then it must be forgotten, too.
        access.grant.watch(lambda reason: self._forget(access))
        return access

    def _forget(self, access: Access) -> None:
        self._grants.pop(access.id, None)
        if access.timer is not None and access.timer.active():
            access.timer.cancel()
            if not (self._stopped or access.record.dropped):
                self._drop(access)

    def _drop(self, access: Access) -> None:
        dropping = inTime(self._reactor, self._book.dropAccess(access.id))
        dropping.addErrback(
            leftUndone(self._log, "The book still has access that was taken back")
        )

    def changed(self, identifier: str) -> None:
        """
        Look up access that has changed in the book: it was granted, used or revoked,
        maybe at another process.

        @param identifier: Its id.
        """
        if self._stopped:
            return
        finding = inTime(self._reactor, self._book.findAccess(identifier))
        finding.addCallbacks(
            self._found, leftUndone(self._log, "Access could not be looked up")
        )

    def lookThrough(self) -> None:
        """Look for access in the book that this process has not heard of."""

        def found(records: list[AccessRecord]) -> None:
            for each in records:
                self._found(each)

        listing = inTime(self._reactor, self._book.listAccess())
        listing.addCallback(found)
        # A book that cannot be asked now tells us when it can.
        listing.addErrback(lambda failure: failure.trap(TunnelError))

    def _found(self, record: AccessRecord | None) -> None:
        if record is None or self._stopped or record.id in self._issuing:
            return
        known, left = self._grants.get(record.id), record.until - self._book.now()
        if known is not None:
            known.record = record
            if record.dropped:
                known.grant.end(TunnelError("expired", "the access was revoked"))
        elif not record.dropped and left > 0:
            self._keep(record, Identity(record.owner, record.anonymous), left)

    async def claim(
        self,
        claim: Mapping[str, object],
        peer: IAddress | None,
        authenticate: Callable[[], Awaitable[Identity]],
    ) -> Identity:
        """
        Find out what a capability is good for.

        @param claim: C{id} and C{secret}, as the visitor's side gave them.
        @param peer: Where that comes from.
        @param authenticate: Checks its credentials, where those matter.
        @return: Somebody who may reach the service and do nothing else.
        @raise TunnelError: C{auth-refused}, if it has expired, is wrong, or is not for
            whoever uses it: the answer is always the same.
        """
        access = self._find(claim.get("id"), claim.get("secret"))
        if access is None or not _isFrom(access, peer):
            raise _refusal()
        parents = [access.grant]
        token = access.record.token
        if token:
            who = await authenticate()
            if who.name != token or who.anonymous:
                raise _refusal()
            if who.grant is not None:
                parents.append(who.grant)
        if access.record.uses:
            try:
                spent = await inTime(self._reactor, self._book.spend(access.id))
            except TunnelError as error:
                raise (_refusal() if error.code.name == "expired" else error) from None
            access.record = spent
        # It may have ended while that was found out.
        if access.grant.ended is not None:
            raise _refusal()
        grant = Grant(access.grant.permissions, "expired", parents=parents)
        grant.check()
        return Identity(f"access-{access.id}", grant=grant, issued=True)

    def find(self, identifier: str) -> Access | None:
        """Find access by its id, if it is in force."""
        return self._grants.get(identifier)

    def serviceFor(self, identifier: str) -> str:
        """
        What some access is for.

        @return: Empty, if it is not in force.
        """
        access = self._grants.get(identifier)
        return "" if access is None or access.grant.ended else access.record.service

    def _behind(self, identity: Identity) -> Access | None:
        if not identity.issued:
            return None
        return self._grants.get(identity.name.removeprefix("access-"))

    def admits(self, identity: Identity, peer: IAddress | None) -> bool:
        """Whether somebody who has been let in may come from C{peer} as well."""
        access = self._behind(identity)
        return access is None or _isFrom(access, peer)

    def _find(self, identifier: object, secret: object) -> Access | None:
        """Find a capability, in time that does not tell how wrong a secret is."""
        if not isinstance(identifier, str) or not isinstance(secret, str):
            return None
        access = self._grants.get(identifier)
        kept = None if access is None else bytes.fromhex(access.record.secretHash)
        return access if isSecret(secret, kept) else None

    def timeLeft(self, whose: Identity | Access | None) -> float | None:
        """
        Seconds that access has left.

        @param whose: The access, or who came with it.
        @return: C{None} if it is over, or if there is none.
        """
        access = self._behind(whose) if isinstance(whose, Identity) else whose
        if access is None or access.id not in self._grants:
            return None
        return max(0.0, access.until - self._reactor.seconds())

    def of(self, owner: Identity | None) -> list[Access]:
        """
        What somebody has granted.

        @param owner: C{None} for everybody.
        """
        return [
            access
            for access in self._grants.values()
            if owner is None or access.owner == owner
        ]

    def revoke(self, access: Access) -> None:
        """End a capability, and the sessions that depend on it."""
        access.grant.end(TunnelError("expired", "the access was revoked"))

    def close(self) -> None:
        """End what depends on access here, because the process stops."""
        self._stopped = True
        for access in list(self._grants.values()):
            access.grant.end(TunnelError("shutting-down"))


def _refusal() -> TunnelError:
    return TunnelError(
        "auth-refused", "this access does not exist or has expired; ask for a new one"
    )


def _networks(address: str) -> tuple[Network, ...]:
    if not address:
        return ()
    try:
        return parseNetworks([address])
    except TunnelError:
        raise badOption(
            "address takes an IP address or a network such as 192.0.2.0/24"
        ) from None


def _isFrom(access: Access, peer: IAddress | None) -> bool:
    if not access.networks:
        return True
    address = addressOf(str(getattr(peer, "host", "")))
    return address is not None and any(address in each for each in access.networks)
