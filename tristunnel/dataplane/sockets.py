"""
A stream's end that is a socket of our own: TCP or UNIX, plain or with TLS. It has the
states that all ends have (L{tristunnel.dataplane.connection_end}), and deadlines::

    ======== ==================================== ====================================
    state    left when                            the deadline
    ======== ==================================== ====================================
    shaking  the TLS handshake is complete        TLS_HANDSHAKE_TIMEOUT
    open     SocketEnd.finish was called, and     none
             there is TLS or nothing more comes
    closing  both directions are over             CLOSE_TIMEOUT, again and again while
                                                  the far side reads or sends enough
    over     never                                none
    ======== ==================================== ====================================

Who misses a deadline is cut off. One without TLS is C{open} from the beginning.

Bytes between two plain ones are moved by the kernel, once a direction proves busy
(L{tristunnel.dataplane.splice}); a short answer is copied, which costs less::

    ========== ============================================== ===================
    direction  left when                                      bytes are moved by
    ========== ============================================== ===================
    copied     BUSY bytes have come in large reads in a row   this process
    spliced    no pipe is free                                the kernel
    ========== ============================================== ===================
"""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import Any, Self

from OpenSSL import SSL
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tristunnel.dataplane.addresses import hostOf, noAddress, peerOf
from tristunnel.dataplane.closing import SLOWEST
from tristunnel.dataplane.connection_end import (
    CLOSE_TIMEOUT,
    END_FIELDS,
    TLS_HANDSHAKE_TIMEOUT,
    ConnectionEnd,
)
from tristunnel.dataplane.deadlines import Key, deadlinesOf
from tristunnel.dataplane.leaving import LeavableSocket
from tristunnel.dataplane.polled import PolledSocket
from tristunnel.dataplane.poller import READ, Poller
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.dataplane.tuning import bytesUntaken
from tristunnel.errors import TunnelError

__all__ = ["BUSY", "LARGE_READ", "SocketEnd"]

SENDING = 32 * 1024
"""How many bytes, roughly, wait in a socket when the peer is told to pause."""

LARGE_READ = 16 * 1024
"""A direction whose reads return this many bytes or more counts as busy."""

BUSY = 256 * 1024
"""Bytes, in large reads in a row, after which a direction is spliced."""


def _nobody(end: object) -> None:
    """Nobody need be told: without TLS, bytes may pass as soon as it has started."""


class SocketEnd(ConnectionEnd, LeavableSocket):
    """
    The L{End<tristunnel.interfaces.End>} of a stream that is a socket.

    @param poller: Watches the socket.
    @param connection: The socket, which is non-blocking.
    @param arrived: Called once with this end when bytes may pass: by L{begin}, or after
        the TLS handshake if there is one. It may join the end then or later; what comes
        in the meantime is kept, up to
        L{EARLY<tristunnel.dataplane.connection_end.EARLY>} bytes. Not needed without
        TLS, if the caller itself calls C{start}.
    @param tls: TLS over the socket, before its handshake.

    @ivar lastWords: Called with the reason if the stream breaks before anything was
        sent to the far side; returns what to send before the connection is closed.
        C{None} to send nothing.
    """

    resetsIfKilled = True

    __slots__ = (
        *END_FIELDS,
        "__weakref__",
        "_busy",
        "_deadline",
        "_mark",
        "_refusal",
        "lastWords",
        "splice",
        "spliceToUs",
    )

    def __init__(
        self,
        poller: Poller,
        connection: socket,
        arrived: Callable[[SocketEnd], None] = _nobody,
        tls: SSL.Connection | None = None,
    ) -> None:
        LeavableSocket.__init__(self, poller, connection, tls)
        self._prepare(poller.reactor, arrived)
        self._busy = self._mark = 0
        self._deadline: Key | None = None
        self._refusal: Failure | None = None
        self.lastWords: Callable[[TunnelError], bytes] | None = None
        # What L{tristunnel.dataplane.splice} uses for reading and for writing.
        self.splice: Any = None
        self.spliceToUs: Any = None

    @classmethod
    def of(
        cls, transport: SocketTransport, arrived: Callable[[Any], None], *more: Any
    ) -> Self:
        """
        Make an end of a connection that a protocol has begun.

        @param transport: The connection; its protocol is not called any more.
        """
        made = cls(transport.poller, transport.connection, arrived, None, *more)
        made.takeOver(transport)
        transport.retire()
        made.resume()
        if made._tls is None or made._shaken:
            made._arrived(made)
        else:
            made._within(TLS_HANDSHAKE_TIMEOUT, made.abort)
            made._shake(made._tls)
        return made

    def begin(self) -> None:
        """
        Start to read, and pass this end to whoever waits for it.

        @raise OSError: If the kernel has no room to watch the socket.
        """
        if self._tls is not None:
            self._within(TLS_HANDSHAKE_TIMEOUT, self.abort)
        try:
            self.start()
        except OSError:
            self._inTime()
            raise
        if self._tls is None:
            self._arrived(self)

    def _within(self, seconds: float, late: Callable[[], object]) -> None:
        """Have C{late} called after a time, unless this end is over before."""
        if self._deadline is not None:
            self._inTime()
        self._deadline = deadlinesOf(self._reactor).add(seconds, late)

    def _inTime(self) -> None:
        """Lift the deadline."""
        if self._deadline is not None:
            deadlinesOf(self._reactor).cancel(self._deadline)
            self._deadline = None

    def _closeInTime(self) -> None:
        """
        Set a deadline, since nothing more will be written. A far side that neither
        reads what is left nor sends anything is cut off. Without TLS, it may be silent
        forever as long as it has not ended its own direction.
        """
        if self._finished and (self._eof or self._tls is not None):
            self._mark = self._progress
            self._within(CLOSE_TIMEOUT, self._closesTooSlowly)

    @property
    def _progress(self) -> int:
        """A number that grows when the far side reads or sends something."""
        return self.received - self.unsent

    def _closesTooSlowly(self) -> None:
        """Cut the far side off, unless it has made progress."""
        self._deadline = None
        if self._progress - self._mark >= SLOWEST * CLOSE_TIMEOUT:
            self._closeInTime()
        else:
            self.abort()

    @property
    def peerAddress(self) -> IAddress:
        """Where the far side is."""
        return peerOf(self.connection) or noAddress(self.connection)

    @property
    def hostAddress(self) -> IAddress | None:
        """The address that the far side has connected to; C{None} if it has left."""
        return hostOf(self.connection)

    # PolledSocket

    def handshakeDone(self) -> None:
        self._inTime()
        self._arrived(self)

    def bytesReceived(self, data: bytes) -> None:
        """
        Pass on what was read. If it is a lot, have the kernel do that from now on.
        """
        if self._peer is None or self._rule is not None:
            # Reading more at a time would mean longer waits for the rate limiter.
            if self._most != READ:
                self.setBusy(False)
            self._bytesCame(data)
        else:
            self._peer.write(data)
            self.received += len(data)
        splice = self.splice
        if splice is not None:
            if len(data) < LARGE_READ:
                self._busy = 0
            else:
                self._busy += len(data)
                if self._busy >= BUSY:
                    splice.begun = True
                    self.setBusy(True)

    def readEnded(self) -> None:
        self._noMoreComes()
        if self._peer is None and self._tls is not None and not self._over:
            # Over TLS, hardly anybody sends close_notify who still listens: whoever
            # does so before there is a peer has left.
            self._finishBoth()
        elif self._refusal is not None:
            self._fail(self._refusal)
        elif self._finished and self._number >= 0 and not self._writeDone:
            self._closeInTime()

    def lost(self, reason: Failure) -> None:
        if self._deadline is not None:
            self._inTime()
        if self.splice is not None or self.spliceToUs is not None:
            self._endSplices()
        if reason is connectionDone:
            self._goneBecause(None)
        else:
            self._gone(reason)

    def _refused(self, reason: Failure) -> None:
        """
        The far side accepts no more. Over TLS this may come after its close_notify,
        with bytes before that still to be read. So writing is over, but not reading.
        """
        if self._readDone or self._refusal is not None:
            self._fail(self._refusal or reason)
            return
        self._refusal = reason
        self._out.clear()
        self.unsent = 0
        self._kernelFull = False
        self._writeEnding = True
        self._ask()
        self._emptied()

    # ConnectionEnd

    # Methods of both bases that mean the same, without a detour: some are called for
    # each piece.
    write = _transmit = PolledSocket.write
    drained = ConnectionEnd._emptied
    _stopReading = PolledSocket.hold
    _goOnReading = PolledSocket.resume

    def waits(self) -> None:
        """Bytes wait to be sent."""
        if self.unsent > SENDING:
            self._fills(self.unsent)

    def notTaken(self) -> None:
        """Send a reset back, because the connection is gone."""
        if self._over:
            ConnectionEnd.write(self, b"")

    def _endTransmission(self) -> None:
        self.endWriting()
        if self._number >= 0:
            self._closeInTime()

    def _cutOff(self) -> None:
        """
        Break the connection. If the stream was broken by its other side, after
        everything for this connection was written, what still waits goes out first.
        """
        self._endSplices()
        reason = self._reason
        lastWords, self.lastWords = self.lastWords, None
        # In the middle of an answer they would be taken for a part of it.
        isSilent = not (self._finished or getattr(self._peer, "received", False))
        if lastWords is not None and reason is not None and self.isOpen and isSilent:
            PolledSocket.write(self, lastWords(reason))
            self._inTime()
            self.leave()
            return
        # If this program itself breaks the stream, nothing is kept for anybody.
        byOther = reason is not None and reason.code.name == "reset"
        if (
            byOther
            and self._finished
            and self.isOpen
            and (self.unsent or bytesUntaken(self.connection))
        ):
            self._inTime()
            self.leave(reset=True)
        else:
            self.abort()

    # Splicing

    def sendsTo(self, peer: object) -> bool:
        """Whether what it reads goes to C{peer} directly, with nothing in between."""
        return self._peer is peer

    @property
    def readsBy(self) -> SocketEnd | None:
        """The plain socket that it reads from now; C{None} if it is none."""
        return self if self.isPlain else None

    @property
    def writesBy(self) -> SocketEnd | None:
        """Likewise the socket that it writes to."""
        return self if self.isPlain else None

    @property
    def mayGoByKernel(self) -> bool:
        """Whether the kernel moves what it would read, or may do so soon."""
        return self.splice is not None

    @property
    def splices(self) -> bool:
        """Whether the kernel moves what it would read."""
        return self.splice is not None and self.splice.begun

    @property
    def isPlain(self) -> bool:
        """Whether its bytes are those of the socket: not with TLS."""
        return self._tls is None and self._number >= 0

    def _endSplices(self) -> None:
        """End splicing, and give pipes back."""
        for splice in (self.splice, self.spliceToUs):
            if splice is not None:
                splice.end()
                splice.source.splice = splice.sink.spliceToUs = None
