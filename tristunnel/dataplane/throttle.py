"""
A limit on bytes per second for all streams of one owner.

A limited stream is copied, not spliced: each end is joined to a rate-limited end that
stands in for the other one. Only a stream that is already spliced when the limit is set
stays spliced; its ends then obey the rate themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.dataplane.memory import HELD
from tristunnel.dataplane.rate import TokenBucket
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, EitherEnd

__all__ = ["QUANTUM", "Throttle"]

QUANTUM = 64 * 1024
"""Bytes that a stream may pass on before it has to wait for the others that share its
rate. So all get the same, whatever the size of their pieces, and a stream with little
to send need not wait behind those with a lot."""

GRACE = 0.25
"""Seconds' worth by which flows may overdraw their rate when others have used it up.
Without this bound, a new flow for each datagram would not be limited at all."""


class Throttle:
    """
    A rate that streams share, separately for each direction.

    @param reactor: Tells time.
    @param rate: Bytes per second; 0 for any number.

    @ivar rate: Bytes per second.
    """

    def __init__(self, reactor: IReactorTime, rate: int) -> None:
        self.rate = rate
        self._reactor = reactor
        burst = _burst(rate)
        self._rates = [TokenBucket(rate, reactor.seconds, burst) for _ in range(2)]
        # What may have to wait for it: rate-limited ends, and ends that obey it.
        self._slowed: WeakSet[Any] = WeakSet()

    def change(self, rate: int) -> None:
        """
        Change the rate. Streams that are waiting go on, and wait again if the new rate
        requires it.
        """
        if rate == self.rate:
            return
        self.rate = rate
        for each in self._rates:
            each.change(rate, _burst(rate))
        for slowed in list(self._slowed):
            slowed.obeyAgain()

    def between(
        self, client: EitherEnd, visitor: EitherEnd, datagrams: bool = False
    ) -> tuple[EitherEnd, EitherEnd]:
        """
        Limit what passes between two ends.

        @param datagrams: Whether they pass datagrams, which are dropped instead of
            waiting.
        @return: What is to be joined in their place.
        """
        kind = _RateLimitedFlow if datagrams else _RateLimitedStream
        toClient: Any = kind(self._reactor, client, self._rates[0])
        toVisitor: Any = kind(self._reactor, visitor, self._rates[1])
        toClient.other, toVisitor.other = toVisitor, toClient
        for gauge in (toClient, toVisitor):
            self._slowed.add(gauge)
            gauge.begin()
        return toClient, toVisitor

    def onto(
        self, client: Any, visitor: Any, datagrams: bool = False
    ) -> Callable[[], None]:
        """
        Limit what passes between two ends that are joined already.

        @param client: The end itself, not what stands in for it.
        @param visitor: Likewise.
        @return: To be called when the stream is over.
        """
        if getattr(client, "mayGoByKernel", False):
            for end, rate in ((visitor, self._rates[0]), (client, self._rates[1])):
                if hasattr(end, "obey"):
                    end.obey(rate)
                    self._slowed.add(end)
            return lambda: None
        kind = _RateLimitedFlow if datagrams else _RateLimitedStream
        toClient: Any = kind(self._reactor, client, self._rates[0])
        toVisitor: Any = kind(self._reactor, visitor, self._rates[1])
        toClient.other, toVisitor.other = toVisitor, toClient
        visitorBefore, clientPaused = client.passTo(toVisitor)
        clientBefore, visitorPaused = visitor.passTo(toClient)
        toClient.takeOver(clientBefore, clientPaused)
        toVisitor.takeOver(visitorBefore, visitorPaused)
        self._slowed.update((toClient, toVisitor))

        def over() -> None:
            toClient.stop()
            toVisitor.stop()

        return over


def _burst(rate: int) -> int:
    """What may pass at once: a tenth of a second's worth, and at least one chunk."""
    return max(64 * 1024, rate // 10)


class _RateLimitedEnd:
    """
    Stands in for an end, and counts what is passed to it.

    @ivar end: The end.
    @ivar other: What stands in for the end that passes bytes to this one.
    """

    other: Any

    def __init__(self, reactor: IReactorTime, end: Any, rate: TokenBucket) -> None:
        self.end = end
        self._reactor = reactor
        self._rate = rate

    @property
    def received(self) -> int:
        """Bytes that the end has read."""
        return int(self.end.received)

    def join(self, peer: Any, closed: Closed) -> None:
        """Join the end to its peer."""
        self.end.join(peer, closed)

    def begin(self) -> None:
        """The ends are about to be joined."""

    def takeOver(self, before: Any, paused: bool) -> None:
        """
        Step in between ends that are joined already.

        @param before: What stood in for the end until now, or the end itself; C{None}
            if it is over.
        @param paused: Whether the end itself is paused by its peer.
        """
        if before is not None:
            self.end = before

    def obeyAgain(self) -> None:
        """The rate has changed."""

    def stop(self) -> None:
        """The stream is over."""

    def whileWaiting(self, left: Closed) -> None:
        """Have C{left} called if the end is over before it is joined."""
        self.end.whileWaiting(left)

    def finish(self) -> None:
        """No more follows."""
        self.end.finish()

    def reset(self, reason: TunnelError) -> None:
        """Break the end."""
        self.end.reset(reason)


class _RateLimitedStream(_RateLimitedEnd):
    """
    Stands in for an end of a stream. When too much was passed to it, the other end has
    to wait.
    """

    def __init__(self, reactor: IReactorTime, end: Any, rate: TokenBucket) -> None:
        super().__init__(reactor, end, rate)
        self._peerHolds = False
        self._rateHolds: IDelayedCall | None = None
        self._passed = 0
        self._kept: list[bytes] | None = None
        self._finishing = False

    def begin(self) -> None:
        """
        Wait first if others have overdrawn the rate. Otherwise, visits that are over
        after one piece would not be limited at all.
        """
        delay = self._rate.charge(0)
        if delay > 0:
            # What the other end has already read waits here.
            self._kept = []
            self.other.hold(delay)

    def takeOver(self, before: Any, paused: bool) -> None:
        """
        Note whether the end is paused: another rate-limited end may have paused it for
        its own reasons.
        """
        super().takeOver(before, paused)
        held = isinstance(before, _RateLimitedStream)
        self._peerHolds = before._peerHolds if held else paused

    def obeyAgain(self) -> None:
        """The rate has changed: stop waiting for the old one."""
        if self._rateHolds is not None:
            self._rateHolds.cancel()
            self._goOn()

    def stop(self) -> None:
        """The stream is over: stop waiting, and drop what is kept."""
        if self._rateHolds is not None:
            self._rateHolds.cancel()
            self._rateHolds = None
        self.other.passOnKept()

    def join(self, peer: Any, closed: Closed) -> None:
        """Join the end to its peer, and stop waiting once the stream is over."""

        def over(reason: TunnelError | None) -> None:
            self.stop()
            closed(reason)

        super().join(peer, over)

    def write(self, data: bytes) -> None:
        """Pass bytes on."""
        if self._kept is not None:
            self._kept.append(data)
            HELD.hold(self, len(data), self._evict)
            return
        self.end.write(data)
        size = len(data)
        delay = self._rate.charge(size)
        self._passed += size
        if delay > 0 and (self._passed >= QUANTUM or self.other.waits):
            self._passed = 0
            self.other.hold(delay)

    def finish(self) -> None:
        """End this direction after what is kept."""
        if self._kept is not None:
            self._finishing = True
        else:
            self.end.finish()

    def reset(self, reason: TunnelError) -> None:
        """Break the end, and drop what is kept."""
        self._kept = None
        HELD.releaseAll(self)
        self.end.reset(reason)

    def _evict(self, reason: TunnelError) -> None:
        """Break both sides, because too much is kept."""
        self.reset(reason)
        self.other.reset(reason)

    def passOnKept(self) -> None:
        """Pass on what is kept."""
        kept, self._kept = self._kept, None
        if kept:
            HELD.releaseAll(self)
        for data in kept or ():
            self.write(data)
        if self._finishing:
            self._finishing = False
            self.end.finish()

    @property
    def waits(self) -> bool:
        """Whether the end is not read because of the rate."""
        return self._rateHolds is not None

    def hold(self, delay: float) -> None:
        """
        Read nothing from this end for a while.

        @param delay: Seconds.
        """
        if self._rateHolds is not None:
            self._rateHolds.reset(delay)
            return
        self._rateHolds = self._reactor.callLater(delay, self._goOn)
        if not self._peerHolds:
            self.end.pauseReading()

    def _goOn(self) -> None:
        """The rate lets this end be read again."""
        self._rateHolds = None
        self.other.passOnKept()
        # What was kept may be too much by itself.
        if self._rateHolds is None and not self._peerHolds:
            self.end.resumeReading()

    def pauseReading(self) -> None:
        """The peer takes no more for now."""
        if not self._peerHolds:
            self._peerHolds = True
            if self._rateHolds is None:
                self.end.pauseReading()

    def resumeReading(self) -> None:
        """The peer takes bytes again."""
        if self._peerHolds:
            self._peerHolds = False
            if self._rateHolds is None:
                self.end.resumeReading()


class _RateLimitedFlow(_RateLimitedEnd):
    """Stands in for an end of a flow, and drops what exceeds the rate."""

    def __init__(self, reactor: IReactorTime, end: Any, rate: TokenBucket) -> None:
        super().__init__(reactor, end, rate)
        self._until = 0.0

    def obeyAgain(self) -> None:
        """The rate has changed: what comes may pass again."""
        self._until = 0.0

    @property
    def dropped(self) -> int:
        """Datagrams that the end has dropped."""
        return int(self.end.dropped)

    @dropped.setter
    def dropped(self, count: int) -> None:
        """Count for the end, if another rate-limited end stands in for this one."""
        self.end.dropped = count

    def send(self, datagram: bytes) -> None:
        """Pass a datagram on, or drop it."""
        now = self._reactor.seconds()
        if now < self._until or self._rate.charge(0) > GRACE:
            self.end.dropped += 1
            return
        self.end.send(datagram)
        self._until = now + self._rate.charge(len(datagram))
