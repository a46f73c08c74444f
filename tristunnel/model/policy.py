"""What is asked of visitors: who may come in, how often, and for how long."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from tristunnel.errors import TunnelError

__all__ = ["POLICY_OPTIONS", "Network", "VisitorPolicy", "parseNetworks"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Number = TypeVar("_Number", int, float)

MOST_NETWORKS = 1000
"""Networks that one policy may allow, and as many that it may deny."""

POLICY_OPTIONS = {
    "allow": "allow",
    "deny": "deny",
    "maxVisitors": "total",
    "visitorsPerAddress": "perAddress",
    "visitorRate": "perMinute",
    "rate": "rate",
    "idle": "idle",
    "maxAge": "maxAge",
}
"""What remote methods call the parts of a policy, and what they are here."""


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

    def combined(self, other: VisitorPolicy, strict: bool = True) -> VisitorPolicy:
        """
        Ask what this policy asks, and what another one asks.

        @param strict: Whether a policy that keeps everybody out is an error;
            else that is what it does.
        @raise TunnelError: C{bad-option}, if that would keep everybody out.
        """
        deny = tuple(dict.fromkeys((*self.deny, *other.deny)))
        try:
            allow = self._allowedByBoth(other)
        except TunnelError:
            if strict:
                raise
            allow, deny = (), _EVERYWHERE
        return VisitorPolicy(
            allow,
            deny,
            _stricter(self.perAddress, other.perAddress),
            _stricter(self.total, other.total),
            _stricter(self.perMinute, other.perMinute),
            _stricter(self.rate, other.rate),
            _stricter(self.idle, other.idle),
            _stricter(self.maxAge, other.maxAge),
        )

    def _allowedByBoth(self, other: VisitorPolicy) -> tuple[Network, ...]:
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

    def describe(self) -> dict[str, object]:
        """
        Say what is asked, in the words of remote methods; nothing where that
        is nothing.
        """
        words: dict[str, object] = {}
        for name, attribute in POLICY_OPTIONS.items():
            value = getattr(self, attribute)
            if isinstance(value, tuple):
                value = [str(network) for network in value]
            if value:
                words[name] = value
        return words

    @property
    def endsStreams(self) -> bool:
        """Whether a stream can be over because of its age or its silence."""
        return bool(self.idle or self.maxAge)


def _stricter(one: _Number, other: _Number) -> _Number:
    """The smaller one of two limits, where 0 is none."""
    return min(one, other) if one and other else one or other


def _isWithin(inner: Network, outer: Network) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


_EVERYWHERE = parseNetworks(["0.0.0.0/0", "::/0"])
