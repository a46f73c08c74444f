"""
How many tunnels there may be.

Every tunnel costs memory, and most cost descriptors and ports; on a server without
C{--auth} anybody may ask for one. So they are counted, for each caller and in all.
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
    The number of tunnels that leaves half of the process's descriptors to visitors and
    clients, if each tunnel has two listening ports.
    """
    descriptors = descriptorLimit()
    if not descriptors:
        return _MOST
    return max(1, min(descriptors // 4, _MOST))


@dataclass
class TunnelQuota:
    """
    The limits for tunnels that are opened from now on; 0 is no limit.

    @ivar perCaller: Tunnels that one caller may have, wherever they are.
    @ivar total: Tunnels that this process may have.
    @ivar everywhere: Tunnels that all processes and machines of the server may have, if
        somebody has asked for that.
    @ivar withPorts: Those of them that may have ports of their own, which cost
        descriptors; a name costs none.
    """

    perCaller: int = PER_CALLER
    total: int = 0
    withPorts: int = 0
    everywhere: int = 0

    @classmethod
    def of(cls, perCaller: int, total: int) -> TunnelQuota:
        """
        Make limits from options.

        @param total: The option's value; 0 for what this process can bear.
        """
        return cls(perCaller, total or _MOST, 0 if total else defaultTotal(), total)

    def check(self, count: int) -> None:
        """
        @param count: The tunnels that this process has.
        @raise TunnelError: C{limit-reached}.
        """
        self._check(count, self.total, "tunnels")

    def checkPorts(self, count: int) -> None:
        """
        @param count: The tunnels that have ports.
        @raise TunnelError: C{limit-reached}.
        """
        self._check(count, self.withPorts, "tunnels with ports")

    @staticmethod
    def _check(count: int, most: int, what: str) -> None:
        if most and count >= most:
            raise TunnelError(
                "limit-reached",
                f"this server has reached its limit of {most} {what}; try again later,"
                " or raise its --max-tunnels",
            )
