"""
How many tunnels there may be.

Every tunnel costs descriptors and ports, and on a server without C{--auth}
anybody may ask for one; so they are counted, for each caller and in all.
"""

from __future__ import annotations

from dataclasses import dataclass

from tristunnel.errors import TunnelError
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


@dataclass
class TunnelQuota:
    """
    The limits that hold for tunnels that come from now on; 0 is none.

    @ivar perCaller: Tunnels that one caller may have, wherever they are.
    @ivar total: Tunnels that this process may have.
    """

    perCaller: int = PER_CALLER
    total: int = 0

    def check(self, count: int) -> None:
        """
        @param count: The tunnels that this process has.
        @raise TunnelError: C{limit-reached}.
        """
        if self.total and count >= self.total:
            raise TunnelError(
                "limit-reached",
                f"this server has reached its limit of {self.total} tunnels; try"
                " again later, or raise its --max-tunnels",
            )
