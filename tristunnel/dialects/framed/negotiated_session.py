"""
The framed protocol at the server: what a client that speaks the extension asks for in
its handshake, and gets.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.capability import claimTunnel
from tristunnel.service.leases import Lease
from tristunnel.service.tickets import TicketBook
from tristunnel.util.hosts import hostSaid

__all__ = ["NegotiatedSession", "takeOver"]


_NOTHING: Mapping[str, object] = {}


class NegotiatedSession(FramedSession, VisitingSession):
    """
    A session of which both sides agree what it can do: whose tunnels it serves, whether
    its streams move and its datagrams have a path of their own, and whether its client
    dials. One that stands by gets its tunnels with L{takeOver}.

    @param offer: What the client's handshake says of the extension.

    @ivar moves: What lets streams move to connections of their own, where both
        sides can.
    @ivar tickets: The tickets by which more connections become part of the session.
    @ivar takesDials: Whether the client dials for others.
    """

    dialect = "framed"
    extended = True
    multiplexer: ExtendedMultiplexer | None

    __slots__ = (
        "_answer",
        "_made",
        "_offer",
        "_standsBy",
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
        self.tickets = TicketBook(sessions.service.tickets, self.admits)
        self._offer: Mapping[str, object] = offer
        self._answer: Mapping[str, object] = _NOTHING
        self._made: ExtendedMultiplexer | None = None
        self._standsBy = False

    @property
    def lease(self) -> Lease | None:
        """What keeps its tunnels beyond this connection."""
        return self.leases[0] if self.leases else None

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
        multiplexer.datagrams.opened = self.flowByClient
        self._answer = answer

    def admitted(self) -> None:
        multiplexer = self._made
        assert multiplexer is not None
        self.connection.sendHandshake({"port": 0, EXTENSION: self._answer})
        self.establish(multiplexer)
        if quiet := quietTime(self._offer):
            self.connection.stayQuiet(quiet)
        self.connection.confirmEnds()
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
        self.connection.confirmEnds()
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
        if isinstance(previous, NegotiatedSession):
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

    @property
    def carriesDatagrams(self) -> bool:
        """Whether the client can serve visitors over UDP."""
        return self._made is not None and self._made.datagrams.largest > 0

    @abstractmethod
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

    @abstractmethod
    def flowByClient(self, flow: SessionFlow, info: dict[str, object]) -> None:
        """The same as L{openedByClient}, for datagrams."""

    def sessionOver(self, reason: TunnelError) -> None:
        self.tickets.close()
        claimed = self._caller.limitedTo
        if claimed is not None and claimed.clientSide is self:
            claimed.clientSide = None
        super().sessionOver(reason)


def takeOver(caller: Caller, lease: object = None) -> Deferred[dict[str, object]]:
    """
    Have a standby session take over a lease.

    @param lease: C{id}, C{secret} and C{fence}.
    @return: What the answer to a handshake with that lease would say.
    @raise TunnelError: C{not-permitted} for any other session.
    """
    session = caller.clientSide
    if not isinstance(session, NegotiatedSession):
        raise TunnelError("not-permitted", "only a session takes over")
    return session.untilOver(session.takeOver(lease))
