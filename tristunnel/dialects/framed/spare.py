"""
Connections dialled ahead, which wait for a visitor.

While it waits, a spare connection speaks in frames: pings, and at last the
server's C{open} and the client's C{opened}. What follows these is raw. It is
specified in C{docs/protocol-direct.rst}.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tristunnel.dataplane.answers import Answers, Holds
from tristunnel.dataplane.closing import WriteDeadline
from tristunnel.dataplane.endings import DirectEnd, StreamEnd
from tristunnel.dataplane.kernel import handOver
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import (
    FrameType,
    decodeCredit,
    decodeObject,
    encodeCredit,
    encodeFrame,
    encodeObject,
)

__all__ = ["OPENED_FRAME", "ClientSpare", "ServerSpare", "SpareConnection"]

MAX_FRAME = 64 * 1024
"""Longest frame on a spare connection, in bytes."""

OPENED_FRAME = encodeFrame(0, FrameType.OPENED, encodeCredit(0))
"""What the client answers; raw bytes follow."""

CLOSE_TIMEOUT = 10.0
"""Seconds that a refusing client gets to answer our close over TLS."""

_HEADER = Struct("!IIB")
_PING = encodeFrame(0, FrameType.PING, encodeCredit(0))


class SpareConnection(Protocol):
    """
    Either side of a connection that waits.

    @param reactor: Tells time.
    @param lost: Called when it is gone, unless it became a stream.

    @ivar lastHeard: When something came, in seconds.
    """

    transport: Any

    def __init__(
        self, reactor: IReactorTime, lost: Callable[[SpareConnection], None]
    ) -> None:
        self.lastHeard = reactor.seconds()
        self._reactor = reactor
        self._lost = lost
        self._buffer = b""
        self._over = False
        self._closing: WriteDeadline | None = None
        self._answers: Answers | None = None

    def connectionMade(self) -> None:
        """
        Begin to wait.
        """
        transport = self.transport
        holds = Holds(transport.pauseProducing, transport.resumeProducing)
        self._answers = Answers(self._reactor, transport, holds, self._stalled)

    def _stalled(self, reason: TunnelError) -> None:
        """
        The peer takes nothing.
        """
        self.transport.abortConnection()

    def _stopAnswers(self) -> None:
        """
        Answer no more: what is written from now on is somebody else's.
        """
        if self._answers is not None:
            self._answers.stop()

    def takeOver(self, transport: Any, rest: bytes) -> bool:
        """
        Speak on a connection from now on.

        @return: Whether that can be done with this kind of transport.
        """
        if not handOver(transport, self):
            return False
        self.makeConnection(transport)
        if rest:
            self.dataReceived(rest)
        return True

    def whenLost(self, lost: Callable[[SpareConnection], None]) -> None:
        """
        Have somebody else told when it is gone.
        """
        self._lost = lost

    def ping(self) -> None:
        """
        Ask for a sign of life.
        """
        self.transport.write(_PING)

    def dataReceived(self, data: bytes) -> None:
        """
        Take frames, until one says that the rest is raw.
        """
        self.lastHeard = self._reactor.seconds()
        self._buffer += data
        # Where the next frame begins: to cut each off would copy the rest of
        # them a thousand times.
        at = 0
        try:
            while not self._over and len(self._buffer) >= at + _HEADER.size:
                length, _, kind = _HEADER.unpack_from(self._buffer, at)
                if not 5 <= length <= MAX_FRAME:
                    raise TunnelError("protocol-error")
                end = at + length + 4
                if len(self._buffer) < end:
                    break
                payload, at = self._buffer[at + _HEADER.size : end], end
                if kind == FrameType.PING:
                    self.pinged(payload)
                else:
                    self._buffer, at = self._buffer[at:], 0
                    self.frameReceived(kind, payload)
        except TunnelError:
            self.transport.abortConnection()
            at = len(self._buffer)
        self._buffer = self._buffer[at:]

    def pinged(self, payload: bytes) -> None:
        """
        Give a sign of life.

        @raise TunnelError: C{protocol-error}, if the ping is none.
        """
        pong = encodeFrame(0, FrameType.PONG, encodeCredit(decodeCredit(payload)))
        if self._answers is not None:
            self._answers.latest(lambda: self.transport.write(pong))

    def frameReceived(self, kind: int, payload: bytes) -> None:
        """
        A frame came that is no ping.
        """

    def becomeStream(self, ending: StreamEnd | None = None) -> DirectEnd:
        """
        Hand the connection to an end, with what came behind the last frame.

        @param ending: What is told of the stream's ends.
        """
        self._over = True
        self._stopAnswers()
        end = DirectEnd(self._reactor, lambda end: None, ending)
        handOver(self.transport, end)
        end.takeOver(self.transport)
        rest, self._buffer = self._buffer, b""
        if rest:
            end.dataReceived(rest)
        return end

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection is gone.
        """
        self._stopAnswers()
        if self._closing is not None:
            self._closing.cancel()
        if not self._over:
            self._over = True
            self._lost(self)


class ServerSpare(SpareConnection):
    """
    The server's side.

    @ivar opened: Called with the end when the client has reached the service,
        or with the reason of its refusal.
    @ivar since: When it was asked to, in seconds.
    """

    def __init__(
        self, reactor: IReactorTime, lost: Callable[[SpareConnection], None]
    ) -> None:
        super().__init__(reactor, lost)
        self.opened: Callable[[SocketEnd | TunnelError], None] | None = None
        self.since = 0.0
        self._ending: StreamEnd | None = None

    def open(
        self,
        info: dict[str, object],
        opened: Callable[[SocketEnd | TunnelError], None],
        ending: StreamEnd | None = None,
    ) -> None:
        """
        Ask the client to reach the service.

        @param info: What it is told of the visitor.
        @param ending: What is told of the stream's ends.
        """
        self.opened = opened
        self._ending = ending
        # A pong that comes later would be the visitor's first word.
        self._stopAnswers()
        self.since = self._reactor.seconds()
        self.transport.write(
            encodeFrame(0, FrameType.OPEN, encodeCredit(0) + encodeObject(info))
        )

    def pinged(self, payload: bytes) -> None:
        """
        Give a sign of life, unless a visitor is announced: what comes behind
        that is the visitor's own.
        """
        if self.opened is None:
            super().pinged(payload)

    def frameReceived(self, kind: int, payload: bytes) -> None:
        """
        The client's answer.
        """
        opened = self.opened
        if opened is None:
            return
        if kind == FrameType.OPENED:
            opened(self.becomeStream(self._ending))
        elif kind == FrameType.REFUSED:
            self._over = True
            self._closing = WriteDeadline(self._reactor, self.transport, CLOSE_TIMEOUT)
            self._closing.close()
            opened(TunnelError.fromDict(decodeObject(payload), "service-refused"))


class ClientSpare(SpareConnection):
    """
    The client's side.

    @param asked: Called with this spare and what the server says of a visitor.

    @ivar used: Whether that has happened.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        lost: Callable[[SpareConnection], None],
        asked: Callable[[ClientSpare, dict[str, object]], None],
    ) -> None:
        super().__init__(reactor, lost)
        self.used = False
        self._asked = asked

    def frameReceived(self, kind: int, payload: bytes) -> None:
        """
        A visitor came.
        """
        if kind == FrameType.OPEN:
            self.used = True
            self._asked(self, decodeObject(payload[8:]))

    @staticmethod
    def refuse(end: DirectEnd, reason: TunnelError) -> None:
        """
        Tell the server why the service was not reached.
        """
        end.trust()
        end.write(
            encodeFrame(
                0,
                FrameType.REFUSED,
                encodeObject(reason.asDict()),
            )
        )
        end.closeBoth()
