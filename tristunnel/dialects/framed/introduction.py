"""
How a connection of the framed protocol begins and ends: each side says first, in one
message, who it is and what it wants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tristunnel.dataplane.stock import tuneSocket
from tristunnel.dialects.base.messages import EndsOnce
from tristunnel.dialects.base.unauthenticated import HANDSHAKE_TIMEOUT
from tristunnel.errors import TunnelError
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.framed import HandshakeDecoder, encodeHandshake

__all__ = ["IntroducedProtocol"]


class IntroducedProtocol(EndsOnce, ABC, Protocol):
    """
    A connection on which both sides introduce themselves::

        =========== ================================================================
        state
        =========== ================================================================
        coming      bytes belong to the peer's message
        introduced  the message was whole; what has come behind it is kept until
                    somebody takes the connection from here; for both there are
                    handshakeTimeout seconds
        over        lost says why; a peer that does not take what was written has
                    handshakeTimeout seconds for that
        =========== ================================================================

    @param reactor: Tells time.
    @param handshakeTimeout: Seconds that a peer has.

    @ivar lost: Why the connection is over, or is about to be, or C{None}.
    @ivar peerAddress: Where the peer is.
    """

    transport: Any = None

    __slots__ = (
        "_deadline",
        "_ended",
        "_handshake",
        "_introduced",
        "_rest",
        "handshakeTimeout",
        "lost",
        "peerAddress",
        "reactor",
    )

    def __init__(
        self, reactor: IReactorTime, handshakeTimeout: float = HANDSHAKE_TIMEOUT
    ) -> None:
        self.reactor = reactor
        self.handshakeTimeout = handshakeTimeout
        self.lost: TunnelError | None = None
        self._handshake = HandshakeDecoder()
        self._introduced = False
        self._rest = b""
        self._deadline: IDelayedCall | None = None
        self._ended = False

    # The beginning

    def connectionMade(self) -> None:
        tuneSocket(self.transport)
        self.peerAddress = self.transport.getPeer()
        self._deadline = self.reactor.callLater(
            self.handshakeTimeout, self._handshakeLate
        )

    def dataReceived(self, data: bytes) -> None:
        """Take bytes until the first message is whole."""
        if self._ended:
            return
        if self._introduced:
            # Behind the handshake, before it was answered. The transport is
            # paused, so this is one read at the most.
            self._rest += data
            return
        try:
            whole = self._handshake.feed(data)
            if whole is not None:
                message, self._rest = whole
                self._introduced = True
                # The true peer behind TLS or a PROXY header is known only now.
                self.peerAddress = self.transport.getPeer()
                self.handshakeReceived(message)
        except TunnelError as error:
            self.fail(error)

    @abstractmethod
    def handshakeReceived(self, message: dict[str, object]) -> None:
        """
        The peer's first message is there.

        @raise TunnelError: If it makes no sense; the connection fails.
        """

    def _handshakeLate(self) -> None:
        """The peer said too little for too long."""
        self._deadline = None
        self.fail(
            TunnelError(
                "handshake-timeout",
                f"no complete handshake within {self.handshakeTimeout:g} s",
            )
        )

    def taken(self) -> bytes:
        """
        Take the connection from here: the peer was in time.

        @return: What came behind its message.
        """
        # In place: this is for each connection that a stream gets.
        stopTimer(self._deadline)
        self._deadline = None
        rest, self._rest = self._rest, b""
        return rest

    def _stopDeadline(self) -> None:
        stopTimer(self._deadline)
        self._deadline = None

    def sendHandshake(self, message: dict[str, object]) -> None:
        """Send our first message."""
        self.transport.write(encodeHandshake(message))

    def pauseReading(self) -> None:
        """Stop reading."""
        self.transport.pauseProducing()

    # The end

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """
        End because of C{reason}.

        @param code: A WebSocket's close code, of which there is none here.
        """
        if self.lost is None:
            self.lost = reason
        self.close()

    def close(self) -> None:
        """
        Close the connection after what is written; a peer that does not take
        it in time is cut off.
        """
        if self._ended or self.transport is None:
            return
        self.stopProducer()
        # While reading is paused, TLS would not see the peer's goodbye.
        self.transport.resumeProducing()
        self.transport.loseConnection()
        self.end(self.lost or TunnelError("session-lost", "the session was closed"))
        self._deadline = self.reactor.callLater(
            self.handshakeTimeout, self.transport.abortConnection
        )

    def stopProducer(self) -> None:
        """See to it that the transport waits for no producer when it closes."""
        self.transport.unregisterProducer()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stopDeadline()
        if self.lost is None:
            self.lost = self.whyLost(reason)
        self.end(self.lost)

    def whyLost(self, reason: Failure) -> TunnelError:
        """Say in one line how the connection ended."""
        return TunnelError("session-lost", str(reason.getErrorMessage()))

    def end(self, reason: TunnelError) -> None:
        if self._ended:
            return
        self._ended = True
        self.lost = reason
        self._stopDeadline()
        self.letGo(reason)
        self.sessionOver(reason)

    def letGo(self, reason: TunnelError) -> None:
        """Give up what the connection carries."""
