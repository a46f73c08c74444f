"""
Leaving a connection in good order. If a socket is closed while bytes are unread, the
kernel sends a reset, which destroys whatever the other side has not read yet.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from socket import SHUT_WR

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tristunnel.dataplane.closing import SLOWEST
from tristunnel.dataplane.deadlines import Key, deadlinesOf
from tristunnel.dataplane.polled import PolledSocket
from tristunnel.dataplane.tuning import bytesUntaken, resetIfKilled

__all__ = ["DISCARDED", "LEAVING", "MOST_LEAVING", "LeavableSocket"]

DISCARDED = 256 * 1024
"""The most bytes that are read from a connection after its owner has left."""

LEAVING = 5.0
"""Seconds within which the other side of it must read some of what is left."""

LOOK = 1.0
"""Seconds between two checks of that; also how long it stays when nothing is left."""

MOST_LEAVING = 128
"""The most such connections at once."""


class LeavableSocket(PolledSocket):
    """A connection whose owner may leave before everything has reached the other
    side."""

    __slots__ = ()

    def _finishBoth(self) -> None:
        """
        Close, because both directions are over or the owner leaves; at once if nothing
        can be lost by that.
        """
        if self._number < 0:
            return
        tls = self._tls
        if (
            self._readDone
            and not self._out
            and (self._writeDone or tls is None or self._saysGoodbye(tls))
        ):
            if self.resetsIfKilled and not self._writeDone:
                resetIfKilled(self.connection, False)
            self._fail(connectionDone)
        else:
            self.leave()
            self.lost(connectionDone)

    def leave(self, reset: bool = False) -> None:
        """
        Leave the connection; what was written still goes out. C{lost} is not called.

        @param reset: Whether to break the connection in the end.
        """
        _Leaving(self, reset).begin()


class _Leaving(PolledSocket):
    """
    A connection that its owner has left. What was written goes out, followed by the
    end, and what still comes is discarded, as long as the other side keeps reading.

    @param other: The previous owner of the socket.
    @param reset: Whether to break the connection in the end.
    """

    __slots__ = ("_deadline", "_discarded", "_left", "_leftAt", "_reset")

    def __init__(self, other: PolledSocket, reset: bool) -> None:
        # This sets all fields of its bases.
        self.takeOver(other)
        self._reset = reset
        self._discarded = self._left = 0
        self._leftAt = self.poller.reactor.seconds()
        self._deadline: Key | None = None

    def begin(self) -> None:
        """Go, now or later."""
        self._writeEnding, self._readHeld = True, False
        resetIfKilled(self.connection, self._reset)
        if not self._shaken:
            # What was written must not go out unencrypted.
            self._out.clear()
            self._tls, self._shaken = None, True
        if self._writeDone:
            self.writeEnded()
        else:
            self._drain()
        if self._number >= 0:
            _LEAVING[self] = None
            self._ask()
            self._left = self._untaken
            self._wait()
            if len(_LEAVING) > MOST_LEAVING:
                next(iter(_LEAVING)).close()

    def close(self) -> None:
        """Wait no longer."""
        self._fail(connectionDone)

    def writeEnded(self) -> None:
        if self._tls is not None:
            # From now on, discard what comes.
            self._tls = None
            with suppress(OSError):
                self.connection.shutdown(SHUT_WR)
        while self._number >= 0 and not (self._readHeld or self._readDone):
            before = self._discarded
            self._read()
            if self._discarded == before:
                break
        if self._number >= 0 and not (self._discarded or self._untaken):
            self.close()

    @property
    def _untaken(self) -> int:
        """How much the other side has yet to take, in bytes."""
        return self.unsent + bytesUntaken(self.connection)

    def bytesReceived(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > DISCARDED:
            # It may never read what we say as long as it can go on sending.
            self.hold()
            if not self._untaken:
                self.close()

    def _wait(self) -> None:
        """Look in a while."""
        self._deadline = deadlinesOf(self.poller.reactor).add(LOOK, self._look)

    def _look(self) -> None:
        """Close if the other side has everything, or reads nothing."""
        now, left = self.poller.reactor.seconds(), self._untaken
        if self._left - left >= SLOWEST * (now - self._leftAt):
            self._left, self._leftAt = left, now
        if left and now - self._leftAt < LEAVING:
            self._wait()
        else:
            self.close()

    def lost(self, reason: Failure) -> None:
        _LEAVING.pop(self, None)
        if self._deadline is not None:
            deadlinesOf(self.poller.reactor).cancel(self._deadline)


_LEAVING: OrderedDict[_Leaving, None] = OrderedDict()
