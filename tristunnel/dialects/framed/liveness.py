"""
Whether the peer of a connection is still there, and how far away it is.

Each side pings the other one. Whatever comes is a sign of life; the answer to a ping
also says how long the way takes. The frames are specified in C{docs/protocol.rst}.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime

from tristunnel.dataplane.answers import Answers
from tristunnel.dataplane.probe import Probe
from tristunnel.dialects.base.multiplexer import Multiplexer
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import FrameType, decodeCredit, encodeCredit
from tristunnel.wire.windows import roundTripAfter

__all__ = ["DEADLINE", "PING_INTERVAL", "Liveness"]

PING_INTERVAL = 20.0
"""Seconds between pings: less than half of the 60 that proxies allow."""

DEADLINE = 45.0
"""Seconds of silence after which an extended peer is taken for dead."""


class Liveness:
    """
    The pings of one connection, from its handshake on.

    @param reactor: Tells time.
    @param multiplexer: Sends the frames, and needs to know the round trip.
    @param answers: Whether the peer takes answers.
    @param measured: Told of each round trip, in seconds.

    @ivar heard: When something was received last, in seconds of the reactor's clock.
        Whoever reads sets it: that is for each read.
    @ivar pinged: When a ping was sent last.
    @ivar awaited: What the answer to that ping says, until it has come.
    @ivar probe: Asks the peer for a sign of life on request.
    """

    __slots__ = (
        "_answers",
        "_measured",
        "_multiplexer",
        "_quietUntil",
        "_reactor",
        "awaited",
        "heard",
        "pinged",
        "probe",
    )

    def __init__(
        self,
        reactor: IReactorTime,
        multiplexer: Multiplexer,
        answers: Answers,
        measured: Callable[[float], None],
    ) -> None:
        self.heard = self.pinged = reactor.seconds()
        self.awaited: int | None = None
        self.probe = Probe(reactor, self.ping)
        self._reactor = reactor
        self._multiplexer = multiplexer
        self._answers = answers
        self._measured = measured
        self._quietUntil = float("-inf")

    def ping(self) -> int:
        """
        Ask for a sign of life, and measure the round trip.

        @return: What the answer will say.
        """
        token = self.awaited = secrets.randbits(64)
        self.pinged = self._reactor.seconds()
        self._multiplexer.sendFrame(0, FrameType.PING, encodeCredit(token))
        return token

    def pingArrived(self, payload: bytes) -> None:
        """
        Answer a ping.

        @raise TunnelError: C{protocol-error}, if it makes no sense.
        """
        decodeCredit(payload)
        send = self._multiplexer.sendFrame
        self._answers.latest(partial(send, 0, FrameType.PONG, payload))

    def pongArrived(self, payload: bytes) -> None:
        """
        Take the measure of the round trip.

        @raise TunnelError: C{protocol-error}, if the answer makes no sense.
        """
        multiplexer = self._multiplexer
        if decodeCredit(payload) != self.awaited or not isinstance(
            multiplexer, ExtendedMultiplexer
        ):
            return
        self.awaited = None
        before = multiplexer.roundTrip
        taken = self._reactor.seconds() - self.pinged
        multiplexer.roundTrip = roundTripAfter(before, taken)
        self._measured(taken)
        if taken and not before:
            # Its sender was busy with the session's beginning.
            self.ping()

    def stayQuiet(self, seconds: float) -> None:
        """Send no pings for a while, and expect none."""
        self._quietUntil = self._reactor.seconds() + seconds

    def check(self) -> None:
        """
        Send a ping, if it is time for one.

        @raise TunnelError: C{session-lost}, if the peer has been silent for too long.
        """
        now = self._reactor.seconds()
        if now < self._quietUntil:
            self.heard = now
        elif now - self.heard > DEADLINE:
            raise TunnelError(
                "session-lost", f"nothing was received for {DEADLINE:g} s"
            )
        elif now - self.pinged >= PING_INTERVAL:
            self.ping()
