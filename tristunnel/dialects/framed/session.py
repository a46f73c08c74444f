"""
What both roles of the framed protocol share: the handshake's beginning, the
control channel, liveness and the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.answers import Answers
from tristunnel.dataplane.endings import EndAcknowledgements
from tristunnel.dataplane.stock import boundUnsent, tuneSocket
from tristunnel.dialects.base.messages import EndsOnce
from tristunnel.dialects.base.multiplexer import Limits, Multiplexer
from tristunnel.dialects.base.unauthenticated import HANDSHAKE_TIMEOUT
from tristunnel.dialects.framed.control import ControlChannel
from tristunnel.dialects.framed.datagrams import DATAGRAMS, largestDatagram
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.liveness import Liveness
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.framed import (
    MAX_DATAGRAM,
    FrameDecoder,
    FrameType,
    HandshakeDecoder,
    decodeObject,
    encodeHandshake,
    encodeObject,
)

if TYPE_CHECKING:
    from tristunnel.dialects.base.stream import SessionStream

__all__ = [
    "EXTENSION",
    "HANDSHAKE_TIMEOUT",
    "MOST_QUIET",
    "QUIET",
    "STANDBY",
    "TICK",
    "VERSION",
    "FramedProtocol",
    "extensionOffer",
    "quietTime",
]

EXTENSION = "tristunnel"
"""The key of the handshake's JSON under which the extension is negotiated."""

VERSION = 1
"""The version of the extension that this program speaks."""

TICK = 5.0
"""Seconds between two looks at the deadlines."""

QUIET = "quiet"
"""The handshake's key for how long neither side shall send pings: what a client
asks for, and what a server grants."""

STANDBY = "standby"
"""The handshake's key of a session that takes over when the client loses another one:
a client asks for one by it, and the server says by it that it is one."""

MOST_QUIET = 900.0
"""Seconds of that, at the most."""


def extensionOffer(limits: Limits) -> dict[str, object]:
    """What either side says of itself in the handshake."""
    return {
        "streamWindow": limits.streamWindow,
        "sessionWindow": limits.sessionWindow,
        DATAGRAMS: MAX_DATAGRAM,
    }


def quietTime(offer: Mapping[str, object]) -> float:
    """
    Read for how long the peer wants to hear no pings.

    @return: Seconds, 0 if it said nothing of it.
    """
    value = offer.get(QUIET)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    return float(min(value, MOST_QUIET)) if 0 < value <= 1e6 else 0.0


def _credit(offer: dict[str, object], key: str) -> int:
    """
    Read a window size from the peer's handshake.

    @raise TunnelError: C{protocol-error}.
    """
    value = offer.get(key)
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise TunnelError("protocol-error", f"the handshake's {key} is not a size")
    return value


class FramedProtocol(EndsOnce, ABC, Protocol):
    """
    One connection that speaks the framed protocol.

    @param reactor: Tells time.
    @param limits: What this side accepts.
    @param dispatcher: Answers the peer's calls on the control channel.

    @ivar control: The calls of both sides.
    @ivar multiplexer: The streams, once the handshake is over.
    @ivar liveness: Whether the peer is still there; set with C{multiplexer}.
    @ivar extended: Whether the extension was negotiated.
    @ivar lost: Why the session is over, or C{None}.
    @ivar peerAddress: Where the peer is.
    @ivar confirmations: What both sides tell each other of the ends of streams that
        have left the session; C{None}, if none can.
    """

    _log = Logger()
    transport: Any = None
    liveness: Liveness

    __slots__ = (
        "_answers",
        "_deadline",
        "_decoder",
        "_ended",
        "_handshake",
        "_introduced",
        "_rest",
        "_seconds",
        "_ticking",
        "confirmations",
        "control",
        "extended",
        "handshakeTimeout",
        "limits",
        "liveness",
        "lost",
        "multiplexer",
        "peerAddress",
        "reactor",
    )

    def __init__(
        self,
        reactor: IReactorTime,
        limits: Limits | None = None,
        dispatcher: Dispatcher | None = None,
        handshakeTimeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self.reactor = reactor
        self.limits = limits or Limits()
        self.multiplexer: Multiplexer | None = None
        self.extended = False
        self.lost: TunnelError | None = None
        self.handshakeTimeout = handshakeTimeout
        self.control = ControlChannel(reactor, self.caller, dispatcher)
        self._answers: Answers | None = None
        self._handshake = HandshakeDecoder()
        self._decoder = FrameDecoder()
        self._introduced = False
        self._rest = b""
        self._deadline: IDelayedCall | None = None
        self._ticking: IDelayedCall | None = None
        # Looked up once: this is for each read.
        self._seconds = reactor.seconds
        self._ended = False
        self.confirmations: EndAcknowledgements | None = None

    # The connection

    def connectionMade(self) -> None:
        tuneSocket(self.transport)
        self.peerAddress = self.transport.getPeer()
        self._deadline = self.reactor.callLater(
            self.handshakeTimeout, self._handshakeLate
        )

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the handshake, or frames."""
        if self._ended:
            return
        try:
            if self.multiplexer is not None:
                liveness = self.liveness
                liveness.heard = self._seconds()
                if liveness.probe.open:
                    liveness.probe.heard()
                self.multiplexer.framesArrived(self._decoder.feed(data))
            elif self._introduced:
                # Frames behind the handshake, before it was answered. The
                # transport is paused, so this is one read at the most.
                self._rest += data
            else:
                self._handshakeBytes(data)
        except TunnelError as error:
            self.fail(error)

    def _handshakeBytes(self, data: bytes) -> None:
        """Take bytes until the first message is whole."""
        whole = self._handshake.feed(data)
        if whole is not None:
            message, self._rest = whole
            self._introduced = True
            # The true peer behind TLS or a PROXY header is known only now.
            self.peerAddress = self.transport.getPeer()
            self.handshakeReceived(message)

    def pauseReading(self) -> None:
        """Stop reading."""
        self.transport.pauseProducing()

    def resumeReading(self) -> None:
        """Read again, if it is known what the frames are for."""
        if self.multiplexer is not None and not self._ended:
            self.transport.resumeProducing()

    @abstractmethod
    def handshakeReceived(self, message: dict[str, object]) -> None:
        """The peer's first message is there."""

    def _handshakeLate(self) -> None:
        """The peer said too little for too long."""
        self._deadline = None
        self.fail(
            TunnelError(
                "handshake-timeout",
                f"no complete handshake within {self.handshakeTimeout:g} s",
            )
        )

    def _stopDeadline(self) -> None:
        """The peer is in time."""
        stopTimer(self._deadline)
        self._deadline = None

    def sendHandshake(self, message: dict[str, object]) -> None:
        """Send our first message."""
        self.transport.write(encodeHandshake(message))

    def establish(self, multiplexer: Multiplexer) -> None:
        """The handshake is over: let streams pass."""
        self._stopDeadline()
        self.multiplexer = multiplexer
        boundUnsent(self.transport)
        self._answers = multiplexer.answers = answers = Answers(
            self.reactor, self.transport, multiplexer.holds, self._stalled
        )
        answers.passTo(multiplexer)
        self.control.open(multiplexer, answers)
        self.liveness = Liveness(
            self.reactor, multiplexer, answers, self.roundTripMeasured
        )
        if isinstance(multiplexer, ExtendedMultiplexer):
            self.extended = True
            multiplexer.takeOther = self._takeOther
            self.liveness.ping()
        self._ticking = self.reactor.callLater(TICK, self._tick)
        rest, self._rest = self._rest, b""
        if rest:
            self.dataReceived(rest)

    def extendedMultiplexer(
        self,
        offer: dict[str, object],
        isServer: bool,
        opened: Callable[[SessionStream, dict[str, object]], None],
    ) -> ExtendedMultiplexer:
        """
        Make the streams of an extended session.

        @param offer: What the peer said under L{EXTENSION}.
        @raise TunnelError: C{protocol-error}.
        """
        multiplexer = ExtendedMultiplexer(
            self.transport,
            self.reactor.seconds,
            opened,
            self.limits,
            isServer,
            _credit(offer, "streamWindow"),
            _credit(offer, "sessionWindow"),
        )
        multiplexer.datagrams.largest = largestDatagram(offer)
        multiplexer.callLater = self.reactor.callLater
        return multiplexer

    def _takeOther(self, kind: int, payload: bytes) -> bool:
        """
        Take a frame that concerns no stream.

        @return: Whether its type is known.
        """
        if kind == FrameType.CONTROL:
            self.control.arrived(payload)
        elif kind == FrameType.PING:
            self.liveness.pingArrived(payload)
        elif kind == FrameType.PONG:
            self.pongArrived(payload)
        elif kind == FrameType.GOAWAY:
            self._goaway(payload)
        elif kind == FrameType.ENDING and self.confirmations is not None:
            self.confirmations.arrived(payload)
        else:
            return False
        return True

    # Streams that have left the session

    def confirmEnds(self) -> None:
        """Exchange reports of their ends from now on, if any may leave."""
        if self.confirmations is not None:
            self.confirmations.up(self._sendEnding)

    def _sendEnding(self, payload: bytes) -> None:
        if self.multiplexer is not None:
            self.multiplexer.sendFrame(0, FrameType.ENDING, payload)

    # The control channel

    def call(self, method: str, **params: object) -> Deferred[object]:
        """Call a method of the peer, see L{ControlChannel.call}."""
        return self.control.call(method, params)

    def notify(self, method: str, **params: object) -> None:
        """Tell the peer something, without an answer."""
        self.control.notify(method, params)

    def caller(self) -> object:
        """As whom the peer calls our methods."""
        return self

    # Liveness

    def _tick(self) -> None:
        self._ticking = self.reactor.callLater(TICK, self._tick)
        if self.multiplexer is None:
            return
        self.multiplexer.tick()
        if self.extended:
            try:
                self.liveness.check()
            except TunnelError as silence:
                self.fail(silence)

    def stayQuiet(self, seconds: float) -> None:
        """
        Send no pings for a while, and expect none: so that a client can find out
        how long a connection may be silent on its way.
        """
        self.liveness.stayQuiet(seconds)
        below = getattr(self.transport, "stayQuiet", None)
        if below is not None:
            below(seconds)

    def probe(self) -> Deferred[bool]:
        """
        Find out whether the peer still answers; one that speaks plain W3P cannot be
        asked.
        """
        return self.liveness.probe() if self.extended else succeed(not self._ended)

    def pongArrived(self, payload: bytes) -> None:
        """The peer answers a ping."""
        self.liveness.pongArrived(payload)

    def roundTripMeasured(self, seconds: float) -> None:
        """A ping was answered."""

    # The end

    def goAway(self, reason: TunnelError) -> None:
        """Tell an extended peer that no new streams come, and why."""
        if self.extended and self.multiplexer is not None:
            self.multiplexer.sendFrame(
                0, FrameType.GOAWAY, encodeObject(reason.asDict())
            )

    def _goaway(self, payload: bytes) -> None:
        self.peerLeaves(TunnelError.fromDict(decodeObject(payload), "shutting-down"))

    def peerLeaves(self, reason: TunnelError) -> None:
        """The peer sends no new streams and leaves when the last has ended."""

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """
        End the session because of C{reason}.

        @param code: A WebSocket's close code, of which there is none here.
        """
        if self.lost is None:
            self.lost = reason
        self.goAway(reason)
        self.close()

    def _stalled(self, reason: TunnelError) -> None:
        """The peer takes nothing, so that it could be told nothing."""
        if self.lost is None:
            self.lost = reason
        self.transport.abortConnection()

    def close(self) -> None:
        """
        Close the connection after what is written; a peer that does not take
        it in time is cut off.
        """
        if self._ended or self.transport is None:
            return
        if self._answers is None:
            self.transport.unregisterProducer()
        else:
            self._answers.stop()
        # While reading is paused, TLS would not see the peer's goodbye.
        self.transport.resumeProducing()
        self.transport.loseConnection()
        self.end(self.lost or TunnelError("session-lost", "the session was closed"))
        self._deadline = self.reactor.callLater(
            self.handshakeTimeout, self.transport.abortConnection
        )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stopDeadline()
        if self.lost is None:
            self.lost = self.whyLost(reason)
        self.end(self.lost)

    def whyLost(self, reason: Failure) -> TunnelError:
        """Say in one line how the connection ended."""
        return TunnelError("session-lost", str(reason.getErrorMessage()))

    def end(self, reason: TunnelError) -> None:
        """Let go of everything, once."""
        if self._ended:
            return
        self._ended = True
        self.lost = reason
        self._stopDeadline()
        stopTimer(self._ticking)
        self._ticking = None
        if self.multiplexer is not None:
            self.liveness.probe.close()
            self.multiplexer.close(reason)
        self.control.close(reason)
        if self.confirmations is not None:
            self.confirmations.down(self._sendEnding)
        self.sessionOver(reason)
