"""
The framed protocol at the client: a session with a server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    INegotiated,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.endings import EndAcknowledgements
from tristunnel.dialects.base.client_session import ClientSession
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.base.plain import PlainClientSide
from tristunnel.dialects.framed.beside import ConnectionsBeside
from tristunnel.dialects.framed.datagram_path import PATH, clientPath
from tristunnel.dialects.framed.explanation import explained, whyClosed
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.farewell import Farewell
from tristunnel.dialects.framed.hello import offerOf
from tristunnel.dialects.framed.incoming import IncomingVisitors, ServiceFor
from tristunnel.dialects.framed.moves import Carrier
from tristunnel.dialects.framed.session import (
    EXTENSION,
    HANDSHAKE_TIMEOUT,
    STANDBY,
    VERSION,
    FramedProtocol,
    quietTime,
)
from tristunnel.errors import TunnelError
from tristunnel.forwards.dialling import (
    DIAL,
    dialDestinations,
)
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.jsonrpc.pending import RemoteError
from tristunnel.model.observer import ClientObserver
from tristunnel.wire.first_bytes import looksLikeTLS

__all__ = ["TunnelClientFactory", "TunnelClientProtocol"]

TAKE_OVER = 3.0
"""Seconds in which a standby session must have taken over."""


@implementer(IHandshakeListener)
class TunnelClientProtocol(FramedProtocol, ClientSession):
    """
    A session with a server, plain W3P or extended.

    @ivar port: The port that a plain W3P server has given.
    @ivar lease: The lease that an extended server has given or confirmed:
        C{id}, C{seconds} and, if it is new, C{secret}.
    @ivar tunnels: URIs of tunnels that the lease has kept open.
    @ivar standsBy: Whether it is a standby session, and waits for L{takeOver}.
    @ivar quiet: Seconds for which neither side sends pings, as was granted.
    @ivar dials: Whether the server dials for this client, and has others dial.
    @ivar placeFree: Called when what the server has refused may be had now.
    @ivar managedChanged: Called when the server asks for other tunnels.
    @ivar tunnelClosed: Called with the URI of a tunnel that the server has closed, and
        why.
    @ivar isReplaced: Says whether other clients take over when this one leaves.
    @ivar beside: The connections beside it.
    @ivar unanswered: Whether the server closed the connection after it was
        greeted, and had said nothing.
    """

    factory: TunnelClientFactory

    def __init__(self, factory: TunnelClientFactory) -> None:
        methods: dict[str, Callable[..., object]] = {
            "tunnelClosed": self._tunnelClosed,
            "available": lambda caller, port=0, name="": self.placeFree(),
            "managedChanged": lambda caller: self.managedChanged(),
        }
        FramedProtocol.__init__(
            self,
            factory.reactor,
            factory.limits,
            Dispatcher(methods.get),
            factory.handshakeTimeout,
        )
        ClientSession.__init__(self, factory.reactor, factory.observer)
        self.factory = factory
        self.port = 0
        self.lease: dict[str, object] = {}
        self.tunnels: list[str] = []
        self.standsBy = False
        self.quiet = 0.0
        self.dials = False
        self.unanswered = False
        self._greeted = False
        self._farewell: Farewell | None = None
        self.isReplaced: Callable[[], bool] = lambda: False
        self.placeFree: Callable[[], object] = lambda: None
        self.managedChanged: Callable[[], object] = lambda: None
        self.tunnelClosed: Callable[[str, TunnelError], None] | None = None
        self._incoming = IncomingVisitors(
            factory.reactor,
            self._connector,
            factory.serviceFor,
            factory.destinations,
        )
        self.beside = ConnectionsBeside(
            self, factory.carrier, factory.endpoint, self._incoming.opened
        )
        self._waitingReady: list[Deferred[TunnelClientProtocol]] = []

    # For whoever uses the session

    def whenReady(self) -> Deferred[TunnelClientProtocol]:
        """
        Wait for the server's answer.

        @return: Fires with this session; fails with L{TunnelError}.
        """
        waiting: Deferred[TunnelClientProtocol] = Deferred()
        if self.multiplexer is not None:
            waiting.callback(self)
        elif self._ended:
            waiting.errback(self.lost or TunnelError("session-lost"))
        else:
            self._waitingReady.append(waiting)
        return waiting

    async def takeOver(self, lease: Mapping[str, object]) -> None:
        """
        Take over the lease of a session that was lost.

        @param lease: As the handshake offers it.
        @raise TunnelError: Why that cannot be.
        """
        asked = self.call("takeOver", lease=dict(lease))
        try:
            answer = await asked.addTimeout(TAKE_OVER, self.reactor)
        except (TimeoutError, RemoteError) as error:
            raise TunnelError(
                "session-lost", f"the standby member does not take over: {error}"
            ) from None
        multiplexer = self.multiplexer
        if not isinstance(answer, dict) or not isinstance(
            multiplexer, ExtendedMultiplexer
        ):
            raise TunnelError("protocol-error", "the server's answer says nothing")
        self.standsBy = False
        observer = self._observer = self.factory.observer
        self._connector.observer = self._incoming.datagrams.observer = observer
        observer.connected(self.transport.getPeer())
        observer.acknowledged("framed")
        self._granted(answer)
        self._letMove(answer, multiplexer)
        self._begun()

    # The handshake

    def connectionMade(self) -> None:
        """Say who we are; over TLS only once the server has shown who it is."""
        super().connectionMade()
        self._observer.connected(self.transport.getPeer())
        if not INegotiated.providedBy(self.transport):
            self._sayHello()

    def handshakeCompleted(self) -> None:
        """The server has proved who it is."""
        self._sayHello()

    def _sayHello(self) -> None:
        """Send the credentials and what we speak."""
        factory = self.factory
        self._greeted = True
        if not factory.extended:
            self.sendHandshake(factory.credentials)
            self._observer.credentialsSent(self.transport.getPeer())
            return
        peer = self.transport.getPeer()
        offer = offerOf(factory, self.limits, peer, self.beside.mayMove)
        self.sendHandshake({**factory.credentials, EXTENSION: offer})
        self._observer.credentialsSent(peer)

    def handshakeReceived(self, message: dict[str, object]) -> None:
        answer = message.get(EXTENSION)
        if isinstance(answer, dict):
            refused = answer.get("refused")
            if isinstance(refused, dict):
                raise TunnelError.fromDict(refused, "internal")
            self._establishExtended(answer)
        else:
            self._establishPlain(message)
        self._observer.acknowledged("framed" if self.extended else "framed-plain")
        waiting, self._waitingReady = self._waitingReady, []
        for each in waiting:
            each.callback(self)

    def _establishExtended(self, answer: dict[str, object]) -> None:
        if answer.get("version") != VERSION:
            raise TunnelError(
                "protocol-error",
                f"the server does not speak version {VERSION}; update one side",
            )
        self.standsBy = self.factory.standsBy
        if self.standsBy and answer.get(STANDBY) is not True:
            raise TunnelError(
                "protocol-error", "the server does not support --standby; update it"
            )
        self._granted(answer)
        self.dials = answer.get(DIAL) is True
        multiplexer = self.extendedMultiplexer(answer, False, self._incoming.opened)
        flows = multiplexer.datagrams
        flows.opened = partial(self._incoming.flowOpened, flows.accept)
        flows.path = clientPath(
            self.reactor,
            None if self.factory.proxied else self.transport.getPeer(),
            answer.get(PATH),
            lambda: bool(flows.flows),
            flows.pathArrived,
        )
        self._letMove(answer, multiplexer)
        self.establish(multiplexer)
        if self.factory.quiet:
            self.quiet = quietTime(answer)
            self.stayQuiet(self.quiet)
        if not self.standsBy:
            self._begun()

    def _granted(self, answer: Mapping[str, object]) -> None:
        """Take what the server says of the lease."""
        lease = answer.get("lease")
        if isinstance(lease, dict):
            self.lease = lease
        tunnels = answer.get("tunnels")
        if isinstance(tunnels, list):
            self.tunnels = [uri for uri in tunnels if isinstance(uri, str)]

    def _letMove(
        self, answer: Mapping[str, object], multiplexer: ExtendedMultiplexer
    ) -> None:
        """Let streams move to connections of their own, if both sides can."""
        if answer.get("move") is True:
            self.beside.letMove(multiplexer, self.factory.confirmations)

    def _begun(self) -> None:
        """Prepare for visitors."""
        self.confirmEnds()
        self.beside.begin()

    def _establishPlain(self, message: dict[str, object]) -> None:
        port = message.get("port")
        if type(port) is not int or not 0 < port < 65536:
            raise TunnelError("protocol-error", "the server's answer names no port")
        self.port = port
        self.establish(
            PlainClientSide(
                self.transport,
                self.reactor.seconds,
                self._incoming.opened,
                self.limits,
                self.reactor.callLater,
            )
        )

    # Streams

    def streams(self) -> int:
        """How many streams there are, in the session and beside it."""
        within = 0 if self.multiplexer is None else len(self.multiplexer.streams)
        moved = 0 if self.confirmations is None else len(self.confirmations)
        coming = self._farewell is not None and self._farewell.isAwaited
        return within + self.beside.streams() + moved + coming

    def pongArrived(self, payload: bytes) -> None:
        if self._farewell is not None:
            self._farewell.answered(payload)
        super().pongArrived(payload)

    def roundTripMeasured(self, seconds: float) -> None:
        self._observer.roundTripMeasured(seconds)

    def _tunnelClosed(
        self, caller: object, uri: str, code: str = "closed", message: str = ""
    ) -> None:
        if self.tunnelClosed is not None:
            reason = TunnelError.fromDict({"code": code, "message": message}, "closed")
            self.tunnelClosed(uri, reason)

    # The end

    def goAway(self, reason: TunnelError) -> None:
        """
        Take no new streams, and tell the server. Where other clients take over, streams
        that are under way are still served.
        """
        super().goAway(reason)
        if not (self.extended and self.isReplaced()):
            self._incoming.refusal = reason
        elif self._farewell is None:
            self._farewell = Farewell(self.reactor, self.liveness)

    def peerLeaves(self, reason: TunnelError) -> None:
        if self.leaving is None or not self.leaving.elsewhere:
            self.leaving = reason
        if reason.code.name == "displaced":
            self.lost = reason
        elif reason.elsewhere:
            self._tellOver(reason)

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """End the session; if it never began, say what is likely wrong."""
        if self.multiplexer is None and self.lost is None:
            reason = self._explain(reason)
        super().fail(reason)

    def _explain(self, reason: TunnelError) -> TunnelError:
        """Say what the peer seems to be, and what to write instead."""
        isTLS = INegotiated.providedBy(self.transport)
        return explained(
            reason,
            self.factory.where,
            self._handshake.received,
            isTLS,
            self.handshakeTimeout,
        )

    def whyLost(self, reason: Failure) -> TunnelError:
        where = self.factory.where
        if self.multiplexer is not None:
            why = f"the connection to {where} was lost: {reason.getErrorMessage()}"
            return TunnelError("session-lost", why)
        explained = self.factory.explain(reason)
        if explained is not None:
            return explained
        if looksLikeTLS(self._handshake.received):
            return self._explain(TunnelError("protocol-error"))
        self.unanswered = self._greeted and not self._handshake.received
        isTLS = INegotiated.providedBy(self.transport)
        return whyClosed(where, isTLS, bool(self.factory.credentials))

    def sessionOver(self, reason: TunnelError) -> None:
        if self._farewell is not None:
            self._farewell.end()
        self.beside.stop()
        waitingReady, self._waitingReady = self._waitingReady, []
        for ready in waitingReady:
            ready.errback(reason)
        super().sessionOver(reason)


class TunnelClientFactory(ClientFactory[TunnelClientProtocol]):
    """
    Makes sessions with a server.

    @param reactor: Tells time.
    @param serviceFor: Finds the service that a tunnel's visitors are for.
    @param credentials: The JSON object that says who we are.
    @param observer: Told what happens.
    @param where: The server, as messages name it.
    @param host: The name by which we know the server: tunnels' addresses say
        it unless the server has been given another.
    @param lease: C{id} and C{secret} of a lease to come back to.
    @param capability: C{id} and C{secret} of the one tunnel that this client
        is for; it needs no credentials then.
    @param explain: Says why TLS failed, or C{None} if it is not that.

    @ivar carrier: How streams are to travel.
    @ivar endpoint: Where to dial for those that leave the session.
    @ivar confirmations: The acknowledgements of their ends, which last over one session
        and the next.
    @ivar access: C{id} and C{secret} of access to the one service that this
        client visits; it needs no credentials then.
    @ivar about: What the server is told of this client: C{program}, C{host}.
    @ivar standsBy: Whether it makes standby sessions.
    @ivar quiet: Seconds for which neither side shall send pings, to find out
        how long a connection may be silent on its way.
    @ivar extended: Whether the handshake names the extension.
    @ivar dials: C{ask}, whether this client asks others to dial; C{take}, whether it
        dials for others.
    @ivar destinations: What it dials for others.
    @ivar proxied: Whether the connection's other end is a proxy, which passes on
        no datagrams.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        serviceFor: ServiceFor,
        credentials: Mapping[str, object] | None = None,
        observer: ClientObserver | None = None,
        where: str = "the server",
        host: str = "",
        lease: Mapping[str, object] | None = None,
        capability: Mapping[str, object] | None = None,
        explain: Callable[[Failure], TunnelError | None] = lambda failure: None,
        limits: Limits | None = None,
        handshakeTimeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self.reactor = reactor
        self.serviceFor = serviceFor
        self.carrier = Carrier("session")
        self.confirmations: EndAcknowledgements | None = None
        self.endpoint: IStreamClientEndpoint | None = None
        self.credentials = dict(credentials or {})
        self.observer = observer or ClientObserver()
        self.where = where
        self.host = host
        self.lease = lease
        self.capability = capability
        self.access: Mapping[str, object] | None = None
        self.about: Mapping[str, str] = {}
        self.standsBy = False
        self.quiet = 0.0
        self.extended = True
        self.proxied = False
        self.dials: dict[str, bool] = {}
        self.destinations = dialDestinations(())
        self.explain = explain
        self.limits = limits or Limits()
        self.handshakeTimeout = handshakeTimeout

    def buildProtocol(self, addr: IAddress | None) -> TunnelClientProtocol:
        return TunnelClientProtocol(self)
