"""
Small answers to a peer that may not take them.

A pong, a refusal, credit: each costs the peer a few bytes to ask for, and this
side memory until it is taken. So who lets too many wait is not read from, which
stops the asking; and because two such peers would wait for each other, one that
takes nothing for a while is cut off.
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
"""Bytes of answers that may wait, beyond what the transport holds, before the
peer is read no further."""

OVERHEAD = 64
"""Bytes that an answer is taken to cost besides its own."""

TAKE_TIME = 30.0
"""Seconds in which a peer must take something while answers wait for it."""

LOOK = 5.0
"""Seconds between two looks whether it does."""

UNWATCHED = 16 * 1024
"""Bytes of answers after which somebody looks, though the transport took them all: the
kernel's buffers may be filled slowly, by a peer that never takes any."""


class Holds:
    """
    Reasons for not reading from a connection, which is read again when the last
    of them is gone.

    @param pause: Stops reading.
    @param resume: Goes on.
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
        """Do not read, for one reason more."""
        first = not self._reasons
        self._reasons |= {reason}
        if first:
            self._pause()

    def release(self, reason: str) -> None:
        """Read again, unless there is another reason not to."""
        if reason in self._reasons:
            self._reasons -= {reason}
            if not self._reasons:
                self._resume()


@implementer(IPushProducer)
class Answers:
    """
    Knows whether a peer takes its answers. It is the transport's producer, and
    hands on what it is told to the one whose bytes are more than answers.

    @param reactor: Tells time.
    @param transport: Where the answers go.
    @param holds: Why it is not read.
    @param stalled: Cuts the peer off.

    @ivar full: Whether the transport holds enough.
    @ivar waiting: Bytes of answers that were written since then.
    @ivar taken: Called when the transport holds nothing any more.
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
        """An answer of so many bytes is about to be written."""
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
        Have an answer sent of which only the latest one counts, as of pings
        (RFC 6455, 5.5.3): at once, or when the peer takes some again.
        """
        if self.full:
            self._latest = send
            self._watch()
        else:
            send()
            if not self.full:
                self.wrote(0)

    def passTo(self, inner: Any) -> None:
        """Hand on what the transport says to another producer, or to none."""
        self._inner = inner
        if inner is not None and self.full:
            inner.pauseProducing()

    def stop(self) -> None:
        """
        Nothing is written any more: the connection is closing, or is somebody
        else's. Doing it twice is no error.
        """
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.unregisterProducer()
            self._inner = self._latest = None
            self.taken = lambda: None
            self._goOn()

    def _lookSoon(self) -> None:
        """The transport took answers; so may the kernel have, and nobody else."""
        self._written = 0
        if self._transport is not None and bytesTaken(self._transport) is not None:
            self._watch()

    def _watch(self) -> None:
        """See to it that the peer takes something in time."""
        if self._timer is None and self._transport is not None:
            self._mark = bytesTaken(self._transport)
            self._since = self._reactor.seconds()
            self._timer = self._reactor.callLater(LOOK, self._look)

    def _look(self) -> None:
        """Cut the peer off, unless it only reads slowly."""
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
        """Nothing waits."""
        self.full = False
        self.waiting = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._holds.release("answers")

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        """The transport holds enough."""
        self.full = True
        if self._inner is not None:
            self._inner.pauseProducing()

    def resumeProducing(self) -> None:
        """The transport has sent all it held."""
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
