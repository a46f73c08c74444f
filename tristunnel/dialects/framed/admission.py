"""
The framed protocol at the server: how a client comes in.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, INegotiated, IReactorTime

from tristunnel.auth.certificate import certificateName
from tristunnel.auth.realm import Authenticator
from tristunnel.dataplane.endings import EndAcknowledgements
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.base.plain import PlainServerSide
from tristunnel.dialects.base.unauthenticated import PendingLogin
from tristunnel.dialects.framed.datagram_path import PATH, describePath
from tristunnel.dialects.framed.datagrams import SessionFlow
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.extra_connections import ServerExtraConnections
from tristunnel.dialects.framed.moves import ServerMoves
from tristunnel.dialects.framed.session import (
    EXTENSION,
    HANDSHAKE_TIMEOUT,
    QUIET,
    STANDBY,
    VERSION,
    FramedProtocol,
    extensionOffer,
    quietTime,
)
from tristunnel.errors import TunnelError
from tristunnel.forwards.dialling import DIAL
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.model.permissions import Identity
from tristunnel.model.record import TunnelRecord
from tristunnel.service.caller import Caller
from tristunnel.service.capability import claimTunnel
from tristunnel.service.clients import ClientFacts, Visits
from tristunnel.service.leases import Lease
from tristunnel.service.preauth import sourceOf
from tristunnel.service.tickets import TicketBook
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.util.hosts import addressText, hostSaid
from tristunnel.wire.framed import FrameType, encodeHandshake

if TYPE_CHECKING:
    from tristunnel.dialects.base.stream import SessionStream
    from tristunnel.model.tunnel import Stream, Tunnel
    from tristunnel.service.clients import ConnectedClient


__all__ = ["Admission"]


class Admission(FramedProtocol):
    """
    One client's connection, until it is known who that is and what it speaks.

    @ivar identity: Who the client is, once that is known.
    @ivar lease: What keeps its tunnels beyond this connection.
    @ivar moves: What lets streams move to connections of their own, where both
        sides can.
    @ivar extraConnections: Its extra connections, if it asked for some.
    @ivar tickets: The tickets by which more connections become part of the session.
    @ivar extraConnectionOver: Called when it ends, if it is an extra connection.
    @ivar visits: Its visits to tunnels of others; set with C{identity}.
    @ivar takesDials: Whether the client dials for others.
    @ivar pending: Told when the client is known, or when its login failed.
    """

    pending: PendingLogin | None = None
    takesDials = False
    visits: Visits

    __slots__ = (
        "_admitting",
        "_authenticator",
        "_client",
        "_early",
        "_host",
        "_largestDatagram",
        "_leaving",
        "_observer",
        "_peer",
        "_service",
        "_standingBy",
        "_tunnel",
        "cameBy",
        "extraConnectionOver",
        "extraConnections",
        "identity",
        "lease",
        "moves",
        "tickets",
        "visits",
        "vouchedFor",
    )

    def __init__(
        self,
        service: TunnelService,
        authenticator: Authenticator,
        dispatcher: Dispatcher,
        peer: IAddress,
        reactor: IReactorTime,
        limits: Limits | None = None,
        handshakeTimeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        super().__init__(reactor, limits, dispatcher, handshakeTimeout)
        self.identity: Identity | None = None
        self.lease: Lease | None = None
        self.moves: ServerMoves | None = None
        self.extraConnections: ServerExtraConnections | None = None
        self.extraConnectionOver: Callable[[FramedProtocol], None] | None = None
        self.cameBy: Caller | None = None
        self.vouchedFor: Identity | None = None
        self._service = service
        self._observer = service.observer
        self._authenticator = authenticator
        self._peer = peer
        self._host = ""
        self._admitting: Deferred[None] | None = None
        self._tunnel: Tunnel | None = None
        self._early: list[Stream] = []
        self._largestDatagram = 0
        self.tickets = TicketBook(service.tickets, self.admits)
        self._client: ConnectedClient | None = None
        self._leaving: TunnelError | None = None
        # What it said of itself, while it waits to take over.
        self._standingBy: tuple[dict[str, object], ExtendedMultiplexer] | None = None

    # Coming in

    def handshakeReceived(self, message: dict[str, object]) -> None:
        """Ask who the client is; until that is answered, read nothing more."""
        # The true peer behind TLS or a PROXY header is known only now.
        self._peer = self.transport.getPeer()
        offer = message.get(EXTENSION)
        if isinstance(offer, dict) and "ticket" in offer:
            if not self._pass("ticket", message, offer["ticket"]):
                self._redeem(offer)
            return
        self.transport.pauseProducing()
        self._admitting = Deferred.fromCoroutine(self._arrive(message))

    def _pass(self, kind: str, message: dict[str, object], mark: object) -> bool:
        """
        Pass the connection on, if it belongs to another process of this server.

        @param kind: What it is, for the counters.
        @param message: What the client has said.
        @param mark: Begins with the mark of that process.
        @return: Whether it was passed on.
        """
        passing = getattr(self.factory, "passing", None)
        owner = None if passing is None else passing.ownerOf(mark)
        if passing is None or owner is None or not passing.mayPass(self.transport):
            return False
        began = encodeHandshake(message) + self.stepAside()
        try:
            passing.give(kind, self.transport, began, owner)
        except TunnelError as refusal:
            self._observer.peerRefused(self._peer, refusal)
            self.transport.abortConnection()
        return True

    async def _arrive(self, message: dict[str, object]) -> None:
        """
        Let the client in, unless another process of this server has the tunnel that it
        comes for.
        """
        offer = message.get(EXTENSION)
        claim = offer.get("tunnel") if isinstance(offer, dict) else None
        if self._service.siblings is not None and isinstance(claim, dict):
            with suppress(TunnelError, CancelledError):
                record = await self._service.entries.find(str(claim.get("id")))
                if self._pass("session", message, f"{record.place.member}."):
                    return
        if not self._ended:
            await self._admit(message)

    def _redeem(self, offer: dict[str, object]) -> None:
        """Use the connection for what its ticket is for."""
        use = self._service.tickets.redeem(offer["ticket"])
        if use is None or not use(self, offer):
            self._refuse(TunnelError("expired", "the ticket is not valid"), True)
        elif self.pending is not None:
            self.pending.known()

    def admits(self, arrival: Admission) -> bool:
        """
        Whether a connection with a ticket of this session's may be part of it: the
        session itself must still be permitted, and the address, too.
        """
        identity = self.identity
        if self._ended or identity is None:
            return False
        try:
            if identity.grant is not None:
                identity.grant.check()
        except TunnelError:
            return False
        return self._service.access.admits(identity, arrival._peer)

    def stepAside(self) -> bytes:
        """
        Give up the connection, which becomes a stream.

        @return: What came after the handshake.
        """
        self._ended = True
        self._stopDeadline()
        self.forgotten()
        rest, self._rest = self._rest, b""
        return rest

    def becomeExtraConnection(
        self, opened: Callable[..., None], offer: dict[str, object]
    ) -> None:
        """
        Carry another session's streams, and nothing else.

        @param opened: What the other session does with a stream that its client opens.
        @param offer: What the client said of its windows.
        """
        multiplexer = self.extendedMultiplexer(
            offer, True, partial(opened, peer=self._peer)
        )
        # Nobody has logged in here, so nobody may call anything.
        self._dispatcher = None
        self.sendHandshake(
            {EXTENSION: {"accepted": True, **extensionOffer(self.limits)}}
        )
        self.establish(multiplexer)

    async def _admit(self, message: dict[str, object]) -> None:
        offer = message.pop(EXTENSION, None)
        extended = isinstance(offer, dict)
        claim = offer.get("tunnel") if isinstance(offer, dict) else None
        access = offer.get("access") if isinstance(offer, dict) else None
        try:
            if isinstance(claim, dict):
                # The capability is the credential, and is good for nothing else.
                self._tunnel = await claimTunnel(self._service.find, claim)
                self.identity = Identity(f"tunnel-{self._tunnel.id}", issued=True)
            elif isinstance(access, dict):
                self.identity = await self._service.access.claim(
                    access,
                    self._peer,
                    lambda: self._authenticate(message),
                )
            elif self.vouchedFor is not None and not message:
                self.identity = self.vouchedFor
            else:
                self.identity = await self._authenticate(message)
            if self.pending is not None:
                self.pending.known()
            if self._leaving is not None:
                raise self._leaving
            self.visits = Visits(self.identity)
            facts = ClientFacts.said(
                offer.get("client") if isinstance(offer, dict) else None,
                message.get("id") if self.identity.anonymous else "",
            )
            if self.identity.anonymous and (said := facts.name or facts.host):
                self.identity = replace(self.identity, claimed=said)
            self._client = self._service.clients.enter(
                self.identity,
                addressText(self._peer),
                "framed" if extended else "framed-plain",
                self.endOnPurpose,
                self,
                facts,
            )
            if isinstance(offer, dict):
                await self._admitExtended(self.identity, offer)
            else:
                await self._admitPlain(self.identity)
        except TunnelError as refusal:
            if not self._ended:
                self._observer.authenticationFailed(self._peer, refusal)
                self._refuse(refusal, extended)
        except CancelledError:
            pass
        except Exception:
            self._log.failure("A client could not be admitted")
            self._refuse(TunnelError("internal"), extended)
        finally:
            self._admitting = None
            if not self._ended:
                self.transport.resumeProducing()

    def _authenticate(self, message: dict[str, object]) -> Deferred[Identity]:
        certificate = (
            certificateName(self.transport)
            if self.cameBy is None
            else self.cameBy.certificate
        )
        return self._authenticator.authenticate(message, self._peer, certificate)

    def _refuse(self, refusal: TunnelError, extended: bool) -> None:
        """Turn the client away; an extended one is told why."""
        self.lost = refusal
        if self.pending is not None and refusal.code.name == "auth-refused":
            self.pending.failed()
        if extended:
            self.sendHandshake({EXTENSION: {"refused": refusal.asDict()}})
        self.close()

    async def _admitExtended(
        self, identity: Identity, offer: dict[str, object]
    ) -> None:
        versions = offer.get("versions")
        if not isinstance(versions, list) or VERSION not in versions:
            raise TunnelError(
                "protocol-error", f"this server speaks version {VERSION} only"
            )
        multiplexer = self.extendedMultiplexer(offer, True, self.openedByClient)
        self._largestDatagram = multiplexer.datagrams.largest
        self._host = hostSaid(offer.get("host"))
        answer = {"version": VERSION, **extensionOffer(self.limits)}
        if self._tunnel is not None:
            self._claim(self._tunnel)
            answer["tunnels"] = [self._tunnel.publicURI]
        elif offer.get(STANDBY) is True:
            self._standingBy = offer, multiplexer
            answer[STANDBY] = True
        else:
            answer.update(await self._takeLease(identity, offer.get("lease")))
        answer.update(self._offerMoves(offer, multiplexer))
        answer.update(self._openPath(offer, multiplexer))
        dials = offer.get(DIAL)
        if isinstance(dials, list):
            # Whether a target is allowed is checked when it is asked for.
            self.takesDials = "take" in dials
            answer[DIAL] = True
        multiplexer.datagrams.opened = self.flowByClient
        quiet = quietTime(offer)
        if quiet:
            answer[QUIET] = quiet
        self.sendHandshake({"port": 0, EXTENSION: answer})
        self._observer.clientConnected(self._peer, identity, "framed")
        self.establish(multiplexer)
        if quiet:
            self.stayQuiet(quiet)
        if self._confirmations is not None:
            self._confirmations.up(self._sendEnding)

    async def takeOver(self, lease: object) -> dict[str, object]:
        """
        Take over: have the lease of the session that was lost.

        @param lease: As in a handshake.
        @return: What the answer to a handshake says.
        @raise TunnelError: C{not-permitted}, if it does not stand by.
        """
        standing, self._standingBy = self._standingBy, None
        if standing is None or self.identity is None or self._leaving is not None:
            raise self._leaving or TunnelError(
                "not-permitted", "this session does not stand by"
            )
        answer = await self._takeLease(self.identity, lease)
        if self._ended:
            raise TunnelError("session-lost")
        moves = self._offerMoves(*standing)
        if self._confirmations is not None:
            self._confirmations.up(self._sendEnding)
        return {**answer, **moves}

    def _offerMoves(
        self, offer: dict[str, object], multiplexer: ExtendedMultiplexer
    ) -> dict[str, object]:
        """
        Let streams move to connections of their own, where both sides can.

        @return: What the answer says of it.
        """
        ends = self._confirmEnds(offer, multiplexer)
        if ends is None:
            return {}
        atOnce = offer["move"] == "at-once"
        self.moves = ServerMoves(self.tickets, multiplexer, atOnce, ends)
        return {"move": True}

    def _openPath(
        self, offer: dict[str, object], multiplexer: ExtendedMultiplexer
    ) -> dict[str, object]:
        """
        Give a client a path for datagrams past the session, if it can use one.

        @return: What the answer says of it.
        """
        paths = getattr(self.factory, "paths", None)
        if paths is None or offer.get(PATH) is not True:
            return {}
        port = paths.port(self._service.clientPort[0])
        if not port:
            return {}
        flows = multiplexer.datagrams
        flows.path, keys = paths.open(lambda: bool(flows.flows), flows.pathArrived)
        return {PATH: describePath(port, keys)}

    def _confirmEnds(
        self, offer: dict[str, object], multiplexer: ExtendedMultiplexer
    ) -> EndAcknowledgements | None:
        """
        Acknowledge the ends of streams that move to connections of their own, if the
        client wants that and this connection is a socket of ours.
        """
        whose = self.lease or self._tunnel
        if offer.get("move") not in ("busy", "at-once") or whose is None:
            return None
        if not isinstance(self.transport, SocketTransport):
            return None
        self._confirmations = self.confirmationsOf(whose)
        return self._confirmations

    def _sendEnding(self, payload: bytes) -> None:
        """Tell the client of the end of a stream that has left the session."""
        if self.multiplexer is not None:
            self.multiplexer.sendFrame(0, FrameType.ENDING, payload)

    async def _takeLease(self, identity: Identity, asked: object) -> dict[str, object]:
        """
        Give the client its lease back, or a new one.

        @return: What the answer says of it.
        """
        leases = self._service.leases
        granted: dict[str, object] = {"seconds": leases.seconds}
        claimed = None
        if isinstance(asked, dict):
            claimed = await leases.claim(
                asked.get("id"),
                asked.get("secret"),
                identity,
                self,
                asked.get("fence"),
            )
        if claimed is None:
            self.lease, granted["secret"] = await leases.grant(identity, self)
        else:
            self.lease, elsewhere = claimed
            for record in elsewhere:
                await self._adopt(record)
        granted["id"], granted["fence"] = self.lease.id, self.lease.place.fence
        return {
            "lease": granted,
            "tunnels": [tunnel.uri for tunnel in self.lease.tunnels],
        }

    async def _adopt(self, record: TunnelRecord) -> None:
        """Take over a tunnel of the client's from another process."""
        try:
            await self._service.adopt(self.caller(), record)
        except TunnelError as refusal:
            self._observer.requestNoted(
                self.identity or Identity("anonymous", anonymous=True),
                f"came from another process, and its tunnel {record.uri} could not be"
                f" opened here: {refusal}",
                True,
            )

    def _claim(self, tunnel: Tunnel) -> None:
        """Serve the tunnel of a capability, instead of whoever did so before."""
        previous, tunnel.clientSide = tunnel.clientSide, self
        if isinstance(previous, Admission):
            previous.displaced()

    async def _admitPlain(self, identity: Identity) -> None:
        """Open the one tunnel of a plain W3P client, and tell it the port."""
        caller = self.caller()
        # Set first: a visitor may come before the client was told the port.
        multiplexer = PlainServerSide(
            self.transport,
            self.reactor.seconds,
            self.openedByClient,
            self.limits,
            self.reactor.callLater,
        )
        self._observer.clientConnected(self._peer, identity, "framed-plain")
        self._tunnel = await self._service.open(caller, {})
        if self._ended:
            self._service.discard([self._tunnel], TunnelError("session-lost"))
            return
        listener = self._tunnel.listener
        self.sendHandshake({"port": 0 if listener is None else listener.address[2]})
        self.establish(multiplexer)

    def caller(self) -> Caller:
        """As whom the client calls the tunnel service."""
        here = self.cameBy or self.transport.getHost()
        return Caller(
            self.identity or Identity("anonymous", anonymous=True),
            self._host or getattr(here, "host", "localhost"),
            getattr(here, "port", 0),
            self,
            self.lease,
            self._tunnel,
            sourceOf(self._peer),
            (
                INegotiated.providedBy(self.transport)
                if self.cameBy is None
                else self.cameBy.secure
            ),
        )

    # What becomes of it

    def endOnPurpose(self, reason: TunnelError) -> None:
        """
        End the session because somebody wants that, or because its permission has
        ended; and its visits to others, too, wherever they are by now.
        """
        self.visits.end(reason)
        self.fail(reason)

    @abstractmethod
    def flowByClient(self, flow: SessionFlow, info: dict[str, object]) -> None:
        """Take a flow that the client opens."""

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
    def displaced(self) -> None:
        """End the session: somebody else serves the same tunnels from now on."""

    @abstractmethod
    def serve(self, stream: Stream) -> None:
        """Serve a visitor."""

    @abstractmethod
    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """Tell the client that one of its tunnels is over."""

    @abstractmethod
    def forgotten(self) -> None:
        """Take it out of the server's sessions."""

    @abstractmethod
    def confirmationsOf(self, whose: Lease | Tunnel) -> EndAcknowledgements:
        """
        Find the acknowledgements of the ends of somebody's streams, which last over one
        session and the next.
        """
