"""
How streams end that have a connection of their own.

The kernel tells only that such a connection was closed, and anything in between can
close it, for example a proxy that is stopped. Therefore each side says over the session
how many bytes a direction had in all. An end that was not announced there, or that
comes too early, is a break. C{docs/protocol-direct.rst} specifies this.
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
"""The kinds of reports in a frame: how many bytes were sent so far; how many were sent
in all; that the stream is broken."""

KEY = 8
"""Length in bytes of the key that identifies a stream."""

TICK = 5.0
"""Seconds between two checks of the streams."""

DEADLINE = 45.0
"""Seconds within which an end must be reported, and bytes that were sent must
arrive."""

SOON = 5.0
"""Seconds that bytes may be in transit before anything is suspected."""

ALONE = 90.0
"""Seconds without a session after which a silent stream is given up. Reports that are
no older than this are repeated on a new session."""

_REMEMBERED = 1024
_FRAME = Struct(f"!{KEY}sBQ")


class MovingStream(Protocol):
    """What a stream is within its session."""

    @property
    def passed(self) -> int:
        """Bytes that were given to its connection to send."""

    def pauseSource(self) -> None:
        """Stop whoever supplies these bytes."""

    def resumeSource(self) -> None:
        """Let whoever supplies these bytes go on."""


class EndAcknowledgements:
    """
    The reports that a client and its server send each other about their direct streams,
    over whichever session they have.

    @param reactor: Tells time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._endings: dict[bytes, StreamEnd] = {}
        self._send: Callable[[bytes], None] | None = None
        self._aloneSince = reactor.seconds()
        # A session may be dead already when a report is sent over it.
        self._said: deque[tuple[float, bytes]] = deque(maxlen=_REMEMBERED)
        self._ticking = RepeatingCall(reactor, self._tick)

    def __len__(self) -> int:
        return len(self._endings)

    def up(self, send: Callable[[bytes], None]) -> None:
        """
        Use a new session, and repeat what may have been lost with the previous one.

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
        """Stop using a session that is over; there may be another one already."""
        if self._send == send:
            self._send = None
            self._aloneSince = self._reactor.seconds()

    def close(self) -> None:
        """Break the streams that still go on: no more reports will come."""
        for ending in list(self._endings.values()):
            ending.abandon()

    def expect(self, key: bytes) -> StreamEnd:
        """
        Keep the reports about a stream, even before it has its connection.

        @return: What is reported. If the connection is never made, the caller must
            forget it.
        @raise TunnelError: C{protocol-error}, if another stream has that key.
        """
        if key in self._endings:
            raise TunnelError("protocol-error", "two streams have the same key")
        ending = self._endings[key] = StreamEnd(self, key, self._reactor.seconds())
        if not self._ticking.running:
            self._ticking.start(TICK, now=False)
        return ending

    def forget(self, ending: StreamEnd) -> None:
        """Forget a stream that is over. Doing it twice is no error."""
        if self._endings.get(ending.key) is ending:
            del self._endings[ending.key]
            if not self._endings and self._ticking.running:
                self._ticking.stop()

    def tell(self, key: bytes, what: int, count: int = 0) -> bool:
        """
        Send a report to the far side.

        @return: Whether there is a session to send it over.
        """
        payload = _FRAME.pack(key, what, count)
        if what != SENT:
            self._said.append((self._reactor.seconds(), payload))
        if self._send is not None:
            self._send(payload)
        return self._send is not None

    def arrived(self, payload: bytes) -> None:
        """
        Take a report from the far side.

        @raise TunnelError: C{protocol-error}, if it makes no sense.
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
    What is known about the ends of one stream.

    @ivar key: Identifies the stream.
    @ivar total: How many bytes come in all, once that was reported.
    @ivar broken: Whether the far side has reported a break.
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
            # If the connection is never made, whoever waits for it says so.
            return
        if end.through:
            if now - self._movedAt > DEADLINE:
                # The kernel, or TLS, waits for the far side to close.
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
            # All bytes are here; only the end of the connection is not.
            end.passEnd()
        elif min(silent, alone) > ALONE:
            end.cut("the other side is gone")


class MovedEnd(SocketEnd):
    """
    The end of a stream on the connection that it has moved to.

    @param ending: The reports about the stream's ends.
    @param stream: The stream as it is within the session.
    """

    __slots__ = ("_ending", "_lost", "endedAt", "stream")

    ENDING = 16
    """One more reason to hold reading: the end of the connection was read."""

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
        # The far side need not wait for what a dead process would have reported.
        resetIfKilled(connection)
        ending.attach(self, self._reactor.seconds())

    @property
    def passed(self) -> int:
        """How many bytes this end was given to send."""
        return self.stream.passed

    @property
    def through(self) -> bool:
        """Whether both directions have ended."""
        return self._eof and self._finished

    @property
    def waitsForOthers(self) -> bool:
        """Whether this side is not reading now, or has nothing more to read."""
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
                # The end of the connection follows, after what a pipe holds.
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
        """Stop waiting for the far side to close."""
        if self.unsent:
            self.abort()
        else:
            self._finishBoth()

    def cut(self, why: str) -> None:
        """Break the stream at both ends, because its connection was cut."""
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
        """Count bytes that were read, whichever way they were passed on."""
        super().counted(amount)
        if self._ending.total is not None:
            self.told()

    def readEnded(self) -> None:
        """The connection was closed in this direction, by either side or in between."""
        if self.endedAt is None and not self._eof:
            self.hold(self.ENDING)
            self.endedAt = self._reactor.seconds()
            self.told()

    def lost(self, reason: Failure) -> None:
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
        """Pause the source of these bytes, which is not always the peer."""
        self.stream.pauseSource()

    def _resumeSource(self) -> None:
        self.stream.resumeSource()

    # End

    def finish(self) -> None:
        """Send no more, and report how many bytes there were."""
        if not (self._over or self._finished):
            self._ending.tell(ENDED, self.passed)
            super().finish()

    def reset(self, reason: TunnelError) -> None:
        """Break the connection, and report it."""
        if not (self._over or self._ending.broken):
            self._ending.tell(BROKEN)
        super().reset(reason)

    def _tellClosed(self) -> None:
        self._ending.forget()
        super()._tellClosed()
