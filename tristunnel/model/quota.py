"""
How many tunnels there may be.

Every tunnel costs descriptors and ports, and on a server without C{--auth}
anybody may ask for one; so they are counted, for each caller and in all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tristunnel.errors import TunnelError
from tristunnel.model.tunnel import Tunnel
from tristunnel.util.descriptor_limit import descriptorLimit

__all__ = ["PER_CALLER", "TunnelQuota", "defaultTotal"]

PER_CALLER = 1000
"""Tunnels that one caller may have open."""

_MOST = 20_000


def defaultTotal() -> int:
    """
    As many tunnels as leave half of the process's descriptors to visitors and
    clients, where each tunnel has two listening ports.
    """
    descriptors = descriptorLimit()
    if not descriptors:
        return _MOST
    return max(1, min(descriptors // 4, _MOST))


class TunnelQuota:
    """
    Counts tunnels.

    @param perCaller: Tunnels that one caller may have; 0 for any number.
    @param total: Tunnels in all; 0 for any number.
    """

    def __init__(self, perCaller: int = PER_CALLER, total: int = 0) -> None:
        self._perCaller = perCaller
        self._total = total
        self._callers: dict[Tunnel, str] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._callers)

    def __iter__(self) -> Iterator[Tunnel]:
        return iter(self._callers)

    def limit(self, perCaller: int, total: int) -> None:
        """
        Have other limits, for tunnels that come from now on.

        @param perCaller: As for a new quota, like C{total}.
        """
        self._perCaller, self._total = perCaller, total

    def count(self, tunnel: Tunnel, caller: str) -> None:
        """
        Count a new tunnel.

        @param caller: Whose it is: what callers are told apart by.
        @raise TunnelError: C{limit-reached}.
        """
        if self._total and len(self._callers) >= self._total:
            raise TunnelError(
                "limit-reached",
                f"this server has reached its limit of {self._total} tunnels; try"
                " again later, or"
                " raise its --max-tunnels",
            )
        if self._perCaller and self._counts[caller] >= self._perCaller:
            raise TunnelError(
                "limit-reached",
                f"a caller may have {self._perCaller} tunnels; close one, or"
                " raise the server's --max-tunnels-per-caller",
            )
        self._callers[tunnel] = caller
        self._counts[caller] += 1

    def forget(self, tunnel: Tunnel) -> None:
        """A tunnel is over; one that was not counted is no error."""
        caller = self._callers.pop(tunnel, None)
        if caller is not None:
            self._counts[caller] -= 1
            if not self._counts[caller]:
                del self._counts[caller]
