"""
The framed protocol at the server: the session of a client that speaks the extension.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IAddress

from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.framed.datagrams import SessionFlow
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.extra_connections import ServerExtraConnections
from tristunnel.dialects.framed.negotiated_session import NegotiatedSession
from tristunnel.errors import TunnelError
from tristunnel.forwards.dialling import DIAL
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.access import serviceOf
from tristunnel.service.caller import Caller

__all__ = ["ExtendedSession", "connectionTickets"]


class ExtendedSession(NegotiatedSession):
    """
    One client's session.

    @ivar extraConnections: Its extra connections, if it asked for some.
    """

    __slots__ = ("_sentAway", "extraConnections")

    def __init__(
        self,
        sessions: ServerSessions,
        arrival: Arrival,
        message: dict[str, object],
        offer: dict[str, object],
    ) -> None:
        super().__init__(sessions, arrival, message, offer)
        self.extraConnections: ServerExtraConnections | None = None
        self._sentAway = False

    # IClientSide

    def placeFree(self, port: int, name: str) -> None:
        """Tell the client that what it was refused may be had now."""
        self._notify("available", port=port, name=name)

    def managedChanged(self) -> None:
        """Tell the client that it is asked for other tunnels now."""
        self._notify("managedChanged")

    def _notify(self, method: str, **params: object) -> None:
        if not self._ended:
            self.connection.notify(method, **params)

    def begin(self, stream: Stream) -> None:
        streams = self.multiplexer
        if streams is None:
            raise TunnelError("client-away")
        if stream.tunnel.protocol == "udp":
            stream.connect(streams.openFlow(stream.info))
            return
        if self.extraConnections is not None:
            streams = self.extraConnections.leastLoaded(streams)
        opened = streams.open(stream.info)
        stream.connect(opened)
        if self.moves is not None and self.moves.atOnce:
            self.moves.offer(opened)

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        # Until it is let in, and told of the tunnels of its lease, it needs no word.
        if self.multiplexer is not None:
            self._notify(
                "tunnelClosed",
                uri=tunnel.publicURI,
                code=reason.code.name,
                message=reason.message,
            )
        if tunnel is self._caller.limitedTo and not self._ended:
            self.fail(reason)

    # What the client opens

    def openedByClient(
        self,
        stream: SessionStream,
        info: dict[str, object],
        peer: IAddress | None = None,
    ) -> None:
        self._opened(stream, info, False, stream.accept, peer)

    def flowByClient(self, flow: SessionFlow, info: dict[str, object]) -> None:
        accept = partial(self._established().datagrams.accept, flow)
        self._opened(flow, info, True, accept)

    def _opened(
        self,
        end: SessionStream | SessionFlow,
        info: dict[str, object],
        isUDP: bool,
        accept: Callable[[], None],
        peer: IAddress | None = None,
    ) -> None:
        if DIAL in info:
            peer = peer or self.connection.peerAddress
            self.dialled.opened(end, info, peer, accept, isUDP)
            return
        own = "service" not in info
        name = serviceOf(self._caller.identity) if own else info["service"]
        if isinstance(name, str):
            self.whileUp(self.visit(end, name, isUDP, accept, peer), end.reset)
        else:
            end.reset(
                TunnelError("not-permitted", "the stream does not name a service")
            )

    # What it dials for others

    def openDial(self, target: str, visitor: str) -> SessionStream:
        """
        Have the client dial.

        @param target: What it is to reach.
        @param visitor: The address of the visitor.
        @raise TunnelError: If it takes no more.
        """
        streams = self._established()
        if self.extraConnections is not None:
            streams = self.extraConnections.leastLoaded(streams)
        return streams.open({DIAL: target, "visitor": visitor})

    def openDialFlow(self, target: str, visitor: str) -> SessionFlow:
        """The same as L{openDial}, for datagrams."""
        return self._established().openFlow({DIAL: target, "visitor": visitor})

    def _established(self) -> ExtendedMultiplexer:
        """@raise TunnelError: C{client-away}, if the session is not established."""
        if self.multiplexer is None:
            raise TunnelError("client-away")
        return self.multiplexer

    # Going

    def streams(self) -> int:
        """How many streams there are, in the session and beside it."""
        beside = 0 if self.extraConnections is None else self.extraConnections.streams()
        return (
            super().streams()
            + beside
            + sum(
                isinstance(stream.client, SessionStream) and stream.client.hasMoved
                for lease in self.leases
                for tunnel in lease.tunnels
                for stream in tunnel.streams
            )
        )

    def displaced(self) -> None:
        """
        End the session: the lease's holder has come back on another connection, or
        another client came with the same tunnel's URI.
        """
        # One that was sent away does what it was told to; its streams stay here.
        if not self._sentAway:
            super().displaced()

    def sendAway(self, reason: TunnelError) -> None:
        super().sendAway(reason)
        if self._isIn and not self._ended:
            self._sentAway = True
            self.connection.goAway(reason)

    def endOnPurpose(self, reason: TunnelError) -> None:
        """End also its visits to others, wherever they are by now."""
        self.visits.end(reason)
        super().endOnPurpose(reason)

    def sessionOver(self, reason: TunnelError) -> None:
        if self.extraConnections is not None:
            self.extraConnections.close(reason)
        super().sessionOver(reason)


def connectionTickets(caller: Caller, count: int) -> list[str]:
    """
    Give a client tickets for extra connections of its session.

    @param count: How many it would like.
    @raise TunnelError: C{not-permitted} without a session that may have them.
    """
    session = caller.clientSide
    if not isinstance(session, ExtendedSession):
        raise TunnelError("not-permitted", "only a session has extra connections")
    if type(count) is not int or count < 1:
        raise TunnelError("bad-option", "count is a number from 1 up")
    if session.extraConnections is None:
        session.extraConnections = ServerExtraConnections(
            session.tickets, session.openedByClient
        )
    return session.extraConnections.grant(count)
