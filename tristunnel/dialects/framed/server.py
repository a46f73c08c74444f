"""
The framed protocol at the server: a client's session.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure

from tristunnel.auth.realm import Authenticator
from tristunnel.dataplane.endings import EndAcknowledgements
from tristunnel.dialects.base.dialling import DialSide
from tristunnel.dialects.base.multiplexer import Limits, Multiplexer
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.base.unauthenticated import HANDSHAKE_TIMEOUT, whyNotFramed
from tristunnel.dialects.framed.admission import Admission
from tristunnel.dialects.framed.datagram_path import ServerPaths
from tristunnel.dialects.framed.datagrams import SessionFlow
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.extra_connections import ServerExtraConnections
from tristunnel.errors import TunnelError
from tristunnel.forwards.destinations import Destinations
from tristunnel.forwards.dialling import DIAL, dialDestinations
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.service.access import serviceOf
from tristunnel.service.caller import Caller
from tristunnel.service.leases import Lease
from tristunnel.service.methods import methodsOf
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.service.visiting import Visiting
from tristunnel.tls.explanation import whyNoTLS
from tristunnel.util.hosts import addressText

if TYPE_CHECKING:
    from tristunnel.dialects.base.stream import SessionStream
    from tristunnel.interfaces import EitherEnd
    from tristunnel.model.tunnel import Stream, Tunnel

__all__ = [
    "TunnelServerFactory",
    "TunnelServerProtocol",
]

MOST_EARLY = 1024
"""Visitors that may wait until a session is established."""


class TunnelServerProtocol(Admission):
    """One client's session, plain W3P or extended."""

    _sentAway = False

    # IClientSide

    @property
    def carriesDatagrams(self) -> bool:
        """Whether the client can serve visitors over UDP."""
        return self._largestDatagram > 0

    def isThere(self) -> Deferred[bool]:
        """
        Whether the client still answers; one that speaks plain W3P cannot be asked.
        """
        return self._probe() if self.extended else succeed(not self._ended)

    @property
    def takesVisitors(self) -> bool:
        """Whether another visitor would be served: not while either side leaves."""
        return self.multiplexer is not None and not (self._leaving or self._ended)

    def placeFree(self, port: int, name: str) -> None:
        """Tell the client that what it was refused may be had now."""
        if self.extended and not self._ended:
            self.notify("available", port=port, name=name)

    def managedChanged(self) -> None:
        """Tell the client that it is asked for other tunnels now."""
        if self.extended and not self._ended:
            self.notify("managedChanged")

    def serve(self, stream: Stream) -> None:
        if self._leaving is not None or self._ended:
            stream.refuse(self._leaving or TunnelError("client-away"))
            return
        if self.multiplexer is None:
            self._keepWaiting(stream)
            return
        info = stream.info
        end: EitherEnd
        try:
            if stream.tunnel.protocol != "udp":
                carrier = self.multiplexer
                if self.extraConnections is not None:
                    carrier = self.streamsOf(carrier)
                opened = carrier.open(info)
                stream.connect(opened)
                if self.moves is not None and self.moves.atOnce:
                    self.moves.offer(opened)
                return
            elif isinstance(self.multiplexer, ExtendedMultiplexer):
                end = self.multiplexer.openFlow(info)
            else:
                raise TunnelError("not-permitted", "a W3P client does not support UDP")
        except TunnelError as refusal:
            stream.refuse(refusal)
        else:
            stream.connect(end)

    def _keepWaiting(self, stream: Stream) -> None:
        """
        Serve a visitor once the session is established. Its tunnel may have come from
        another process, where visitors were waiting for it.
        """

        def left(reason: TunnelError | None) -> None:
            stream.refuse(reason or TunnelError("reset"))

        if len(self._early) >= MOST_EARLY:
            stream.refuse(TunnelError("client-away"))
        else:
            stream.visitor.whileWaiting(left)
            self._early.append(stream)

    def establish(self, multiplexer: Multiplexer) -> None:
        """Begin, and serve those who wait."""
        super().establish(multiplexer)
        early, self._early = self._early, []
        for stream in early:
            if not stream.over:
                self.serve(stream)

    def streamsOf(self, multiplexer: Multiplexer) -> Multiplexer:
        """Choose the connection for a new stream: the least loaded of several."""
        if self.extraConnections is None or not isinstance(
            multiplexer, ExtendedMultiplexer
        ):
            return multiplexer
        chosen: Multiplexer = self.extraConnections.leastLoaded(multiplexer)
        return chosen

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        if self._ended or (self.lease is not None and self.multiplexer is None):
            # It is told of its tunnels when it is let in.
            return
        if self.extended:
            self.notify(
                "tunnelClosed",
                uri=tunnel.publicURI,
                code=reason.code.name,
                message=reason.message,
            )
        elif self._leaving is None:
            self.fail(reason)
        if tunnel is self._tunnel and tunnel.secretHash:
            self.fail(reason)

    def openedByClient(
        self,
        stream: SessionStream,
        info: dict[str, object],
        peer: IAddress | None = None,
    ) -> None:
        self._opened(stream, info, peer, stream.accept, False)

    def flowByClient(self, flow: SessionFlow, info: dict[str, object]) -> None:
        multiplexer = self.multiplexer
        if isinstance(multiplexer, ExtendedMultiplexer):
            accept = partial(multiplexer.datagrams.accept, flow)
            self._opened(flow, info, None, accept, True)

    def openDialFlow(self, target: str, visitor: str) -> SessionFlow:
        """The same as L{openDial}, for datagrams."""
        if not isinstance(self.multiplexer, ExtendedMultiplexer):
            raise TunnelError("client-away")
        return self.multiplexer.openFlow({DIAL: target, "visitor": visitor})

    def _opened(
        self,
        end: SessionStream | SessionFlow,
        info: dict[str, object],
        peer: IAddress | None,
        accept: Callable[[], None],
        isUDP: bool,
    ) -> None:
        if DIAL in info:
            self.dialled.opened(end, info, peer or self._peer, accept, isUDP)
            return
        name = info.get("service")
        if name is None and self.identity is not None:
            name = serviceOf(self.identity)
        if not isinstance(name, str):
            end.reset(
                TunnelError("not-permitted", "the stream does not name a service")
            )
            return
        coming = (
            self._flow(end, name, accept)
            if isinstance(end, SessionFlow)
            else self._visit(end, name, peer)
        )
        visit = Deferred.fromCoroutine(coming)
        visit.addErrback(lambda failure: self._log.failure("A visit failed", failure))

    async def _flow(
        self, flow: SessionFlow, name: str, accept: Callable[[], None]
    ) -> None:
        try:
            tunnel = await self._service.findNamed(self.caller(), name)
            if tunnel.protocol != "udp":
                raise TunnelError("not-permitted", f"{name} is not a UDP service")
        except TunnelError as refusal:
            flow.reset(refusal)
            return
        if not flow.over:
            tunnel.visitorArrived(flow, addressText(self._peer), self.visits)
            accept()

    @property
    def destinations(self) -> Destinations:
        """What the server dials for its clients."""
        factory = self.factory
        if isinstance(factory, TunnelServerFactory):
            return factory.destinations
        return dialDestinations(())

    @property
    def isForOneTunnel(self) -> bool:
        """Whether it came with the URI of a tunnel, which is good for nothing else."""
        return self._tunnel is not None

    @cached_property
    def dialled(self) -> DialSide:
        """What it has dialled."""
        return DialSide(self, self._service, self._dialler)

    def _dialler(self, name: str) -> TunnelServerProtocol | None:
        factory = self.factory
        isOurs = isinstance(factory, TunnelServerFactory)
        return factory.dialler(name) if isOurs else None

    @property
    def visiting(self) -> Visiting | None:
        """What leads to other processes of this server, if there are any."""
        return getattr(self.factory, "visiting", None)

    def openDial(self, target: str, visitor: str) -> SessionStream:
        """
        Have the client dial.

        @param target: What it is to reach.
        @param visitor: The address of the visitor.
        @raise TunnelError: If it takes no more.
        """
        if not isinstance(self.multiplexer, ExtendedMultiplexer):
            raise TunnelError("client-away")
        info: dict[str, object] = {DIAL: target, "visitor": visitor}
        opened: SessionStream = self.streamsOf(self.multiplexer).open(info)
        return opened

    async def _visit(
        self, stream: SessionStream, name: str, peer: IAddress | None
    ) -> None:
        caller = self.caller()
        address = addressText(peer or self._peer)
        try:
            tunnel = await self._service.findNamed(caller, name)
            _checkVisit(name, tunnel.protocol)
        except TunnelError as refusal:
            stream.reset(refusal)
            return
        if not stream.over:
            tunnel.visitorArrived(stream, address, self.visits)
            stream.accept()

    # Going

    def streams(self) -> int:
        """How many streams there are, in the session and beside it."""
        within = 0 if self.multiplexer is None else len(self.multiplexer.streams)
        tunnels = [] if self.lease is None else self.lease.tunnels
        return within + sum(
            isinstance(stream.client, SessionStream) and stream.client.hasMoved
            for tunnel in tunnels
            for stream in tunnel.streams
        )

    def displaced(self) -> None:
        """
        End the session: the lease's holder has come back on another connection, or
        another client came with the same tunnel's URI.
        """
        if self._sentAway:
            # That is what it was told to do; its streams stay here.
            return
        self.fail(TunnelError("displaced"))

    def sendAway(self, reason: TunnelError) -> None:
        """
        Send the client to another member of the cluster, if it can go there. It is
        served until it has gone, and its visitors are served until they leave.
        """
        if self.multiplexer is None:
            # It has not been let in yet, and will not be.
            self.leave(reason)
        elif self.extended and not self._ended:
            self._sentAway = True
            self.goAway(reason)

    def peerLeaves(self, reason: TunnelError) -> None:
        """The client is about to go, and takes no new visitors."""
        if self._leaving is None:
            self._leaving = TunnelError("client-away", "the client is about to stop")

    def leave(self, reason: TunnelError) -> None:
        """Take no new visitors; those that are here may finish."""
        self._leaving = reason
        self.goAway(reason)

    def fail(self, reason: TunnelError) -> None:
        """End the session, or refuse it if it never began."""
        if self.multiplexer is None and self.lost is None:
            if not self._handshakeBegun():
                reason = self._whyNoHandshake(reason)
            self._observer.peerRefused(self._peer, reason)
        super().fail(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, or never came through TLS."""
        if self.multiplexer is None and self.lost is None:
            broken = whyNoTLS(reason)
            if broken is not None:
                self._observer.peerRefused(self._peer, broken)
        super().connectionLost(reason)

    def _handshakeBegun(self) -> bool:
        """Whether the first bytes were the protocol's."""
        seen = self._handshake.received
        return seen.startswith(b"W3PTUNL"[: len(seen)]) and bool(seen)

    def _whyNoHandshake(self, reason: TunnelError) -> TunnelError:
        """Say what the first bytes look like, or that there were none."""
        if reason.code.name == "handshake-timeout":
            return reason
        return whyNotFramed(self._handshake.received)

    def sessionOver(self, reason: TunnelError) -> None:
        """
        Let the lease wait for the client, or end what depends on this session alone.
        """
        if self._admitting is not None:
            self._admitting.cancel()
        for stream in self._early:
            stream.refuse(TunnelError("client-away"))
        if self._confirmations is not None:
            self._confirmations.down(self._sendEnding)
        if "dialled" in vars(self):
            self.dialled.close(reason)
        self.tickets.close()
        if self.extraConnections is not None:
            self.extraConnections.close(reason)
        if self.extraConnectionOver is not None:
            self.extraConnectionOver(self)
        if self._client is not None:
            self._service.clients.leave(self._client)
        if self.lease is not None:
            self._service.leases.holderLost(self.lease, self)
        if self._tunnel is not None:
            if not self._tunnel.secretHash:
                self._service.discard([self._tunnel], reason)
            elif self._tunnel.clientSide is self:
                self._tunnel.clientSide = None
        if self.identity is not None and self.multiplexer is not None:
            self._observer.clientGone(self._peer, self.identity, reason)
        self.forgotten()

    def forgotten(self) -> None:
        if isinstance(self.factory, TunnelServerFactory):
            self.factory.sessions.discard(self)

    def confirmationsOf(self, whose: Lease | Tunnel) -> EndAcknowledgements:
        made = EndAcknowledgements(self.reactor)
        if not isinstance(self.factory, TunnelServerFactory):
            return made
        return self.factory.confirmations.setdefault(whose, made)

    def roundTripMeasured(self, seconds: float) -> None:
        self._observer.roundTripMeasured(seconds)


def _checkVisit(name: str, protocol: str) -> None:
    """@raise TunnelError: C{not-permitted}, if a service has no streams."""
    if protocol == "udp":
        raise TunnelError(
            "not-permitted", f"{name} is a UDP service: send datagrams to its port"
        )


def connectionTickets(caller: Caller, count: int) -> list[str]:
    """
    Give a client tickets for extra connections of its session.

    @param count: How many it would like.
    @raise TunnelError: C{not-permitted} without a session that may have them.
    """
    session = caller.clientSide
    if not isinstance(session, TunnelServerProtocol) or not session.extended:
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
    if not isinstance(session, TunnelServerProtocol):
        raise TunnelError("not-permitted", "only a session takes over")
    return Deferred.fromCoroutine(session.takeOver(lease))


class TunnelServerFactory(ServerSessions, ServerFactory[TunnelServerProtocol]):
    """
    The sessions of a server; makes those that speak the framed protocol.

    @param reactor: Tells time.
    @param service: The tunnel service that clients call.
    @param authenticator: Who may connect; everybody, if it is left out.
    @param limits: What a session may hold.
    @param handshakeTimeout: Seconds that a client has for its handshake.

    @ivar paths: Where datagrams can come past sessions, or C{None}.
    @ivar confirmations: What clients are told of the ends of streams that have
        left their sessions, by whose streams they are.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        service: TunnelService,
        authenticator: Authenticator | None = None,
        limits: Limits | None = None,
        handshakeTimeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        super().__init__(reactor, service, authenticator, limits, handshakeTimeout)
        self.confirmations: WeakKeyDictionary[Lease | Tunnel, EndAcknowledgements] = (
            WeakKeyDictionary()
        )
        self.paths: ServerPaths | None = None
        self._dispatcher = Dispatcher(
            {
                **methodsOf(service),
                # The wire keeps the name that released clients ask by.
                "laneTickets": connectionTickets,
                "takeOver": takeOver,
            }.get
        )

    def buildProtocol(self, addr: IAddress | None) -> TunnelServerProtocol:
        session = TunnelServerProtocol(
            self.service,
            self.authenticator,
            self._dispatcher,
            addr,  # type: ignore[arg-type] # a port's connection has one
            self.reactor,
            self.limits,
            self.handshakeTimeout,
        )
        session.factory = self
        self.add(session)
        return session

    def drain(self, reason: TunnelError) -> None:
        super().drain(reason)
        for session in list(self.sessions):
            if isinstance(session, TunnelServerProtocol):
                session.sendAway(reason)

    def dialler(self, name: str) -> TunnelServerProtocol | None:
        """
        Find a client that dials for others: by the name that its login proves; where
        nobody logs in, by what it says of itself.
        """
        found: TunnelServerProtocol | None = None
        for client in self.service.clients:
            side, identity = client.side, client.identity
            if not isinstance(side, TunnelServerProtocol) or not side.takesDials:
                continue
            names = {identity.name}
            if identity.anonymous:
                names = {client.facts.name, client.facts.host}
            if name in names:
                # The one that came last: the others may be on their way out.
                found = side
        return found

    def close(self, reason: TunnelError) -> None:
        super().close(reason)
        for each in list(self.confirmations.values()):
            each.close()
        if self.paths is not None:
            self.paths.close()
