"""
Small answers to a peer that may not read them.

A pong, a refusal, credit: each costs the peer a few bytes to ask for, and costs this
side memory until the peer has read it. A peer that leaves too many answers unread is
not read from, so it can ask for no more. Two peers that both do this would wait for
each other forever; therefore one that reads nothing for a while is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from zope.interface import implementer

from tristunnel.dataplane.stock import bytesTaken, unsent
from tristunnel.errors import TunnelError

__all__ = ["MOST_WAITING", "TAKE_TIME", "Answers", "Holds"]

MOST_WAITING = 256 * 1024
"""Bytes of answers that may wait, beyond what the transport holds, before we stop
reading from the peer."""

OVERHEAD = 64
"""Bytes that each answer is assumed to cost in addition to its own."""

TAKE_TIME = 30.0
"""Seconds within which a peer must read something while answers wait for it."""

LOOK = 5.0
"""Seconds between two checks of whether it does."""

UNWATCHED = 16 * 1024
"""Bytes of answers after which a check is due even though the transport took them all:
a peer that never reads may be filling the kernel's buffers slowly."""


class Holds:
    """
    The reasons for not reading from a connection. Reading goes on when the last of them
    is gone.

    @param pause: Stops reading.
    @param resume: Starts it again.
    """

    __slots__ = ("_pause", "_reasons", "_resume")

    def __init__(
        self, pause: Callable[[], object], resume: Callable[[], object]
    ) -> None:
        self._pause = pause
        self._resume = resume
        self._reasons: frozenset[str] = frozenset()

    def __contains__(self, reason: str) -> bool:
        return reason in self._reasons

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def hold(self, reason: str) -> None:
        """Stop reading, for one more reason."""
        first = not self._reasons
        self._reasons |= {reason}
        if first:
            self._pause()

    def release(self, reason: str) -> None:
        """Drop a reason; read again unless another one is left."""
        if reason in self._reasons:
            self._reasons -= {reason}
            if not self._reasons:
                self._resume()


@implementer(IPushProducer)
class Answers:
    """
    Watches whether a peer reads its answers. It is the transport's producer, and passes
    on what it is told to the producer of everything that is not an answer.

    @param reactor: Tells time.
    @param transport: Where the answers go.
    @param holds: The reasons for not reading from the peer.
    @param stalled: Cuts the peer off.

    @ivar full: Whether the transport has asked for a pause.
    @ivar waiting: Bytes of answers that were written since then.
    @ivar taken: Called when the transport's buffer is empty again.
    """

    def __init__(
        self,
        reactor: Any,
        transport: Any,
        holds: Holds,
        stalled: Callable[[TunnelError], object],
    ) -> None:
        self.full = False
        self.waiting = 0
        self.taken: Callable[[], object] = lambda: None
        self._reactor = reactor
        self._transport = transport
        self._holds = holds
        self._stalled = stalled
        self._latest: Callable[[], object] | None = None
        self._inner: Any = None
        self._timer: IDelayedCall | None = None
        self._mark: int | None = None
        self._since = 0.0
        self._written = 0
        transport.registerProducer(self, True)

    @property
    def room(self) -> bool:
        """Whether another answer may be written."""
        return self.waiting <= MOST_WAITING

    def wrote(self, size: int) -> None:
        """Note that an answer of C{size} bytes is about to be written."""
        if self.full:
            self.waiting += size + OVERHEAD
            if not self.room:
                self._holds.hold("answers")
            self._watch()
        else:
            self._written += size + OVERHEAD
            if self._written > UNWATCHED and self._timer is None:
                self._lookSoon()

    def latest(self, send: Callable[[], object]) -> None:
        """
        Send an answer of a kind of which only the latest one counts, as with pings
        (RFC 6455, 5.5.3): at once, or as soon as the peer reads again.
        """
        if self.full:
            self._latest = send
            self._watch()
        else:
            send()
            if not self.full:
                self.wrote(0)

    def passTo(self, inner: Any) -> None:
        """Pass on what the transport says to another producer, or to none."""
        self._inner = inner
        if inner is not None and self.full:
            inner.pauseProducing()

    def stop(self) -> None:
        """
        Stop watching: nothing more is written, since the connection is closing or has
        another owner. Doing it twice is no error.
        """
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.unregisterProducer()
            self._inner = self._latest = None
            self.taken = lambda: None
            self._goOn()

    def _lookSoon(self) -> None:
        """Check soon: the transport took answers, but perhaps only the kernel did."""
        self._written = 0
        if self._transport is not None and bytesTaken(self._transport) is not None:
            self._watch()

    def _watch(self) -> None:
        """Begin to check whether the peer reads something in time."""
        if self._timer is None and self._transport is not None:
            self._mark = bytesTaken(self._transport)
            self._since = self._reactor.seconds()
            self._timer = self._reactor.callLater(LOOK, self._look)

    def _look(self) -> None:
        """Cut the peer off unless it has read something, however slowly."""
        if not (self.full or unsent(self._transport)):
            self._timer = None
            return
        taken, now = bytesTaken(self._transport), self._reactor.seconds()
        if taken != self._mark:
            self._mark, self._since = taken, now
        if now - self._since < TAKE_TIME:
            self._timer = self._reactor.callLater(LOOK, self._look)
            return
        self._timer = None
        self._stalled(
            TunnelError("stalled", f"the peer took no answers for {TAKE_TIME:g} s")
        )

    def _goOn(self) -> None:
        """Read from the peer again: no answer is waiting."""
        self.full = False
        self.waiting = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._holds.release("answers")

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        self.full = True
        if self._inner is not None:
            self._inner.pauseProducing()

    def resumeProducing(self) -> None:
        self._goOn()
        send, self._latest = self._latest, None
        if send is not None:
            send()
        self.taken()
        if self._inner is not None and not self.full:
            self._inner.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is gone."""
        if self._inner is not None:
            self._inner.stopProducing()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
