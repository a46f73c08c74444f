"""
The path that clients connect to: the first message tells the dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.dialects.framed.session import HANDSHAKE_TIMEOUT
from tristunnel.dialects.vtunnel.server import VTunnelServerSession
from tristunnel.dialects.zlayer.data import connectionOf
from tristunnel.dialects.zlayer.server import ZLayerServerSession
from tristunnel.errors import TunnelError
from tristunnel.http.callers import HTTPCallers, uncounted
from tristunnel.model.permissions import Identity
from tristunnel.service.caller import Caller
from tristunnel.service.preauth import PendingConnection
from tristunnel.websocket.connection import Connection, Receiver
from tristunnel.websocket.page import Visit
from tristunnel.websocket.stream import ByteStream
from tristunnel.wire.zlayer import MESSAGES

__all__ = [
    "Arrival",
    "Dialect",
    "FirstMessage",
    "TunnelPath",
    "binaryDialect",
    "dialectsOf",
    "framedDialect",
    "vtunnelDialect",
    "zlayerDialect",
]

MAX_FIRST = 128 * 1024
"""Bytes of the longest first message, which is held whole although nobody knows
who sends it: a login, and what a client says behind it at once."""


class Arrival:
    """
    A client that has not spoken yet.

    @ivar connection: Its WebSocket.
    @ivar caller: Who it is as far as the request told, and by what name and
        port it reached us.
    @ivar vouched: Whether the request held credentials, and they were good.
    @ivar remaining: Seconds left for saying who it is.
    @ivar first: The client's first message, if that is a binary one.
    @ivar stranger: Told when it is known who the client is, or when it has left,
        and if credentials in its messages are not good.
    """

    def __init__(
        self, caller: Caller, vouched: bool, stranger: PendingConnection | None = None
    ) -> None:
        self.connection: Any = None
        self.caller = caller
        self.vouched = vouched
        self.remaining = 0.0
        self.first = b""
        self.stranger = stranger or uncounted()


Dialect = Callable[[Arrival], Receiver]
"""Makes what goes on with a connection; it is told of the opening first, and
then of the message that chose it."""


class FirstMessage:
    """The L{Receiver} of a connection whose dialect is not known yet."""

    def __init__(
        self,
        reactor: IReactorTime,
        arrival: Arrival,
        dialects: Mapping[bool, Dialect],
        timeout: float,
    ) -> None:
        self._reactor = reactor
        self._arrival = arrival
        self._dialects = dialects
        self._timeout = timeout
        self._late: IDelayedCall | None = None

    def opened(self, connection: Connection) -> None:
        self._arrival.connection = connection
        connection.stranger = self._arrival.stranger
        connection.stranger.leave = connection.abort
        connection.wholeUpTo = MAX_FIRST
        self._late = self._reactor.callLater(self._timeout, self._tooLate)

    def _tooLate(self) -> None:
        self._arrival.connection.fail(
            TunnelError("handshake-timeout", f"nothing came for {self._timeout:g} s")
        )

    def _handOver(self, isBinary: bool) -> Receiver:
        assert self._late is not None
        self._arrival.remaining = max(
            self._late.getTime() - self._reactor.seconds(), 0.001
        )
        self._late.cancel()
        connection = self._arrival.connection
        connection.wholeUpTo = 0
        receiver = self._dialects[isBinary](self._arrival)
        connection.receiver = receiver
        receiver.opened(connection)
        return receiver

    def bytesReceived(self, data: bytes) -> None:
        self._arrival.first = data
        self._handOver(True).bytesReceived(data)

    def textReceived(self, text: bytes) -> None:
        self._handOver(False).textReceived(text)

    def closeReceived(self, reason: TunnelError | None) -> None:
        """The client leaves without a word."""

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        # Also when the WebSocket was never open, for a bad header.
        self._arrival.stranger.known()
        if self._late is not None and self._late.active():
            self._late.cancel()


class TunnelPath:
    """
    Receives clients.

    @param reactor: Tells time.
    @param callers: Finds out who a request is from.
    @param dialects: What is spoken in text messages (C{False}) and in binary
        ones (C{True}).
    @param timeout: Seconds that a client has for its first message.
    @param data: Receives zlayer's data connections, below the same paths.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        callers: HTTPCallers,
        dialects: Mapping[bool, Dialect],
        timeout: float = HANDSHAKE_TIMEOUT,
        data: Callable[[str], Receiver] | None = None,
    ) -> None:
        self._reactor = reactor
        self._callers = callers
        self._dialects = dialects
        self._timeout = timeout
        self._data = data

    async def __call__(self, visit: Visit) -> Receiver:
        """
        Receive a client. Credentials in its request must be good; without
        any, its first message may hold them. The id of a data connection is
        its credential.
        """
        connection = connectionOf(visit.name)
        if connection is not None and self._data is not None:
            return self._data(connection)
        vouched = visit.request.getHeader(b"authorization") is not None
        if vouched:
            caller = await self._callers(visit.request)
        else:
            stranger = Identity("anonymous", anonymous=True)
            caller = self._callers.describe(visit.request, stranger)
            if caller.certificate:
                with suppress(TunnelError):
                    # It may do, or what the first message holds as well.
                    caller = await self._callers(visit.request)
                    vouched = True
        # The last thing to do, for only its connection's end undoes it.
        arrival = Arrival(caller, vouched, self._callers.newcomer(visit.request))
        return FirstMessage(self._reactor, arrival, self._dialects, self._timeout)


def framedDialect(sessions: TunnelServerFactory) -> Dialect:
    """The framed protocol in binary messages."""

    def make(arrival: Arrival) -> Receiver:
        session = sessions.buildProtocol(arrival.connection.peerAddress)
        session.handshakeTimeout = arrival.remaining
        session.cameBy = arrival.caller
        session.stranger = arrival.stranger
        if arrival.vouched:
            session.vouchedFor = arrival.caller.identity
        return ByteStream(session)

    return make


def vtunnelDialect(sessions: TunnelServerFactory) -> Dialect:
    """vtunnel's JSON in text messages."""

    def make(arrival: Arrival) -> Receiver:
        return VTunnelServerSession(
            sessions, arrival.caller, arrival.vouched, arrival.stranger
        )

    return make


def zlayerDialect(sessions: TunnelServerFactory) -> Dialect:
    """zlayer's binary messages."""

    def make(arrival: Arrival) -> Receiver:
        return ZLayerServerSession(
            sessions, arrival.caller, arrival.vouched, arrival.stranger
        )

    return make


def binaryDialect(sessions: TunnelServerFactory) -> Dialect:
    """What is spoken in binary messages, by the first byte of the first one."""
    framed, zlayer = framedDialect(sessions), zlayerDialect(sessions)

    def make(arrival: Arrival) -> Receiver:
        isZLayer = bool(arrival.first) and arrival.first[0] in MESSAGES
        return (zlayer if isZLayer else framed)(arrival)

    return make


def dialectsOf(sessions: TunnelServerFactory) -> dict[bool, Dialect]:
    """
    What is spoken where clients connect: in text messages (C{False}), and in
    binary ones (C{True}).
    """
    return {False: vtunnelDialect(sessions), True: binaryDialect(sessions)}
