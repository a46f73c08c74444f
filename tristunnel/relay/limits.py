"""
So many bytes per second, for all streams that somebody has.

A limited stream is copied and not spliced: each end is joined to a gauge that
stands for the other one.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, EitherEnd
from tristunnel.relay.rules import Rate

__all__ = ["Throttle"]


class Throttle:
    """
    A rate that streams share, each direction for itself.

    @param reactor: Tells time.
    @param rate: Bytes per second.

    @ivar rate: Bytes per second.
    """

    def __init__(self, reactor: IReactorTime, rate: int) -> None:
        self.rate = rate
        self._reactor = reactor
        # At least a chunk may pass at once, and what comes in a tenth of a
        # second.
        burst = max(64 * 1024, rate // 10)
        self._rates = [Rate(rate, reactor.seconds, burst) for _ in range(2)]

    def between(
        self, client: EitherEnd, visitor: EitherEnd, datagrams: bool = False
    ) -> tuple[EitherEnd, EitherEnd]:
        """
        Limit what passes between two ends.

        @param datagrams: Whether they pass datagrams, which are dropped and
            do not wait.
        @return: What is to be joined in their place.
        """
        kind = _DatagramGauge if datagrams else _StreamGauge
        toClient: Any = kind(self._reactor, client, self._rates[0])
        toVisitor: Any = kind(self._reactor, visitor, self._rates[1])
        toClient.other, toVisitor.other = toVisitor, toClient
        return toClient, toVisitor


class _Gauge:
    """
    Stands for an end and counts what is passed to it.

    @ivar end: The end.
    @ivar other: What stands for the end that passes bytes to this one.
    """

    other: Any

    def __init__(self, reactor: IReactorTime, end: Any, rate: Rate) -> None:
        self.end = end
        self._reactor = reactor
        self._rate = rate

    @property
    def received(self) -> int:
        """
        Bytes that the end has read.
        """
        return int(self.end.received)

    def join(self, peer: Any, closed: Closed) -> None:
        """
        Join the end to its peer.
        """
        self.end.join(peer, closed)

    def whileWaiting(self, left: Closed) -> None:
        """
        Have C{left} called if the end is over before it is joined.
        """
        self.end.whileWaiting(left)

    def finish(self) -> None:
        """
        No more follows.
        """
        self.end.finish()

    def reset(self, reason: TunnelError) -> None:
        """
        Break the end.
        """
        self.end.reset(reason)


class _StreamGauge(_Gauge):
    """
    Stands for an end of a stream; when too much was passed to it, the other
    one has to wait.
    """

    def __init__(self, reactor: IReactorTime, end: Any, rate: Rate) -> None:
        super().__init__(reactor, end, rate)
        self._peerHolds = False
        self._rateHolds: IDelayedCall | None = None

    def join(self, peer: Any, closed: Closed) -> None:
        """
        Join the end to its peer, and forget about delays once it is over.
        """

        def over(reason: TunnelError | None) -> None:
            if self._rateHolds is not None:
                self._rateHolds.cancel()
                self._rateHolds = None
            closed(reason)

        super().join(peer, over)

    def write(self, data: bytes) -> None:
        """
        Pass bytes on.
        """
        self.end.write(data)
        delay = self._rate.charge(len(data))
        if delay > 0:
            self.other.hold(delay)

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
        """
        The rate lets this end be read again.
        """
        self._rateHolds = None
        if not self._peerHolds:
            self.end.resumeReading()

    def pauseReading(self) -> None:
        """
        The peer takes no more for now.
        """
        if not self._peerHolds:
            self._peerHolds = True
            if self._rateHolds is None:
                self.end.pauseReading()

    def resumeReading(self) -> None:
        """
        The peer takes bytes again.
        """
        if self._peerHolds:
            self._peerHolds = False
            if self._rateHolds is None:
                self.end.resumeReading()


class _DatagramGauge(_Gauge):
    """
    Stands for an end of a flow; what would be too much is dropped.
    """

    def __init__(self, reactor: IReactorTime, end: Any, rate: Rate) -> None:
        super().__init__(reactor, end, rate)
        self._until = 0.0

    @property
    def dropped(self) -> int:
        """
        Datagrams that the end has dropped.
        """
        return int(self.end.dropped)

    @dropped.setter
    def dropped(self, count: int) -> None:
        """
        Count for the end, where another gauge stands for this one.
        """
        self.end.dropped = count

    def send(self, datagram: bytes) -> None:
        """
        Pass a datagram on, or drop it.
        """
        now = self._reactor.seconds()
        if now < self._until:
            self.end.dropped += 1
            return
        self.end.send(datagram)
        self._until = now + self._rate.charge(len(datagram))
