"""Recent traffic, and the graphs that are drawn of it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from tristunnel.model.tunnel import Tunnel

__all__ = ["KEPT", "SPANS", "RateHistory", "Series", "Span", "path", "top"]


@dataclass(frozen=True)
class Span:
    """
    How long a graph looks back.

    @ivar step: Seconds between its samples.
    @ivar words: Its text in a heading.
    @ivar ticks: The labels below it, from left to right.
    """

    step: float
    words: str
    ticks: tuple[str, ...]


KEPT = 60
"""The number of samples that are kept for each span."""

SPANS = {
    "2min": Span(2.0, "2 minutes", ("-2 min", "-90 s", "-60 s", "-30 s", "now")),
    "1h": Span(60.0, "hour", ("-60 min", "-45 min", "-30 min", "-15 min", "now")),
    "1d": Span(1440.0, "day", ("-24 h", "-18 h", "-12 h", "-6 h", "now")),
}
"""The spans by name; the first one is shown by default, and sampled."""

_INTERVAL = SPANS["2min"].step

TUNNELS = 200
"""The number of tunnels with a graph of their own; the oldest have one."""

_Rates = tuple[float, float]
_NOTHING: _Rates = (0.0, 0.0)


class Series:
    """
    Bytes per second in and out: L{KEPT} samples for each of L{SPANS}, however long
    it lasts. Those of the longer spans are means.
    """

    def __init__(self) -> None:
        # In and out, one after the other, to save memory: there may be very many
        # series.
        self._samples = {name: array("d") for name in SPANS}
        # Bytes in and out, and seconds, of the unfinished mean.
        self._sums = {name: (0.0, 0.0, 0.0) for name in SPANS}

    @property
    def last(self) -> _Rates:
        """The newest sample."""
        newest = next(iter(self._samples.values()))
        return (newest[-2], newest[-1]) if newest else _NOTHING

    def add(self, rates: _Rates, passed: float) -> None:
        """
        Add a sample.

        @param passed: The seconds that it covers.
        """
        for name, span in SPANS.items():
            bytesIn, bytesOut, seconds = self._sums[name]
            seconds += passed
            sums = bytesIn + rates[0] * passed, bytesOut + rates[1] * passed
            # Samples may come a little early or late.
            if seconds < span.step - _INTERVAL / 4:
                self._sums[name] = (*sums, seconds)
                continue
            self._sums[name] = (0.0, 0.0, 0.0)
            samples = self._samples[name]
            samples.extend((sums[0] / seconds, sums[1] / seconds))
            del samples[: -2 * KEPT]

    def over(self, span: str) -> list[_Rates]:
        """The samples of a span, oldest first; the last mean may be unfinished."""
        bytesIn, bytesOut, seconds = self._sums[span]
        unfinished = [(bytesIn / seconds, bytesOut / seconds)] if seconds else []
        samples = self._samples[span]
        kept = zip(samples[::2], samples[1::2], strict=True)
        return [*kept, *unfinished][-KEPT:]


class RateHistory:
    """
    Samples the traffic, whether or not anybody looks.

    @param reactor: Tells time.

    @ivar total: All traffic.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.total = Series()
        self._reactor = reactor
        self._counts: WeakKeyDictionary[Tunnel, tuple[int, int]] = WeakKeyDictionary()
        self._tunnels: WeakKeyDictionary[Tunnel, Series] = WeakKeyDictionary()
        self._owners: dict[str, Series] = {}
        self._last = reactor.seconds()

    def of(self, tunnel: Tunnel) -> Series:
        """The traffic of a tunnel; empty if it has no graph of its own."""
        return self._tunnels.get(tunnel) or Series()

    def ofOwner(self, owner: str) -> Series:
        """The traffic of an owner's tunnels."""
        return self._owners.get(owner) or Series()

    def sample(self, tunnels: Iterable[Tunnel]) -> None:
        """
        Take a sample.

        @param tunnels: All that are open, oldest first.
        """
        now = self._reactor.seconds()
        passed = now - self._last
        # Asked once a second; a sample is taken every other time.
        if passed < _INTERVAL * 0.75:
            return
        self._last = now
        whole = _NOTHING
        owners: dict[str, _Rates] = {}
        for tunnel in tunnels:
            counts, before = tunnel.countsNow(), self._counts.get(tunnel, (0, 0))
            self._counts[tunnel] = counts
            rates = (
                max(0, counts[0] - before[0]) / passed,
                max(0, counts[1] - before[1]) / passed,
            )
            own = owners.get(tunnel.owner.name, _NOTHING)
            owners[tunnel.owner.name] = (own[0] + rates[0], own[1] + rates[1])
            whole = (whole[0] + rates[0], whole[1] + rates[1])
            if tunnel not in self._tunnels and len(self._tunnels) < TUNNELS:
                self._tunnels[tunnel] = Series()
            if tunnel in self._tunnels:
                self._tunnels[tunnel].add(rates, passed)
        self.total.add(whole, passed)
        # Owners without tunnels are forgotten, so that this is bounded.
        self._owners = {name: self._owners.get(name) or Series() for name in owners}
        for name, rates in owners.items():
            self._owners[name].add(rates, passed)


def top(most: float) -> float:
    """
    Find the value at the top of a graph: a round number, half of which is round, too.
    """
    if most <= 0:
        return 0.0
    unit = 10.0 ** floor(log10(most))
    return next(step * unit for step in (1, 2, 4, 6, 8, 10) if step * unit >= most)


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
