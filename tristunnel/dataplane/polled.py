"""
A non-blocking stream socket in the L{Poller<tristunnel.dataplane.poller.Poller>},
with or without TLS on the socket itself.

States of the two directions::

    =========== ============================ ===================================
    reading     left when                    what the kernel is asked for
    =========== ============================ ===================================
    open        end of file, or an error     IN, unless held
    held        nobody holds it any more     nothing; an error is reported anyway
    ended       never                        nothing
    =========== ============================ ===================================::

    =========== ============================ ===================================
    writing     left when                    what the kernel is asked for
    =========== ============================ ===================================
    open        PolledSocket.endWriting   OUT, while something waits
    ending      all that waited is sent      OUT
    ended       never                        nothing
    =========== ============================ ===================================

When both directions have ended, or one meets an error, PolledSocket.lost is called,
once, and the socket is closed.
"""

from __future__ import annotations

import errno
import os
import select
from collections import deque
from collections.abc import Sequence
from socket import SHUT_WR, SO_ERROR, SOL_SOCKET, socket
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tristunnel.dataplane.pieces import (
    JOINED,
    NOTHING,
    RECORD,
    firstPieces,
    joinedRecord,
)
from tristunnel.dataplane.poller import ERRORS, IN, LONG_READ, OUT, READ, Poller
from tristunnel.dataplane.tuning import resetIfKilled

__all__ = ["PolledSocket"]


_HANGUP: int = getattr(select, "EPOLLHUP", 16)
_WANT = (SSL.WantReadError, SSL.WantWriteError)


class PolledSocket:
    """
    One connection. Subclasses decide what happens with its bytes by overriding
    bytesReceived, readEnded, drained, handshakeDone and lost.

    @param poller: Watches the socket.
    @param connection: The socket. Only this object closes it.
    @param tls: TLS over that same socket, before its handshake; None for plain bytes.

    @ivar poller: The same.
    @ivar unsent: Bytes that the kernel has not taken yet.
    @cvar splice: Once it has begun, moves what would be read otherwise; see
        L{tristunnel.dataplane.splice}.
    """

    splice: Any = None

    __slots__ = (
        "_asked",
        "_kernelFull",
        "_most",
        "_number",
        "_out",
        "_parked",
        "_queued",
        "_readDone",
        "_readHeld",
        "_recv",
        "_send",
        "_shaken",
        "_tls",
        "_writeDone",
        "_writeEnding",
        "connection",
        "poller",
        "unsent",
    )

    def __init__(
        self, poller: Poller, connection: socket, tls: SSL.Connection | None = None
    ) -> None:
        self.poller = poller
        self.connection = connection
        self.unsent = 0
        self._tls = tls
        self._recv = connection.recv
        self._send = connection.send
        self._number = -1
        self._most = READ
        self._asked = 0
        self._out: deque[bytes | memoryview] = NOTHING
        self._readHeld = False
        self._readDone = False
        self._kernelFull = False
        self._writeEnding = False
        self._writeDone = False
        self._parked = False
        self._queued = False
        self._shaken = tls is None

    # For subclasses

    def bytesReceived(self, data: bytes) -> None:
        """Called with bytes that were read."""

    def readEnded(self) -> None:
        """Called when the other side sends no more; writing goes on."""

    def drained(self) -> None:
        """Called when the kernel has taken everything that was written."""

    def filled(self) -> None:
        """Called when the kernel takes no more for now."""

    def waits(self) -> None:
        """Called when bytes were written that have to wait."""

    def notTaken(self) -> None:
        """Called when bytes were written to a connection that is gone."""

    def handshakeDone(self) -> None:
        """Called when the TLS handshake is complete."""

    def lost(self, reason: Failure) -> None:
        """
        Called when the connection is gone.

        @param reason: ConnectionDone after an orderly end of both directions,
            ConnectionAborted after abort, or what went wrong.
        """

    # Life

    @property
    def isOpen(self) -> bool:
        """Whether the socket is in the poller."""
        return self._number >= 0

    def start(self) -> None:
        """
        Begin to read; with TLS, begin the handshake.

        @raise OSError: If the kernel has no room to watch it.
        """
        number = self.connection.fileno()
        asked = IN if not self._readHeld else 0
        self.poller.add(number, self, asked)
        self._number, self._asked = number, asked
        if self._tls is not None:
            self._shake(self._tls)

    def _ask(self) -> None:
        """Have the kernel report only what is of use now."""
        number = self._number
        if number < 0:
            return
        asked = 0
        if not (self._readHeld or self._readDone):
            asked = IN
        if self._kernelFull:
            asked |= OUT
        if not self._shaken:
            # A handshake reads even while the bytes after it are held.
            asked |= IN
        if self._parked:
            self._parked = False
            self.poller.add(number, self, asked)
        elif asked != self._asked:
            self.poller.change(number, asked)
        self._asked = asked

    # Handler

    def ready(self, events: int) -> None:
        """The kernel reports events."""
        tls = self._tls
        if events == IN and tls is None and self._asked & IN:
            self._read()
            return
        if not self._shaken and tls is not None:
            self._shake(tls)
            return
        if events & OUT:
            self._drain()
        if self._asked & IN:
            # A hang-up alone means that reading was held when the kernel was asked:
            # there may still be bytes before the end.
            if events & (IN | ERRORS) and self._number >= 0:
                if tls is None:
                    self._read()
                else:
                    self._readTLS(tls)
        elif events & ERRORS and self._number >= 0:
            self._troubled(events)

    def _troubled(self, events: int) -> None:
        """The connection is broken, or over on both sides, while nobody reads it."""
        problem = 0
        if self._tls is None or self._readDone:
            problem = self.connection.getsockopt(SOL_SOCKET, SO_ERROR)
        if problem or not events & _HANGUP:
            self._fail(_lost(OSError(problem or errno.EIO, os.strerror(problem))))
        elif self._readDone:
            self._finishBoth()
        else:
            # Bytes still wait to be read, perhaps with TLS's close_notify at their end.
            # After that a reset means nothing: some peers leave our session tickets
            # unread. Stop watching, since the kernel would report the hang-up forever.
            self.poller.remove(self._number)
            self._parked = True

    def more(self) -> None:
        """Read on: OpenSSL holds bytes, which the kernel does not report."""
        if self._number >= 0 and not (self._readHeld or self._readDone):
            tls = self._tls
            if tls is None:
                self._read()
            elif self._shaken:
                self._readTLS(tls)

    def flush(self) -> None:
        """At the end of a turn, send what waits, or begin the TLS handshake."""
        self._queued = False
        if self._number >= 0:
            if self._shaken or self._tls is None:
                self._drain()
            else:
                self._shake(self._tls)

    def broken(self, reason: Failure) -> None:
        """End the connection because of an exception."""
        self._fail(reason)

    # Reading

    def hold(self) -> None:
        """Read no more for now."""
        if not self._readHeld:
            self._readHeld = True
            self._ask()

    def resume(self) -> None:
        """Read again."""
        if self._readHeld:
            self._readHeld = False
            self._ask()
            self._readPending()

    def _readPending(self) -> None:
        """Read what OpenSSL holds, which the kernel knows nothing about."""
        tls = self._tls
        if tls is not None and self._shaken and not self._readDone and tls.pending():
            self.poller.again(self)

    def _read(self) -> None:
        """Read what the kernel has, or have the kernel move it."""
        splice = self.splice
        if splice is not None and splice.begun and not splice.sink.unsent:
            splice.move()
            return
        try:
            data = self._recv(self._most)
        except BlockingIOError:
            return
        except OSError as problem:
            self._fail(_lost(problem))
            return
        if data:
            if (len(data) < READ) is not (self._most == READ):
                self.setBusy(len(data) >= READ)
            self.bytesReceived(data)
        else:
            self._readOver()

    def setBusy(self, busy: bool) -> None:
        """Read for much or for little from now on, behind others or not."""
        self._most = LONG_READ if busy else READ
        note = self.poller.busy.add if busy else self.poller.busy.discard
        note(self._number)

    def _readTLS(self, tls: SSL.Connection) -> None:
        """Read what OpenSSL has, up to one turn's share."""
        data, problem = self.poller.records.read(tls, self._most)
        if problem is None and tls.pending():
            self.poller.again(self)
        if (len(data) < READ) is not (self._most == READ):
            self.setBusy(len(data) >= READ)
        if data:
            self.bytesReceived(data)
        if self._number < 0 or problem is None or isinstance(problem, _WANT):
            return
        if isinstance(problem, SSL.ZeroReturnError):
            self._readOver()
        else:
            self._fail(_tlsLost(problem))

    def _readOver(self) -> None:
        """The other side has said that it sends no more."""
        self._readDone = True
        if self._most != READ:
            self.setBusy(False)
        if not self._writeDone:
            self._ask()
        self.readEnded()
        if self._writeDone:
            self._finishBoth()

    # Writing

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
            self._fail(_lost(problem))
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

    def _drain(self) -> None:
        """Hand the kernel what waits."""
        tls = self._tls
        out = self._out
        if not self._shaken:
            return
        try:
            if tls is None:
                self._drainPlain(out)
            else:
                self._drainTLS(tls, out)
        except (BlockingIOError, *_WANT):
            self._kernelFull = True
            self._ask()
            self.filled()
            return
        except SSL.Error as problem:
            self._refused(_tlsLost(problem))
            return
        except OSError as problem:
            self._fail(_lost(problem))
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

    def writeEnded(self) -> None:
        """Called when the other side has been told that we send no more."""

    # The end

    def abort(self) -> None:
        """Break the connection, so that the other side sees a reset."""
        if self._number < 0:
            return
        resetIfKilled(self.connection)
        self._fail(Failure(ConnectionAborted()))

    def _finishBoth(self) -> None:
        """Close, because both directions are over or the owner leaves."""
        self._fail(connectionDone)

    def _fail(self, reason: Failure) -> None:
        """Close the socket, and report why; doing it twice is no error."""
        number = self._number
        if number < 0:
            return
        self._number = -1
        if not self._parked:
            self.poller.remove(number)
        self._out = NOTHING
        self.unsent = 0
        self.poller.close(self.connection)
        self.lost(reason)

    def giveAway(self) -> socket:
        """
        Give the socket to another owner, for example another process. It is no longer
        watched, and not closed. C{lost} is not called.

        @raise ValueError: With TLS, or while bytes wait to be sent.
        """
        if self._tls is not None or self._out:
            raise ValueError("only an idle plain socket can be given away")
        number, self._number = self._number, -1
        if number >= 0 and not self._parked:
            self.poller.remove(number)
        return self.connection

    def takeOver(self, other: PolledSocket) -> None:
        """Become the owner of another object's socket, and of what it has yet to
        send."""
        for name in PolledSocket.__slots__:
            setattr(self, name, getattr(other, name))
        other._number, other._out = -1, NOTHING
        if self._number >= 0 and not self._parked:
            self.poller.replace(self._number, self)
            self._readPending()
        if self._queued:
            # The other object has already asked for this.
            self.poller.flushLater(self)

    # TLS

    def _shake(self, tls: SSL.Connection) -> None:
        """Go on with the handshake."""
        try:
            tls.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.WantWriteError:
            self.poller.change(self._number, IN | OUT)
            self._asked = IN | OUT
            return
        except SSL.Error as problem:
            self._fail(_tlsLost(problem))
            return
        self._shaken = True
        self._ask()
        self.handshakeDone()
        if self._number < 0:
            return
        if self._out:
            self._drain()
        elif self._writeEnding:
            self._endNow()
        # The first bytes may have come with the handshake's last ones.
        if self._number >= 0 and not self._readHeld:
            self.poller.again(self)


def _lost(problem: OSError) -> Failure:
    """Make an error of Twisted's out of it."""
    return Failure(ConnectionLost(problem.strerror or str(problem)))


def _tlsLost(problem: SSL.Error) -> Failure:
    """
    Say why TLS broke. An end without TLS's close_notify counts as a lost connection,
    since anybody could have cut it.
    """
    if isinstance(problem, SSL.SysCallError):
        number = problem.args[0] if problem.args else -1
        if isinstance(number, int) and number > 0:
            return _lost(OSError(number, os.strerror(number)))
        return Failure(ConnectionLost("the connection ended without a TLS close"))
    return Failure(problem)
