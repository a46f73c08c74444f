"""
A stream that moves to a connection of its own.

Each direction moves by itself, once none of its bytes wait in the session. States of
the one that sends::

    ========= =================================== ====================================
    state     fields                              left when
    ========= =================================== ====================================
    session   no C{_elsewhere}                    there is a connection: moving; or the
                                                  end was sent: ended
    moving    C{_elsewhere}                       no bytes wait: moved, which the far
                                                  side is told; or the far side has
                                                  left: ended
    moved     C{_sendsBy}                         the end is sent there: ended
    ended     C{finished}                         never
    ========= =================================== ====================================

And of the one that reads::

    ========= =================================== ====================================
    state     fields                              left when
    ========= =================================== ====================================
    session   not C{_farSideMoved}                the far side has moved: following;
                                                  or has ended: ended
    following C{_farSideMoved}                    there is a connection, and all that
                                                  came before is passed on: moved
    moved     C{_readsBy}                         never; the connection brings the end
    ended     C{eof}                              never
    ========= =================================== ====================================

Until the one has moved, or the other follows, the loss of the connection changes
nothing; later it breaks the stream. The stream leaves the session when both are moved
or ended. L{tristunnel.dialects.framed.moves} makes the connections.
"""

from __future__ import annotations

from abc import abstractmethod

from tristunnel.dataplane.endings import MovedEnd
from tristunnel.dataplane.join import spliceIfPlain
from tristunnel.dataplane.pace import SLOW
from tristunnel.dataplane.rate import RateLimiter
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.base.stream_carrier import StreamCarrier
from tristunnel.errors import TunnelError
from tristunnel.wire.windows import ReceiveWindow, SendWindow

__all__ = ["BUSY", "SHORT", "MovableStream", "MoveCarrier"]

BUSY = 1024 * 1024
"""Bytes in a short time, in large pieces, that prove a stream to be busy."""

SHORT = BUSY / SLOW
"""Seconds that they may take. A line that is slower gains nothing: a second connection
would fill the queue before it, in which the session's small requests stand then."""


class MoveCarrier(StreamCarrier[SessionStream]):
    """What streams that move need of the session that carries them."""

    __slots__ = ()

    @abstractmethod
    def provedBusy(self, stream: MovableStream) -> None:
        """
        So many bytes come and go that the stream had better have a connection of
        its own.
        """

    @abstractmethod
    def sendMoved(self, stream: MovableStream, offset: int) -> None:
        """Say that C{stream} sends by its own connection after so many bytes."""


class MovableStream(SessionStream):
    """
    A stream that can move.

    @ivar _elsewhere: The connection that it moves to, or has moved to.
    @ivar _farSideMoved: Whether the far side sends there from now on.
    """

    __slots__ = ("_busySince", "_elsewhere", "_farSideMoved", "_recent")

    _multiplexer: MoveCarrier

    def __init__(
        self,
        multiplexer: MoveCarrier,
        streamId: int,
        sendWindow: SendWindow,
        receiveWindow: ReceiveWindow,
        since: float,
    ) -> None:
        super().__init__(multiplexer, streamId, sendWindow, receiveWindow, since)
        self._recent = 0
        self._busySince = since
        self._elsewhere: MovedEnd | None = None
        self._farSideMoved = False

    @property
    def moves(self) -> bool:
        """Whether there is a connection that it moves to, or has moved to."""
        return self._elsewhere is not None

    @property
    def hasMoved(self) -> bool:
        return (
            self._elsewhere is not None
            and (self._sendsBy is not None or self.finished)
            and (self._readsBy is not None or self.eof)
        )

    @property
    def received(self) -> int:
        """Bytes that came from the far side, on either connection."""
        moved = self._elsewhere
        return self.receiveWindow.received + (0 if moved is None else moved.received)

    def countLarge(self, size: int) -> None:
        """Enough large pieces in a short time prove the stream busy."""
        self._recent += size
        if self._recent >= BUSY:
            now = self._multiplexer.now()
            if now - self._busySince <= SHORT and self._elsewhere is None:
                self._multiplexer.provedBusy(self)
            self._recent, self._busySince = 0, now

    # Moving

    def moveTo(self, elsewhere: MovedEnd) -> None:
        """
        Move to a connection of its own: each direction as soon as none of its bytes
        wait here.
        """
        self._elsewhere = elsewhere
        elsewhere.whileWaiting(self._elsewhereOver)
        if self.finished:
            # Our end was sent in the session already; end the connection likewise.
            elsewhere.finish()
        self.allSent()
        self.allPassed()

    def allSent(self) -> None:
        """Send on the new connection from now on, if everything before is sent."""
        moved = self._elsewhere
        if moved is None or self._sendsBy is not None or self.over:
            return
        if self.outgoing or self.finished:
            return
        self._sendsBy = moved
        self._multiplexer.sendMoved(self, self.sendWindow.sent)
        if self.finishing:
            self.finished = True
            moved.finish()
        self._settle()

    def movedArrived(self, offset: int) -> None:
        """
        Note that the far side sends on the new connection from now on.

        @raise TunnelError: C{protocol-error}, if C{offset} is not where this side is.
        """
        here = self.receiveWindow.received
        if offset != here or self._farSideMoved or self.eof:
            raise TunnelError(
                "protocol-error",
                f"stream {self.id} moved at {offset}, and {here} bytes had come",
            )
        self._farSideMoved = True
        self.allPassed()

    def moveFailed(self, reason: TunnelError) -> None:
        """
        Stay, as there is no connection to move to. If the far side has already changed
        over, break the stream.
        """
        if self._farSideMoved and self._elsewhere is None and not self.over:
            self.breakOff(reason)

    def allPassed(self) -> None:
        """Read from the new connection once everything before is passed on."""
        moved, peer = self._elsewhere, self._peer
        if not self._farSideMoved or self._readsBy is not None or self.over:
            return
        if moved is None or peer is None or self._incoming:
            return
        self._readsBy = moved
        if self._readPaused:
            moved.pauseReading()
        moved.join(peer, self._elsewhereOver)
        self._settle()

    def _settle(self) -> None:
        """
        Leave the session if nothing is left to do there, and have the kernel move the
        bytes if both ends are plain sockets.
        """
        moved, peer = self._elsewhere, self._peer
        if moved is None or self.over or not self.hasMoved:
            return
        self._multiplexer.streamOver(self, 0)
        if isinstance(peer, SocketEnd) and peer.sendsTo(self):
            peer.passTo(moved)
            spliceIfPlain(peer, moved)

    def _elsewhereOver(self, reason: TunnelError | None) -> None:
        """The new connection is gone."""
        if self.over:
            return
        hasSwitched = self._sendsBy is not None
        if not (hasSwitched or self._farSideMoved):
            # Neither direction has changed over: go on in the session as if there had
            # been no connection.
            self._elsewhere = None
            return
        if reason is None and self._incoming and self._farSideMoved and hasSwitched:
            # It has ended as it should, after what still waits here to be read.
            return
        peer, followed = self._peer, self._readsBy is not None
        if reason is None and not self.hasMoved:
            reason = TunnelError("session-lost", "the stream's connection was lost")
        if reason is not None and not self.hasMoved:
            self._multiplexer.sendReset(self, reason)
        self._end(reason)
        if reason is not None and peer is not None and not followed:
            self.guarded(peer.reset, reason)

    # Breaking both connections

    def reset(self, reason: TunnelError) -> None:
        moved = self._elsewhere
        if moved is None:
            super().reset(reason)
        elif not self.over:
            if not self.hasMoved:
                self._multiplexer.sendReset(self, reason)
            self._end(reason)
            moved.reset(reason)

    def broken(self, reason: TunnelError) -> None:
        moved = None if self.over else self._elsewhere
        super().broken(reason)
        if moved is not None:
            moved.reset(reason)

    def abandon(self) -> None:
        moved = None if self.hasMoved else self._elsewhere
        super().abandon()
        if moved is not None:
            moved.reset(TunnelError("closed"))

    # What the connection asks

    @property
    def passed(self) -> int:
        """Bytes that the local end has passed to the connection it has moved to."""
        if self._sendsBy is None or self._peer is None:
            return 0
        return self._peer.received - self.sendWindow.sent

    def pauseSource(self) -> None:
        """Pause the local end."""
        if self._peer is not None:
            self._peer.pauseReading()

    def resumeSource(self) -> None:
        """Resume the local end."""
        if self._peer is not None:
            self._peer.resumeReading()

    # What the kernel moves

    @property
    def readsBy(self) -> SocketEnd | None:
        """The plain socket that it reads from now; C{None} for the session."""
        moved = self._elsewhere
        return None if moved is None or self._readsBy is None else moved.readsBy

    @property
    def writesBy(self) -> SocketEnd | None:
        """Likewise the socket that it writes to."""
        moved = self._elsewhere
        return None if moved is None or self._sendsBy is None else moved.writesBy

    @property
    def mayGoByKernel(self) -> bool:
        """Whether the kernel moves its bytes."""
        return self._elsewhere is not None and self._elsewhere.mayGoByKernel

    def obey(self, rule: RateLimiter) -> None:
        """Have a rate slow down what the kernel moves."""
        if self._elsewhere is not None:
            self._elsewhere.obey(rule)

    def obeyAgain(self) -> None:
        """The rate has changed."""
        if self._elsewhere is not None:
            self._elsewhere.obeyAgain()
