"""
The ends of streams that have a connection of their own.

Of such a connection, the kernel tells only that it was closed, and whoever
stands in the way can close it: a proxy that is stopped does. So each side says
over the session how many bytes a direction had in all, and an end that was not
told of, or that comes too early, is a break. It is specified in
C{docs/protocol-direct.rst}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from socket import socket
from struct import Struct
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from tristunnel.dataplane.poller import Poller
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.tuning import resetIfKilled
from tristunnel.errors import TunnelError
from tristunnel.util.repeating import RepeatingCall

__all__ = [
    "BROKEN",
    "ENDED",
    "KEY",
    "SENT",
    "EndAcknowledgements",
    "MovedEnd",
    "StreamEnd",
]

SENT, ENDED, BROKEN = 0, 1, 2
"""What a frame says: so many bytes were sent so far; so many were sent in all;
the stream is broken."""

KEY = 8
"""Bytes of what names a stream."""

TICK = 5.0
"""Seconds between two looks at the streams."""

DEADLINE = 45.0
"""Seconds in which an end must be told of, and in which bytes that were sent
must arrive."""

SOON = 5.0
"""Seconds that bytes may be under way without any doubt."""

ALONE = 90.0
"""Seconds without a session after which a silent stream is given up; and for
which what was told is told again."""

_REMEMBERED = 1024
_FRAME = Struct(f"!{KEY}sBQ")


class MovingStream(Protocol):
    """What a stream is within its session."""

    @property
    def passed(self) -> int:
        """Bytes given to its connection to send."""

    def pauseSource(self) -> None:
        """Have no more given."""

    def resumeSource(self) -> None:
        """Have more given."""


class EndAcknowledgements:
    """
    What a client and its server tell each other of their direct streams, over
    whichever session they have.

    @param reactor: Tells time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._endings: dict[bytes, StreamEnd] = {}
        self._send: Callable[[bytes], None] | None = None
        self._aloneSince = reactor.seconds()
        # A session may be dead already when something is said over it.
        self._said: deque[tuple[float, bytes]] = deque(maxlen=_REMEMBERED)
        self._ticking = RepeatingCall(reactor, self._tick)

    def __len__(self) -> int:
        return len(self._endings)

    def up(self, send: Callable[[bytes], None]) -> None:
        """
        There is a session; repeat what may have been lost with the last one.

        @param send: Sends the payload of a frame.
        """
        self._send = send
        now = self._reactor.seconds()
        for since, payload in self._said:
            if now - since <= ALONE:
                send(payload)
        for ending in self._endings.values():
            ending.repeat()

    def down(self, send: Callable[[bytes], None]) -> None:
        """A session is over; there may be another one already."""
        if self._send == send:
            self._send = None
            self._aloneSince = self._reactor.seconds()

    def close(self) -> None:
        """Nobody will tell us any more: break what still goes on."""
        for ending in list(self._endings.values()):
            ending.abandon()

    def expect(self, key: bytes) -> StreamEnd:
        """
        Have what is told of a stream kept, from before there is a connection.

        @return: What is told; to be forgotten by the caller, if the connection does
            not come about.
        @raise TunnelError: C{protocol-error}, if another stream has that name.
        """
        if key in self._endings:
            raise TunnelError("protocol-error", "two streams have the same key")
        ending = self._endings[key] = StreamEnd(self, key, self._reactor.seconds())
        if not self._ticking.running:
            self._ticking.start(TICK, now=False)
        return ending

    def forget(self, ending: StreamEnd) -> None:
        """A stream is over. Doing it twice is no error."""
        if self._endings.get(ending.key) is ending:
            del self._endings[ending.key]
            if not self._endings and self._ticking.running:
                self._ticking.stop()

    def tell(self, key: bytes, what: int, count: int = 0) -> bool:
        """
        Tell the far side.

        @return: Whether there is a session to do so.
        """
        payload = _FRAME.pack(key, what, count)
        if what != SENT:
            self._said.append((self._reactor.seconds(), payload))
        if self._send is not None:
            self._send(payload)
        return self._send is not None

    def arrived(self, payload: bytes) -> None:
        """
        The far side tells us.

        @raise TunnelError: C{protocol-error}.
        """
        if len(payload) != _FRAME.size:
            raise TunnelError("protocol-error", "an ending frame has 17 bytes")
        key, what, count = _FRAME.unpack(payload)
        ending = self._endings.get(key)
        if ending is not None:
            ending.heard(what, count, self._reactor.seconds())

    def _tick(self) -> None:
        """Look at all streams."""
        now = self._reactor.seconds()
        alone = 0.0 if self._send is not None else now - self._aloneSince
        for ending in list(self._endings.values()):
            ending.tick(now, alone)


class StreamEnd:
    """
    What is known of one stream's ends.

    @ivar key: What names the stream.
    @ivar total: How many bytes come in all, once that was told.
    @ivar broken: Whether the far side told that it is broken.
    """

    __slots__ = (
        "_confirmations",
        "_due",
        "_dueSince",
        "_end",
        "_movedAt",
        "_seen",
        "_told",
        "broken",
        "key",
        "total",
    )

    def __init__(
        self, confirmations: EndAcknowledgements, key: bytes, now: float
    ) -> None:
        self.key = key
        self.total: int | None = None
        self.broken = False
        self._confirmations = confirmations
        self._end: MovedEnd | None = None
        self._told = self._due = self._seen = 0
        self._dueSince = self._movedAt = now

    def attach(self, end: MovedEnd, now: float) -> None:
        """The stream's connection is there."""
        self._end = end
        self._dueSince = self._movedAt = now

    def forget(self) -> None:
        """Keep nothing any more."""
        self._confirmations.forget(self)

    def repeat(self) -> None:
        """What was sent so far is to be told again."""
        self._told = 0

    def abandon(self) -> None:
        """This side stops."""
        if self._end is not None:
            self._end.cut("this side stops")
        self.forget()

    def tell(self, what: int, count: int = 0) -> None:
        """Tell the far side."""
        self._confirmations.tell(self.key, what, count)

    def heard(self, what: int, count: int, now: float) -> None:
        """The far side tells us."""
        end = self._end
        if what in (SENT, ENDED):
            if end is None or self._due <= end.received:
                self._dueSince = now
            self._due = count
        if what == ENDED:
            self.total = count
        if what == BROKEN:
            self.broken = True
        if what != SENT and end is not None:
            end.told()

    def tick(self, now: float, alone: float) -> None:
        """
        See whether the stream still moves, as far as it should.

        @param alone: Seconds for which there was no session.
        """
        end = self._end
        if end is None:
            # Whoever waits for the connection says if there will be none.
            return
        if end.through:
            if now - self._movedAt > DEADLINE:
                # The kernel, or TLS, waits for a goodbye.
                end.giveUp()
            return
        if end.received != self._seen or end.waitsForOthers:
            self._seen, self._movedAt = end.received, now
        if end.passed != self._told and self._confirmations.tell(
            self.key, SENT, end.passed
        ):
            self._told = end.passed
        silent = now - self._movedAt
        if end.endedAt is not None and now - end.endedAt > DEADLINE:
            end.cut("its connection was closed without a reason")
        elif (
            self._due > end.received
            and silent > DEADLINE
            and now - self._dueSince > SOON
        ):
            end.cut(f"nothing was received on its connection for {silent:.0f} s")
        elif self.total == end.received and silent > SOON:
            # All of it is here; only the connection's own end is not.
            end.passEnd()
        elif min(silent, alone) > ALONE:
            end.cut("the other side is gone")


class MovedEnd(SocketEnd):
    """
    The end of a stream on the connection that it has moved to.

    @param ending: What is told of the stream's ends.
    @param stream: What the stream is within the session.
    """

    __slots__ = ("_ending", "_lost", "endedAt", "stream")

    ENDING = 16
    """Another reason why reading is held: the connection's end was read."""

    def __init__(
        self,
        poller: Poller,
        connection: socket,
        arrived: Callable[[Any], None],
        tls: SSL.Connection | None,
        ending: StreamEnd,
        stream: MovingStream,
    ) -> None:
        super().__init__(poller, connection, arrived, tls)
        self.stream = stream
        self.endedAt: float | None = None
        self._ending = ending
        self._lost = False
        # The far side need not wait for what a dead process would have told.
        resetIfKilled(connection)
        ending.attach(self, self._reactor.seconds())

    @property
    def passed(self) -> int:
        """How many bytes were given to us to send."""
        return self.stream.passed

    @property
    def through(self) -> bool:
        """Whether both directions have ended."""
        return self._eof and self._finished

    @property
    def waitsForOthers(self) -> bool:
        """Whether we do not want to read now, or have no more to read."""
        return bool(self._held & ~self.ENDING) or self._eof or self._peer is None

    def told(self) -> None:
        """The far side has told something of the stream."""
        ending = self._ending
        if self._over:
            return
        if ending.broken:
            self._break(TunnelError("reset", "the other side reset it"))
        elif ending.total is not None and not self._eof:
            if self.received == ending.total:
                # The connection's own end follows, behind what a pipe holds.
                if self.endedAt is not None:
                    self.passEnd()
            elif self.received > ending.total or self.endedAt is not None:
                self.cut(f"{self.received} of {ending.total} bytes arrived")

    def passEnd(self) -> None:
        """This direction is over, as it should be."""
        self.endedAt = None
        self._noMoreComes()
        if self._lost:
            self._over = True
            self._tellClosed()

    def giveUp(self) -> None:
        """Wait for the far side's goodbye no longer."""
        if self.unsent:
            self.abort()
        else:
            self._finishBoth()

    def cut(self, why: str) -> None:
        """Break the stream at both ends: it was cut."""
        self._break(TunnelError("session-lost", f"the stream was cut: {why}"))

    def _break(self, reason: TunnelError) -> None:
        """Break the stream towards both sides."""
        peer = self._peer
        self.reset(reason)
        if peer is not None:
            peer.reset(reason)

    # SocketEnd

    def bytesReceived(self, data: bytes) -> None:
        """Pass on what came, and the end behind it."""
        super().bytesReceived(data)
        if self._ending.total is not None:
            self.told()

    def counted(self, amount: int) -> None:
        """Count bytes that were read, however they went on."""
        super().counted(amount)
        if self._ending.total is not None:
            self.told()

    def readEnded(self) -> None:
        """The connection was closed in this direction, by whomsoever."""
        if self.endedAt is None and not self._eof:
            self.hold(self.ENDING)
            self.endedAt = self._reactor.seconds()
            self.told()

    def lost(self, reason: Failure) -> None:
        """The connection is over."""
        if self._over:
            super().lost(reason)
        elif self._eof or not reason.check(ConnectionDone):
            if not self.through:
                self._ending.tell(BROKEN)
            super().lost(reason)
        else:
            self._lost = True
            self._inTime()
            self._stopTimers()
            self._endSplices()
            if self.endedAt is None:
                self.endedAt = self._reactor.seconds()
            self.told()

    def _pauseSource(self) -> None:
        """Have whoever sends wait, which is not always whom we send to."""
        self.stream.pauseSource()

    def _resumeSource(self) -> None:
        """Have whoever sends go on."""
        self.stream.resumeSource()

    # End

    def finish(self) -> None:
        """Send no more, and say how much it was."""
        if not (self._over or self._finished):
            self._ending.tell(ENDED, self.passed)
            super().finish()

    def reset(self, reason: TunnelError) -> None:
        """Break the connection, and say so."""
        if not (self._over or self._ending.broken):
            self._ending.tell(BROKEN)
        super().reset(reason)

    def _tellClosed(self) -> None:
        """Let whoever waits for the end of this end know."""
        self._ending.forget()
        super()._tellClosed()
