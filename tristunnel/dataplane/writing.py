"""
A socket in the poller that is written to, plain or with TLS::

    =========== ============================ ===================================
    writing     left when                    what the kernel is asked for
    =========== ============================ ===================================
    open        WritingSocket.endWriting     OUT, while it is full
    ending      all that waited is sent      OUT
    ended       never                        nothing
    =========== ============================ ===================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from socket import SHUT_WR, socket
from typing import Any

from OpenSSL import SSL
from twisted.python.failure import Failure

from tristunnel.dataplane.breaks import lostBy, lostByTLS
from tristunnel.dataplane.pieces import (
    JOINED,
    NOTHING,
    RECORD,
    firstPieces,
    joinedRecord,
)
from tristunnel.dataplane.poller import Poller
from tristunnel.dataplane.records import WANT
from tristunnel.dataplane.tuning import resetIfKilled
from tristunnel.dataplane.watched import WatchedSocket

__all__ = ["WritingSocket"]


class WritingSocket(WatchedSocket):
    """
    One connection, and what waits to be sent over it. Nothing is sent before the TLS
    handshake is complete. The parameters are those of
    L{WatchedSocket<tristunnel.dataplane.watched.WatchedSocket>}.

    @ivar unsent: Bytes that the kernel has not taken yet.
    @cvar resetsIfKilled: Whether the far side sees a reset if this process is killed
        before everything is sent, see
        L{resetIfKilled<tristunnel.dataplane.tuning.resetIfKilled>}.
    @cvar spliceToUs: While it is blocked, sends what would be sent otherwise; see
        L{tristunnel.dataplane.splice}.
    """

    resetsIfKilled = False
    spliceToUs: Any = None

    __slots__ = (
        "_out",
        "_queued",
        "_send",
        "_writeDone",
        "_writeEnding",
        "unsent",
    )

    def __init__(
        self, poller: Poller, connection: socket, tls: SSL.Connection | None = None
    ) -> None:
        super().__init__(poller, connection, tls)
        self.unsent = 0
        self._send = connection.send
        self._out: deque[bytes | memoryview] = NOTHING
        self._queued = False
        self._writeEnding = False
        self._writeDone = False

    # For subclasses

    def drained(self) -> None:
        """Called when the kernel has taken everything that was written."""

    def filled(self) -> None:
        """Called when the kernel takes no more for now."""

    def waits(self) -> None:
        """Called when bytes were written that have to wait."""

    def notTaken(self) -> None:
        """Called when bytes were written to a connection that is gone."""

    def writeEnded(self) -> None:
        """Called when the other side has been told that we send no more."""

    # Sending

    def write(self, data: bytes) -> None:
        """Send bytes, at once if nothing is waiting and the kernel has room."""
        if self._number < 0 or self._writeEnding or not data:
            if self._number < 0:
                self.notTaken()
            return
        if self._out or self._tls is not None:
            self.gather((data,))
            self.waits()
            return
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as problem:
            self._fail(lostBy(problem))
            return
        if sent < len(data):
            rest = memoryview(data)[sent:]
            self._out = deque((rest,))
            self.unsent = len(rest)
            self._kernelFull = True
            self._ask()
            self.waits()

    def gather(self, pieces: Sequence[bytes]) -> None:
        """Send pieces together with everything else that is written in this turn."""
        if self._number < 0 or self._writeEnding:
            return
        # Sending an empty piece would look like having no room.
        if self._out is NOTHING:
            self._out = deque()
        self._out.extend(filter(None, pieces))
        self.unsent += sum(map(len, pieces))
        self._flushSoon()

    def _flushSoon(self) -> None:
        """Send what waits when the turn ends, unless the kernel is full."""
        if not (self._kernelFull or self._queued):
            self._queued = True
            self.poller.flushLater(self)

    def flush(self) -> None:
        """At the end of a turn, send what waits, or begin the TLS handshake."""
        self._queued = False
        if self._number >= 0:
            if self._shaken or self._tls is None:
                self._drain()
            else:
                self._shake(self._tls)

    def _drain(self) -> None:
        """Hand the kernel what waits, here or in a pipe."""
        splice = self.spliceToUs
        if splice is not None and splice.blocked:
            splice.push()
            return
        tls = self._tls
        out = self._out
        if not self._shaken:
            return
        try:
            if tls is None:
                self._drainPlain(out)
            else:
                self._drainTLS(tls, out)
        except (BlockingIOError, *WANT):
            self._kernelFull = True
            self._ask()
            self.filled()
            return
        except SSL.Error as problem:
            self._refused(lostByTLS(problem))
            return
        except OSError as problem:
            self._fail(lostBy(problem))
            return
        self._out = NOTHING
        if self._kernelFull:
            self._kernelFull = False
            self._ask()
        if self._writeEnding:
            self._endNow()
        else:
            self.drained()

    def _drainPlain(self, out: deque[bytes | memoryview]) -> None:
        """
        Send until nothing waits.

        @raise BlockingIOError: If the kernel takes no more.
        """
        while out:
            if len(out) == 1:
                sent = self._send(out[0])
            elif self.unsent <= JOINED:
                whole = b"".join(out)
                out.clear()
                out.append(whole)
                continue
            else:
                sent = self.connection.sendmsg(firstPieces(out))
            if sent == self.unsent:
                out.clear()
                self.unsent = 0
            else:
                self._sent(sent)

    def _drainTLS(self, tls: SSL.Connection, out: deque[bytes | memoryview]) -> None:
        """
        Encrypt and send until nothing waits. Pieces are joined into full records, since
        each record costs 22 bytes and a call.
        """
        while out:
            piece = out[0]
            if len(out) > 1 and len(piece) < RECORD:
                piece = joinedRecord(out)
            size = len(piece)
            if len(out) > 1:
                # The rest goes out with what follows.
                size -= size % RECORD
            self.poller.records.send(tls, piece, size or len(piece), self._sent)

    def _sent(self, count: int) -> None:
        """Forget what was sent."""
        self.unsent -= count
        out = self._out
        while count:
            piece = out[0]
            if len(piece) > count:
                out[0] = memoryview(piece)[count:]
                return
            count -= len(piece)
            out.popleft()

    def waitForRoom(self) -> None:
        """Have the kernel report when it takes bytes again."""
        self._kernelFull = True
        self._ask()

    def hasRoom(self) -> None:
        """Stop waiting for room."""
        self._kernelFull = False
        self._ask()
        if self._writeEnding:
            self._endNow()

    # The end

    def endWriting(self) -> None:
        """Send no more after what waits."""
        if self._writeEnding or self._number < 0:
            return
        self._writeEnding = True
        if not self._out and self._shaken:
            self._endNow()

    def _refused(self, reason: Failure) -> None:
        """The other side takes no more."""
        self._fail(reason)

    def _endNow(self) -> None:
        """Tell the other side that no more comes."""
        if self._writeDone:
            return
        if self.resetsIfKilled:
            resetIfKilled(self.connection, False)
        if self._tls is not None and not self._saysGoodbye(self._tls):
            self._kernelFull = True
            self._ask()
            return
        self._writeDone = True
        if self._readDone:
            self._finishBoth()
            return
        if self._tls is None:
            try:
                self.connection.shutdown(SHUT_WR)
            except OSError:
                # It has broken meanwhile; reading will report that.
                return
        self.writeEnded()

    def _saysGoodbye(self, tls: SSL.Connection) -> bool:
        """
        Send TLS's close_notify, if the handshake is complete.

        @return: Whether it is done: it was sent, or never can be. C{False} if the
            kernel has no room.
        """
        if self._shaken:
            try:
                tls.shutdown()
            except SSL.WantWriteError:
                return False
            except SSL.Error:
                pass
        return True

    def _fail(self, reason: Failure) -> None:
        """Close the socket, and drop what waits."""
        if self._number >= 0:
            self._out = NOTHING
            self.unsent = 0
            super()._fail(reason)
