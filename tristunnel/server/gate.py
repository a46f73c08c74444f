"""
How many strangers may be at the door.

Whoever has not said who it is costs a descriptor and a little memory, and
guesses at secrets. So strangers are counted, per address and in all, and an
address whose logins fail has to wait, longer each time: OpenSSH's
C{MaxStartups} and C{PerSourcePenalties}.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable

from twisted.internet.interfaces import IAddress

from tristunnel.errors import TunnelError

__all__ = ["ACCEPT_RATE", "Gate", "GatePass", "Ramp"]

PER_ADDRESS = 64
"""Strangers from one address at once."""

TOTAL = 1024
"""Strangers at once."""

PENALTY = 5.0
"""Seconds that a failed login costs its address."""

PENALTY_FREE = 15.0
"""Penalty up to which an address is still let in: people mistype."""

PENALTY_MOST = 600.0
"""Penalty that an address can have."""

ACCEPT_RATE = 100.0
"""Clients that are let in per second, on average."""

LONGEST_WAIT = 60.0
"""Seconds after which a client is told to come back, at the most."""

_REMEMBERED = 65536


class GatePass:
    """
    One stranger at the door.

    @param gate: Whose door it is.
    @param source: The stranger's address, or empty for a local socket.
    """

    __slots__ = ("_gate", "_source", "_waiting")

    def __init__(self, gate: Gate, source: str) -> None:
        self._gate = gate
        self._source = source
        self._waiting = True

    def known(self) -> None:
        """
        The stranger has said who it is, or has left; doing it twice is no
        error.
        """
        if self._waiting:
            self._waiting = False
            self._gate.forget(self._source)

    def comesFrom(self, address: IAddress | None) -> None:
        """
        It is known only now, behind a balancer, where the stranger comes from.

        @raise TunnelError: C{limit-reached}, as from L{Gate.enter}.
        """
        stranger = self._gate.enter(address)
        self.known()
        self._source = stranger._source
        self._waiting = True

    def failed(self) -> None:
        """
        The stranger's login failed.
        """
        self._gate.penalize(self._source)


class Gate:
    """
    Counts strangers.

    @param seconds: The clock.
    @param perAddress: Strangers from one address at once.
    @param total: Strangers at once.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        perAddress: int = PER_ADDRESS,
        total: int = TOTAL,
    ) -> None:
        self._seconds = seconds
        self._perAddress = perAddress
        self._total = total
        self._strangers: Counter[str] = Counter()
        self._count = 0
        # Until when each address has to wait; what is over means nothing.
        self._until: dict[str, float] = {}

    @property
    def strangers(self) -> int:
        """
        How many are at the door now.
        """
        return self._count

    def enter(self, address: IAddress | None) -> GatePass:
        """
        Let a stranger come to the door.

        @raise TunnelError: C{limit-reached}, if there are too many or the
            address has to wait.
        """
        self.check(address)
        source = sourceOf(address)
        if source and self._strangers[source] >= self._perAddress:
            raise TunnelError(
                "limit-reached",
                f"{self._perAddress} connections from {source} have not said who they"
                " are",
            )
        if self._count >= self._total:
            raise TunnelError(
                "limit-reached",
                f"{self._total} connections have not said who they are",
            )
        self._count += 1
        if source:
            self._strangers[source] += 1
        return GatePass(self, source)

    def check(self, address: IAddress | None) -> None:
        """
        @raise TunnelError: C{limit-reached}, if an address has to wait.
        """
        source = sourceOf(address)
        wait = self._until.get(source, 0.0) - self._seconds()
        if wait > PENALTY_FREE:
            raise TunnelError(
                "limit-reached",
                f"logins from {source} failed too often; it has to wait"
                f" {wait - PENALTY_FREE:.0f} s",
                wait - PENALTY_FREE,
            )

    def loginFailed(self, address: IAddress | None) -> None:
        """
        A login from an address failed.
        """
        self.penalize(sourceOf(address))

    def forget(self, source: str) -> None:
        """
        A stranger is none any more.
        """
        self._count -= 1
        if source:
            self._strangers[source] -= 1
            if not self._strangers[source]:
                del self._strangers[source]

    def penalize(self, source: str) -> None:
        """
        A login from an address failed.
        """
        if not source:
            return
        now = self._seconds()
        if len(self._until) >= _REMEMBERED:
            self._until = {s: until for s, until in self._until.items() if until > now}
            if len(self._until) >= _REMEMBERED:
                return
        until = max(self._until.get(source, 0.0), now) + PENALTY
        self._until[source] = min(until, now + PENALTY_FREE + PENALTY_MOST)


class Ramp:
    """
    Lets so many clients in per second, and gives the others a time of their
    own to come back: after a restart, or when a network comes back, all of a
    server's clients arrive in the same second.

    @param seconds: The clock.
    @param rate: Clients per second; 0 for any number.
    """

    def __init__(self, seconds: Callable[[], float], rate: float = ACCEPT_RATE) -> None:
        self.rate = rate
        self._seconds = seconds
        self._left = 0.0
        self._last = seconds() - 1
        # When the next one who has to wait may come.
        self._next = 0.0

    def check(self) -> None:
        """
        Count a client that is to be let in.

        @raise TunnelError: C{limit-reached}, with the time to come back.
        """
        if not self.rate:
            return
        now = self._seconds()
        most = max(self.rate, 1.0)
        self._left = min(self._left + (now - self._last) * self.rate, most)
        self._last = now
        if self._left >= 1:
            self._left -= 1
            return
        self._next = max(self._next, now) + 1 / self.rate
        if self._next > now + LONGEST_WAIT:
            # Most of those who were told to come will not.
            self._next = now
        raise TunnelError(
            "limit-reached",
            f"{self.rate:g} clients a second come back now; this one has its turn soon",
            round(1 + self._next - now, 3),
        )


def sourceOf(address: IAddress | None) -> str:
    """
    What strangers are counted by: an IPv4 address, an IPv6 network of 64 bits
    (which one machine can have all to itself), or nothing for a local socket.
    """
    host = str(getattr(address, "host", "") or "")
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    if ":" in host:
        try:
            packed = ipaddress.IPv6Address(host.partition("%")[0]).packed
        except ValueError:
            return host
        return str(ipaddress.IPv6Network((packed[:8] + bytes(8), 64)))
    return host
