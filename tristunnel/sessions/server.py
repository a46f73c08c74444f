"""
The framed protocol at the server: a client's session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory

from tristunnel.auth.realm import Authenticator, Identity
from tristunnel.capability import claimTunnel
from tristunnel.errors import TunnelError
from tristunnel.observer import ServerObserver
from tristunnel.registry import Lease
from tristunnel.rpc.jsonrpc import Dispatcher
from tristunnel.rpc.methods import methodsOf
from tristunnel.service import Caller, TunnelService
from tristunnel.sessions.framed import (
    EXTENSION,
    HANDSHAKE_TIMEOUT,
    VERSION,
    FramedProtocol,
    extensionOffer,
)
from tristunnel.sessions.multiplexer import Limits
from tristunnel.sessions.plain import PlainServerSide
from tristunnel.wire.first_bytes import describeFirstBytes, looksLikeTLS

if TYPE_CHECKING:
    from tristunnel.sessions.stream import SessionStream
    from tristunnel.tunnel import Stream, Tunnel

__all__ = ["TunnelServerFactory", "TunnelServerProtocol", "whyNotFramed"]


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
        self._service = service
        self._observer = service.observer
        self._authenticator = authenticator
        self._peer = peer
        self._host = ""
        self._admitting: Deferred[None] | None = None
        self._tunnel: Tunnel | None = None
        self._leaving: TunnelError | None = None

    # Coming in

    def handshakeReceived(self, message: dict[str, object]) -> None:
        """
        Ask who the client is; until that is answered, read nothing more.
        """
        # TLS hands the true peer out only now, a PROXY header too.
        self._peer = self.transport.getPeer()
        self.transport.pauseProducing()
        self._admitting = Deferred.fromCoroutine(self._admit(message))

    async def _admit(self, message: dict[str, object]) -> None:
        """
        Let the client in, or turn it away.
        """
        offer = message.pop(EXTENSION, None)
        extended = isinstance(offer, dict)
        claim = offer.get("tunnel") if isinstance(offer, dict) else None
        try:
            if isinstance(claim, dict):
                # The capability is the credential, and good for no more.
                self._tunnel = await claimTunnel(self._service.registry, claim)
                self.identity = Identity(f"tunnel-{self._tunnel.id}")
            else:
                self.identity = await self._authenticator.authenticate(
                    message, self._peer
                )
            if self.stranger is not None:
                self.stranger.known()
            if self._leaving is not None:
                raise self._leaving
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
        self.sendHandshake({"port": 0, EXTENSION: answer})
        self._observer.clientConnected(self._peer, identity, "framed")
        self.establish(multiplexer)

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
            self.transport, self.reactor.seconds, self._openedByClient, self.limits
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
        here = self.transport.getHost()
        return Caller(
            self.identity or Identity("anonymous", anonymous=True),
            self._host or getattr(here, "host", "localhost"),
            getattr(here, "port", 0),
            self,
            self.lease,
            self._tunnel,
        )

    # IClientSide

    def serve(self, stream: Stream) -> None:
        """
        Open a stream within the session for a visitor.
        """
        if self.multiplexer is None or self._leaving is not None or self._ended:
            stream.refuse(self._leaving or TunnelError("client-away"))
            return
        try:
            end = self.multiplexer.open(
                {"tunnel": stream.tunnel.uri, "visitor": stream.visitorAddress}
            )
        except TunnelError as refusal:
            stream.refuse(refusal)
        else:
            stream.connect(end)

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
                uri=tunnel.uri,
                code=reason.code.name,
                message=reason.message,
            )
        elif self._leaving is None:
            self.fail(reason)
        if tunnel is self._tunnel and tunnel.secretHash:
            self.fail(reason)

    def _openedByClient(self, stream: SessionStream, info: dict[str, object]) -> None:
        """
        A client opens a stream of its own: there is nothing for it to reach.
        """
        stream.reset(TunnelError("not-permitted", "clients open no streams here"))

    # Going

    def displaced(self) -> None:
        """
        The lease's holder has come back on another connection.
        """
        self.fail(TunnelError("displaced"))

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


class TunnelServerFactory(ServerFactory[TunnelServerProtocol]):
    """
    Makes the sessions of a server.

    @param reactor: Tells time.
    @param service: The tunnel service that clients call.
    @param authenticator: Who may connect; everybody, if it is left out.
    @param limits: What a session may hold.
    @param handshakeTimeout: Seconds that a client has for its handshake.

    @ivar sessions: All connections, admitted or not.
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
        self._dispatcher = Dispatcher(methodsOf(service).get)
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
        return sum(
            len(session.multiplexer.streams)
            for session in self.sessions
            if session.multiplexer is not None
        )

    def close(self, reason: TunnelError) -> None:
        """
        End all sessions.
        """
        for session in list(self.sessions):
            session.fail(reason)
