"""
Who may come in at a tunnel's public side, how often, and for how long.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.interfaces import IReactorTime

from tristunnel.errors import TunnelError
from tristunnel.relay.descriptors import RESERVE, Reserve
from tristunnel.relay.limits import Throttle
from tristunnel.rules.sweep import StreamSweep

if TYPE_CHECKING:
    from tristunnel.tunnels.tunnel import Stream, Tunnel

__all__ = [
    "Doorkeeper",
    "HouseRules",
    "VisitorPolicy",
    "hostOfVisitor",
    "parseNetworks",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Number = TypeVar("_Number", int, float)

MOST_NETWORKS = 1000
"""Networks that one policy may allow, and as many that it may deny."""

_REMEMBERED = 10_000


def parseNetworks(texts: Iterable[str]) -> tuple[Network, ...]:
    """
    Read addresses and networks such as C{10.0.0.0/8}.

    @raise TunnelError: C{bad-option}, naming the one that is wrong.
    """
    networks: list[Network] = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            raise TunnelError(
                "bad-option",
                f"{text[:64]!r} is no address or network; write for example 10.0.0.0/8",
            ) from None
        mapped = network.version == 6 and network.network_address.ipv4_mapped
        if mapped and network.prefixlen >= 96:
            # Visitors over IPv4 are known by their IPv4 addresses.
            network = ipaddress.IPv4Network((mapped, network.prefixlen - 96))
        networks.append(network)
    if len(networks) > MOST_NETWORKS:
        raise TunnelError("bad-option", f"{MOST_NETWORKS} networks are enough")
    return tuple(networks)


@dataclass(frozen=True)
class VisitorPolicy:
    """
    What a tunnel asks of its visitors. 0 is no limit, everywhere.

    @ivar allow: Networks that visitors may come from; empty for all.
    @ivar deny: Networks that they may not come from, whatever C{allow} says.
    @ivar perAddress: Visitors of one address at once.
    @ivar total: Visitors at once.
    @ivar perMinute: Visitors of one address per minute.
    @ivar rate: Bytes per second from all visitors together, and as many to
        them.
    @ivar idle: Seconds without a byte after which a visitor's stream is ended.
    @ivar maxAge: Seconds after which it is ended in any case.
    """

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    perAddress: int = 0
    total: int = 0
    perMinute: int = 0
    rate: int = 0
    idle: float = 0.0
    maxAge: float = 0.0

    def tightened(self, other: VisitorPolicy) -> VisitorPolicy:
        """
        Ask what this policy asks, and what another one asks.

        @raise TunnelError: C{bad-option}, if that would keep everybody out.
        """
        return VisitorPolicy(
            self._allowedByBoth(other),
            tuple(dict.fromkeys((*self.deny, *other.deny))),
            _stricter(self.perAddress, other.perAddress),
            _stricter(self.total, other.total),
            _stricter(self.perMinute, other.perMinute),
            _stricter(self.rate, other.rate),
            _stricter(self.idle, other.idle),
            _stricter(self.maxAge, other.maxAge),
        )

    def _allowedByBoth(self, other: VisitorPolicy) -> tuple[Network, ...]:
        """
        What is in a network of either.
        """
        if not (self.allow and other.allow):
            return self.allow or other.allow
        both = [
            one if _isWithin(one, another) else another
            for one in self.allow
            for another in other.allow
            if _isWithin(one, another) or _isWithin(another, one)
        ]
        if not both:
            raise TunnelError(
                "bad-option",
                "none of the networks in allow is one that this server lets in;"
                f" it lets in {', '.join(map(str, self.allow[:10]))}",
            )
        return tuple(dict.fromkeys(both))

    @property
    def endsStreams(self) -> bool:
        """
        Whether a stream can be over because of its age or its silence.
        """
        return bool(self.idle or self.maxAge)


def _stricter(one: _Number, other: _Number) -> _Number:
    """
    The smaller one of two limits, where 0 is none.
    """
    return min(one, other) if one and other else one or other


def _isWithin(inner: Network, outer: Network) -> bool:
    """
    Whether one network is part of another.
    """
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


class Doorkeeper:
    """
    Applies a L{VisitorPolicy} to a tunnel and remembers who is in: a
    L{Keeper<tristunnel.interfaces.Keeper>}.

    @param policy: What to apply; it may be replaced at any time, and then
        holds for those who come later.
    @param seconds: The clock.
    """

    def __init__(self, policy: VisitorPolicy, seconds: Callable[[], float]) -> None:
        self.policy = policy
        self._seconds = seconds
        self._inside: Counter[str] = Counter()
        self._count = 0
        # A bucket of tokens for each address: how many, and when that was.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def enter(self, stream: Stream) -> None:
        """
        Let a visitor in.

        @raise TunnelError: C{not-permitted} or C{limit-reached}.
        """
        host = hostOfVisitor(stream.visitorAddress)
        self._check(host)
        self._count += 1
        self._inside[host] += 1

    def leave(self, stream: Stream) -> None:
        """
        A visitor left.
        """
        host = hostOfVisitor(stream.visitorAddress)
        self._count -= 1
        self._inside[host] -= 1
        if not self._inside[host]:
            del self._inside[host]

    def _check(self, host: str) -> None:
        """
        @raise TunnelError: If the policy keeps a visitor out.
        """
        policy = self.policy
        if policy.allow or policy.deny:
            self._checkNetwork(host, policy)
        if policy.total and self._count >= policy.total:
            raise TunnelError(
                "limit-reached", f"{policy.total} visitors are here, as many as may be"
            )
        if policy.perAddress and self._inside[host] >= policy.perAddress:
            raise TunnelError(
                "limit-reached", f"{policy.perAddress} visitors from {host} are here"
            )
        if policy.perMinute and not self._takeToken(host, policy.perMinute):
            raise TunnelError(
                "limit-reached",
                f"more than {policy.perMinute} visitors a minute come from {host}",
            )

    def _checkNetwork(self, host: str, policy: VisitorPolicy) -> None:
        """
        @raise TunnelError: C{not-permitted}; also for a visitor without an
            address, where addresses matter.
        """
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            raise TunnelError(
                "not-permitted", "the visitor's address is not known"
            ) from None
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in policy.deny):
            raise TunnelError("not-permitted", f"visitors from {host} are denied")
        if policy.allow and not any(address in network for network in policy.allow):
            raise TunnelError("not-permitted", f"visitors from {host} are not allowed")

    def _takeToken(self, host: str, perMinute: int) -> bool:
        """
        Take one of the visits that an address has.
        """
        now = self._seconds()
        tokens, since = self._buckets.pop(host, (float(perMinute), now))
        tokens = min(float(perMinute), tokens + (now - since) * perMinute / 60.0)
        allowed = tokens >= 1.0
        self._buckets[host] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > _REMEMBERED:
            # The one that was not seen for longest has most likely all again.
            self._buckets.popitem(last=False)
        return allowed


class DescriptorKeeper:
    """
    Lets no visitor have one of the last descriptors: a
    L{Keeper<tristunnel.interfaces.Keeper>}.

    @param reserve: Knows how many are left.
    """

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve

    def enter(self, stream: Stream) -> None:
        """
        @raise TunnelError: C{limit-reached}.
        """
        self._reserve.checkVisitor()

    def leave(self, stream: Stream) -> None:
        """
        A visitor left; its descriptors are the kernel's to count.
        """


class HouseRules:
    """
    What a server asks of the visitors of all its tunnels. What a tunnel's
    owner asks in addition can only be stricter.

    @param reactor: Tells time.
    @param reserve: Knows how many descriptors are left.

    @ivar policy: What the server's operator wants.
    """

    def __init__(self, reactor: IReactorTime, reserve: Reserve = RESERVE) -> None:
        self.policy = VisitorPolicy()
        self._reactor = reactor
        self._descriptors = DescriptorKeeper(reserve)
        self._sweep = StreamSweep(reactor)

    def apply(self, tunnel: Tunnel, wanted: VisitorPolicy) -> None:
        """
        Have the visitors of a tunnel keep to the rules: those who come from now
        on.

        @raise TunnelError: C{bad-option}, if nobody could come in.
        """
        policy = self.policy.tightened(wanted)
        tunnel.policy = policy
        for keeper in tunnel.keepers:
            if isinstance(keeper, Doorkeeper):
                keeper.policy = policy
                break
        else:
            tunnel.keepers.append(self._descriptors)
            tunnel.keepers.append(Doorkeeper(policy, self._reactor.seconds))
        if policy.endsStreams and self._sweep not in tunnel.keepers:
            tunnel.keepers.append(self._sweep)
        throttle = tunnel.ownThrottle
        if not policy.rate:
            tunnel.ownThrottle = None
        elif throttle is None or throttle.rate != policy.rate:
            tunnel.ownThrottle = Throttle(self._reactor, policy.rate)


def hostOfVisitor(address: str) -> str:
    """
    The host of C{HOST:PORT}, without brackets.
    """
    host = address.rpartition(":")[0] or address
    return host.removeprefix("[").removesuffix("]")
