"""
Streams that move to a connection of their own once they have proved busy.

A stream begins in its session, where a short request costs nothing extra. A busy
stream is better off on a connection whose ends are both plain sockets: the kernel then
moves its bytes, and applies backpressure on its own. The server, which sees the
visitor, sends a ticket; the client makes a second connection and shows the ticket. Then
each side changes over when no bytes of its direction wait in the session any more, and
says at which offset. Until a side has said so, a second connection that is refused,
slow, cut or answered by somebody else makes no difference.

C{docs/protocol-direct.rst} specifies this.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    INegotiated,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.deadlines import deadlinesOf
from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.dial import HostEndpoint, dial
from tristunnel.dataplane.endings import KEY, EndAcknowledgements, MovedEnd, StreamEnd
from tristunnel.dataplane.stock import tuneSocket
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.movable import MovableStream
from tristunnel.errors import TunnelError
from tristunnel.service.tickets import LIFETIME, TicketBook
from tristunnel.wire.framed import (
    FrameType,
    HandshakeDecoder,
    encodeHandshake,
    encodeObject,
)

__all__ = ["ACCEPTED", "CARRIERS", "Carrier", "ClientMoves", "ServerMoves"]

ACCEPTED = encodeHandshake({"tristunnel": {"accepted": True}})
"""The server's answer to a valid ticket."""

CARRIERS = ("auto", "session", "direct")
"""The values of C{--carrier}."""

PATIENCE = 10.0
"""Seconds that a second connection may take."""

BLOCKED = 60.0
"""Seconds for which no other is tried after one has failed."""

AT_ONCE = 48
"""The most second connections in progress at once; the server admits no more that have
not shown a ticket yet."""


def _nothing(end: object) -> None:
    """Nobody need be told: the end is joined when the stream changes over."""


@dataclass(frozen=True)
class Carrier:
    """
    How streams travel.

    @ivar kind: C{session}: within the session; C{auto}: on a connection of their own
        once they have proved busy; C{direct}: the same, as early as possible.
    @ivar sessions: How many connections a session has at once.
    """

    kind: str = "auto"
    sessions: int = 1


class ServerMoves:
    """
    The server's side of one session.

    @param tickets: The session's.
    @param multiplexer: Its streams.
    @param atOnce: Whether streams are to move without having proved busy.
    @param ends: Exchanges reports about the ends of streams that have moved.
    """

    def __init__(
        self,
        tickets: TicketBook,
        multiplexer: ExtendedMultiplexer,
        atOnce: bool,
        ends: EndAcknowledgements,
    ) -> None:
        self.atOnce = atOnce
        self._tickets = tickets
        self._multiplexer = multiplexer
        self._ends = ends
        self._offered: dict[int, float] = {}
        multiplexer.whenBusy = self.offer
        multiplexer.whenMoved = self._clientMoved

    def offer(self, stream: MovableStream) -> None:
        """Offer the client to move a stream."""
        now = self._multiplexer.now()
        if stream.moves or stream.eof or stream.finishing or stream.over:
            return
        if now - self._offered.get(stream.id, -LIFETIME) < LIFETIME:
            return
        if self._tickets.out("move") >= AT_ONCE:
            return
        key = secrets.token_bytes(KEY)

        def use(arrival: Any, offer: dict[str, object]) -> bool:
            self._offered.pop(stream.id, None)
            transport = arrival.transport
            if (
                stream.over
                or stream.moves
                or not isinstance(transport, SocketTransport)
            ):
                return False
            transport.write(ACCEPTED)
            rest = arrival.stepAside()
            _move(stream, transport, self._ends.expect(key), rest)
            return True

        ticket = self._tickets.grant("move", AT_ONCE, use)
        if len(self._offered) > 4 * AT_ONCE:
            self._offered = {
                number: since
                for number, since in self._offered.items()
                if now - since < LIFETIME
            }
        self._offered[stream.id] = now
        self._multiplexer.sendFrame(
            stream.id,
            FrameType.MOVE,
            encodeObject({"ticket": ticket.text, "key": key.hex()}),
        )

    def _clientMoved(self, stream: MovableStream) -> None:
        """
        Break a stream that the client sends on a connection that the server does not
        have: somebody else has taken the ticket.
        """
        stream.moveFailed(
            TunnelError("session-lost", "the stream's own connection is not there")
        )


def _move(
    stream: MovableStream, transport: SocketTransport, ending: StreamEnd, rest: bytes
) -> None:
    """
    Move a stream to a connection.

    @param rest: The bytes after the handshake.
    """
    end = MovedEnd.of(transport, _nothing, ending, stream)
    if rest:
        end.bytesReceived(rest)
    stream.moveTo(end)


@implementer(IHandshakeListener)
class _TicketHolder(Protocol):
    """
    Shows a ticket and waits for the answer.

    @param answered: Fires with the transport and the bytes after the answer.
    """

    transport: Any

    def __init__(
        self, ticket: str, answered: Deferred[tuple[SocketTransport, bytes]]
    ) -> None:
        self._ticket = ticket
        self._answered = answered
        self._handshake = HandshakeDecoder()

    def connectionMade(self) -> None:
        """Show the ticket; over TLS only once the server has shown who it is."""
        tuneSocket(self.transport)
        if not INegotiated.providedBy(self.transport):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        self.transport.write(encodeHandshake({"tristunnel": {"ticket": self._ticket}}))

    def dataReceived(self, data: bytes) -> None:
        try:
            whole = self._handshake.feed(data)
            if whole is None:
                return
            message, rest = whole
            answer = message.get("tristunnel")
            if not isinstance(answer, dict) or not answer.get("accepted"):
                raise TunnelError("expired", "the ticket was refused")
            if not isinstance(self.transport, SocketTransport):
                raise TunnelError("not-permitted", "streams move to sockets only")
        except TunnelError as error:
            self.transport.abortConnection()
            self._fail(error)
        else:
            if not self._answered.called:
                self._answered.callback((self.transport, rest))

    def _fail(self, error: TunnelError) -> None:
        """Give up on this connection."""
        if not self._answered.called:
            self._answered.errback(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._fail(TunnelError("session-lost", reason.getErrorMessage()))


class ClientMoves:
    """
    The client's side of one session, which makes the second connections.

    @param reactor: Connects and tells time.
    @param endpoint: The session's, or what is below its WebSocket.
    @param peer: The address that the session has reached: another server behind the
        same name would not know our tickets.
    @param multiplexer: The session's streams.
    @param ends: Exchanges reports about the ends of streams that have moved.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        peer: object,
        multiplexer: ExtendedMultiplexer,
        ends: EndAcknowledgements,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._multiplexer = multiplexer
        self._ends = ends
        self._address: tuple[str, int] | None = None
        if isinstance(endpoint, HostEndpoint):
            host, port = getattr(peer, "host", None), getattr(peer, "port", None)
            if host is not None and port is not None:
                self._address = host, port
        self._dialling: dict[MovableStream, Deferred[Any]] = {}
        self._blockedUntil = 0.0
        self._stopped = False
        multiplexer.whenAskedToMove = self._asked
        multiplexer.whenMoved = self._farSideMoved

    def stop(self) -> None:
        """The session is over."""
        self._stopped = True
        for dialling in list(self._dialling.values()):
            dialling.cancel()

    def _asked(self, stream: MovableStream, offer: dict[str, object]) -> None:
        """The server offers to move a stream."""
        ticket, key = offer.get("ticket"), offer.get("key")
        if not isinstance(ticket, str) or not isinstance(key, str):
            raise TunnelError("protocol-error", "the server's ticket is none")
        try:
            name = bytes.fromhex(key)
        except ValueError:
            name = b""
        if len(name) != KEY:
            raise TunnelError("protocol-error", "the server's key is none")
        if (
            stream.moves
            or stream in self._dialling
            or len(self._dialling) >= AT_ONCE
            or self._reactor.seconds() < self._blockedUntil
        ):
            return
        try:
            RESERVE.checkVisitor()
        except TunnelError:
            return

        # What the server says over the session may overtake its answer.
        ending = self._ends.expect(name)

        def answered(connection: tuple[SocketTransport, bytes]) -> None:
            transport, rest = connection
            if stream.over:
                ending.forget()
                transport.abortConnection()
            else:
                _move(stream, transport, ending, rest)

        def over(result: object) -> object:
            del self._dialling[stream]
            return result

        def failed(failure: Failure) -> None:
            ending.forget()
            # If the stream is over, its failure says nothing about the network.
            if not (self._stopped or stream.over):
                self._blockedUntil = self._reactor.seconds() + BLOCKED
            stream.moveFailed(
                TunnelError(
                    "session-lost", "the stream's own connection was not reached"
                )
            )

        self._dialling[stream] = showing = self._show(ticket)
        showing.addBoth(over)
        showing.addCallbacks(answered, failed)
        showing.addErrback(
            lambda failure: self._log.failure("A stream could not move", failure)
        )

    def _farSideMoved(self, stream: MovableStream) -> None:
        """
        Note that the server sends on the second connection, which must be there
        already, or in progress.
        """
        if stream not in self._dialling:
            stream.moveFailed(
                TunnelError("session-lost", "the stream's own connection is not there")
            )

    def _show(self, ticket: str) -> Deferred[tuple[SocketTransport, bytes]]:
        """
        Connect and show a ticket.

        @return: Fires with the transport and the bytes after the answer.
        """
        holders: list[_TicketHolder] = []

        def cancel(answered: object) -> None:
            dialled.cancel()
            for holder in holders:
                if holder.transport is not None:
                    holder.transport.abortConnection()

        answered: Deferred[tuple[SocketTransport, bytes]] = Deferred(cancel)
        deadlines = deadlinesOf(self._reactor)
        late = deadlines.add(PATIENCE, answered.cancel)

        def made() -> _TicketHolder:
            holders.append(_TicketHolder(ticket, answered))
            return holders[-1]

        factory = Factory.forProtocol(made)
        factory.noisy = False
        dialled: Deferred[Any]
        if self._address is not None:
            dialled = dial(self._reactor, *self._address, factory)
        else:
            dialled = self._endpoint.connect(factory)

        def over(result: Any) -> Any:
            deadlines.cancel(late)
            return result

        def notDialled(failure: Failure) -> None:
            if not answered.called:
                answered.errback(failure)

        dialled.addErrback(notDialled)
        return answered.addBoth(over)
