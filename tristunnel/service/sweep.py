"""
Ending streams that are too old or were silent for too long.

One look at all of them now and then, instead of a timer for each: a stream
that lives for a millisecond costs no timer, and the counts tell by themselves
whether bytes pass, be it by splicing, by copying or in datagrams.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.errors import TunnelError
from tristunnel.model.tunnel import Stream

__all__ = ["StreamSweep"]

SHARE = 8
"""A look comes in each part of so many of the shortest limit; a stream may
live on for that much longer than it should."""

SHORTEST = 0.05
"""Seconds between looks, at the least."""

LONGEST = 15.0
"""Seconds between looks, at the most."""


class StreamSweep:
    """
    Watches the streams of all tunnels that limit their age or their silence:
    a L{VisitorFilter<tristunnel.model.tunnel.VisitorFilter>}.

    @param reactor: Tells time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        # How many bytes had passed, and since when no more did.
        self._watched: dict[Stream, tuple[int, float]] = {}
        self._look: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._watched)

    def enter(self, stream: Stream) -> None:
        now = self._reactor.seconds()
        self._watched[stream] = (0, now)
        self._lookSoon(stream, now)

    def watch(self, stream: Stream) -> None:
        """
        Watch a stream that came in before it was to be watched, or whose
        limits have changed.
        """
        now = self._reactor.seconds()
        if stream not in self._watched:
            self._watched[stream] = (stream.bytesIn + stream.bytesOut, now)
            stream.filters.append(self)
        self._lookSoon(stream, now)

    def _lookSoon(self, stream: Stream, now: float) -> None:
        interval = _interval(stream)
        if self._look is None:
            self._look = self._reactor.callLater(interval, self._sweep)
        elif self._look.getTime() > now + interval:
            self._look.reset(interval)

    def leave(self, stream: Stream) -> None:
        self._watched.pop(stream, None)
        if not self._watched and self._look is not None:
            self._look.cancel()
            self._look = None

    def _sweep(self) -> None:
        self._look = None
        now = self._reactor.seconds()
        interval = LONGEST
        for stream, (before, since) in list(self._watched.items()):
            policy = stream.tunnel.policy
            passed = stream.bytesIn + stream.bytesOut
            if passed != before:
                since = now
                self._watched[stream] = (passed, now)
            if policy.maxAge and now - stream.opened >= policy.maxAge:
                why = f"a stream may last {policy.maxAge:g} s here"
                stream.reset(TunnelError("expired", why))
            elif policy.idle and now - since >= policy.idle:
                why = f"nothing passed for {policy.idle:g} s"
                stream.reset(TunnelError("expired", why))
            else:
                interval = min(interval, _interval(stream))
        if self._watched:
            self._look = self._reactor.callLater(interval, self._sweep)


def _interval(stream: Stream) -> float:
    policy = stream.tunnel.policy
    limits = [limit for limit in (policy.idle, policy.maxAge) if limit]
    shortest = min(limits, default=LONGEST)
    return max(SHORTEST, min(shortest / SHARE, LONGEST))
