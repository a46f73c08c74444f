"""
A stream's end that is a WebSocket of its own: its binary messages are the
bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.connection_end import EARLY, ConnectionEnd
from tristunnel.dataplane.following import FULL
from tristunnel.dataplane.join import ANSWER_LINGER, EndPatience
from tristunnel.errors import TunnelError
from tristunnel.util.repeating import stopTimer
from tristunnel.websocket.codes import UNSUPPORTED
from tristunnel.websocket.connection import Connection

if TYPE_CHECKING:
    from tristunnel.interfaces import Closed, End

__all__ = ["RELAY_SUBPROTOCOL", "WebSocketEnd"]

RELAY_SUBPROTOCOL = "tristunnel.relay.1"
"""Raw bytes; an empty message before them tells that the other end is there."""

EMPTIES = 8
"""The number of empty messages in a row that count as a plain peer's end of file."""


@implementer(IPushProducer)
class WebSocketEnd(ConnectionEnd):
    """
    The L{End<tristunnel.interfaces.End>} of a raw WebSocket.

    A WebSocket cannot be closed in one direction. So the end of what we send closes it,
    and what the peer sent before it noticed still passes; and a peer that closes takes
    no more either. One that sends only empty messages has nothing more to send, but may
    still listen.

    @param arrived: Called once, with this end, when bytes may pass.
    @param announces: Whether a peer that understands it is told, by an empty message,
        that it was joined to another end.
    """

    guessable = False

    def __init__(
        self,
        arrived: Callable[[WebSocketEnd], None] = lambda end: None,
        announces: bool = False,
    ) -> None:
        self._prepare(None, arrived)
        self._announces = announces
        self._connection: Any = None
        self._discarded = 0
        self._empties = 0
        self._patience: EndPatience | None = None
        # Whether anything was sent after the peer's last bytes.
        self._answered = False
        self._waiting: IDelayedCall | None = None

    # Receiver

    def opened(self, connection: Connection) -> None:
        self._connection = connection
        self._reactor = connection.reactor
        self._arrived(self)

    def bytesReceived(self, data: bytes) -> None:
        if self._eof or self._over:
            return
        if not data:
            self._emptyReceived()
            return
        self._empties = 0
        if self._patience is not None:
            self._patience.heard(self._reactor.seconds())
        self._bytesCame(data)

    def _emptyReceived(self) -> None:
        """
        Take it for the end of what comes, after some in a row: that is how
        tcp-ws-tunnel's adapters pass on what a closed socket reads, and they
        never stop. No more of it is read. Nobody is joined to one that has said
        nothing at all.
        """
        if self._connection.chosen == RELAY_SUBPROTOCOL:
            return
        self._empties += 1
        if self._empties == EMPTIES:
            self._connection.pauseReading()
            self._noMoreComes()
            silent = self._peer is None and not self._early
            if silent or self._waiting is not None:
                self._closeNow()

    def textReceived(self, text: bytes) -> None:
        reason = TunnelError("protocol-error", "binary messages are required here")
        self._connection.fail(reason, UNSUPPORTED)
        self._goneBecause(reason)

    def closeReceived(self, reason: TunnelError | None) -> None:
        if reason is not None:
            self._goneBecause(reason)
        else:
            self._noMorePasses()

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        if reason is None:
            self._noMorePasses()
        self._goneBecause(reason)

    def _noMorePasses(self) -> None:
        """
        The far side neither sends nor takes any more. Let the other end read on: if it
        stayed paused, it would never see its own end.
        """
        if not self._over:
            self._noMoreComes()
            self._emptied()

    # End

    def join(self, peer: End, closed: Closed) -> None:
        if not self._over:
            self._patience = EndPatience(self._reactor.seconds())
            if self._announces and self._connection.chosen == RELAY_SUBPROTOCOL:
                self._connection.sendEmpty()
        super().join(peer, closed)
        if not self._over:
            self._connection.registerProducer(self)

    def write(self, data: bytes) -> None:
        """
        Send bytes. A peer that has closed takes none; its own last bytes may
        still be on their way, so the other end is broken only if it goes on
        and on.
        """
        if not self._over and self._connection.canSend:
            self._transmit(data)
            return
        self._discarded += len(data)
        if self._discarded > EARLY and self._peer is not None:
            self._peer.reset(TunnelError("reset", "the other side has left"))

    @property
    def listens(self) -> bool:
        """Whether the peer has sent its last bytes and may still take an answer."""
        return self._empties >= EMPTIES and not self._over

    def resumeReading(self) -> None:
        if self._held & self.PEER and self._patience is not None:
            # What the peer sent meanwhile is only read from now on.
            self._patience.heardAt = self._reactor.seconds()
        super().resumeReading()

    # ConnectionEnd

    def _stopReading(self) -> None:
        self._connection.pauseReading()

    def _goOnReading(self) -> None:
        self._connection.resumeReading()

    def _transmit(self, data: bytes) -> None:
        if self._patience is not None:
            self._patience.asked(self._reactor.seconds())
        # To close with unread bytes could take these with it.
        self._answered = self._empties >= EMPTIES
        self._connection.sendBytes(data)

    def _endTransmission(self) -> None:
        if self._eof or self._patience is None or not self._awaitsAnswer:
            self._closeNow()
        else:
            self._patience.ended(self._reactor.seconds())
            self._wait(self._patience)

    def _cutOff(self) -> None:
        self._connection.fail(self._reason)

    @property
    def _awaitsAnswer(self) -> bool:
        """
        Whether to wait for the peer's answer before ending what we send, since that
        ends both directions.
        """
        return bool(getattr(self._peer, "listens", False))

    def _closeNow(self) -> None:
        self._stopWaiting()
        self._finished = True
        if self._empties >= EMPTIES and not self._answered:
            self._connection.leave()
        else:
            self._connection.close()

    def _wait(self, patience: EndPatience) -> None:
        """
        Close if the peer was silent for long enough, unless it was we who did not read
        because the other end is full.
        """
        left = patience.left(self._reactor.seconds())
        if self._held:
            left = max(left, ANSWER_LINGER)
        if left <= 0:
            self._closeNow()
        else:
            self._waiting = self._reactor.callLater(left, self._wait, patience)

    def _stopWaiting(self) -> None:
        stopTimer(self._waiting)
        self._waiting = None

    def _stopTimers(self) -> None:
        super()._stopTimers()
        self._stopWaiting()

    # IPushProducer, for the connection

    def pauseProducing(self) -> None:
        self._fills(FULL)

    def resumeProducing(self) -> None:
        self._emptied()

    def stopProducing(self) -> None:
        """The connection is gone; L{connectionLost} tells the peer."""
