"""
The extra connections of a session, which carry streams and nothing else.

A lost packet stalls all that travels on its connection; with several, only a part of
it. The session itself (its lease, its tunnels, its calls) stays on the first
connection, and its extra connections end with it. It is specified in
C{docs/protocol-direct.rst}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    INegotiated,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.framed.session import EXTENSION, FramedProtocol, extensionOffer
from tristunnel.errors import TunnelError
from tristunnel.service.tickets import TicketBook
from tristunnel.util.repeating import RepeatingCall

if TYPE_CHECKING:
    from tristunnel.dialects.base.stream import SessionStream
    from tristunnel.dialects.framed.extended import ExtendedMultiplexer

__all__ = [
    "MOST_EXTRA_CONNECTIONS",
    "ClientExtraConnections",
    "ExtraConnection",
    "ServerExtraConnections",
]

MOST_EXTRA_CONNECTIONS = 15
"""Extra connections that a session may have."""

LOOK = 5.0
"""Seconds between two checks for missing connections."""


def _streamsOn(connections: Iterable[FramedProtocol]) -> int:
    carriers = [each.multiplexer for each in connections if each.multiplexer]
    return sum(len(each.streams) for each in carriers)


class ServerExtraConnections:
    """
    The extra connections of one session at the server.

    @param tickets: The session's.
    @param opened: Told of the streams that the client opens on them, as by the session
        itself, and, as C{peer}, where the connection comes from.
    """

    def __init__(self, tickets: TicketBook, opened: Callable[..., None]) -> None:
        self._tickets = tickets
        self._opened = opened
        self._connections: list[FramedProtocol] = []

    def __len__(self) -> int:
        return len(self._connections)

    def grant(self, count: int) -> list[str]:
        """
        Make tickets for extra connections.

        @return: At most as many as are asked for.
        """
        room = MOST_EXTRA_CONNECTIONS - len(self._connections)
        return [
            self._tickets.grant("extra-connection", room, self._use).text
            for _ in range(min(count, room))
        ]

    def _use(self, arrival: Any, offer: dict[str, object]) -> bool:
        """Take a connection for this session."""
        if len(self._connections) >= MOST_EXTRA_CONNECTIONS:
            return False
        arrival.becomeExtraConnection(self._opened, offer)
        self._connections.append(arrival)
        arrival.extraConnectionOver = self._over
        return True

    def _over(self, connection: FramedProtocol) -> None:
        """Forget a connection that is gone."""
        if connection in self._connections:
            self._connections.remove(connection)

    def streams(self) -> int:
        """How many streams they carry."""
        return _streamsOn(self._connections)

    def leastLoaded(self, first: ExtendedMultiplexer) -> Any:
        """
        Choose the connection for a new stream.

        @param first: The session's own streams.
        """
        others = [each.multiplexer for each in self._connections if each.multiplexer]
        return min((first, *others), key=lambda each: len(each.streams))

    def close(self, reason: TunnelError) -> None:
        """The session is over."""
        for connection in list(self._connections):
            connection.fail(reason)


@implementer(IHandshakeListener)
class ExtraConnection(FramedProtocol):
    """
    An extra connection at the client.

    @param ticket: What opens it.
    @param opened: Told of streams, as by the session itself.
    @param over: Called once with it when it is gone or never was.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        limits: Limits,
        ticket: str,
        opened: Callable[[SessionStream, dict[str, object]], None],
        over: Callable[[ExtraConnection], None],
    ) -> None:
        super().__init__(reactor, limits)
        self._ticket = ticket
        self._opened = opened
        self._over = over

    def connectionMade(self) -> None:
        """Show the ticket; over TLS only once the server has shown who it is."""
        super().connectionMade()
        if not INegotiated.providedBy(self.transport):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        offer = {"ticket": self._ticket, **extensionOffer(self.limits)}
        self.sendHandshake({EXTENSION: offer})

    def handshakeReceived(self, message: dict[str, object]) -> None:
        answer = message.get(EXTENSION)
        if not isinstance(answer, dict) or answer.get("accepted") is not True:
            refused = answer.get("refused") if isinstance(answer, dict) else None
            raise TunnelError.fromDict(
                refused if isinstance(refused, dict) else {}, "expired"
            )
        self.establish(self.extendedMultiplexer(answer, False, self._opened))

    def sessionOver(self, reason: TunnelError) -> None:
        self._over(self)


class ClientExtraConnections:
    """
    The extra connections of one session at the client, which are dialled again when
    they are lost.

    @param endpoint: The session's.
    @param limits: What each of them accepts.
    @param count: How many to have.
    @param ask: Asks the server for so many tickets.
    @param opened: Told of streams.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        limits: Limits,
        count: int,
        ask: Callable[[int], Deferred[object]],
        opened: Callable[[SessionStream, dict[str, object]], None],
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._limits = limits
        self._count = count
        self._ask = ask
        self._opened = opened
        self._connections: set[ExtraConnection] = set()
        self._dialling: set[Deferred[Any]] = set()
        self._looking = RepeatingCall(reactor, self._look)

    def start(self) -> None:
        """Dial."""
        self._looking.start(LOOK)

    def stop(self) -> None:
        """End them."""
        if self._looking.running:
            self._looking.stop()
        for dialling in list(self._dialling):
            dialling.cancel()
        for connection in list(self._connections):
            connection.close()

    def streams(self) -> int:
        """How many streams they carry."""
        return _streamsOn(self._connections)

    def _look(self) -> None:
        """Replace what is missing."""
        missing = self._count - len(self._connections) - len(self._dialling)
        if missing > 0:
            asked = self._ask(missing)
            asked.addCallback(self._dial)
            # The next look tries again.
            asked.addErrback(lambda failure: None)

    def _dial(self, tickets: object) -> None:
        for ticket in tickets if isinstance(tickets, list) else []:
            factory = Factory.forProtocol(partial(self._connection, str(ticket)))
            factory.noisy = False
            dialling: Deferred[Any] = self._endpoint.connect(factory)
            self._dialling.add(dialling)
            dialling.addBoth(self._dialled, dialling)

    def _connection(self, ticket: str) -> ExtraConnection:
        return ExtraConnection(
            self._reactor, self._limits, ticket, self._opened, self._over
        )

    def _dialled(self, result: Any, dialling: Deferred[Any]) -> None:
        self._dialling.discard(dialling)
        if isinstance(result, ExtraConnection) and result.lost is None:
            if self._looking.running:
                self._connections.add(result)
            else:
                result.close()

    def _over(self, connection: ExtraConnection) -> None:
        """Forget a connection that is gone; the next look replaces it."""
        self._connections.discard(connection)
