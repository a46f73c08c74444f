"""
A run of requests from one visitor's connection to one tunnel, as one end of a stream.

To the tunnel it is a visitor like any other; to the connection it is the way to the
service, which is kept open while there are more requests for it, and never used by
anybody else. So whatever a service remembers of a connection, or wrongly believes about
where a request ends, concerns only one visitor and one tunnel.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IAddress

from tristunnel.dataplane.deadlines import Key, deadlinesOf
from tristunnel.dataplane.memory import HELD
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End
from tristunnel.model.tunnel import Tunnel
from tristunnel.names.table import Route
from tristunnel.wire.http import ResponseReader

__all__ = ["LEAVING", "MOST_EARLY", "Asker", "Run"]

MOST_EARLY = 64 * 1024
"""Bytes of requests that wait for the service to be reached, before reading pauses."""

LEAVING = 10.0
"""Seconds in which a service must close a connection that we have ended."""


class Asker(Protocol):
    """The visitor's connection."""

    def answered(self, run: Run, data: bytes) -> None:
        """Take bytes from the service."""

    def answersEnded(self, run: Run) -> None:
        """Note that the service sends no more."""

    def runBroke(self, run: Run, reason: TunnelError) -> None:
        """Note that the way to the service is broken, or was refused."""

    def runLeaves(self, run: Run) -> None:
        """Note that no more requests may be sent this way."""

    def runFull(self, run: Run, isFull: bool) -> None:
        """Note whether the service takes no more bytes for now."""


class Run:
    """
    An L{End<tristunnel.interfaces.End>} that is a run of requests.

    @param asker: The visitor's connection.
    @param route: Where the requests go.
    @param reactor: Tells time.
    @param visitor: Where the requests come from, without a port.
    @param hostAddress: Where the visitor connected to, for the PROXY protocol.

    @ivar reader: Reads the responses.
    @ivar received: Bytes that were sent to the service.
    @ivar over: Whether nothing passes any more.
    @ivar ended: Whether the service sends no more.
    @ivar heardAt: When the last response ended, in seconds.
    """

    __slots__ = (
        "__weakref__",
        "_asker",
        "_closed",
        "_deadline",
        "_early",
        "_finished",
        "_held",
        "_leaves",
        "_paused",
        "_peer",
        "_reactor",
        "_reason",
        "_tunnel",
        "_waiting",
        "ended",
        "heardAt",
        "hostAddress",
        "over",
        "reader",
        "received",
        "route",
        "visitor",
    )

    guessable = False
    """Scanners of ports do not find names, whose visitors speak first."""

    def __init__(
        self,
        asker: Asker,
        route: Route,
        reactor: object,
        visitor: str,
        hostAddress: IAddress | None,
    ) -> None:
        self._asker: Asker | None = asker
        self._reactor = reactor
        self._peer: End | None = None
        self._closed: Closed | None = None
        self._early: list[bytes] = []
        self._waiting = 0
        self._held = self._finished = self._paused = False
        self._reason: TunnelError | None = None
        self._tunnel: Tunnel | None = None
        self._leaves = False
        self._deadline: Key | None = None
        self.route = route
        self.reader = ResponseReader()
        self.hostAddress = hostAddress
        self.received = 0
        self.over = self.ended = False
        self.visitor = visitor
        self.heardAt = 0.0

    # For the visitor's connection

    @property
    def isUsable(self) -> bool:
        """
        Whether another request may be sent this way: not if its client is about to
        leave, nor if another client has the same name and its service is well instead.
        """
        if self.over or self.ended or self._finished or self._leaves:
            return False
        return self._tunnel is None or self._tunnel.isReady

    def servedBy(self, tunnel: Tunnel) -> None:
        """Note which tunnel serves it."""
        self._tunnel = tunnel

    def leaveSoon(self) -> None:
        """Note that the tunnel takes no more requests."""
        self._leaves = True
        if self._asker is not None:
            self._asker.runLeaves(self)

    def send(self, data: bytes) -> None:
        """Send bytes to the service, as soon as it is reached."""
        if self.over or self._finished:
            return
        self.received += len(data)
        if self._peer is not None:
            self._peer.write(data)
            return
        self._early.append(data)
        self._waiting += len(data)
        HELD.hold(self, len(data), self.reset)
        if self._waiting > MOST_EARLY and self._asker is not None:
            self._asker.runFull(self, True)

    def endRequests(self) -> None:
        """Send no more requests; what the service still sends is passed on."""
        if not (self.over or self._finished):
            self._finished = True
            if self._peer is not None:
                self._peer.finish()
                self._endIfDone()

    def pauseAnswers(self) -> None:
        """Take no more of the service's bytes for now."""
        if not self._held:
            self._held = True
            if self._peer is not None and not self.ended:
                self._peer.pauseReading()

    def resumeAnswers(self) -> None:
        """Take them again."""
        if self._held:
            self._held = False
            if self._peer is not None and not self.ended:
                self._peer.resumeReading()

    def leave(self) -> None:
        """
        Close the connection to the service in good order, after its last response.
        """
        self._asker = None
        if self._peer is None:
            self.abandon(TunnelError("reset", "the visitor has left"))
            return
        self.endRequests()
        if not self.over:
            self.resumeAnswers()
            deadlines = deadlinesOf(self._reactor)
            self._deadline = deadlines.add(LEAVING, self._leftTooLate)

    def _leftTooLate(self) -> None:
        self._deadline = None
        self.abandon(TunnelError("closed", "the service did not close the connection"))

    def abandon(self, reason: TunnelError) -> None:
        """Break the connection to the service, whatever it is doing."""
        self._asker = None
        peer = self._peer
        self._end(reason)
        if peer is not None:
            peer.reset(reason)

    # End

    def join(self, peer: End, closed: Closed) -> None:
        if self.over:
            # This came while the service was dialled.
            peer.reset(self._reason or TunnelError("reset", "the visitor has left"))
            closed(self._reason)
            return
        self._peer, self._closed = peer, closed
        early, self._early = self._early, []
        HELD.releaseAll(self)
        if self._held:
            peer.pauseReading()
        if early:
            peer.write(b"".join(early))
            if self._waiting > MOST_EARLY and self._asker is not None:
                self._asker.runFull(self, False)
        if self._finished and not self.over:
            peer.finish()

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        before, self._peer = self._peer, peer
        return before, self._paused

    def whileWaiting(self, left: Closed) -> None:
        if self._peer is None:
            self._closed = left

    def write(self, data: bytes) -> None:
        if self._asker is not None:
            self._asker.answered(self, data)

    def finish(self) -> None:
        if self.ended or self.over:
            return
        self.ended = True
        if self._asker is not None:
            self._asker.answersEnded(self)
        self._endIfDone()

    def pauseReading(self) -> None:
        self._paused = True
        if self._asker is not None:
            self._asker.runFull(self, True)

    def resumeReading(self) -> None:
        self._paused = False
        if self._asker is not None:
            self._asker.runFull(self, False)

    def reset(self, reason: TunnelError) -> None:
        if self.over:
            return
        asker, self._asker = self._asker, None
        self._end(reason)
        if asker is not None:
            asker.runBroke(self, reason)

    def _endIfDone(self) -> None:
        if self.ended and self._finished:
            self._end(None)

    def _end(self, reason: TunnelError | None) -> None:
        if self.over:
            return
        self.over = True
        self._reason = reason
        self._early = []
        HELD.releaseAll(self)
        if self._deadline is not None:
            deadlinesOf(self._reactor).cancel(self._deadline)
            self._deadline = None
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(reason)
