"""
A socket that follows its line: no more bytes wait in it, and in the kernel, than the
line takes in a moment. So what is urgent is not behind seconds of what is not.
"""

from __future__ import annotations

from socket import socket

from OpenSSL import SSL

from tristunnel.dataplane.leaving import LeavableSocket
from tristunnel.dataplane.line import LineRate
from tristunnel.dataplane.pace import Pace
from tristunnel.dataplane.poller import Poller
from tristunnel.dataplane.tuning import boundUnsent, bytesUnsent, paceAt, roundTrips

__all__ = ["FULL", "FollowingSocket"]

FULL = 64 * 1024
"""Bytes that wait to be sent when a producer is told to pause: the same number as in
Twisted. L{FollowingSocket.followLine} changes it."""


class FollowingSocket(LeavableSocket):
    """
    A connection that can follow its line. What builds on it adds to C{_written} what it
    is given to send, and asks L{_isBehind} before it takes more.

    @ivar full: Bytes that wait to be sent when more are too many.
    """

    def __init__(
        self, poller: Poller, connection: socket, tls: SSL.Connection | None = None
    ) -> None:
        super().__init__(poller, connection, tls)
        self.full = FULL
        self._line: LineRate | None = None
        self._pace: Pace | None = None
        self._written = 0
        self._hadRoom = 0

    def followLine(self) -> None:
        """
        Let no more bytes wait, here and in the kernel, than the line of this connection
        takes in a moment.
        """
        self._line = line = LineRate()
        self._pace = Pace()
        self.full = line.piece
        boundUnsent(self.connection, line.most)

    def filled(self) -> None:
        """The kernel takes no more for now."""
        line, pace = self._line, self._pace
        if line is None:
            return
        now = self.poller.reactor.seconds()
        if line.full(now, self._written - self.unsent):
            boundUnsent(self.connection, line.most)
        self.full = line.piece
        if pace is not None and pace.due(now):
            trips = roundTrips(self.connection)
            if trips is None:
                # Nobody tells how the line does.
                self._pace = None
            elif pace.look(now, *trips):
                paceAt(self.connection, pace.rate)

    def _drain(self) -> None:
        """Send what waits."""
        if self._kernelFull:
            # It has room again.
            self._hadRoom = self._written - self.unsent
        super()._drain()

    def _isBehind(self, line: LineRate) -> bool:
        """
        Whether the kernel holds so much that, by its bound, it has no room. Then it
        reports when it has sent most of that.
        """
        waiting = bytesUnsent(self.connection)
        if waiting is None or waiting * 2 >= line.most:
            self._kernelFull = True
            self._ask()
            self.filled()
            return True
        # So much was written in many small requests; the line is not slow.
        self._hadRoom = self._written
        return False
