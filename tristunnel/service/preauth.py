"""
How many connections may be unauthenticated.

An unauthenticated connection costs a descriptor and a little memory, and can guess
secrets. So such connections are counted, per address and in all, and an address
whose logins fail has to wait, longer each time, as in OpenSSH's
C{MaxStartups} and C{PerSourcePenalties}.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable

from twisted.internet.interfaces import IAddress

from tristunnel.dataplane.rate import TokenBucket
from tristunnel.errors import TunnelError

__all__ = [
    "ACCEPT_RATE",
    "PER_ADDRESS",
    "TOTAL",
    "AcceptRateLimiter",
    "PendingConnection",
    "PreauthLimiter",
]

PER_ADDRESS = 64
"""Unauthenticated connections from one address at once."""

TOTAL = 1024
"""Unauthenticated connections at once."""

PENALTY = 5.0
"""Seconds of penalty for the address of a failed login."""

PENALTY_FREE = 15.0
"""Penalty up to which an address is still let in, since people mistype."""

PENALTY_MOST = 600.0
"""The largest penalty that an address can have."""

ACCEPT_RATE = 100.0
"""Clients that are let in per second, on average."""

PATIENCE = 2.0
"""Seconds after which an unauthenticated connection may be closed for another."""

ROOMS = 50.0
"""Unauthenticated connections that are closed for others in a second, at the most:
each that is let in costs more than one that is refused, and a crowd sends the next
one at once."""

COME_BACK = 5.0
"""Seconds after which a client without room is told to come back."""

LONGEST_WAIT = 60.0
"""Seconds after which a client is told to come back, at the most."""

REMEMBERED = 65536
"""Addresses whose penalties are remembered."""


class PendingConnection:
    """
    One unauthenticated connection.

    @param limiter: Counts it.
    @param source: Its address, or empty for a local socket.

    @ivar waiting: Whether it is still one.
    @ivar leave: Ends its connection, to make room for somebody else; C{None} if
        that cannot be done.
    """

    __slots__ = ("_limiter", "leave", "source", "waiting")

    def __init__(self, limiter: PreauthLimiter, source: str) -> None:
        self._limiter = limiter
        self.source = source
        self.waiting = False
        self.leave: Callable[[], object] | None = None

    def known(self) -> None:
        """
        Count it no longer: its peer has authenticated, or has left. It may be called
        twice.
        """
        if self.waiting:
            self.waiting = False
            self._limiter.forget(self)

    def comesFrom(self, address: IAddress | None) -> None:
        """
        Set where it comes from, which is known only now, behind a balancer.

        @raise TunnelError: C{limit-reached}, as from L{PreauthLimiter.enter}.
        """
        self.known()
        self.source = self._limiter.sourceFor(address)
        self._limiter.check(address)
        self._limiter.admit(self)

    def again(self) -> None:
        """
        Count it again: it was authenticated for one request only. It is the first to
        make room.

        @raise TunnelError: C{limit-reached}, if half of the places are taken; it
            is counted nevertheless, until its connection is closed.
        """
        self.known()
        try:
            self._limiter.admit(self, again=True)
        except TunnelError:
            self._limiter.count(self)
            raise

    def failed(self) -> None:
        """Count a failed login."""
        self._limiter.penalize(self.source)


class PreauthLimiter:
    """
    Counts unauthenticated connections.

    @param seconds: The clock.
    @param perAddress: Those from one address at once.
    @param total: Those at once.
    @param speaksForOthers: Whether an address is a proxy's, whose connections
        are many people's: it has no bound of its own and is never made to wait.

    @ivar awaited: Each tells how many connections from an address somebody who
        is known awaits: so many more may come from there, since what they name
        will be known, too.
    @ivar told: Called with the address of each login that has failed here, for other
        processes of the server.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        perAddress: int = PER_ADDRESS,
        total: int = TOTAL,
        speaksForOthers: Callable[[str], bool] = lambda host: False,
    ) -> None:
        self._speaksForOthers = speaksForOthers
        self._seconds = seconds
        self._perAddress = perAddress
        self._total = total
        self._bySource: Counter[str] = Counter()
        # Since when each is here, the oldest first.
        self._pending: dict[PendingConnection, float] = {}
        self._nextRoom = 0.0
        # Until when each address has to wait, in the order of their last failures;
        # times that have passed mean nothing.
        self._until: dict[str, float] = {}
        self.awaited: list[Callable[[str], int]] = []
        self.told: Callable[[str], object] = lambda source: None

    @property
    def unauthenticated(self) -> int:
        """How many there are now."""
        return len(self._pending)

    def enter(self, address: IAddress | None) -> PendingConnection:
        """
        Count a new connection.

        @raise TunnelError: C{limit-reached}, if there are too many or the
            address has to wait.
        """
        self.check(address)
        pending = PendingConnection(self, self.sourceFor(address))
        self.admit(pending)
        return pending

    def admit(self, pending: PendingConnection, again: bool = False) -> None:
        """
        Count a connection. If there are too many, one that has been here for long
        is closed.

        @param again: Whether it was known before, and only waits. Such may take
            half of the places, and nobody has to leave for them.
        @raise TunnelError: C{limit-reached}, if there are too many.
        """
        share = 2 if again else 1
        most, total = self._perAddress // share, self._total // share
        source = pending.source
        # Not by indexing, which would remember everybody who was refused.
        here = self._bySource.get(source, 0) if source else 0
        if (
            source
            and here >= most
            and here >= most + sum(each(source) for each in self.awaited)
        ):
            raise TunnelError(
                "limit-reached",
                f"{most} connections from {source} have not authenticated yet",
                COME_BACK,
            )
        if len(self._pending) >= total and (again or not self._makeRoom()):
            raise TunnelError(
                "limit-reached",
                f"{total} connections have not authenticated yet",
                COME_BACK,
            )
        self.count(pending)

    def count(self, pending: PendingConnection) -> None:
        """Count a connection, however many there are."""
        pending.waiting = True
        self._pending[pending] = self._seconds()
        if pending.source:
            self._bySource[pending.source] += 1

    def _makeRoom(self) -> bool:
        """
        Close the one that has been here longest, if that is longer than a login takes;
        not too often.

        @return: Whether there was one.
        """
        now = self._seconds()
        if now < self._nextRoom:
            return False
        latest = now - PATIENCE
        for pending, since in self._pending.items():
            if since > latest:
                break
            if pending.leave is not None:
                self._nextRoom = now + 1 / ROOMS
                pending.known()
                pending.leave()
                return True
        return False

    def sourceFor(self, address: IAddress | None) -> str:
        """Find what a connection is counted by; an empty text for a proxy."""
        source = sourceOf(address)
        return "" if source and self._speaksForOthers(source) else source

    def check(self, address: IAddress | None) -> None:
        """@raise TunnelError: C{limit-reached}, if an address has to wait."""
        source = self.sourceFor(address)
        wait = self._until.get(source, 0.0) - self._seconds()
        if wait > PENALTY_FREE:
            raise TunnelError(
                "limit-reached",
                f"too many logins from {source} failed; it has to wait"
                f" {wait - PENALTY_FREE:.0f} s",
                wait - PENALTY_FREE,
            )

    def loginFailed(self, address: IAddress | None) -> None:
        """Count a failed login from an address."""
        self.penalize(self.sourceFor(address))

    def forget(self, pending: PendingConnection) -> None:
        """Count a connection no longer."""
        del self._pending[pending]
        source = pending.source
        if source:
            self._bySource[source] -= 1
            if not self._bySource[source]:
                del self._bySource[source]

    def penalize(self, source: str) -> None:
        """Count a failed login from an address."""
        if source:
            self.told(source)
            self.failedElsewhere(source)

    def failedElsewhere(self, source: str) -> None:
        """Count a failed login from an address at another process of this server."""
        now = self._seconds()
        until = max(self._until.pop(source, 0.0), now) + PENALTY
        # Moved to the end: somebody with many addresses can push out old penalties, but
        # each address that still guesses has one.
        self._until[source] = min(until, now + PENALTY_FREE + PENALTY_MOST)
        if len(self._until) > REMEMBERED:
            del self._until[next(iter(self._until))]


class AcceptRateLimiter:
    """
    Limits how many clients are let in per second, and gives each of the others a time
    to come back: after a restart, or when a network comes back, all of a server's
    clients arrive in the same second.

    @param seconds: The clock.
    @param rate: Clients per second; 0 for any number.
    """

    def __init__(self, seconds: Callable[[], float], rate: float = ACCEPT_RATE) -> None:
        self.rate = rate
        self._seconds = seconds
        self._bucket = TokenBucket(rate, seconds, max(int(rate), 1))
        self._bucketRate = rate
        # When the next one who has to wait may come.
        self._next = 0.0

    def check(self) -> None:
        """
        Count a client that is to be let in.

        @raise TunnelError: C{limit-reached}, with the time to come back.
        """
        if not self.rate:
            return
        if self.rate != self._bucketRate:
            burst = max(int(self.rate), 1)
            if self._bucketRate:
                self._bucket.change(self.rate, burst)
            else:
                # There was no limit until now, so nothing of it is used up.
                self._bucket = TokenBucket(self.rate, self._seconds, burst)
            self._bucketRate = self.rate
        if self._bucket.take():
            return
        now = self._seconds()
        self._next = max(self._next, now) + 1 / self.rate
        if self._next > now + LONGEST_WAIT:
            # Most of those who were told to come back will not.
            self._next = now
        raise TunnelError(
            "limit-reached",
            f"{self.rate:g} clients per second are admitted; try again shortly",
            round(1 + self._next - now, 3),
        )


def sourceOf(address: IAddress | None) -> str:
    """
    What connections are counted by: an IPv4 address, an IPv6 network of 64 bits
    (which one machine can have all to itself), or nothing for a local socket.
    """
    return sourceOfHost(str(getattr(address, "host", "") or ""))


def sourceOfHost(host: str) -> str:
    """The same, of an address as text."""
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    if ":" in host:
        try:
            packed = ipaddress.IPv6Address(host.partition("%")[0]).packed
        except ValueError:
            return host
        return str(ipaddress.IPv6Network((packed[:8] + bytes(8), 64)))
    return host
