"""
The connections that a client makes beside its session, for the session's streams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IStreamClientEndpoint

from tristunnel.dataplane.endings import EndAcknowledgements
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.dialects.framed.extra_connections import ClientExtraConnections
from tristunnel.dialects.framed.moves import Carrier, ClientMoves
from tristunnel.dialects.framed.session import FramedProtocol

if TYPE_CHECKING:
    from tristunnel.dialects.base.stream import SessionStream
    from tristunnel.dialects.framed.extended import ExtendedMultiplexer

__all__ = ["ConnectionsBeside"]


class ConnectionsBeside:
    """
    What there is beside one session.

    @param session: The session.
    @param carrier: How its streams are to travel.
    @param endpoint: Where to dial; C{None}, if there are to be no other connections.
    @param opened: Told of the streams that the server opens on them, as by the session
        itself.

    @ivar moves: What lets streams move to connections of their own, where both sides
        can.
    @ivar extra: The extra connections, if there are to be some.
    """

    def __init__(
        self,
        session: FramedProtocol,
        carrier: Carrier,
        endpoint: IStreamClientEndpoint | None,
        opened: Callable[[SessionStream, dict[str, object]], None],
    ) -> None:
        self.moves: ClientMoves | None = None
        self.extra: ClientExtraConnections | None = None
        self._session = session
        self._carrier = carrier
        self._endpoint = endpoint
        self._opened = opened

    @property
    def mayMove(self) -> bool:
        """
        Whether streams may move to connections of their own: not if the user does not
        want it, nor if it is not known how to make another one, nor for connections in
        memory.
        """
        return (
            self._carrier.kind != "session"
            and self._endpoint is not None
            and isinstance(self._session.transport, SocketTransport)
        )

    def letMove(
        self,
        multiplexer: ExtendedMultiplexer,
        confirmations: EndAcknowledgements | None,
    ) -> None:
        """
        Let streams move, now that the server can take them.

        @param multiplexer: The session's streams.
        @param confirmations: The acknowledgements of their ends, if they are to last
            over one session and the next.
        """
        endpoint, session = self._endpoint, self._session
        if self.mayMove and endpoint is not None:
            if confirmations is None:
                confirmations = EndAcknowledgements(session.reactor)
            session.confirmations = confirmations
            self.moves = ClientMoves(
                session.reactor,
                endpoint,
                session.transport.getPeer(),
                multiplexer,
                confirmations,
            )

    def begin(self) -> None:
        """Make the extra connections."""
        session, count = self._session, self._carrier.sessions - 1
        if count > 0 and self._endpoint is not None:
            self.extra = ClientExtraConnections(
                session.reactor,
                self._endpoint,
                session.limits,
                count,
                lambda count: session.call("laneTickets", count=count),
                self._opened,
            )
            self.extra.start()

    def streams(self) -> int:
        """How many streams the extra connections carry."""
        return 0 if self.extra is None else self.extra.streams()

    def stop(self) -> None:
        """The session is over: make no more, and end the extra ones."""
        if self.moves is not None:
            self.moves.stop()
        if self.extra is not None:
            self.extra.stop()
