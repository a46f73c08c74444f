"""
What the ends of streams that are connections have in common, whatever carries their
bytes: a socket of our own, a Twisted transport, or a WebSocket::

    ======== ===================================== ===================================
    state    of what this end reads                of what it is given to send
    ======== ===================================== ===================================
    early    kept, up to EARLY, until a peer
             is there
    open     goes to the peer                      goes out
    held     is not read: HoldableEnd.hold
    ended    peer.finish was called, once          the far side was told, once
    over     nothing more is called                a reset comes back to the peer
    ======== ===================================== ===================================

A reset from either side leads to C{over} at once; otherwise it is reached when the
carrier reports that the connection is gone. C{closed} is called then, exactly once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tristunnel.dataplane.holdable import READING_FIELDS, HoldableEnd
from tristunnel.dataplane.memory import HELD
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End

__all__ = [
    "CLOSE_TIMEOUT",
    "EARLY",
    "END_FIELDS",
    "TLS_HANDSHAKE_TIMEOUT",
    "ConnectionEnd",
]

TLS_HANDSHAKE_TIMEOUT = 10.0
"""Seconds within which a TLS peer must complete its handshake."""

CLOSE_TIMEOUT = 120.0
"""Seconds within which the peer of a connection that we close must read some of what is
left, or answer our close over TLS: some never do."""

EARLY = 64 * 1024
"""Bytes that are read from an end that is not joined yet before reading pauses."""

END_FIELDS = (
    *READING_FIELDS,
    "_arrived",
    "_closed",
    "_early",
    "_finished",
    "_full",
    "_peer",
    "_reason",
    "heard",
)
"""The names for C{__slots__} in each subclass of L{ConnectionEnd}, which has none: so
it can be combined with another base class that has some."""


class ConnectionEnd(HoldableEnd):
    """
    An L{End<tristunnel.interfaces.End>} that is a connection.

    @ivar heard: Called when something arrives before this end is joined, or when the
        other side sends no more.
    @cvar memory: Counts what is held for peers that do not read.
    @cvar guessable: Whether unauthenticated peers can find it by trying, as with ports.
    """

    if not TYPE_CHECKING:
        # The slots of the fields are in the subclasses, see END_FIELDS.
        __slots__ = ()

    memory = HELD
    guessable = True

    heard: Callable[[], None] | None
    _arrived: Callable[[Any], None]
    _peer: End | None
    _closed: Closed | None
    _early: list[bytes] | None
    _full: int
    _finished: bool
    _reason: TunnelError | None

    def _prepare(self, reactor: Any, arrived: Callable[[Any], None]) -> None:
        """
        Set all fields.

        @param reactor: Tells time.
        @param arrived: Called once with this end when bytes may pass.
        """
        self._prepareReading(reactor)
        self.heard = None
        self._arrived = arrived
        self._peer = self._closed = self._early = None
        self._finished = False
        self._full = 0
        self._reason = None

    # The carrier

    @abstractmethod
    def _transmit(self, data: bytes) -> None:
        """Send bytes, or keep them until they can be sent."""

    @abstractmethod
    def _endTransmission(self) -> None:
        """
        Send no more after what is kept; where one direction cannot end on its own, end
        both.
        """

    @abstractmethod
    def _cutOff(self) -> None:
        """
        Break the connection in a way that the far side sees. L{_gone} may be called
        afterwards; it has no effect then.
        """

    # What the carrier tells

    def _bytesCame(self, data: bytes) -> None:
        """Pass on what was read."""
        peer = self._peer
        if peer is None:
            # Keep reading for a while, in order to notice if the far side leaves.
            self.received += len(data)
            if self._early is None:
                self._early = []
            self._early.append(data)
            self.memory.hold(self, len(data), self.evict)
            if self.received > EARLY:
                self.hold(self.UNJOINED)
            if self.heard is not None:
                self.heard()
            return
        peer.write(data)
        if self._rule is None:
            self.received += len(data)
        else:
            self.counted(len(data))

    def _noMoreComes(self) -> None:
        """The far side has ended its direction."""
        if not (self._eof or self._over):
            self._eof = True
            if self._peer is not None:
                self._peer.finish()
            elif self.heard is not None:
                self.heard()

    def _fills(self, waiting: int) -> None:
        """Pause the peer: C{waiting} bytes, or more, wait to be sent."""
        if not (self._full or self._over):
            self._full = waiting
            self._pauseSource()
            if not self._over:
                self.memory.hold(self, waiting, self.evict)

    def _emptied(self) -> None:
        """Nothing waits to be sent any more."""
        if self._full:
            full, self._full = self._full, 0
            self.memory.release(self, full)
            self._resumeSource()

    def _pauseSource(self) -> None:
        """Have whoever sends wait."""
        if self._peer is not None:
            self._peer.pauseReading()

    def _resumeSource(self) -> None:
        """Have whoever sends go on."""
        if self._peer is not None:
            self._peer.resumeReading()

    def _gone(self, reason: Failure | None) -> None:
        """
        The connection is no more.

        @param reason: C{ConnectionDone}, or C{None}, after an orderly end.
        """
        why = None
        if reason is not None and not isinstance(reason.value, ConnectionDone):
            why = TunnelError("reset", reason.getErrorMessage())
        self._goneBecause(why)

    def _goneBecause(self, why: TunnelError | None) -> None:
        """The connection is no more; C{None} after an orderly end."""
        self._stopTimers()
        if self._full or self._early is not None:
            self.memory.releaseAll(self)
        if self._over:
            return
        self._over = True
        self._reason = why
        if self._peer is None:
            self._tellClosed()
        else:
            self._tellPeer(self._peer)

    def _tellPeer(self, peer: End) -> None:
        """Let the other end know that this one is over."""
        if self._reason is not None:
            peer.reset(self._reason)
        elif not self._eof:
            self._eof = True
            peer.finish()
        if self._finished:
            # The peer has ended, too. Dropping it here leaves no reference cycle, which
            # only the garbage collector would find.
            self._peer = None
        self._tellClosed()

    def _tellClosed(self) -> None:
        """Let whoever waits for the end of this end know."""
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(self._reason)

    # End

    @property
    def over(self) -> bool:
        """Whether the connection is gone."""
        return self._over

    @property
    def reason(self) -> TunnelError | None:
        """Why it broke, if it did."""
        return self._reason

    @property
    def ended(self) -> bool:
        """Whether the far side sends no more."""
        return self._eof or self._over

    def whileWaiting(self, left: Closed) -> None:
        """Have C{left} called if this end is over before it has been joined."""
        if self._peer is None:
            self._closed = left

    @property
    def early(self) -> bytes:
        """What came before this end is joined."""
        return b"".join(self._early or ())

    def begunBy(self, data: bytes) -> None:
        """Put bytes that somebody else has read before all others."""
        self._early = [data, *(self._early or ())]
        self.received += len(data)
        self.memory.hold(self, len(data), self.evict)

    def skipEarly(self, count: int) -> None:
        """Drop C{count} bytes of what came early."""
        self._early = [self.early[count:]]
        self.received -= count

    def join(self, peer: End, closed: Closed) -> None:
        """Begin to pass bytes to C{peer}."""
        self._peer = peer
        self._closed = closed
        early, self._early = self._early, None
        if early is not None:
            self.memory.releaseAll(self)
            for data in early:
                peer.write(data)
        if self._eof:
            peer.finish()
        if self._over:
            self._tellPeer(peer)
        elif self._held:
            self.release(self.UNJOINED)

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        """
        Pass bytes to what stands for the peer from now on.

        @return: The peer until now, and whether it has this end paused.
        """
        before, self._peer = self._peer, peer
        return before, bool(self._held & self.PEER)

    def write(self, data: bytes) -> None:
        """Send bytes; to a connection that is gone, a reset comes back."""
        if not self._over:
            self._transmit(data)
        elif self._peer is not None:
            self._peer.reset(TunnelError("reset", "the connection is gone"))

    def finish(self) -> None:
        """Send no more."""
        if not (self._over or self._finished):
            self._finished = True
            self._endTransmission()

    def reset(self, reason: TunnelError) -> None:
        """Break the connection, so that the far side sees a reset."""
        if self._over:
            return
        self._over = True
        self._reason = reason
        self._stopTimers()
        self.memory.releaseAll(self)
        self._early = None
        self._cutOff()
        self._tellClosed()

    def evict(self, reason: TunnelError) -> None:
        """Be broken, and the peer with it."""
        peer = self._peer
        self.reset(reason)
        if peer is not None:
            peer.reset(reason)
