"""At a tunnel's public side: who comes in, and who is turned away."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable

from tristunnel.dataplane.descriptors import Reserve
from tristunnel.errors import TunnelError
from tristunnel.model.policy import VisitorPolicy
from tristunnel.model.tunnel import Stream

__all__ = ["DescriptorFilter", "PolicyFilter", "hostOfVisitor"]

_REMEMBERED = 10_000


class PolicyFilter:
    """
    Applies a L{VisitorPolicy} to a tunnel and remembers who is in: a
    L{VisitorFilter<tristunnel.model.tunnel.VisitorFilter>}.

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
        host = hostOfVisitor(stream.visitorAddress)
        self._check(host)
        self._count += 1
        self._inside[host] += 1

    def leave(self, stream: Stream) -> None:
        host = hostOfVisitor(stream.visitorAddress)
        self._count -= 1
        self._inside[host] -= 1
        if not self._inside[host]:
            del self._inside[host]

    def _check(self, host: str) -> None:
        policy = self.policy
        self.checkNetwork(host)
        if policy.maxVisitors and self._count >= policy.maxVisitors:
            raise TunnelError(
                "limit-reached",
                f"{policy.maxVisitors} visitors are here, as many as may be",
            )
        if (
            policy.visitorsPerAddress
            and self._inside[host] >= policy.visitorsPerAddress
        ):
            raise TunnelError(
                "limit-reached",
                f"{policy.visitorsPerAddress} visitors from {host} are here",
            )
        if policy.visitorRate and not self._takeToken(host, policy.visitorRate):
            raise TunnelError(
                "limit-reached",
                f"more than {policy.visitorRate} visitors a minute come from {host}",
            )

    def checkNetwork(self, host: str) -> None:
        """
        @raise TunnelError: C{not-permitted}, if visitors may not come from
            there; also for a visitor without an address, where addresses
            matter.
        """
        policy = self.policy
        if not (policy.allow or policy.deny):
            return
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
        now = self._seconds()
        tokens, since = self._buckets.pop(host, (float(perMinute), now))
        tokens = min(float(perMinute), tokens + (now - since) * perMinute / 60.0)
        allowed = tokens >= 1.0
        self._buckets[host] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > _REMEMBERED:
            # The one that was not seen for longest has most likely all again.
            self._buckets.popitem(last=False)
        return allowed


class DescriptorFilter:
    """
    Lets no visitor have one of the last descriptors: a
    L{VisitorFilter<tristunnel.model.tunnel.VisitorFilter>}.

    @param reserve: Knows how many are left.
    """

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve

    def enter(self, stream: Stream) -> None:
        self._reserve.checkVisitor()

    def leave(self, stream: Stream) -> None:
        """A visitor left; its descriptors are the kernel's to count."""


def hostOfVisitor(address: str) -> str:
    """The host of C{HOST:PORT}, without brackets."""
    host = address.rpartition(":")[0] or address
    return host.removeprefix("[").removesuffix("]")
