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

from tristunnel.dataplane.connection_end import EARLY, SENDING
from tristunnel.dataplane.join import ANSWER_LINGER, EndPatience
from tristunnel.dataplane.memory import HELD
from tristunnel.errors import TunnelError
from tristunnel.websocket.codes import UNSUPPORTED
from tristunnel.websocket.connection import Connection

if TYPE_CHECKING:
    from tristunnel.interfaces import Closed, End

__all__ = ["RELAY_SUBPROTOCOL", "WebSocketEnd"]

RELAY_SUBPROTOCOL = "tristunnel.relay.1"
"""Raw bytes, before which an empty message tells that the other end is there."""

EMPTIES = 8
"""Empty messages in a row that are a plain peer's end of file."""


@implementer(IPushProducer)
class WebSocketEnd:
    """
    The L{End<tristunnel.interfaces.End>} of a raw WebSocket.

    A WebSocket cannot be closed in one direction. So the end of what we send
    closes it, and what the peer had sent before it learned of that still
    passes; a peer that closes takes no more either. One that sends empty
    messages only has nothing more to say, but may listen.

    @param arrived: Called once with this end when bytes may pass.
    @param announces: Whether a peer that understands it is told, by an empty
        message, that it was joined to somebody.

    @ivar received: Bytes that came so far.
    @cvar memory: Counts what is held for peers that stand still.
    """

    memory = HELD

    def __init__(
        self,
        arrived: Callable[[WebSocketEnd], None] = lambda end: None,
        announces: bool = False,
    ) -> None:
        self.received = 0
        self._announces = announces
        self._arrived = arrived
        self._connection: Any = None
        self._peer: End | None = None
        self._closed: Closed | None = None
        self._early: list[bytes] = []
        self._eof = False
        self._finished = False
        self._over = False
        self._told = False
        self._readPaused = False
        self._discarded = 0
        self._empties = 0
        self._patience: EndPatience | None = None
        # Whether something was sent after the peer's last.
        self._answered = False
        self._waiting: IDelayedCall | None = None
        self._reason: TunnelError | None = None

    # Receiver

    def opened(self, connection: Connection) -> None:
        self._connection = connection
        self._arrived(self)

    def bytesReceived(self, data: bytes) -> None:
        if self._eof or self._over:
            return
        if not data:
            self._emptyReceived()
            return
        self._empties = 0
        self.received += len(data)
        if self._patience is not None:
            self._patience.heard(self._connection.reactor.seconds())
        if self._peer is not None:
            self._peer.write(data)
        else:
            self._early.append(data)
            self.memory.hold(self, len(data), self.shed)
            if self.received > EARLY:
                self._connection.pauseReading()

    def _emptyReceived(self) -> None:
        """
        Take it for the end of what comes, after some in a row: that is how
        tcp-ws-tunnel's adapters pass on what a closed socket reads, and they
        never stop. No more of it is read.
        """
        if self._connection.chosen == RELAY_SUBPROTOCOL:
            return
        self._empties += 1
        if self._empties == EMPTIES:
            self._eof = True
            self._connection.pauseReading()
            self._finishPeer()
            if self._peer is None or self._waiting is not None:
                self._closeNow()

    def textReceived(self, text: bytes) -> None:
        reason = TunnelError("protocol-error", "bytes go in binary messages here")
        self._connection.fail(reason, UNSUPPORTED)
        self._end(reason)

    def closeReceived(self, reason: TunnelError | None) -> None:
        if reason is not None:
            self._end(reason)
        elif not self._eof:
            self._eof = True
            self._finishPeer()

    def _finishPeer(self) -> None:
        """
        Tell the other end that no more comes from here; and that it may read
        on, for paused for ever it would never see its own end.
        """
        if self._peer is not None:
            self._peer.finish()
            self._peer.resumeReading()

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        self._end(reason)
        self._tellClosed()

    def _end(self, reason: TunnelError | None) -> None:
        self._stopWaiting()
        if self._over:
            return
        self._over = True
        self._reason = reason
        if self._peer is None:
            return
        if reason is not None:
            self._peer.reset(reason)
        elif not self._eof:
            self._eof = True
            self._finishPeer()

    def _tellClosed(self) -> None:
        self._told = True
        self.memory.letGo(self)
        if self._closed is not None:
            closed, self._closed = self._closed, None
            closed(self._reason)

    # End

    @property
    def ended(self) -> bool:
        return self._eof or self._over

    @property
    def over(self) -> bool:
        return self._over

    def whileWaiting(self, left: Closed) -> None:
        if self._peer is None:
            self._closed = left

    def join(self, peer: End, closed: Closed) -> None:
        self._peer = peer
        self._closed = closed
        early, self._early = self._early, []
        self.memory.letGo(self)
        if not self._over:
            self._patience = EndPatience(self._connection.reactor.seconds())
            if self._announces and self._connection.chosen == RELAY_SUBPROTOCOL:
                self._connection.sendEmpty()
            self._connection.registerProducer(self)
        for data in early:
            peer.write(data)
        if self._over and self._reason is not None:
            peer.reset(self._reason)
        elif self._eof or self._over:
            self._eof = True
            peer.finish()
        elif self.received > EARLY and not self._readPaused:
            self._connection.resumeReading()
        if self._told:
            self._tellClosed()

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        """
        Pass bytes to what stands for the peer from now on.

        @return: The peer until now, and whether it has this end paused.
        """
        before, self._peer = self._peer, peer
        return before, self._readPaused

    def write(self, data: bytes) -> None:
        """
        Send bytes. A peer that has closed takes none; its own last bytes may
        still be on their way, so the other end is broken only if it goes on
        and on.
        """
        if not self._over and self._connection.canSend:
            if self._patience is not None:
                self._patience.asked(self._connection.reactor.seconds())
            # To close with unread bytes could take these with it.
            self._answered = self._empties >= EMPTIES
            self._connection.sendBytes(data)
            return
        self._discarded += len(data)
        if self._discarded > EARLY and self._peer is not None:
            self._peer.reset(TunnelError("reset", "the far side has left"))

    def finish(self) -> None:
        if self._over or self._finished:
            return
        if self._eof or self._patience is None or not self._awaitsAnswer:
            self._closeNow()
        else:
            self._patience.ended(self._connection.reactor.seconds())
            self._wait(self._patience)

    @property
    def listens(self) -> bool:
        """Whether the peer has said its last and may still take an answer."""
        return self._empties >= EMPTIES and not self._over

    @property
    def _awaitsAnswer(self) -> bool:
        """
        Whether the peer's answer is waited for before the end of what we send, since
        that ends both directions.
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
        Close if the peer was silent for long enough; unless it was we who did not
        listen, because the other end holds enough.
        """
        reactor = self._connection.reactor
        left = patience.left(reactor.seconds())
        if self._readPaused:
            left = max(left, ANSWER_LINGER)
        if left <= 0:
            self._closeNow()
        else:
            self._waiting = reactor.callLater(left, self._wait, patience)

    def _stopWaiting(self) -> None:
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()
        self._waiting = None

    def reset(self, reason: TunnelError) -> None:
        self._stopWaiting()
        if not self._over:
            self._over = True
            self._reason = reason
            self._connection.fail(reason)

    def shed(self, reason: TunnelError) -> None:
        """Be broken, and the peer with it: too much is held for this end."""
        peer = self._peer
        self.reset(reason)
        if peer is not None:
            peer.reset(reason)

    def pauseReading(self) -> None:
        self._readPaused = True
        if not (self._over or self._eof):
            self._connection.pauseReading()

    def resumeReading(self) -> None:
        if self._readPaused and self._patience is not None:
            # What the peer said meanwhile is only read from now on.
            self._patience.heardAt = self._connection.reactor.seconds()
        self._readPaused = False
        if not (self._over or self._eof):
            self._connection.resumeReading()

    # IPushProducer, for the connection

    def pauseProducing(self) -> None:
        if self._peer is not None:
            self._peer.pauseReading()
        if not self._over:
            self.memory.hold(self, SENDING, self.shed)

    def resumeProducing(self) -> None:
        self.memory.release(self, SENDING)
        if self._peer is not None:
            self._peer.resumeReading()

    def stopProducing(self) -> None:
        """The connection is gone; L{connectionLost} tells the peer."""
