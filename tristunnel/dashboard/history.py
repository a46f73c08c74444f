"""
How much passed lately: what the dashboard's graphs are drawn from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from tristunnel.model.tunnel import Tunnel

__all__ = ["INTERVAL", "KEPT", "RateHistory", "Series"]

INTERVAL = 2.0
"""Seconds between samples."""

KEPT = 60
"""Samples that are kept."""

TUNNELS = 200
"""Tunnels that have a graph of their own; the oldest ones."""

Series = deque[tuple[float, float]]
"""Bytes per second in and out, oldest first."""


class RateHistory:
    """
    Samples what passes, whether or not somebody looks.

    @param reactor: Tells time.

    @ivar total: What passed in all.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.total: Series = deque(maxlen=KEPT)
        self._reactor = reactor
        self._counts: WeakKeyDictionary[Tunnel, tuple[int, int]] = WeakKeyDictionary()
        self._tunnels: WeakKeyDictionary[Tunnel, Series] = WeakKeyDictionary()
        self._owners: dict[str, Series] = {}
        self._last = reactor.seconds()

    def of(self, tunnel: Tunnel) -> Series:
        """
        What passed through a tunnel; empty if it has no graph of its own.
        """
        return self._tunnels.get(tunnel, deque())

    def ofOwner(self, owner: str) -> Series:
        """
        What passed through somebody's tunnels.
        """
        return self._owners.get(owner, deque())

    def sample(self, tunnels: Iterable[Tunnel]) -> None:
        """
        Take a sample.

        @param tunnels: All that are open, oldest first.
        """
        now = self._reactor.seconds()
        passed = now - self._last
        # Asked once a second; a sample is taken every other time.
        if passed < INTERVAL * 0.75:
            return
        self._last = now
        allIn = allOut = 0.0
        owners: dict[str, tuple[float, float]] = {}
        for tunnel in tunnels:
            bytesIn, bytesOut = tunnel.countsNow()
            beforeIn, beforeOut = self._counts.get(tunnel, (0, 0))
            self._counts[tunnel] = (bytesIn, bytesOut)
            rateIn = max(0, bytesIn - beforeIn) / passed
            rateOut = max(0, bytesOut - beforeOut) / passed
            allIn, allOut = allIn + rateIn, allOut + rateOut
            ownIn, ownOut = owners.get(tunnel.owner.name, (0.0, 0.0))
            owners[tunnel.owner.name] = (ownIn + rateIn, ownOut + rateOut)
            if tunnel not in self._tunnels and len(self._tunnels) < TUNNELS:
                self._tunnels[tunnel] = deque(maxlen=KEPT)
            if tunnel in self._tunnels:
                self._tunnels[tunnel].append((rateIn, rateOut))
        self.total.append((allIn, allOut))
        # Who has no tunnel any more is forgotten, and so this is bounded.
        self._owners = {
            name: self._owners.get(name, deque(maxlen=KEPT)) for name in owners
        }
        for name, rates in owners.items():
            self._owners[name].append(rates)
