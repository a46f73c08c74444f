"""
A non-blocking stream socket in the L{Poller<tristunnel.dataplane.poller.Poller>},
with or without TLS on the socket itself. States of what is read::

    =========== ============================ ===================================
    reading     left when                    what the kernel is asked for
    =========== ============================ ===================================
    open        end of file, or an error     IN, unless held
    held        nobody holds it any more     nothing; an error is reported anyway
    ended       never                        nothing
    =========== ============================ ===================================

Those of what is written are in L{tristunnel.dataplane.writing}. When both directions
have ended, or one meets an error, PolledSocket.lost is called, once, and the socket is
closed.
"""

from __future__ import annotations

import errno
import os
import select
from socket import SO_ERROR, SOL_SOCKET, socket
from typing import Any

from OpenSSL import SSL

from tristunnel.dataplane.breaks import lostBy, lostByTLS
from tristunnel.dataplane.pieces import NOTHING
from tristunnel.dataplane.poller import ERRORS, IN, LONG_READ, OUT, READ, Poller
from tristunnel.dataplane.records import WANT
from tristunnel.dataplane.watched import WatchedSocket
from tristunnel.dataplane.writing import WritingSocket

__all__ = ["PolledSocket"]

_HANGUP: int = getattr(select, "EPOLLHUP", 16)


class PolledSocket(WritingSocket):
    """
    One connection. Subclasses decide what happens with its bytes by overriding
    bytesReceived, readEnded, drained, handshakeDone and lost.

    @param poller: Watches the socket.
    @param connection: The socket. Only this object closes it.
    @param tls: TLS over that same socket, before its handshake; None for plain bytes.

    @cvar splice: Once it has begun, moves what would be read otherwise; see
        L{tristunnel.dataplane.splice}.
    """

    splice: Any = None

    __slots__ = ("_most", "_recv")

    def __init__(
        self, poller: Poller, connection: socket, tls: SSL.Connection | None = None
    ) -> None:
        super().__init__(poller, connection, tls)
        self._most = READ
        self._recv = connection.recv

    # For subclasses

    def bytesReceived(self, data: bytes) -> None:
        """Called with bytes that were read."""

    def readEnded(self) -> None:
        """Called when the other side sends no more; writing goes on."""

    def handshakeDone(self) -> None:
        """Called when the TLS handshake is complete."""

    # What the poller tells

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
            self._fail(lostBy(OSError(problem or errno.EIO, os.strerror(problem))))
        elif self._readDone:
            self._finishBoth()
        else:
            # Bytes still wait to be read, perhaps with TLS's close_notify at their end.
            # After that a reset means nothing: some peers leave our session tickets
            # unread.
            self._park()

    def more(self) -> None:
        """Read on: OpenSSL holds bytes, which the kernel does not report."""
        if self._number >= 0 and not (self._readHeld or self._readDone):
            tls = self._tls
            if tls is None:
                self._read()
            elif self._shaken:
                self._readTLS(tls)

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
            self._fail(lostBy(problem))
            return
        if data:
            if (len(data) < READ) is not (self._most == READ):
                self.setBusy(len(data) >= READ)
            self.bytesReceived(data)
        else:
            self.readOver()

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
        if self._number < 0 or problem is None or isinstance(problem, WANT):
            return
        if isinstance(problem, SSL.ZeroReturnError):
            self.readOver()
        else:
            self._fail(lostByTLS(problem))

    def readOver(self) -> None:
        """The other side has said that it sends no more."""
        self._readDone = True
        if self._most != READ:
            self.setBusy(False)
        if not self._writeDone:
            self._ask()
        self.readEnded()
        if self._writeDone:
            self._finishBoth()

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
            self._fail(lostByTLS(problem))
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

    # Another owner

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
        for name in _FIELDS:
            setattr(self, name, getattr(other, name))
        other._number, other._out = -1, NOTHING
        if self._number >= 0 and not self._parked:
            self.poller.replace(self._number, self)
            self._readPending()
        if self._queued:
            # The other object has already asked for this.
            self.poller.flushLater(self)


_FIELDS = (
    *WatchedSocket.__slots__,
    *WritingSocket.__slots__,
    *PolledSocket.__slots__,
)
"""What passes to another owner of the socket."""
