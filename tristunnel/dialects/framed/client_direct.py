"""
Streams that leave their session for a connection of their own: the client.

It is specified in C{docs/protocol-direct.rst}.
"""

from __future__ import annotations

from collections.abc import Callable
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
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.dial import HostEndpoint, dial
from tristunnel.dataplane.endings import DirectEnd, StreamEnd
from tristunnel.dataplane.kernel import handOver, kernelSocket
from tristunnel.dataplane.sockets import SocketEnd, tuneSocket
from tristunnel.dialects.framed.spare import ClientSpare, SpareConnection
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import HandshakeDecoder, encodeHandshake

__all__ = ["CARRIERS", "Carrier", "DirectWays", "Spares"]

CARRIERS = ("auto", "session", "direct")
"""What C{--carrier} takes."""

PATIENCE = 3.0
"""Seconds that a second connection may take before the session answers."""

BLOCKED = 60.0
"""Seconds for which the session answers at once after one failed."""

AT_ONCE = 48
"""Second connections under way at once; the server lets no more strangers in.
Visitors beyond that stay in the session."""

PING = 20.0
"""Seconds between two looks at the spare connections."""

SILENCE = 45.0
"""Seconds after which a spare connection that said nothing is dead."""


@dataclass(frozen=True)
class Carrier:
    """
    How streams are to travel.

    @ivar kind: C{session}, C{direct}, or C{auto}: direct where the session's
        connection is plain, since nothing is saved elsewhere.
    @ivar spares: Connections to dial ahead.
    @ivar sessions: Sessions to hold at once.
    """

    kind: str = "auto"
    spares: int = 0
    sessions: int = 1

    def wantsDirect(self, transport: Any) -> bool:
        """
        Whether streams should leave a session.

        @param transport: The session's.
        """
        if self.kind == "auto":
            return kernelSocket(transport) is not None
        return self.kind == "direct"


@implementer(IHandshakeListener)
class _TicketHolder(Protocol):
    """
    Shows a ticket and waits for the answer.
    """

    transport: Any

    def __init__(self, ticket: str, answered: Deferred[tuple[Any, bytes]]) -> None:
        self._ticket = ticket
        self._answered = answered
        self._handshake = HandshakeDecoder()

    def connectionMade(self) -> None:
        """
        Show the ticket; over TLS only once the server has shown who it is.
        """
        tuneSocket(self.transport)
        if not INegotiated.providedBy(self.transport):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """
        Show the ticket.
        """
        self.transport.write(encodeHandshake({"tristunnel": {"ticket": self._ticket}}))

    def dataReceived(self, data: bytes) -> None:
        """
        Read the answer.
        """
        try:
            whole = self._handshake.feed(data)
            if whole is None:
                return
            message, rest = whole
            answer = message.get("tristunnel")
            if not isinstance(answer, dict) or not answer.get("accepted"):
                raise TunnelError("expired", "the ticket was refused")
        except TunnelError as error:
            self.transport.abortConnection()
            self._fail(error)
        else:
            if not self._answered.called:
                self._answered.callback((self.transport, rest))

    def _fail(self, error: TunnelError) -> None:
        """
        This connection will not do.
        """
        if not self._answered.called:
            self._answered.errback(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection was lost before the answer.
        """
        self._fail(TunnelError("session-lost", reason.getErrorMessage()))


class DirectWays:
    """
    Dials a session's server again.

    @param reactor: Connects and tells time.
    @param endpoint: The session's.
    @param peer: The address that the session reached: another server behind
        the same name would not know our tickets.
    """

    def __init__(
        self, reactor: Any, endpoint: IStreamClientEndpoint, peer: object
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._address: tuple[str, int] | None = None
        if isinstance(endpoint, HostEndpoint):
            host, port = getattr(peer, "host", None), getattr(peer, "port", None)
            if host is not None and port is not None:
                self._address = host, port
        self._dialling = 0
        self._blockedUntil = 0.0

    @property
    def busy(self) -> bool:
        """
        Whether a stream had better stay in the session.
        """
        return (
            self._dialling >= AT_ONCE
            or self._reactor.seconds() < self._blockedUntil
            or RESERVE.isLow
        )

    def dial(self, ticket: str, ending: StreamEnd | None = None) -> Deferred[SocketEnd]:
        """
        Make the connection of a stream.

        @param ending: What is told of the stream's ends.
        @return: Fires with its end; fails if there is none in time.
        """

        def accepted(connection: tuple[Any, bytes]) -> SocketEnd:
            transport, rest = connection
            end = DirectEnd(self._reactor, lambda end: None, ending)
            if not handOver(transport, end):
                transport.abortConnection()
                raise TunnelError("not-permitted", "no direct streams over this")
            end.takeOver(transport)
            if rest:
                end.dataReceived(rest)
            return end

        def blocked(failure: Failure) -> Failure:
            if ending is not None:
                ending.forget()
            return failure

        return self._show(ticket).addCallback(accepted).addErrback(blocked)

    def park(self, ticket: str, spare: ClientSpare) -> Deferred[bool]:
        """
        Make a spare connection.

        @return: Fires with whether it stands.
        """
        return self._show(ticket).addCallback(lambda made: spare.takeOver(*made))

    def _show(self, ticket: str) -> Deferred[tuple[Any, bytes]]:
        """
        Connect and show a ticket.

        @return: Fires with the transport and what came behind the answer.
        """
        self._dialling += 1
        answered: Deferred[tuple[Any, bytes]] = Deferred(lambda _: dialled.cancel())
        late = self._reactor.callLater(PATIENCE, answered.cancel)
        factory = Factory.forProtocol(lambda: _TicketHolder(ticket, answered))
        factory.noisy = False
        dialled: Deferred[Any]
        if self._address is not None:
            dialled = dial(self._reactor, *self._address, factory)
        else:
            dialled = self._endpoint.connect(factory)

        def over(result: Any) -> Any:
            self._dialling -= 1
            if late.active():
                late.cancel()
            if isinstance(result, Failure):
                self._blockedUntil = self._reactor.seconds() + BLOCKED
                dialled.addCallback(_abort)
            return result

        def failed(failure: Failure) -> None:
            if not answered.called:
                answered.errback(failure)

        answered.addBoth(over)
        dialled.addErrback(failed)
        return answered


def _abort(protocol: Any) -> None:
    """
    Nobody waits for this connection any more.
    """
    if protocol is not None and protocol.transport is not None:
        protocol.transport.abortConnection()


class Spares:
    """
    Connections dialled ahead for the visitors to come.

    @param reactor: Tells time.
    @param ways: Dials.
    @param count: How many to have.
    @param ask: Asks the server for so many tickets.
    @param asked: Called with a spare and what the server says of a visitor.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        ways: DirectWays,
        count: int,
        ask: Callable[[int], Deferred[object]],
        asked: Callable[[ClientSpare, dict[str, object]], None],
    ) -> None:
        self._reactor = reactor
        self._ways = ways
        self._count = count
        self._ask = ask
        self._asked = asked
        self._parked: set[SpareConnection] = set()
        self._dialling = 0
        self._asking = False
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor
        self._stopped = False

    def __len__(self) -> int:
        return len(self._parked)

    def start(self) -> None:
        """
        Dial.
        """
        self._ticking.start(PING)

    def stop(self) -> None:
        """
        Close those that wait.
        """
        self._stopped = True
        if self._ticking.running:
            self._ticking.stop()
        for spare in list(self._parked):
            spare.transport.abortConnection()

    def _tick(self) -> None:
        """
        Ask for signs of life, drop the dead, replace what is missing.
        """
        now = self._reactor.seconds()
        for spare in list(self._parked):
            if now - spare.lastHeard > SILENCE:
                spare.transport.abortConnection()
            else:
                spare.ping()
        self._refill()

    def _refill(self) -> None:
        """
        Get tickets for what is missing.
        """
        missing = self._count - len(self._parked) - self._dialling
        if missing <= 0 or self._asking or self._stopped:
            return

        def got(tickets: object) -> None:
            if isinstance(tickets, list):
                for ticket in tickets[:missing]:
                    self._dial(str(ticket))

        def over(result: object) -> None:
            # Whatever failed is tried again at the next look.
            self._asking = False

        self._asking = True
        self._ask(missing).addCallback(got).addBoth(over)

    def _dial(self, ticket: str) -> None:
        """
        Make one more.
        """

        def over(result: object) -> None:
            self._dialling -= 1
            if spare.used:
                # A visitor was announced together with the answer.
                return
            if result is True and not self._stopped:
                self._parked.add(spare)
            elif result is True:
                spare.transport.abortConnection()

        spare = ClientSpare(self._reactor, self._lost, self._used)
        self._dialling += 1
        self._ways.park(ticket, spare).addBoth(over)

    def _lost(self, spare: SpareConnection) -> None:
        """
        One is gone; the next look replaces it.
        """
        self._parked.discard(spare)

    def _used(self, spare: ClientSpare, info: dict[str, object]) -> None:
        """
        A visitor has come.
        """
        self._parked.discard(spare)
        ticket = info.pop("spare", None)
        if isinstance(ticket, str) and len(self._parked) < self._count:
            self._dial(ticket)
        self._asked(spare, info)
