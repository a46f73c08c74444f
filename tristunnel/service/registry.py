"""Which tunnels exist, and who may come back to them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import Interface, implementer

from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import IClientSide, Tunnel
from tristunnel.util.secret import isSecret, newSecret

__all__ = ["ITunnelRegistry", "Lease", "LeaseHolder", "Leases", "MemoryRegistry"]


class ITunnelRegistry(Interface):
    """
    Which tunnels exist.

    Answers are Deferreds, since several processes may come to share one
    registry; nothing outside it assumes that a tunnel lives in this process.
    """

    def add(tunnel: Tunnel) -> Deferred[None]:
        """
        Take in a tunnel.

        @raise TunnelError: C{name-taken}.
        """

    def find(uri: str) -> Deferred[Tunnel]:
        """
        Look a tunnel up by its URI or its id.

        @raise TunnelError: C{unknown-tunnel}.
        """

    def findNamed(name: str) -> Deferred[Tunnel]:
        """
        Look a tunnel up by the name that its owner gave it.

        @raise TunnelError: C{unknown-tunnel}.
        """

    def remove(tunnel: Tunnel) -> Deferred[None]:
        """Forget a tunnel; doing it twice is no error."""

    def tunnels() -> Deferred[list[Tunnel]]:
        """All tunnels, oldest first."""


@implementer(ITunnelRegistry)
class MemoryRegistry:
    """The registry of a single process."""

    def __init__(self) -> None:
        self._byId: dict[str, Tunnel] = {}
        self._byURI: dict[str, Tunnel] = {}
        self._byName: dict[str, Tunnel] = {}

    def add(self, tunnel: Tunnel) -> Deferred[None]:
        if tunnel.name and tunnel.name in self._byName:
            return fail(
                TunnelError(
                    "name-taken",
                    f"the name {tunnel.name!r} is already in use; choose another",
                )
            )
        entries = self._entries(tunnel)
        if any(key in table for table, key in entries):
            return fail(TunnelError("internal", "another tunnel has the same URI"))
        for table, key in entries:
            table[key] = tunnel
        return succeed(None)

    def _entries(self, tunnel: Tunnel) -> list[tuple[dict[str, Tunnel], str]]:
        entries = [(self._byId, tunnel.id), (self._byURI, tunnel.publicURI)]
        return [*entries, (self._byName, tunnel.name)] if tunnel.name else entries

    def find(self, uri: str) -> Deferred[Tunnel]:
        tunnel = self._byURI.get(uri.partition("#")[0]) or self._byId.get(uri)
        if tunnel is None:
            return fail(TunnelError("unknown-tunnel"))
        return succeed(tunnel)

    def findNamed(self, name: str) -> Deferred[Tunnel]:
        tunnel = self._byName.get(name)
        if tunnel is None:
            return fail(TunnelError("unknown-tunnel", f"there is no service {name!r}"))
        return succeed(tunnel)

    def remove(self, tunnel: Tunnel) -> Deferred[None]:
        for table, key in self._entries(tunnel):
            if table.get(key) is tunnel:
                del table[key]
        return succeed(None)

    def tunnels(self) -> Deferred[list[Tunnel]]:
        return succeed(list(self._byId.values()))


class LeaseHolder(IClientSide, Protocol):
    """A session that can hold a lease."""

    def displaced(self) -> None:
        """The lease's rightful holder has come back on another connection."""


@dataclass(eq=False)
class Lease:
    """
    A client's claim to its tunnels, beyond the life of one connection.

    @ivar id: Public name of the lease.
    @ivar secretHash: SHA-256 of the secret that only the client has.
    @ivar owner: Who got it; another identity cannot use it.
    @ivar holder: The session that has it now.
    @ivar tunnels: What it keeps open.
    """

    id: str
    secretHash: bytes
    owner: Identity
    holder: LeaseHolder | None = None
    tunnels: list[Tunnel] = field(default_factory=list)
    expiry: IDelayedCall | None = None


class Leases:
    """
    All leases of a server.

    @param reactor: Tells time.
    @param expired: Called with a lease that nobody came back for.
    @param seconds: How long a lease outlives its session.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        expired: Callable[[Lease], None],
        seconds: float = 120.0,
    ) -> None:
        self.seconds = seconds
        self._reactor = reactor
        self._expired = expired
        self._leases: dict[str, Lease] = {}
        self._keeping: WeakKeyDictionary[Tunnel, Lease] = WeakKeyDictionary()

    def grant(self, owner: Identity, holder: LeaseHolder) -> tuple[Lease, str]:
        """
        Make a new lease.

        @return: The lease and its secret, which is kept nowhere else.
        """
        secret, kept = newSecret()
        lease = Lease(secrets.token_hex(8), kept, owner, holder)
        self._leases[lease.id] = lease
        return lease, secret

    def claim(
        self, leaseId: object, secret: object, owner: Identity, holder: LeaseHolder
    ) -> Lease | None:
        """
        Take a lease over, from a session that may not know yet that it is
        dead.

        @return: The lease, or C{None} if there is none of that name and
            secret for C{owner}.
        """
        if not isinstance(leaseId, str) or not isinstance(secret, str):
            return None
        lease = self._leases.get(leaseId)
        known = isSecret(secret, lease.secretHash if lease else None)
        if not known or lease is None or lease.owner.name != owner.name:
            return None
        self._stopExpiry(lease)
        # Some may have been closed while the client was away.
        lease.tunnels = [tunnel for tunnel in lease.tunnels if tunnel.closed is None]
        previous, lease.holder = lease.holder, holder
        for tunnel in lease.tunnels:
            tunnel.clientSide = holder
        if previous is not None and previous is not holder:
            previous.displaced()
        return lease

    def holderLost(self, lease: Lease, holder: LeaseHolder) -> None:
        """A session is over; its tunnels stay for a while."""
        if lease.holder is not holder or self._leases.get(lease.id) is not lease:
            return
        lease.holder = None
        if not lease.tunnels:
            self._leases.pop(lease.id, None)
            return
        for tunnel in lease.tunnels:
            tunnel.clientSide = None
        # Not one that was released meanwhile: the server may be stopping.
        if self._leases.get(lease.id) is lease:
            lease.expiry = self._reactor.callLater(self.seconds, self._expire, lease)

    def of(self, tunnel: Tunnel) -> Lease | None:
        """The lease that keeps a tunnel open, or C{None}."""
        lease = self._keeping.get(tunnel)
        known = lease is not None and self._leases.get(lease.id) is lease
        return lease if known else None

    def keep(self, lease: Lease, tunnel: Tunnel) -> None:
        """Have a lease keep a tunnel open."""
        lease.tunnels.append(tunnel)
        self._keeping[tunnel] = lease

    def timeLeft(self, tunnel: Tunnel) -> float | None:
        """Seconds for which a lease without a session keeps a tunnel, or C{None}."""
        lease = self.of(tunnel)
        if lease is None or lease.expiry is None or not lease.expiry.active():
            return None
        return max(0.0, lease.expiry.getTime() - self._reactor.seconds())

    def drop(self, lease: Lease, tunnel: Tunnel) -> None:
        """
        A lease keeps a tunnel no longer; without a session and without any
        tunnel it is over.
        """
        if tunnel in lease.tunnels:
            lease.tunnels.remove(tunnel)
        if lease.holder is None and not lease.tunnels:
            self.release(lease)

    def release(self, lease: Lease) -> None:
        """Forget a lease; its tunnels are its last holder's to close."""
        self._stopExpiry(lease)
        self._leases.pop(lease.id, None)

    def _expire(self, lease: Lease) -> None:
        lease.expiry = None
        self.release(lease)
        self._expired(lease)

    def _stopExpiry(self, lease: Lease) -> None:
        if lease.expiry is not None and lease.expiry.active():
            lease.expiry.cancel()
        lease.expiry = None

    def close(self) -> None:
        """Forget all leases."""
        for lease in list(self._leases.values()):
            self.release(lease)
