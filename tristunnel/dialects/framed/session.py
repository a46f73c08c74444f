"""
What both roles of the framed protocol share once the handshake is over: frames, the
control channel, and the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tristunnel.dataplane.answers import Answers
from tristunnel.dataplane.endings import EndAcknowledgements
from tristunnel.dataplane.stock import boundUnsent
from tristunnel.dialects.base.multiplexer import Limits, Multiplexer
from tristunnel.dialects.base.unauthenticated import HANDSHAKE_TIMEOUT
from tristunnel.dialects.framed.control import ControlChannel
from tristunnel.dialects.framed.datagrams import DATAGRAMS, largestDatagram
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.introduction import IntroducedProtocol
from tristunnel.dialects.framed.liveness import Liveness
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.framed import (
    MAX_DATAGRAM,
    FrameDecoder,
    FrameType,
    decodeObject,
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


class FramedProtocol(IntroducedProtocol):
    """
    One connection that speaks the framed protocol, and carries frames once its
    handshake is over.

    @param limits: What this side accepts.
    @param dispatcher: Answers the peer's calls on the control channel.

    @ivar control: The calls of both sides.
    @ivar multiplexer: The streams, once the handshake is over.
    @ivar liveness: Whether the peer is still there; set with C{multiplexer}.
    @ivar extended: Whether the extension was negotiated.
    @ivar confirmations: What both sides tell each other of the ends of streams that
        have left the session; C{None}, if none can.
    """

    _log = Logger()
    # These are there once it is over.
    liveness: Liveness
    _decoder: FrameDecoder

    __slots__ = (
        "_answers",
        "_decoder",
        "_seconds",
        "_ticking",
        "confirmations",
        "control",
        "extended",
        "limits",
        "liveness",
        "multiplexer",
    )

    def __init__(
        self,
        reactor: IReactorTime,
        limits: Limits | None = None,
        dispatcher: Dispatcher | None = None,
        handshakeTimeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        super().__init__(reactor, handshakeTimeout)
        self.limits = limits or Limits()
        self.multiplexer: Multiplexer | None = None
        self.extended = False
        self.control = ControlChannel(reactor, self.caller, dispatcher)
        self._answers: Answers | None = None
        self._ticking: IDelayedCall | None = None
        # Looked up once: this is for each read.
        self._seconds = reactor.seconds
        self.confirmations: EndAcknowledgements | None = None

    # The connection

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the handshake, or frames."""
        multiplexer = self.multiplexer
        if multiplexer is None:
            super().dataReceived(data)
        elif not self._ended:
            liveness = self.liveness
            liveness.heard = self._seconds()
            if liveness.probe.open:
                liveness.probe.heard()
            try:
                multiplexer.framesArrived(self._decoder.feed(data))
            except TunnelError as error:
                self.fail(error)

    def resumeReading(self) -> None:
        """Read again, if it is known what the frames are for."""
        if self.multiplexer is not None and not self._ended:
            self.transport.resumeProducing()

    def establish(self, multiplexer: Multiplexer) -> None:
        """The handshake is over: let streams pass."""
        rest = self.taken()
        self.multiplexer = multiplexer
        self._decoder = FrameDecoder()
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
        """End the session because of C{reason}, and tell the peer."""
        if self.lost is None:
            self.lost = reason
        self.goAway(reason)
        self.close()

    def _stalled(self, reason: TunnelError) -> None:
        """The peer takes nothing, so that it could be told nothing."""
        if self.lost is None:
            self.lost = reason
        self.transport.abortConnection()

    def stopProducer(self) -> None:
        if self._answers is None:
            super().stopProducer()
        else:
            self._answers.stop()

    def letGo(self, reason: TunnelError) -> None:
        stopTimer(self._ticking)
        self._ticking = None
        if self.multiplexer is not None:
            self.liveness.probe.close()
            self.multiplexer.close(reason)
        self.control.close(reason)
        if self.confirmations is not None:
            self.confirmations.down(self._sendEnding)
