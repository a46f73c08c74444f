"""
One WebSocket by autobahn, without autobahn's timers.

The handshake, pings and the rules of closing are autobahn's; the frames of messages are
read and written by L{tristunnel.wire.websocket}. The rest is here: how much is gathered
into a message, which limits there are, when a peer is taken for dead, how long a close
may take, and its code and reason. Autobahn's own timers run on the global reactor
whatever reactor it is given, so none of them is used.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tristunnel.dataplane.answers import Answers, Holds
from tristunnel.dataplane.probe import Probe
from tristunnel.dataplane.stock import boundUnsent, tuneSocket, unsent
from tristunnel.errors import TunnelError
from tristunnel.util.repeating import stopTimer
from tristunnel.websocket.codes import NORMAL, closeOf, reasonOfClose
from tristunnel.websocket.incoming import MAX_BINARY, MAX_TEXT, Incoming, Receiver
from tristunnel.websocket.outgoing import Outgoing

if TYPE_CHECKING:
    from tristunnel.service.preauth import PendingConnection

__all__ = [
    "CLOSE_TIME",
    "LINGER",
    "MAX_BINARY",
    "MAX_TEXT",
    "PING_INTERVAL",
    "PREAUTH_CLOSE_TIME",
    "Connection",
    "Receiver",
]

PING_INTERVAL = 30.0
"""Seconds between pings: half of the 60 after which proxies cut a silent
connection off."""

SILENCE = 3
"""Ping intervals of silence after which a peer is taken for dead."""

CLOSE_TIME = 120.0
"""Seconds that a peer gets to take what was written before our close frame
and to answer it."""

PREAUTH_CLOSE_TIME = 10.0
"""The same before the peer has authenticated."""

LINGER = 1.0
"""Seconds for which a refused peer is still read from: closing with unread bytes would
reset the connection, and our reason would be lost."""


class _Quiet:
    """
    Takes the place of autobahn's log, which reports peers' mistakes as warnings; we log
    what matters ourselves.
    """

    def debug(self, *args: object, **kwargs: object) -> None:
        """Log nothing."""

    info = warn = error = debug


class Connection(Incoming, Outgoing):
    """
    What both roles share; mixed into autobahn's classes.

    @ivar receiver: What is told of events; may be replaced at any time.
    @ivar peerAddress: The address of the far end: the socket's peer, or the one named
        by a trusted proxy.
    @ivar paused: Whether the receiver has paused reading.
    @ivar answers: Limits our answers to what the peer takes; C{None} until the
        connection is open.
    @ivar probe: Finds out whether the peer still answers.
    @ivar pending: Told when the connection is gone, or C{None}.
    @ivar group: All connections of the same page or endpoint, to wait for them.
    """

    log = _Quiet()
    group: set[object] | None = None
    pending: PendingConnection | None = None
    transport: Any

    # Autobahn's.
    remoteCloseCode: int | None
    remoteCloseReason: str | None
    sendCloseFrame: Any
    sendPing: Any
    sendPong: Any
    _connectionMade: Any
    _connectionLost: Any

    def configure(
        self,
        reactor: IReactorTime,
        receiver: Receiver,
        pingInterval: float = PING_INTERVAL,
    ) -> None:
        """
        Give what this connection needs beyond autobahn.

        @param pingInterval: Seconds between pings, 0 for none.
        """
        self.reactor: Any = reactor
        self.receiver = receiver
        self.pingInterval = pingInterval
        self.peerAddress: Any = None
        self.answers: Answers | None = None
        self._holds = Holds(self._stopReading, self._readAgain)
        self._pinging: IDelayedCall | None = None
        self._closing: IDelayedCall | None = None
        self._heard = reactor.seconds()
        self.probe = Probe(reactor, lambda: self.sendPing() if self.canSend else None)
        self._quietUntil = float("-inf")
        self.beginIncoming()
        self.beginOutgoing()
        self._isOpen = False
        self._lost = False
        self._closeSeen = False
        self._peersReason: TunnelError | None = None
        self._ownReason: TunnelError | None = None

    # For the receiver

    @property
    def gone(self) -> bool:
        """Whether the connection is over."""
        return self._lost

    @property
    def paused(self) -> bool:
        """Whether the receiver has paused reading."""
        return "receiver" in self._holds

    def pauseReading(self) -> None:
        """Stop reading for now. What autobahn has read already is still handed on."""
        self._holds.hold("receiver")

    def resumeReading(self) -> None:
        """Read again."""
        self._holds.release("receiver")

    def _stopReading(self) -> None:
        if not self._lost:
            self.transport.pauseProducing()

    def _readAgain(self) -> None:
        self._heard = self.reactor.seconds()
        if not self._lost:
            self.transport.resumeProducing()

    def close(self, code: int = NORMAL, text: str = "") -> None:
        """
        Close cleanly: after what was written, and with the peer's consent. What comes
        until then is still handed on.
        """
        if not self.canSend:
            return
        self.flush()
        self._stopAnswers()
        self._sendClose(code, text)
        self._startClosing(self._closeTime, self.abort)

    @property
    def _closeTime(self) -> float:
        isPending = self.pending is not None and self.pending.waiting
        return PREAUTH_CLOSE_TIME if isPending or not self._isOpen else CLOSE_TIME

    def leave(self) -> None:
        """
        Close cleanly, and ignore what still comes: the peer is known to have sent all
        its data, but may send empty messages for ever. So the connection is cut as soon
        as it has taken everything, or takes nothing more.
        """
        if not self._lost and self.canSend:
            self.flush()
            self._deaf = self._blind = self._closeSeen = True
            self._stopAnswers()
            self._sendClose(NORMAL, "")
            self._leaveLater()

    def _leaveLater(self) -> None:
        self._startClosing(LINGER, partial(self._leaves, unsent(self.transport)))

    def _leaves(self, before: int) -> None:
        left = unsent(self.transport)
        if left and left < before:
            self._leaveLater()
        else:
            self.abort()

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """
        Close because of C{reason}, and hand on nothing more.

        @param code: The close code, if it is not the reason's.
        """
        if self._lost or self._deaf:
            return
        self._deaf = True
        self._ownReason = self._ownReason or reason
        self._held = []
        usual, text = closeOf(reason)
        self._stopAnswers()
        if self.canSend:
            self._sendClose(code or usual, text)
        if self.paused:
            self.resumeReading()
        self._startClosing(LINGER, self._lingered)

    def abort(self) -> None:
        """Cut the connection."""
        if not self._lost:
            self.transport.abortConnection()

    def _stalled(self, reason: TunnelError) -> None:
        self._ownReason = self._ownReason or reason
        self.abort()

    def _sendClose(self, code: int, text: str) -> None:
        """
        Send a close frame. Autobahn's own method for it forbids the codes
        that a protocol's end calls for.
        """
        self.sendCloseFrame(code, text.encode("utf-8") if text else None)

    def _lingered(self) -> None:
        self._closing = None
        if not self._lost:
            self.transport.loseConnection()
            self._startClosing(LINGER * 10, self.abort)

    def _startClosing(self, seconds: float, then: Any) -> None:
        stopTimer(self._closing)
        self._closing = self.reactor.callLater(seconds, then)

    # From autobahn: the connection

    def connectionMade(self) -> None:
        """Begin, without autobahn's inspection of the transport."""
        tuneSocket(self.transport)
        if self.group is not None:
            self.group.add(self)
        if self.peerAddress is None:
            self.peerAddress = self.transport.getPeer()
        self.peer = ""
        self._connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Bytes came: of the handshake, which is autobahn's, or frames."""
        self._heard = self.reactor.seconds()
        if self.probe.open:
            self.probe.heard()
        if self._resting is not None:
            self._unread += data
        elif not self._isOpen:
            self._dataReceived(data)
        elif not self._blind:
            self._take(data)

    def onPing(self, payload: bytes) -> None:
        if self.canSend and self.answers is not None:
            self.answers.latest(lambda: self.sendPong(payload))

    def _onOpen(self) -> None:
        self._isOpen = True
        self._beginFrames()
        # Under a twisted.web site the HTTP channel is still the transport's
        # producer: nobody else could be, and a full send buffer would stop it
        # from reading, so that two busy peers wait for each other for ever.
        self.transport.unregisterProducer()
        boundUnsent(self.transport)
        self.answers = Answers(self.reactor, self.transport, self._holds, self._stalled)
        self._schedulePing()
        self.receiver.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._lost:
            return
        self._lost = True
        self.probe.close()
        if self.group is not None:
            self.group.discard(self)
        if self.pending is not None:
            self.pending.known()
        self._held = []
        for timer in (self._flushing, self._pinging, self._closing, self._resting):
            stopTimer(timer)
        self._flushing = self._pinging = self._closing = self._resting = None
        self._stopAnswers()
        self._connectionLost(reason)
        why = self._ownReason or self._peersReason
        if why is None and not self._closeSeen:
            why = TunnelError("reset", self._describe(reason))
        self.receiver.connectionLost(why, reason)

    def _describe(self, failure: Failure) -> str:
        if failure.check(ConnectionDone):
            return "the WebSocket ended without a close frame"
        return str(failure.getErrorMessage())

    def _onClose(self, wasClean: bool, code: object, reason: object) -> None:
        """L{connectionLost} knows better."""

    def _closeConnection(self, abort: bool = False) -> None:
        """
        Autobahn is done with the connection. It aborts where a close has the same
        effect and costs no bytes.
        """
        if not self._blind:
            self._stopAnswers()
            self.transport.loseConnection()
            self._startClosing(self._closeTime, self.abort)

    def _closeFrameSeen(self, code: int | None, text: str | None) -> None:
        if self._closeSeen or self._deaf:
            return
        self._closeSeen = True
        self._peersReason = reasonOfClose(code, text)
        if not self._lost:
            self._startClosing(self._closeTime, self.abort)
        self.receiver.closeReceived(self._peersReason)

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool:
        """The peer's close frame came; what we hold was sent before it."""
        self.flush()
        stop = bool(super().onCloseFrame(code, reasonRaw))
        self._closeFrameSeen(self.remoteCloseCode, self.remoteCloseReason)
        return stop

    # Liveness

    def stayQuiet(self, seconds: float) -> None:
        """Send no pings for a while, and expect none."""
        self._quietUntil = self.reactor.seconds() + seconds

    def _schedulePing(self) -> None:
        if self.pingInterval > 0:
            self._pinging = self.reactor.callLater(self.pingInterval, self._ping)

    def _ping(self) -> None:
        self._pinging = None
        now = self.reactor.seconds()
        if now < self._quietUntil:
            self._heard = now
            self._schedulePing()
            return
        silence = now - self._heard
        if not self._holds and silence >= SILENCE * self.pingInterval:
            self._ownReason = TunnelError(
                "session-lost", f"nothing was received for {silence:.0f} s"
            )
            self.abort()
            return
        if self.canSend:
            self.sendPing()
        self._schedulePing()
