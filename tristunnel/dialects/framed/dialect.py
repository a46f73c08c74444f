"""
The framed protocol, as the program asks for it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol

from tristunnel.connect.address import ServerAddress
from tristunnel.connect.websocket import SUBPROTOCOL
from tristunnel.dataplane.datagrams import FlowEnd
from tristunnel.dialects.base.dialect import (
    ClientOptions,
    Dialect,
    GaveUp,
    PortProtocol,
    Route,
)
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.framed.client import TunnelClientFactory
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.dialects.framed.moves import Carrier
from tristunnel.dialects.framed.server_connection import ServerConnection
from tristunnel.errors import TunnelError, badOption
from tristunnel.forwards.dialling import DIAL
from tristunnel.model.observer import ClientObserver
from tristunnel.service.preauth import PendingConnection
from tristunnel.version import VERSION
from tristunnel.websocket.connection import Receiver
from tristunnel.websocket.stream import ByteStream
from tristunnel.wire.framed import MAGIC

__all__ = ["FramedDialect", "FramedPortProtocol", "bySession", "parseTell"]


def _multiplexerOf(client: TunnelClientService, dials: bool) -> ExtendedMultiplexer:
    session = client.session
    if session is None or session.multiplexer is None:
        raise TunnelError("client-away", "there is no connection to the server")
    if not isinstance(session.multiplexer, ExtendedMultiplexer):
        raise TunnelError(
            "not-permitted", "the server is plain W3P, which has no named services"
        )
    if dials and not session.dials:
        raise TunnelError(
            "not-permitted", "this server dials for nobody; it has to be updated"
        )
    return session.multiplexer


def _opening(
    client: TunnelClientService, info: dict[str, object], dials: bool
) -> Route:
    async def connect(visitor: object) -> object:
        multiplexer = _multiplexerOf(client, dials)
        if isinstance(visitor, FlowEnd):
            return multiplexer.openFlow(info)
        return multiplexer.open(info)

    return lambda visitor: Deferred.fromCoroutine(connect(visitor))


def bySession(client: TunnelClientService, service: str) -> Route:
    """
    Lead visitors by the client's session, which they share.

    @param service: The name of the tunnel that they visit; empty for a client
        with a capability, which says it.
    """
    return _opening(client, {"service": service} if service else {}, False)


def _carrierOf(options: ClientOptions) -> Carrier:
    # A proxy need not pass on the end of a single direction, so by default streams do
    # not move to connections through one.
    kind = str(options["carrier"])
    if options.server.route.proxy is not None and kind == "auto":
        kind = "session"
    return Carrier(kind, options["sessions"])


TELL = ("host", "target")


def parseTell(text: str) -> frozenset[str]:
    """
    Read what the server is told of a client: C{host}, C{target}, both with a comma
    between, or C{nothing}.

    @raise TunnelError: C{bad-option}.
    """
    words = {word.strip() for word in text.split(",")} - {"", "nothing"}
    if not words <= {*TELL}:
        raise badOption(
            f"--tell takes {' and '.join(TELL)}, with a comma between, or nothing; not"
            f" {text!r}"
        )
    return frozenset(words)


def _introduce(client: TunnelClientService, options: ClientOptions) -> None:
    """Set what the server is told of a client, as far as its user permits."""
    tells = parseTell(options["tell"])
    client.offered.tellsTargets = "target" in tells
    client.about = {"program": f"tristunnel {VERSION}"}
    if "host" in tells:
        client.about["host"] = socket.gethostname()


def _noService(uri: str) -> Any:
    raise TunnelError("unknown-tunnel")


class FramedPortProtocol:
    """
    What begins with W3P's magic bytes.

    @param sessions: The server's sessions.
    """

    beginnings: Sequence[bytes] = (MAGIC,)

    def __init__(self, sessions: ServerSessions) -> None:
        self._sessions = sessions

    def open(
        self, address: IAddress | None, remaining: float, pending: PendingConnection
    ) -> IProtocol:
        """Make a connection that has as much time left as the one below."""
        return ServerConnection(self._sessions, remaining, pending)


class FramedDialect(Dialect):
    """W3P's protocol, with our extension or without."""

    name = "framed"
    labels = {"framed": "", "framed-plain": "plain W3P"}  # noqa: RUF012
    hasExtension = True
    logsIn = True
    carriesDatagrams = True
    tellsVisitors = True
    subprotocols = (SUBPROTOCOL,)

    def makeClient(
        self,
        reactor: Any,
        options: ClientOptions,
        observer: ClientObserver,
        gaveUp: GaveUp,
    ) -> TunnelClientService:
        lease = ClientLease()
        if not (options["tunnel"] or options["listen"]):
            lease = ClientLease.forClient(
                options.stateDirectory,
                options.server.where,
                [forward.spec for forward in options.forwards],
                reactor,
            )
        client = TunnelClientService(
            reactor,
            options.server,
            options.forwards,
            options["credentials"],
            observer,
            lease,
            options["grace"],
            gaveUp,
            carrier=_carrierOf(options),
        )
        client.standby.count = options["standby"]
        client.offered.tunnelOptions = options.policy.describe()
        client.offered.managed.consent = options.managed
        client.asksToDial = bool(options.dials)
        client.destinations = options.destinations
        _introduce(client, options)
        return client

    def makeRoute(
        self,
        reactor: Any,
        options: ClientOptions,
        observer: ClientObserver,
        gaveUp: GaveUp,
    ) -> tuple[Any, Route, str]:
        client = self.makeClient(reactor, options, observer, gaveUp)
        return client, bySession(client, options["service"]), options["service"]

    def makeDial(self, client: Any, target: str, dialler: str) -> Route:
        info: dict[str, object] = {DIAL: target}
        if dialler:
            info["client"] = dialler
        return _opening(client, info, True)

    def adapts(self, client: Any) -> bool:
        return isinstance(client, TunnelClientService)

    def adapt(self, client: Any, options: ClientOptions) -> None:
        client.adapt(
            options.server,
            options["credentials"],
            _carrierOf(options),
            options["grace"],
        )
        client.standby.count = options["standby"]
        client.offered.managed.consentTo(options.managed)
        client.destinations = options.destinations
        _introduce(client, options)

    def checkFactory(
        self,
        reactor: Any,
        server: ServerAddress,
        credentials: Mapping[str, object],
        quiet: float,
        extended: bool,
    ) -> TunnelClientFactory:
        factory = TunnelClientFactory(
            reactor,
            _noService,
            credentials,
            ClientObserver(),
            server.where,
            server.host,
            None,
            None,
            server.explain,
        )
        factory.access = server.access
        factory.quiet = quiet
        factory.extended = extended
        return factory

    def portProtocols(self, sessions: ServerSessions) -> Sequence[PortProtocol]:
        return [FramedPortProtocol(sessions)]

    def takesFirst(self, message: bytes, isBinary: bool) -> bool:
        return isBinary

    def receiver(self, sessions: ServerSessions, arrival: Arrival) -> Receiver:
        return ByteStream(
            ServerConnection(sessions, arrival.remaining, arrival.pending, arrival)
        )
