"""The limits on visitors: who may come in, how often, and for how long."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from tristunnel.errors import TunnelError, badOption

__all__ = [
    "POLICY_OPTIONS",
    "Network",
    "VisitorPolicy",
    "parseCountries",
    "parseNetworks",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_NETWORKS = 1000
"""Networks that one policy may allow, and as many that it may deny."""


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
            raise badOption(
                f"{text[:64]!r} is not an address or network; write for example"
                " 10.0.0.0/8"
            ) from None
        mapped = network.version == 6 and network.network_address.ipv4_mapped
        if mapped and network.prefixlen >= 96:
            # Visitors over IPv4 are known by their IPv4 addresses.
            network = ipaddress.IPv4Network((mapped, network.prefixlen - 96))
        networks.append(network)
    if len(networks) > MOST_NETWORKS:
        raise badOption(f"{MOST_NETWORKS} networks are enough")
    return tuple(networks)


def parseCountries(texts: Iterable[str]) -> tuple[str, ...]:
    """
    Read codes of countries such as C{DE}.

    @raise TunnelError: C{bad-option}, naming the one that is wrong.
    """
    found = [text.strip().upper() for each in texts for text in each.split(",")]
    for text in found:
        if not re.fullmatch("[A-Z]{2}", text):
            raise badOption(
                f"{text[:64]!r} is not a country; write the two letters of ISO 3166,"
                " such as DE"
            )
    return tuple(dict.fromkeys(found))


def _ask(default: Any, words: str, inTokens: str = "") -> Any:
    told = {"words": words, "inTokens": inTokens}
    return field(default=default, metadata=told)


@dataclass(frozen=True)
class VisitorPolicy:
    """
    The limits on a tunnel's visitors. 0 is always no limit.

    Each part is declared only here: with its name in remote methods, the words in which
    people read it, and its name in a token file where that is different, since a
    token's own limits are for all of its tunnels together.

    @ivar allow: Networks that visitors may come from; empty for all.
    @ivar deny: Networks that they may not come from, whatever C{allow} says.
    @ivar maxVisitors: Visitors at once; 0 for any number.
    @ivar visitorsPerAddress: Visitors of one address at once, likewise.
    @ivar visitorRate: Visitors of one address per minute, likewise.
    @ivar rate: Bytes per second that all visitors together may send, and as
        many that they may receive; 0 for any number.
    @ivar idle: Seconds without a byte after which a stream is ended; 0 for
        never.
    @ivar maxAge: Seconds after which a stream is ended; 0 for never.
    @ivar countries: Countries that visitors may come from, by the two letters of ISO
        3166-1; empty for all.
    """

    allow: tuple[Network, ...] = _ask((), "visitors from {}")
    deny: tuple[Network, ...] = _ask((), "none from {}")
    maxVisitors: int = _ask(0, "{} visitors a tunnel", "visitorsPerTunnel")
    visitorsPerAddress: int = _ask(0, "{} an address")
    visitorRate: int = _ask(0, "{} a minute")
    rate: int = _ask(0, "{} a tunnel", "ratePerTunnel")
    idle: float = _ask(0.0, "silent for {}")
    maxAge: float = _ask(0.0, "staying for {}")
    countries: tuple[str, ...] = _ask((), "visitors from {}")

    def combined(self, other: VisitorPolicy, strict: bool = True) -> VisitorPolicy:
        """
        Combine this policy with another one: the stricter limits hold.

        @param strict: Whether a policy that keeps everybody out is an error;
            else that is what it does.
        @raise TunnelError: C{bad-option}, if that would keep everybody out.
        """
        for one, another in ((self, other), (other, self)):
            if one == _NOTHING:
                return another
        deny = tuple(dict.fromkeys((*self.deny, *other.deny)))
        try:
            allow = self._allowedByBoth(other)
            countries = self._countriesOfBoth(other)
        except TunnelError:
            if strict:
                raise
            allow, deny, countries = (), _EVERYWHERE, ()
        limits = {
            # The smaller one, where 0 is none.
            name: min(one, another) if one and another else one or another
            for name in POLICY_OPTIONS
            if name not in ("allow", "deny", "countries")
            for one, another in [(getattr(self, name), getattr(other, name))]
        }
        return VisitorPolicy(allow, deny, countries=countries, **limits)

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
            raise badOption(
                "this server admits visitors from none of the networks in allow;"
                f" it admits {', '.join(map(str, self.allow[:10]))}"
            )
        return tuple(dict.fromkeys(both))

    def _countriesOfBoth(self, other: VisitorPolicy) -> tuple[str, ...]:
        if not (self.countries and other.countries):
            return self.countries or other.countries
        both = tuple(each for each in self.countries if each in other.countries)
        if not both:
            raise badOption(
                "this server admits visitors from none of these countries; it admits"
                f" {', '.join(self.countries[:20])}"
            )
        return both

    def describe(self) -> dict[str, object]:
        """
        Describe the limits, in the words of remote methods; parts without a limit are
        left out.
        """
        asked = {name: getattr(self, name) for name in POLICY_OPTIONS}
        return {
            name: list(map(str, value)) if isinstance(value, tuple) else value
            for name, value in asked.items()
            if value
        }

    @property
    def asksVisitors(self) -> bool:
        """Whether a visitor may be turned away by it."""
        return bool(
            self.allow
            or self.deny
            or self.maxVisitors
            or self.visitorsPerAddress
            or self.visitorRate
            or self.countries
        )

    @property
    def endsStreams(self) -> bool:
        """Whether a stream can end because of its age or its silence."""
        return bool(self.idle or self.maxAge)


def _isWithin(inner: Network, outer: Network) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


_EVERYWHERE = parseNetworks(["0.0.0.0/0", "::/0"])
_NOTHING = VisitorPolicy()

POLICY_OPTIONS = {part.name: part for part in fields(VisitorPolicy)}
"""The parts of a policy by their names."""
