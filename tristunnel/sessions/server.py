"""
The framed protocol at the server: a client's session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, INegotiated, IReactorTime
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure

from tristunnel.auth.certificate import certificateName
from tristunnel.auth.realm import Authenticator, Identity
from tristunnel.errors import TunnelError
from tristunnel.listeners.tcp import addressText
from tristunnel.observer import ServerObserver
from tristunnel.relay.kernel import canHandOver
from tristunnel.relay.sockets import SocketEnd
from tristunnel.rpc.jsonrpc import Dispatcher
from tristunnel.rpc.methods import methodsOf
from tristunnel.rules.access import serviceOf
from tristunnel.server.gate import sourceOf
from tristunnel.sessions.direct import DirectStreams
from tristunnel.sessions.endings import Confirmations
from tristunnel.sessions.extended import ExtendedMultiplexer
from tristunnel.sessions.framed import (
    EXTENSION,
    HANDSHAKE_TIMEOUT,
    QUIET,
    VERSION,
    FramedProtocol,
    extensionOffer,
    quietTime,
)
from tristunnel.sessions.lanes import ServerLanes
from tristunnel.sessions.multiplexer import Limits, Multiplexer
from tristunnel.sessions.path import PATH, ServerPaths, describePath
from tristunnel.sessions.plain import PlainServerSide
from tristunnel.sessions.zlayer_data import ZLayerSessions
from tristunnel.tls.rejection import whyNoTLS
from tristunnel.tunnels.capability import claimTunnel
from tristunnel.tunnels.registry import Lease
from tristunnel.tunnels.service import Caller, TunnelService
from tristunnel.wire.first_bytes import describeFirstBytes, looksLikeTLS
from tristunnel.wire.framed import FrameType

if TYPE_CHECKING:
    from tristunnel.interfaces import EitherEnd
    from tristunnel.sessions.stream import SessionStream
    from tristunnel.tunnels.clients import ConnectedClient
    from tristunnel.tunnels.tunnel import Stream, Tunnel

__all__ = [
    "Stranger",
    "TunnelServerFactory",
    "TunnelServerProtocol",
    "whyNotFramed",
]


class Stranger(Protocol):
    """
    Whoever counts connections that have not said who they are.
    """

    def known(self) -> None:
        """
        This one has.
        """

    def failed(self) -> None:
        """
        This one's login failed.
        """


def whyNotFramed(data: bytes) -> TunnelError:
    """
    Name the likely mistake of a peer that does not speak the protocol.

    @param data: Its first bytes.
    """
    seen = describeFirstBytes(data)
    cure = ""
    if looksLikeTLS(data):
        cure = "; the port speaks no TLS: give the server a certificate, or connect"
        cure += " with tcp: instead of tls:"
    elif seen == "an HTTP request":
        cure = "; this port serves no HTTP"
    elif seen == "a PROXY protocol header":
        cure = "; behind such a proxy the port is --port haproxy:tcp:PORT"
    return TunnelError("protocol-error", f"the peer sent {seen}{cure}")


class TunnelServerProtocol(FramedProtocol):
    """
    One client's connection, plain W3P or extended.

    @ivar identity: Who the client is, once that is known.
    @ivar lease: What keeps its tunnels beyond this connection.
    @ivar direct: What lets streams leave the session, where both sides can.
    @ivar lanes: Its further connections, if it asked for some.
    @ivar laneOver: Told of the end, if it is one of them.
    @ivar stranger: Told when the client is known, or when its login failed.
    """

    stranger: Stranger | None = None

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
        self.direct: DirectStreams | None = None
        self._confirmations: Confirmations | None = None
        self._toldOfEnds = self._sendEnding
        self.lanes: ServerLanes | None = None
        self.laneOver: Callable[[FramedProtocol], None] = lambda lane: None
        self.cameBy: Caller | None = None
        self.vouchedFor: Identity | None = None
        self._service = service
        self._observer = service.observer
        self._authenticator = authenticator
        self._peer = peer
        self._host = ""
        self._admitting: Deferred[None] | None = None
        self._tunnel: Tunnel | None = None
        self._client: ConnectedClient | None = None
        self._leaving: TunnelError | None = None

    # Coming in

    def handshakeReceived(self, message: dict[str, object]) -> None:
        """
        Ask who the client is; until that is answered, read nothing more.
        """
        # TLS hands the true peer out only now, a PROXY header too.
        self._peer = self.transport.getPeer()
        offer = message.get(EXTENSION)
        if isinstance(offer, dict) and "ticket" in offer:
            self._redeem(offer)
            return
        self.transport.pauseProducing()
        self._admitting = Deferred.fromCoroutine(self._admit(message))

    def _redeem(self, offer: dict[str, object]) -> None:
        """
        Let the connection be what its ticket is for.
        """
        use = self._service.tickets.redeem(offer["ticket"])
        if use is None or not use(self, offer):
            self._refuse(TunnelError("expired", "the ticket is not valid"), True)
        elif self.stranger is not None:
            self.stranger.known()

    def stepAside(self) -> bytes:
        """
        Have nothing to do with the connection any more: it is a stream.

        @return: What came behind the handshake.
        """
        self._ended = True
        self._stopDeadline()
        if isinstance(self.factory, TunnelServerFactory):
            self.factory.sessions.discard(self)
        rest, self._rest = self._rest, b""
        return rest

    def becomeLane(self, offer: dict[str, object]) -> None:
        """
        Carry another session's streams, and nothing else.

        @param offer: What the client said of its windows.
        """
        multiplexer = self.extendedMultiplexer(offer, True, self._openedByClient)
        # Nobody has logged in here, so nobody may call anything.
        self._dispatcher = None
        self.sendHandshake(
            {EXTENSION: {"accepted": True, **extensionOffer(self.limits)}}
        )
        self.establish(multiplexer)

    async def _admit(self, message: dict[str, object]) -> None:
        """
        Let the client in, or turn it away.
        """
        offer = message.pop(EXTENSION, None)
        extended = isinstance(offer, dict)
        claim = offer.get("tunnel") if isinstance(offer, dict) else None
        access = offer.get("access") if isinstance(offer, dict) else None
        try:
            if isinstance(claim, dict):
                # The capability is the credential, and good for no more.
                self._tunnel = await claimTunnel(self._service.registry, claim)
                self.identity = Identity(f"tunnel-{self._tunnel.id}")
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
            if self.stranger is not None:
                self.stranger.known()
            if self._leaving is not None:
                raise self._leaving
            self._client = self._service.clients.enter(
                self.identity,
                addressText(self._peer),
                "framed" if extended else "framed-plain",
                self.fail,
                self,
            )
            if isinstance(offer, dict):
                self._admitExtended(self.identity, offer)
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
        """
        Find out who the client is.
        """
        certificate = (
            certificateName(self.transport)
            if self.cameBy is None
            else self.cameBy.certificate
        )
        return self._authenticator.authenticate(message, self._peer, certificate)

    def _refuse(self, refusal: TunnelError, extended: bool) -> None:
        """
        Turn the client away; an extended one is told why.
        """
        self.lost = refusal
        if self.stranger is not None and refusal.code.name == "auth-refused":
            self.stranger.failed()
        if extended:
            reason: dict[str, object] = {
                "code": refusal.code.name,
                "message": refusal.message,
            }
            if refusal.retryAfter is not None:
                reason["retryAfter"] = refusal.retryAfter
            self.sendHandshake({EXTENSION: {"refused": reason}})
        self.close()

    def _admitExtended(self, identity: Identity, offer: dict[str, object]) -> None:
        """
        Answer a client that speaks the extension.
        """
        versions = offer.get("versions")
        if not isinstance(versions, list) or VERSION not in versions:
            raise TunnelError(
                "protocol-error", f"this server speaks version {VERSION} only"
            )
        multiplexer = self.extendedMultiplexer(offer, True, self._openedByClient)
        host = offer.get("host")
        if isinstance(host, str) and 0 < len(host) < 256 and host.isprintable():
            self._host = host
        answer = {"version": VERSION, **extensionOffer(self.limits)}
        if self._tunnel is None:
            answer.update(self._takeLease(identity, offer.get("lease")))
        else:
            self._claim(self._tunnel)
            answer["tunnels"] = [self._tunnel.publicURI]
        if offer.get("direct") in ("auto", "always") and canHandOver(self.transport):
            answer["direct"] = True
            self.direct = DirectStreams(
                self.reactor,
                self._service.tickets,
                multiplexer,
                offer["direct"] == "always",
                self._confirmEnds(offer, multiplexer, answer),
            )
        answer.update(self._openPath(offer, multiplexer))
        quiet = quietTime(offer)
        if quiet:
            answer[QUIET] = quiet
        self.sendHandshake({"port": 0, EXTENSION: answer})
        self._observer.clientConnected(self._peer, identity, "framed")
        self.establish(multiplexer)
        if quiet:
            self.stayQuiet(quiet)
        if self._confirmations is not None:
            self._confirmations.up(self._toldOfEnds)

    def _openPath(
        self, offer: dict[str, object], multiplexer: ExtendedMultiplexer
    ) -> dict[str, object]:
        """
        Give a client that can use it a way for datagrams past the session.

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
        self,
        offer: dict[str, object],
        multiplexer: ExtendedMultiplexer,
        answer: dict[str, object],
    ) -> Confirmations | None:
        """
        Tell and be told of the ends of streams that leave the session, with a
        client that can do so.

        @param answer: What the client is answered.
        """
        whose, factory = self.lease or self._tunnel, self.factory
        if (
            offer.get("endings") is not True
            or whose is None
            or not isinstance(factory, TunnelServerFactory)
        ):
            return None
        answer["endings"] = True
        self._confirmations = factory.confirmations.setdefault(
            whose, Confirmations(self.reactor)
        )
        multiplexer.handle(FrameType.ENDING, self._confirmations.arrived)
        return self._confirmations

    def _sendEnding(self, payload: bytes) -> None:
        """
        Tell the client of the end of a stream that has left the session.
        """
        if self.multiplexer is not None:
            self.multiplexer.sendFrame(0, FrameType.ENDING, payload)

    def _takeLease(self, identity: Identity, asked: object) -> dict[str, object]:
        """
        Give the client its lease back, or a new one.

        @return: What the answer says of it.
        """
        leases = self._service.leases
        granted: dict[str, object] = {"seconds": leases.seconds}
        if isinstance(asked, dict):
            self.lease = leases.claim(
                asked.get("id"), asked.get("secret"), identity, self
            )
        if self.lease is None:
            self.lease, granted["secret"] = leases.grant(identity, self)
        granted["id"] = self.lease.id
        return {
            "lease": granted,
            "tunnels": [tunnel.uri for tunnel in self.lease.tunnels],
        }

    def _claim(self, tunnel: Tunnel) -> None:
        """
        Serve the tunnel of a capability, instead of whoever did so before.
        """
        previous, tunnel.clientSide = tunnel.clientSide, self
        if isinstance(previous, TunnelServerProtocol):
            previous.displaced()

    async def _admitPlain(self, identity: Identity) -> None:
        """
        Open the one tunnel of a plain W3P client, and tell it the port.
        """
        caller = self.caller()
        # Set first: a visitor may come before the client was told the port.
        multiplexer = PlainServerSide(
            self.transport,
            self.reactor.seconds,
            self._openedByClient,
            self.limits,
            self.reactor.callLater,
        )
        self._observer.clientConnected(self._peer, identity, "framed-plain")
        uri = await self._service.openTunnel(caller, {})
        self._tunnel = await self._service.registry.find(uri)
        if self._ended:
            self._service.discard([self._tunnel], TunnelError("session-lost"))
            return
        listener = self._tunnel.listener
        self.sendHandshake({"port": 0 if listener is None else listener.address[2]})
        self.establish(multiplexer)

    def caller(self) -> Caller:
        """
        As whom the client calls the tunnel service.
        """
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

    # IClientSide

    @property
    def carriesDatagrams(self) -> bool:
        """
        Whether the client can serve visitors over UDP.
        """
        return (
            isinstance(self.multiplexer, ExtendedMultiplexer)
            and self.multiplexer.datagrams.largest > 0
        )

    def serve(self, stream: Stream) -> None:
        """
        Open a stream within the session for a visitor.
        """
        if self.multiplexer is None or self._leaving is not None or self._ended:
            stream.refuse(self._leaving or TunnelError("client-away"))
            return
        info: dict[str, object] = {
            "tunnel": stream.tunnel.publicURI,
            "visitor": stream.visitorAddress,
        }
        end: EitherEnd
        try:
            if stream.tunnel.protocol != "udp":
                if self.direct is not None:
                    self.direct.serve(stream, info)
                    return
                end = self.streamsOf(self.multiplexer).open(info)
            elif isinstance(self.multiplexer, ExtendedMultiplexer):
                end = self.multiplexer.openFlow(info)
            else:
                raise TunnelError("not-permitted", "a W3P client knows no UDP")
        except TunnelError as refusal:
            stream.refuse(refusal)
        else:
            stream.connect(end)

    def streamsOf(self, multiplexer: Multiplexer) -> Multiplexer:
        """
        Choose the connection for a new stream: of several, the least loaded.
        """
        if self.lanes is None or not isinstance(multiplexer, ExtendedMultiplexer):
            return multiplexer
        chosen: Multiplexer = self.lanes.leastLoaded(multiplexer)
        return chosen

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """
        Tell the client that its tunnel is over.
        """
        if self.lease is not None and tunnel in self.lease.tunnels:
            self.lease.tunnels.remove(tunnel)
        if self._ended:
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

    def _openedByClient(self, stream: SessionStream, info: dict[str, object]) -> None:
        """
        A client opens a stream of its own: it is a visitor of a tunnel that
        it names.
        """
        name = info.get("service")
        if name is None and self.identity is not None:
            name = serviceOf(self.identity)
        if not isinstance(name, str):
            stream.reset(
                TunnelError("not-permitted", "which service? the stream names none")
            )
            return
        visit = Deferred.fromCoroutine(self._visit(stream, name))
        visit.addErrback(lambda failure: self._log.failure("A visit failed", failure))

    async def _visit(self, stream: SessionStream, name: str) -> None:
        """
        Let a client visit a tunnel.
        """
        try:
            tunnel = await self._service.findNamed(self.caller(), name)
        except TunnelError as refusal:
            stream.reset(refusal)
            return
        if tunnel.protocol == "udp":
            stream.reset(
                TunnelError(
                    "not-permitted",
                    f"{name} is a UDP service: send it datagrams at its own port",
                )
            )
        elif not stream.over and self.multiplexer is not None:
            tunnel.visitorArrived(stream, addressText(self._peer))
            self.multiplexer.accept(stream)

    # Going

    def streams(self) -> int:
        """
        How many streams there are, in the session and beside it.
        """
        within = 0 if self.multiplexer is None else len(self.multiplexer.streams)
        tunnels = [] if self.lease is None else self.lease.tunnels
        return within + sum(
            isinstance(stream.client, SocketEnd)
            for tunnel in tunnels
            for stream in tunnel.streams
        )

    def _tick(self) -> None:
        """
        Look at the deadlines.
        """
        super()._tick()
        if self.direct is not None:
            self.direct.tick()

    def displaced(self) -> None:
        """
        The lease's holder has come back on another connection, or somebody
        else has the same tunnel's URI.
        """
        self.fail(TunnelError("displaced"))

    def peerLeaves(self, reason: TunnelError) -> None:
        """
        The client is about to go, and takes no new visitors.
        """
        if self._leaving is None:
            self._leaving = TunnelError("client-away", "the client is about to stop")

    def leave(self, reason: TunnelError) -> None:
        """
        Take no new visitors; those that are here may finish.
        """
        self._leaving = reason
        self.goAway(reason)

    def fail(self, reason: TunnelError) -> None:
        """
        End the session, or refuse it if it never began.
        """
        if self.multiplexer is None and self.lost is None:
            if not self._handshakeBegun():
                reason = self._whyNoHandshake(reason)
            self._observer.peerRefused(self._peer, reason)
        super().fail(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection is gone, or never came through TLS.
        """
        if self.multiplexer is None and self.lost is None:
            broken = whyNoTLS(reason)
            if broken is not None:
                self._observer.peerRefused(self._peer, broken)
        super().connectionLost(reason)

    def _handshakeBegun(self) -> bool:
        """
        Whether the first bytes were the protocol's.
        """
        seen = self._handshake.received
        return seen.startswith(b"W3PTUNL"[: len(seen)]) and bool(seen)

    def _whyNoHandshake(self, reason: TunnelError) -> TunnelError:
        """
        Say what the first bytes look like, or that there were none.
        """
        if reason.code.name == "handshake-timeout":
            return reason
        return whyNotFramed(self._handshake.received)

    def sessionOver(self, reason: TunnelError) -> None:
        """
        Give the lease its time, or end what depends on this session alone.
        """
        if self._admitting is not None:
            self._admitting.cancel()
        if self._confirmations is not None:
            self._confirmations.down(self._toldOfEnds)
        if self.direct is not None:
            self.direct.close()
        if self.lanes is not None:
            self.lanes.close(reason)
        self.laneOver(self)
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
        if isinstance(self.factory, TunnelServerFactory):
            self.factory.sessions.discard(self)

    def _pong(self, streamId: int, payload: bytes) -> None:
        """
        Tell of the round trip, too.
        """
        answered = len(self._pings)
        super()._pong(streamId, payload)
        if len(self._pings) < answered and isinstance(
            self.multiplexer, ExtendedMultiplexer
        ):
            self._observer.roundTripMeasured(self.multiplexer.roundTrip)


def spareTickets(caller: Caller, count: int) -> list[str]:
    """
    Give a client tickets for connections that it dials ahead.

    @param count: How many it would like.
    @raise TunnelError: C{not-permitted} without a session that may have them.
    """
    session = caller.clientSide
    direct = session.direct if isinstance(session, TunnelServerProtocol) else None
    if direct is None or type(count) is not int or count < 1:
        raise TunnelError("not-permitted", "this session has no direct streams")
    return direct.grantSpares(count)


def laneTickets(caller: Caller, count: int) -> list[str]:
    """
    Give a client tickets for further connections of its session.

    @param count: How many it would like.
    @raise TunnelError: C{not-permitted} without a session that may have them.
    """
    session = caller.clientSide
    if not isinstance(session, TunnelServerProtocol) or not session.extended:
        raise TunnelError("not-permitted", "only a session has lanes")
    if type(count) is not int or count < 1:
        raise TunnelError("bad-option", "count is a number from 1 up")
    if session.lanes is None:
        session.lanes = ServerLanes(session._service.tickets)
    return session.lanes.grant(count)


class TunnelServerFactory(ServerFactory[TunnelServerProtocol]):
    """
    Makes the sessions of a server.

    @param reactor: Tells time.
    @param service: The tunnel service that clients call.
    @param authenticator: Who may connect; everybody, if it is left out.
    @param limits: What a session may hold.
    @param handshakeTimeout: Seconds that a client has for its handshake.

    @ivar sessions: All connections, admitted or not.
    @ivar webSockets: All WebSockets, of sessions and others.
    @ivar zlayer: What those have in common that speak zlayer's dialect.
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
        self.reactor = reactor
        self.service = service
        self.authenticator = authenticator or Authenticator()
        self.limits = limits or Limits()
        self.handshakeTimeout = handshakeTimeout
        self.sessions: set[TunnelServerProtocol] = set()
        self.confirmations: WeakKeyDictionary[Lease | Tunnel, Confirmations] = (
            WeakKeyDictionary()
        )
        self.webSockets: set[object] = set()
        self.zlayer = ZLayerSessions(reactor)
        self.paths: ServerPaths | None = None
        self._dispatcher = Dispatcher(
            {
                **methodsOf(service),
                "spareTickets": spareTickets,
                "laneTickets": laneTickets,
            }.get
        )
        self._leaving: TunnelError | None = None

    @property
    def observer(self) -> ServerObserver:
        """
        Who is told what happens.
        """
        return self.service.observer

    def buildProtocol(self, addr: IAddress | None) -> TunnelServerProtocol:
        """
        Make a session for a connection.
        """
        session = TunnelServerProtocol(
            self.service,
            self.authenticator,
            self._dispatcher,
            addr,  # type: ignore[arg-type]
            self.reactor,
            self.limits,
            self.handshakeTimeout,
        )
        session.factory = self
        if self._leaving is not None:
            session.leave(self._leaving)
        self.sessions.add(session)
        return session

    def leave(self, reason: TunnelError) -> None:
        """
        Take no new visitors and clients.
        """
        self._leaving = reason
        for session in list(self.sessions):
            session.leave(reason)

    def streams(self) -> int:
        """
        How many streams the sessions carry now.
        """
        return sum(session.streams() for session in self.sessions)

    def close(self, reason: TunnelError) -> None:
        """
        End all sessions.
        """
        for session in list(self.sessions):
            session.fail(reason)
        if self.paths is not None:
            self.paths.close()
