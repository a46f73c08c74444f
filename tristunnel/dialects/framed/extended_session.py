"""
The framed protocol at the server: the session of a client that speaks the extension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from tristunnel.dataplane.transport import SocketTransport
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.base.visiting import VisitingSession
from tristunnel.dialects.framed.datagram_path import PATH, describePath
from tristunnel.dialects.framed.datagrams import SessionFlow
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.extra_connections import ServerExtraConnections
from tristunnel.dialects.framed.moves import ServerMoves
from tristunnel.dialects.framed.server_session import FramedSession
from tristunnel.dialects.framed.session import (
    EXTENSION,
    QUIET,
    STANDBY,
    VERSION,
    extensionOffer,
    quietTime,
)
from tristunnel.dialects.framed.shared import FramedShared
from tristunnel.errors import TunnelError
from tristunnel.forwards.dialling import DIAL
from tristunnel.model.permissions import Identity
from tristunnel.model.record import TunnelRecord
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.access import serviceOf
from tristunnel.service.caller import Caller
from tristunnel.service.capability import claimTunnel
from tristunnel.service.leases import Lease
from tristunnel.service.tickets import TicketBook
from tristunnel.util.hosts import hostSaid
from tristunnel.wire.framed import FrameType

__all__ = ["ExtendedSession", "connectionTickets", "takeOver"]


_NOTHING: Mapping[str, object] = {}


class ExtendedSession(FramedSession, VisitingSession):
    """
    One client's session.

    @param offer: What its handshake says of the extension.

    @ivar moves: What lets streams move to connections of their own, where both
        sides can.
    @ivar extraConnections: Its extra connections, if it asked for some.
    @ivar tickets: The tickets by which more connections become part of the session.
    @ivar takesDials: Whether the client dials for others.
    """

    dialect = "framed"
    extended = True

    __slots__ = (
        "_answer",
        "_made",
        "_offer",
        "_sentAway",
        "_standsBy",
        "extraConnections",
        "moves",
        "takesDials",
        "tickets",
    )

    def __init__(
        self,
        sessions: ServerSessions,
        arrival: Arrival,
        message: dict[str, object],
        offer: dict[str, object],
    ) -> None:
        super().__init__(sessions, arrival, message)
        self.takesDials = False
        self.moves: ServerMoves | None = None
        self.extraConnections: ServerExtraConnections | None = None
        self.tickets = TicketBook(sessions.service.tickets, self.admits)
        self._offer: Mapping[str, object] = offer
        self._answer: Mapping[str, object] = _NOTHING
        self._made: ExtendedMultiplexer | None = None
        self._standsBy = False
        self._sentAway = False

    @property
    def lease(self) -> Lease | None:
        """What keeps its tunnels beyond this connection."""
        return self.leases[0] if self.leases else None

    # Coming in

    @property
    def about(self) -> object:
        return self._offer.get("client")

    async def identify(self, message: dict[str, object]) -> Identity:
        claim, access = self._offer.get("tunnel"), self._offer.get("access")
        if isinstance(claim, dict):
            # The capability is the credential, and is good for nothing else.
            tunnel = await claimTunnel(self._service.find, claim)
            self._caller = replace(self._caller, limitedTo=tunnel)
            return Identity(f"tunnel-{tunnel.id}", issued=True)
        if isinstance(access, dict):
            return await self._service.access.claim(
                access, self.connection.peerAddress, lambda: self.authenticate(message)
            )
        return await self.authenticate(message)

    async def prepare(self) -> None:
        """Make the answer to the handshake."""
        offer, versions = self._offer, self._offer.get("versions")
        if not isinstance(versions, list) or VERSION not in versions:
            raise TunnelError(
                "protocol-error", f"this server speaks version {VERSION} only"
            )
        multiplexer = self.connection.extendedMultiplexer(
            offer, True, self.openedByClient
        )
        self._made = multiplexer
        if host := hostSaid(offer.get("host")):
            self._caller = replace(self._caller, host=host)
        answer = {"version": VERSION, **extensionOffer(self._sessions.limits)}
        if (tunnel := self._caller.limitedTo) is not None:
            self._claim(tunnel)
            answer["tunnels"] = [tunnel.publicURI]
        elif offer.get(STANDBY) is True:
            self._standsBy = answer[STANDBY] = True
        else:
            answer.update(await self._takeLease(offer.get("lease")))
        answer.update(self._offerMoves())
        answer.update(self._openPath(multiplexer))
        dials = offer.get(DIAL)
        if isinstance(dials, list):
            # Whether a target is allowed is checked when it is asked for.
            self.takesDials = "take" in dials
            answer[DIAL] = True
        if quiet := quietTime(offer):
            answer[QUIET] = quiet
        multiplexer.datagrams.opened = self._flowByClient
        self._answer = answer

    def admitted(self) -> None:
        multiplexer = self._made
        assert multiplexer is not None
        self.connection.sendHandshake({"port": 0, EXTENSION: self._answer})
        self.establish(multiplexer)
        if quiet := quietTime(self._offer):
            self.connection.stayQuiet(quiet)
        if self.connection.confirmations is not None:
            self.connection.confirmations.up(self._sendEnding)
        # There may be many thousand sessions.
        self._answer = _NOTHING
        if not self._standsBy:
            self._offer = _NOTHING

    async def takeOver(self, lease: object) -> dict[str, object]:
        """
        Take over: have the lease of the session that was lost.

        @param lease: As in a handshake.
        @return: What the answer to a handshake says.
        @raise TunnelError: C{not-permitted}, if it does not stand by.
        """
        standsBy, self._standsBy = self._standsBy, False
        if not standsBy or self._leaving is not None:
            raise self._leaving or TunnelError(
                "not-permitted", "this session does not stand by"
            )
        answer = await self._takeLease(lease)
        moves = self._offerMoves()
        if self.connection.confirmations is not None:
            self.connection.confirmations.up(self._sendEnding)
        self._offer = _NOTHING
        return {**answer, **moves}

    async def _takeLease(self, asked: object) -> dict[str, object]:
        """
        Give the client its lease back, or a new one.

        @return: What the answer says of it.
        """
        leases, identity = self._service.leases, self._caller.identity
        granted: dict[str, object] = {"seconds": leases.seconds}
        claimed = None
        if isinstance(asked, dict):
            claimed = await leases.claim(
                asked.get("id"), asked.get("secret"), identity, self, asked.get("fence")
            )
        elsewhere: Sequence[TunnelRecord] = ()
        if claimed is None:
            lease, granted["secret"] = await leases.grant(identity, self)
        else:
            lease, elsewhere = claimed
        self.leases = [lease]
        self._caller = replace(self._caller, lease=lease)
        await self.adopt(self._caller, elsewhere)
        granted["id"], granted["fence"] = lease.id, lease.place.fence
        return {"lease": granted, "tunnels": [tunnel.uri for tunnel in lease.tunnels]}

    def _claim(self, tunnel: Tunnel) -> None:
        """Serve the tunnel of a capability, instead of whoever did so before."""
        previous, tunnel.clientSide = tunnel.clientSide, self
        if isinstance(previous, ExtendedSession):
            previous.displaced()

    def _offerMoves(self) -> dict[str, object]:
        """
        Let streams move to connections of their own and acknowledge their ends, if the
        client wants that and this connection is a socket of ours.

        @return: What the answer says of it.
        """
        asked, multiplexer = self._offer.get("move"), self._made
        whose = self.lease or self._caller.limitedTo
        if asked not in ("busy", "at-once") or whose is None or multiplexer is None:
            return {}
        if not isinstance(self.connection.transport, SocketTransport):
            return {}
        ends = self._sessions.shared(FramedShared).confirmationsOf(whose)
        self.connection.confirmations = ends
        self.moves = ServerMoves(self.tickets, multiplexer, asked == "at-once", ends)
        return {"move": True}

    def _sendEnding(self, payload: bytes) -> None:
        """Tell the client of the end of a stream that has left the session."""
        if self.multiplexer is not None:
            self.multiplexer.sendFrame(0, FrameType.ENDING, payload)

    def _openPath(self, multiplexer: ExtendedMultiplexer) -> dict[str, object]:
        """
        Give a client a path for datagrams past the session, if it can use one.

        @return: What the answer says of it.
        """
        paths = self._sessions.paths
        if paths is None or self._offer.get(PATH) is not True:
            return {}
        port = paths.port(self._service.clientPort[0])
        if not port:
            return {}
        flows = multiplexer.datagrams
        flows.path, keys = paths.open(lambda: bool(flows.flows), flows.pathArrived)
        return {PATH: describePath(port, keys)}

    def admits(self, arrival: Any) -> bool:
        """
        Whether a connection with a ticket of this session's may be part of it: the
        session itself must still be permitted, and the address, too.
        """
        identity = self._caller.identity
        if self._ended or not self._isIn:
            return False
        try:
            if identity.grant is not None:
                identity.grant.check()
        except TunnelError:
            return False
        return self._service.access.admits(identity, arrival.peerAddress)

    # IClientSide

    @property
    def carriesDatagrams(self) -> bool:
        """Whether the client can serve visitors over UDP."""
        return self._made is not None and self._made.datagrams.largest > 0

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
        if stream.tunnel.protocol == "udp":
            stream.connect(self._streams().openFlow(stream.info))
            return
        opened = self._leastLoaded().open(stream.info)
        stream.connect(opened)
        if self.moves is not None and self.moves.atOnce:
            self.moves.offer(opened)

    def _streams(self) -> ExtendedMultiplexer:
        """@raise TunnelError: C{client-away}, if the session is not established."""
        if self.multiplexer is None or self._made is None:
            raise TunnelError("client-away")
        return self._made

    def _leastLoaded(self) -> ExtendedMultiplexer:
        """
        Choose the connection for a new stream, of several.

        @raise TunnelError: C{client-away}.
        """
        first = self._streams()
        return (
            first
            if self.extraConnections is None
            else self.extraConnections.leastLoaded(first)
        )

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
        """
        Take a stream that the client opens, to visit a tunnel or to have something
        dialled.

        @param peer: Where it comes from, if not by this connection.
        """
        self._opened(stream, info, False, stream.accept, peer)

    def _flowByClient(self, flow: SessionFlow, info: dict[str, object]) -> None:
        accept = partial(self._streams().datagrams.accept, flow)
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
        name = info.get("service", serviceOf(self._caller.identity))
        if isinstance(name, str):
            self.whileUp(self.visit(end, name, isUDP, accept, peer))
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
        return self._leastLoaded().open({DIAL: target, "visitor": visitor})

    def openDialFlow(self, target: str, visitor: str) -> SessionFlow:
        """The same as L{openDial}, for datagrams."""
        return self._streams().openFlow({DIAL: target, "visitor": visitor})

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
        if self.connection.confirmations is not None:
            self.connection.confirmations.down(self._sendEnding)
        self.tickets.close()
        if self.extraConnections is not None:
            self.extraConnections.close(reason)
        claimed = self._caller.limitedTo
        if claimed is not None and claimed.clientSide is self:
            claimed.clientSide = None
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


def takeOver(caller: Caller, lease: object = None) -> Deferred[dict[str, object]]:
    """
    Have a standby session take over a lease.

    @param lease: C{id}, C{secret} and C{fence}.
    @return: What the answer to a handshake with that lease would say.
    @raise TunnelError: C{not-permitted} for any other session.
    """
    session = caller.clientSide
    if not isinstance(session, ExtendedSession):
        raise TunnelError("not-permitted", "only a session takes over")
    return session.untilOver(session.takeOver(lease))
