"""
Access to a named service for a limited time: C{grantAccess}.

The URI that it returns, C{w3p://server:9000/access/ID#SECRET}, is all that a
visitor's side needs to reach the service until the time is over.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from tristunnel.errors import TunnelError, badOption
from tristunnel.model.permissions import Grant, Identity, Permissions
from tristunnel.model.policy import Network, parseNetworks
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

_MOST = 100_000


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
    One capability.

    @ivar id: Short, unique and public.
    @ivar secretHash: SHA-256 of the URI's secret.
    @ivar service: What it is for.
    @ivar owner: Who granted it.
    @ivar networks: Where it may be used from; empty for everywhere.
    @ivar token: The name of the token without which it is void; empty for
        none.
    @ivar usesLeft: Sessions that may still begin with it; C{None} for any
        number.
    @ivar until: When it ends, in seconds of the server's clock.
    @ivar grant: In force until then.
    @ivar countedAs: Whose grants it is counted with.
    """

    id: str
    secretHash: bytes = field(repr=False)
    service: str
    owner: Identity
    networks: tuple[Network, ...]
    token: str
    usesLeft: int | None
    until: float
    grant: Grant
    countedAs: str
    timer: IDelayedCall | None = None

    @property
    def address(self) -> str:
        """Where it may be used from, as text; empty for everywhere."""
        return " ".join(map(str, self.networks))


class AccessGrants:
    """
    The capabilities that are in force.

    @param reactor: Tells time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._grants: dict[str, Access] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._grants)

    def issue(
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
        @raise TunnelError: C{bad-option} or C{limit-reached}.
        """
        if not 0 < ttl <= LONGEST_ACCESS:
            raise badOption(
                f"ttl takes seconds, more than 0 and up to {LONGEST_ACCESS:.0f}"
            )
        if not 0 <= uses <= 1_000_000:
            raise badOption("uses takes 0 to 1000000")
        if len(self._grants) >= _MOST:
            raise TunnelError("limit-reached", f"{_MOST} grants of access are active")
        countedAs = countedAs or owner.name
        if self._counts.get(countedAs, 0) >= PER_OWNER:
            raise TunnelError(
                "limit-reached",
                f"{PER_OWNER} of your grants are in force; revoke some"
                " (revokeAccess), or grant access for less time",
            )
        permissions = Permissions(
            may=frozenset({"access"}),
            # Names hold no characters that a pattern would understand.
            services=(service,),
            servicesOf=(serviceOwner or owner).name,
        )
        secret, kept = newSecret()
        access = Access(
            secrets.token_hex(8),
            kept,
            service,
            owner,
            _networks(address),
            token,
            uses or None,
            self._reactor.seconds() + ttl,
            Grant(
                permissions,
                "expired",
                parents=() if owner.grant is None else (owner.grant,),
            ),
            countedAs,
        )
        self._grants[access.id] = access
        self._counts[countedAs] += 1
        access.timer = self._reactor.callLater(
            ttl,
            access.grant.end,
            TunnelError("expired", f"the {ttl:g} s of access have passed"),
        )
        # Also when the owner's token ends: then it must be forgotten, too.
        access.grant.watch(lambda reason: self._forget(access))
        return access, secret

    def _forget(self, access: Access) -> None:
        if self._grants.pop(access.id, None) is not None:
            self._counts[access.countedAs] -= 1
            if not self._counts[access.countedAs]:
                del self._counts[access.countedAs]
        if access.timer is not None and access.timer.active():
            access.timer.cancel()

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
        @raise TunnelError: C{auth-refused}, if it is over, wrong, or not for
            whoever uses it: the answer is always the same.
        """
        access = self._find(claim.get("id"), claim.get("secret"))
        if access is None or not _isFrom(access, peer):
            raise _refusal()
        parents = [access.grant]
        if access.token:
            who = await authenticate()
            if who.name != access.token or who.anonymous:
                raise _refusal()
            if who.grant is not None:
                parents.append(who.grant)
        # It may have ended while the credentials were checked.
        if access.grant.ended is not None or access.usesLeft == 0:
            raise _refusal()
        if access.usesLeft is not None:
            access.usesLeft -= 1
        grant = Grant(access.grant.permissions, "expired", parents=parents)
        grant.check()
        return Identity(f"access-{access.id}", grant=grant, issued=True)

    def _behind(self, identity: Identity) -> Access | None:
        if not identity.issued:
            return None
        return self._grants.get(identity.name.removeprefix("access-"))

    def admits(self, identity: Identity, peer: IAddress | None) -> bool:
        """Whether somebody who is in may come from C{peer} as well."""
        access = self._behind(identity)
        return access is None or _isFrom(access, peer)

    def _find(self, identifier: object, secret: object) -> Access | None:
        """Find a capability, in time that does not tell how wrong a secret is."""
        if not isinstance(identifier, str) or not isinstance(secret, str):
            return None
        access = self._grants.get(identifier)
        return (
            access if isSecret(secret, access.secretHash if access else None) else None
        )

    def timeLeft(self, whose: Identity | Access) -> float | None:
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
        """End a capability, and the sessions that live on it."""
        access.grant.end(TunnelError("expired", "the access was revoked"))

    def close(self) -> None:
        """End all; the server stops."""
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
