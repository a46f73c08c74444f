"""
How much passed lately, and the lines that are drawn of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from tristunnel.model.tunnel import Tunnel

__all__ = ["INTERVAL", "KEPT", "RateHistory", "Series", "path"]


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
        """What passed through a tunnel; empty if it has no graph of its own."""
        return self._tunnels.get(tunnel, deque())

    def ofOwner(self, owner: str) -> Series:
        """What passed through somebody's tunnels."""
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
        whole = (0.0, 0.0)
        owners: dict[str, tuple[float, float]] = {}
        for tunnel in tunnels:
            counts, before = tunnel.countsNow(), self._counts.get(tunnel, (0, 0))
            self._counts[tunnel] = counts
            rates = (
                max(0, counts[0] - before[0]) / passed,
                max(0, counts[1] - before[1]) / passed,
            )
            own = owners.get(tunnel.owner.name, (0.0, 0.0))
            owners[tunnel.owner.name] = (own[0] + rates[0], own[1] + rates[1])
            whole = (whole[0] + rates[0], whole[1] + rates[1])
            if tunnel not in self._tunnels and len(self._tunnels) < TUNNELS:
                self._tunnels[tunnel] = deque(maxlen=KEPT)
            if tunnel in self._tunnels:
                self._tunnels[tunnel].append(rates)
        self.total.append(whole)
        # Who has no tunnel any more is forgotten, and so this is bounded.
        self._owners = {
            name: self._owners.get(name, deque(maxlen=KEPT)) for name in owners
        }
        for name, own in owners.items():
            self._owners[name].append(own)


def path(
    values: Sequence[float],
    most: float,
    width: int,
    height: int,
    slots: int,
    closed: bool = False,
) -> str:
    """
    Draw a line, for the C{d} of an SVG path.

    @param values: Oldest first; the newest is at the right edge.
    @param most: The value at the top.
    @param slots: How many values fill the width.
    @param closed: Whether to enclose the area below it.
    """
    values = values[-slots:]
    if len(values) < 2:
        return f"M0 {height}H{width}"
    step = width / (slots - 1)
    left = width - step * (len(values) - 1)

    def points() -> Iterable[str]:
        for index, value in enumerate(values):
            y = height - (min(value / most, 1.0) * (height - 1) if most else 0.0)
            yield f"{left + index * step:.1f} {y:.1f}"

    line = "M" + "L".join(points())
    return f"{line}V{height}H{left:.1f}Z" if closed else line
