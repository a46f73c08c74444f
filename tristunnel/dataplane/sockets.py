"""
A stream's end that is a connection of its own: TCP, UNIX or TLS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.closing import WriteDeadline
from tristunnel.dataplane.kernel import (
    breakIfKilled,
    closeNow,
    finishNow,
    holdsNothing,
    kernelSocket,
    probeSoon,
)
from tristunnel.dataplane.memory import HELD
from tristunnel.dataplane.rate import CombinedRateLimiter
from tristunnel.dataplane.reading import readySetOf
from tristunnel.dataplane.splice import Splice
from tristunnel.dataplane.transports import (
    MOST_UNASKED,
    canHalfClose,
    canPause,
    completed,
)
from tristunnel.errors import TunnelError

if TYPE_CHECKING:
    from socket import socket

    from tristunnel.dataplane.rate import RateLimiter
    from tristunnel.interfaces import Closed, End

__all__ = [
    "EARLY",
    "SENDING",
    "TLS_CLOSE_TIMEOUT",
    "TLS_HANDSHAKE_TIMEOUT",
    "SocketEnd",
    "tuneSocket",
]

TLS_HANDSHAKE_TIMEOUT = 10.0
"""Seconds in which a TLS visitor must have said hello."""

EARLY = 64 * 1024
"""Bytes read from an end that is not joined yet, before reading pauses."""

LARGE_READ = 16 * 1024
"""Bytes of a read from which on an end counts as busy."""

BUSY = 256 * 1024
"""Bytes, in large reads in a row, after which an end's bytes are spliced:
requests and short answers are copied, which costs them less."""

CHATTY = 4
"""Reads after which an end is read together with others: one that has just a
request and an answer is spared the way there."""

SENDING = 128 * 1024
"""Bytes that a transport holds, about, when it has its producer pause."""

TLS_CLOSE_TIMEOUT = 120.0
"""Seconds in which the peer of a connection that we close must take some of what
is left, or answer our close over TLS: some never do."""


def tuneSocket(transport: ITransport) -> None:
    """
    Send small writes at once, and have the kernel notice a dead peer.
    """
    if ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        probeSoon(transport)


@implementer(IPushProducer, IHalfCloseableProtocol, IHandshakeListener)
class SocketEnd(Protocol):
    """
    The L{End<tristunnel.interfaces.End>} of a stream that is a connection.

    @param reactor: Tells time.
    @param arrived: Called once with this end when bytes may pass: after the
        TLS handshake where there is one. It may join the end then or later;
        what comes meanwhile is held, up to L{EARLY} bytes.

    @ivar received: Bytes read so far.
    @ivar heard: Called when something comes before this end is joined, or the
        other side ends what it sends.
    @ivar socket: The socket, where nothing but the kernel is behind it.
    @cvar memory: Counts what is held for peers that stand still.
    """

    memory = HELD

    PEER, RULE, PIPE, UNJOINED = 1, 2, 4, 8
    """Why reading is held: the peer asked for it, a rule did, a pipe is full,
    there is no peer yet."""

    transport: Any

    def __init__(
        self, reactor: IReactorTime, arrived: Callable[[SocketEnd], None]
    ) -> None:
        self.received = 0
        self.heard: Callable[[], None] | None = None
        self.socket: socket | None = None
        self._reactor = reactor
        self._arrived = arrived
        self._peer: End | None = None
        self._closed: Closed | None = None
        self._early: list[bytes] = []
        # The socket, while the other side would miss something if we died.
        self._unfinished: socket | None = None
        self._canHalfClose = False
        self._eof = False
        self._held = 0
        self._unasked = 0
        self._busy = 0
        self._untilChatty = CHATTY
        self._readyNumber = -1
        self._splice: Splice | None = None
        self._spliceToUs: Splice | None = None
        self._rule: RateLimiter | None = None
        self._ruleTimer: IDelayedCall | None = None
        self._finished = False
        self._over = False
        self._reason: TunnelError | None = None
        self._timer: IDelayedCall | WriteDeadline | None = None

    # IProtocol

    def makeConnection(self, transport: ITransport) -> None:
        """
        Begin with a transport of any kind.
        """
        super().makeConnection(completed(transport))

    def connectionMade(self) -> None:
        """
        The connection is there; TLS may still have to begin.
        """
        tuneSocket(self.transport)
        if INegotiated.providedBy(self.transport):
            self._timer = self._reactor.callLater(
                TLS_HANDSHAKE_TIMEOUT, self.transport.abortConnection
            )
        else:
            self._useDirectly()
            self._begin()

    def _useDirectly(self) -> None:
        """
        There is no TLS in between.
        """
        self._canHalfClose = canHalfClose(self.transport)
        self.socket = kernelSocket(self.transport)

    def handshakeCompleted(self) -> None:
        """
        TLS is up.
        """
        self._stopTimer()
        self._begin()

    def takeOver(self, transport: Any) -> None:
        """
        Be the end of a connection that another protocol began; TLS is up.
        """
        self.transport = completed(transport)
        self.connected = 1
        if not INegotiated.providedBy(transport):
            self._useDirectly()
        self._begin()

    @property
    def over(self) -> bool:
        """
        Whether the connection is gone.
        """
        return self._over

    def _begin(self) -> None:
        """
        Show this end to whoever waits for it.
        """
        if self.socket is not None:
            self._unfinished = self.socket
            breakIfKilled(self.socket, True)
        self._arrived(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Pass on what came.
        """
        peer = self._peer
        if peer is None:
            # Reading goes on for a while, so that an end that leaves again is
            # noticed; and TLS hands on what it had decrypted before a pause.
            self.received += len(data)
            self._early.append(data)
            self.memory.hold(self, len(data), self.shed)
            if self.received > EARLY:
                self.hold(self.UNJOINED)
                self._countUnasked(len(data))
            if self.heard is not None:
                self.heard()
            return
        peer.write(data)
        size = len(data)
        if self._rule is None:
            self.received += size
        else:
            self.counted(size)
        if self._held:
            self._countUnasked(size)
        splice = self._splice
        if splice is not None:
            if size < LARGE_READ:
                self._busy = 0
            else:
                self._busy += size
                if self._busy >= BUSY and not (splice.begun or self._over):
                    self.leaveReadySet()
                    self._untilChatty = 0
                    splice.begin()
                    return
        if self._untilChatty:
            self._untilChatty -= 1
            if not self._untilChatty:
                self._enterReadySet()

    def _countUnasked(self, size: int) -> None:
        """
        Bytes came although reading is held. Where the transport knows no pause
        they would go on coming.
        """
        if not canPause(self.transport):
            self._unasked += size
            if self._unasked > MOST_UNASKED:
                self.shed(TunnelError("stalled", "it cannot be paused"))

    def _enterReadySet(self) -> None:
        """
        Be read together with others.
        """
        ready = readySetOf(self._reactor)
        if self.socket is None or self._held or self._over or ready is None:
            return
        self._readyNumber = ready.enter(self.socket, self.transport, self)

    def _leaveReadySet(self) -> bool:
        """
        Be read no more.

        @return: C{False} if it was not read together with others.
        """
        number = self._readyNumber
        if number < 0:
            return False
        self._readyNumber = -1
        ready = readySetOf(self._reactor)
        if ready is not None:
            ready.leave(number)
        return True

    def leaveReadySet(self) -> None:
        """
        Be read by one's own transport again.
        """
        if self._leaveReadySet():
            self._untilChatty = CHATTY
            self.transport.resumeProducing()

    def readConnectionLost(self) -> None:
        """
        The other side sends no more.
        """
        self._eof = True
        if self._peer is not None:
            self._peer.finish()
        elif self.heard is not None:
            self.heard()
        if self._finished and self._unfinished is None:
            self.closeBoth()

    def writeConnectionLost(self) -> None:
        """
        Our end of what we send is on its way.
        """
        if self._unfinished is not None:
            self._sentAll(self._unfinished)
            if self._eof:
                self.closeBoth()

    def closeBoth(self) -> None:
        """
        Close the connection, both of whose directions are over.
        """
        if self._over:
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = WriteDeadline(
            self._reactor, self.transport, TLS_CLOSE_TIMEOUT, patient=True
        )
        self._timer.close()

    def _sentAll(self, plain: socket) -> None:
        """
        If this process is killed from now on, the other side has lost nothing.
        """
        self._unfinished = None
        breakIfKilled(plain, False)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection is over.
        """
        self._stopTimer()
        self._leaveReadySet()
        self.memory.letGo(self)
        if self._over:
            return
        self._over = True
        self._endSplices()
        # Some transports have nothing to say of their end.
        if reason is not None and not reason.check(ConnectionDone):
            self._reason = TunnelError("reset", reason.getErrorMessage())
        if self._peer is not None:
            self._tellPeer(self._peer)
        else:
            self._tellClosed()

    def _tellPeer(self, peer: End) -> None:
        """
        Let the other end know that this one is over.
        """
        if self._reason is not None:
            peer.reset(self._reason)
        elif not self._eof:
            self._eof = True
            peer.finish()
        self._tellClosed()

    def _tellClosed(self) -> None:
        """
        Let whoever waits for the end of this end know.
        """
        if self._closed is not None:
            closed, self._closed = self._closed, None
            closed(self._reason)

    # End

    def whileWaiting(self, left: Closed) -> None:
        """
        Have C{left} called if this end is over before it is joined.
        """
        if self._peer is None:
            self._closed = left

    @property
    def early(self) -> bytes:
        """
        What came before this end is joined.
        """
        return b"".join(self._early)

    def skipEarly(self, count: int) -> None:
        """
        Pass so many bytes of it to nobody.
        """
        self._early = [self.early[count:]]
        self.received -= count

    def join(self, peer: End, closed: Closed) -> None:
        """
        Begin to pass bytes to C{peer}.
        """
        self._peer = peer
        self._closed = closed
        early, self._early = self._early, []
        self.memory.letGo(self)
        # After the peer's end a producer would keep the transport from closing.
        if not (self._over or self._finished):
            self.transport.registerProducer(self, True)
        for data in early:
            peer.write(data)
        if self._eof:
            peer.finish()
        if self._over:
            self._tellPeer(peer)
        else:
            self.release(self.UNJOINED)

    def spliceTo(self, peer: SocketEnd) -> None:
        """
        Move bytes to C{peer} within the kernel, once they are many. Both ends
        must have a L{socket}.
        """
        self._splice = peer._spliceToUs = Splice(self, peer)

    def _endSplices(self) -> None:
        """
        Let go of pipes.
        """
        self.socket = None
        for splice in (self._splice, self._spliceToUs):
            if splice is not None:
                splice.end()
                splice.source._splice = splice.sink._spliceToUs = None

    def write(self, data: bytes) -> None:
        """
        Send bytes; to a connection that is gone, a reset comes back.
        """
        if self._over:
            if self._peer is not None:
                self._peer.reset(TunnelError("reset", "the connection is gone"))
            return
        if self.socket is not None and holdsNothing(self.transport):
            # Most often the kernel has room: then the reactor need not be
            # asked to wait for it.
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                pass
            except OSError as problem:
                # A socket tells of a reset only once; after that it would
                # look to its transport like an orderly end.
                self.shed(TunnelError("reset", problem.strerror or "write failed"))
                return
            else:
                if sent == len(data):
                    return
                data = data[sent:]
        self.transport.write(data)

    def finish(self) -> None:
        """
        Send no more. TLS cannot say so for one direction, so there it ends
        both, after all that was written.
        """
        if self._over or self._finished:
            return
        self._finished = True
        # A registered producer would keep the transport from ever closing.
        self.transport.unregisterProducer()
        if self._unfinished is not None:
            if self.transport.protocol is self and not holdsNothing(self.transport):
                # The rest comes first, and L{writeConnectionLost} then.
                self.transport.loseWriteConnection()
                return
            self._sentAll(self._unfinished)
        if self.socket is not None and holdsNothing(self.transport):
            finishNow(self.transport, self.socket, not self._eof)
            if self._eof:
                self.closeBoth()
        elif self._canHalfClose and not self._eof:
            self.transport.loseWriteConnection()
        else:
            self.closeBoth()

    def reset(self, reason: TunnelError) -> None:
        """
        Break the connection, so that the other side sees a reset.
        """
        if self._over:
            return
        self._over = True
        self._leaveReadySet()
        self._endSplices()
        self.memory.letGo(self)
        self._reason = reason
        self._stopTimer()
        if self._peer is None:
            closeNow(self.transport)
        else:
            self.transport.abortConnection()
        self._tellClosed()

    def shed(self, reason: TunnelError) -> None:
        """
        Be broken, and the peer with it: too much is held for this end.
        """
        peer = self._peer
        self.reset(reason)
        if peer is not None:
            peer.reset(reason)

    def pauseReading(self) -> None:
        """
        Read no more for now.
        """
        self.hold(self.PEER)

    def resumeReading(self) -> None:
        """
        Read again.
        """
        self.release(self.PEER)

    # What reading is held by

    def hold(self, why: int) -> None:
        """
        Read no more.

        @param why: One of L{PEER}, L{RULE}, L{PIPE} and L{UNJOINED}.
        """
        if not (self._held or self._over or self._eof):
            if self._leaveReadySet():
                self._untilChatty = CHATTY
            else:
                self.transport.pauseProducing()
        self._held |= why

    def release(self, why: int) -> None:
        """
        Read again if nothing else speaks against it; not after the end, which
        would then be seen twice.
        """
        if self._held & why:
            self._held &= ~why
            if not (self._held or self._over or self._eof):
                self._unasked = 0
                self.transport.resumeProducing()

    @property
    def ended(self) -> bool:
        """
        Whether the other side sends no more.
        """
        return self._eof or self._over

    @property
    def splices(self) -> bool:
        """
        Whether what it reads goes on within the kernel.
        """
        return self._splice is not None and self._splice.begun

    def heldOnlyBy(self, why: int) -> bool:
        """
        Whether there is no other reason to hold reading.
        """
        return self._held == why and not (self._over or self._eof)

    # Counts and rules

    def obey(self, rule: RateLimiter) -> None:
        """
        Let C{rule} slow this end's reading down, beside those that do.
        """
        self._rule = (
            rule if self._rule is None else CombinedRateLimiter(self._rule, rule)
        )

    def obeyAgain(self) -> None:
        """
        A rule has changed: read on until it says how long to wait.
        """
        self._stopRuleTimer()
        self.release(self.RULE)

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        """
        Pass bytes to what stands for the peer from now on.

        @return: The peer until now, and whether it has this end paused.
        """
        before, self._peer = self._peer, peer
        return before, bool(self._held & self.PEER)

    @property
    def mayGoByKernel(self) -> bool:
        """
        Whether what it reads goes on within the kernel, or may soon.
        """
        return self._splice is not None

    def allowance(self, most: int) -> int:
        """
        How many bytes may be read before L{counted} is called.
        """
        return most if self._rule is None else min(most, self._rule.atOnce)

    def counted(self, amount: int) -> None:
        """
        Count bytes that were read, however they went on.
        """
        self.received += amount
        if self._rule is not None:
            delay = self._rule.charge(amount)
            if delay > 0 and not self._over:
                self.hold(self.RULE)
                self._stopRuleTimer()
                self._ruleTimer = self._reactor.callLater(delay, self._ruleOver)

    def _ruleOver(self) -> None:
        """
        The rule lets us read again.
        """
        self._ruleTimer = None
        self.release(self.RULE)

    def _stopRuleTimer(self) -> None:
        """
        Forget the rule's delay.
        """
        if self._ruleTimer is not None:
            self._ruleTimer.cancel()
            self._ruleTimer = None

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        """
        The transport holds enough.
        """
        if self._peer is not None:
            self._peer.pauseReading()
        if not self._over:
            self.memory.hold(self, SENDING, self.shed)

    def resumeProducing(self) -> None:
        """
        The transport has sent all it held.
        """
        self.memory.release(self, SENDING)
        if self._peer is not None:
            self._peer.resumeReading()

    def stopProducing(self) -> None:
        """
        The transport is gone; L{connectionLost} tells the peer.
        """

    def _stopTimer(self) -> None:
        """
        Cancel what waits for TLS.
        """
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._stopRuleTimer()
