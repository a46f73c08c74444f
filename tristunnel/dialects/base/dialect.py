"""
What the program asks of a dialect, at the client and at the server.

All dialects are in L{tristunnel.dialects.table}. Nothing outside of a dialect's own
folder knows its name: taps, checks, pages and screens ask the object that is found
there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.web.resource import IResource
from twisted.web.server import Request

from tristunnel.connect.address import ServerAddress
from tristunnel.dialects.base.client import ClientService
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.errors import TunnelError, badOption
from tristunnel.forwards.consent import Consent
from tristunnel.forwards.destinations import Destinations
from tristunnel.forwards.forward import Forward
from tristunnel.http.callers import HTTPCallers
from tristunnel.model.observer import ClientObserver
from tristunnel.model.policy import VisitorPolicy
from tristunnel.model.ports import PortRange
from tristunnel.service.preauth import PendingConnection
from tristunnel.websocket.connection import Receiver
from tristunnel.websocket.page import WebSocketRequest

__all__ = [
    "ClientOptions",
    "Dialect",
    "GaveUp",
    "OtherPage",
    "PortProtocol",
    "Route",
    "WebSocketPath",
]

GaveUp = Callable[[TunnelError], None]
"""Called with the reason when a client makes no more attempts."""

OtherPage = Callable[[Request, bool], "IResource | None"]
"""Finds the page for a request; it is told whether there is another one at its path."""

Route = Callable[[Any], Deferred[Any]]
"""Finds the far end for a local visitor's socket: fires with an
L{End<tristunnel.interfaces.End>}, or fails with L{TunnelError}."""


class ClientOptions(Protocol):
    """What a dialect may look at of a client's options."""

    server: ServerAddress
    forwards: list[Forward]
    policy: VisitorPolicy
    stateDirectory: Path
    managed: Consent | None
    destinations: Destinations

    @property
    def dials(self) -> Sequence[object]:
        """Its local ports whose visitors others connect, by dialling."""

    def __getitem__(self, name: str, /) -> Any: ...


class PortProtocol(Protocol):
    """
    What is served on a port to connections that begin in a certain way.

    @ivar beginnings: How they begin; any way, for an empty one. None at all is for a
        port that is only served by this, where the server may speak first.
    """

    beginnings: Sequence[bytes]

    def open(
        self, address: IAddress | None, remaining: float, pending: PendingConnection
    ) -> IProtocol | None:
        """
        Make the protocol for a connection.

        @param remaining: Seconds that are left of the time in which a peer
            must have said who it is.
        @param pending: Told when that is known, or when a login failed.
        """


@dataclass(frozen=True)
class WebSocketPath:
    """
    A page of the server for WebSockets, for itself and all paths below.

    @ivar receive: Makes what is told of a connection; may raise L{TunnelError}.
    @ivar subprotocols: What is spoken there.
    @ivar anyOrigin: Whether web pages from elsewhere may connect.
    """

    receive: Callable[[WebSocketRequest], Awaitable[Receiver]]
    subprotocols: Sequence[str] = ()
    anyOrigin: bool = False


class Dialect:
    """
    A protocol that clients speak. A dialect overrides what it has, and leaves out the
    rest.

    @cvar name: What C{--dialect} calls it.
    @cvar labels: What people are shown in place of the words by which its sessions call
        themselves; the same words, unless they are here.
    @cvar hasClient: Whether our own clients speak it; if not, everything about clients
        is left out.
    @cvar client: The class of its clients' services, which L{makeClient} makes.
    @cvar hasExtension: Whether it has what our own extension brings: C{--tunnel},
        C{--service}, C{--private} and rules for visitors.
    @cvar needsURL: Whether its clients connect to a URL only, by WebSocket.
    @cvar loginInHeaders: Whether credentials are sent in the WebSocket's request.
    @cvar logsIn: Whether C{--check} can log in, by L{checkFactory}.
    @cvar carriesDatagrams: Whether it has UDP.
    @cvar tellsVisitors: Whether its server says where each visitor comes from.
    @cvar visitsAlone: Whether each of a client's local visitors has a connection of its
        own; then C{--listen} needs no C{--service}.
    @cvar subprotocols: What its WebSockets may name.
    @cvar showsCertificate: Whether its clients can show a certificate of
        C{--client-ca}.
    @cvar takesLogin: Whether its clients can log in at all; if not, they are only
        served where anybody may connect.
    @cvar ownPort: The one port that its clients know, without TLS: if C{--port} names
        it, nothing else is served there; 0 for any port.
    @cvar encrypts: Whether it encrypts by itself, so that at a port with TLS its
        L{portProtocols} are served without that.
    @cvar atRoot: Whether its clients connect to C{/} unless they are told otherwise.
    @cvar pageNames: The first parts of the paths of its own pages.
    """

    name: ClassVar[str]
    labels: ClassVar[Mapping[str, str]] = {}
    hasClient: ClassVar[bool] = True
    client: ClassVar[type[ClientService[Any]]]
    hasExtension: ClassVar[bool] = False
    needsURL: ClassVar[bool] = False
    loginInHeaders: ClassVar[bool] = False
    logsIn: ClassVar[bool] = False
    carriesDatagrams: ClassVar[bool] = False
    tellsVisitors: ClassVar[bool] = False
    visitsAlone: ClassVar[bool] = False
    subprotocols: ClassVar[Sequence[str]] = ()
    showsCertificate: ClassVar[bool] = True
    takesLogin: ClassVar[bool] = True
    ownPort: ClassVar[int] = 0
    encrypts: ClassVar[bool] = False
    atRoot: ClassVar[bool] = False
    pageNames: ClassVar[Sequence[str]] = ()

    # At the client

    def checkForwards(self, options: ClientOptions) -> None:
        """
        Check what is to be offered, and as whom.

        @raise TunnelError: C{bad-option}, for what the dialect cannot do.
        """

    def checkForward(self, forward: Forward) -> None:
        """
        Check that the dialect supports what a forward asks for.

        @raise TunnelError: C{bad-option}.
        """
        own, why = f"--dialect {self.name}", ""
        if forward.isUDP and not self.carriesDatagrams:
            why = "does not support UDP"
        elif forward.hasHost and not self.hasExtension:
            why = f"has no names for visitors: leave out {forward.wanted}"
        elif forward.options.proxy and not self.tellsVisitors:
            why = (
                "does not say where visitors come from: leave out"
                f" proxy={forward.options.proxy}"
            )
        elif (forward.options.share or forward.health) and not self.hasExtension:
            why = (
                "has no health checks, and no clients that share a place: leave out"
                " health and share"
            )
        elif forward.gate and not self.hasExtension:
            why = "cannot ask visitors: leave out pin, login, oidc, link and knock"
        if why:
            raise badOption(f"{own} {why}")

    def makeClient(
        self,
        reactor: Any,
        options: ClientOptions,
        observer: ClientObserver,
        gaveUp: GaveUp,
    ) -> Any:
        """
        Make the service that offers the forwards.

        @return: A service with a C{stopNow}, which waits for nobody any longer.
        """
        return self.client(
            reactor,
            options.server,
            options.forwards,
            options["credentials"],
            observer,
            options["grace"],
            gaveUp,
        )

    def makeRoute(
        self,
        reactor: Any,
        options: ClientOptions,
        observer: ClientObserver,
        gaveUp: GaveUp,
    ) -> tuple[Any, Route, str]:
        """
        Make what leads local visitors (C{--listen}) to a tunnel.

        @return: The service that has to run for that, or C{None}; what finds a
            visitor's far end; and what visitors reach, for messages.
        """
        raise badOption(f"--dialect {self.name} does not support --listen")

    def makeDial(self, client: Any, target: str, dialler: str) -> Route:
        """
        Make what leads local visitors to a target that somebody else dials.

        @param client: What L{makeClient} has made.
        @param target: C{HOST:PORT} or C{unix:PATH}.
        @param dialler: The client that dials; empty for the server.
        """
        raise badOption(
            f"--dialect {self.name} does not support --listen ENDPOINT=TARGET"
        )

    def adapts(self, client: Any) -> bool:
        """
        Whether a client that L{makeClient} has made can go on with other options: then
        it has C{changeForwards}, C{moveLease} and C{forGood}. If not, it is replaced.
        """
        return False

    def adapt(self, client: Any, options: ClientOptions) -> None:
        """Have a client connect by other options from now on."""

    def checkFactory(
        self,
        reactor: Any,
        server: ServerAddress,
        credentials: Mapping[str, object],
        quiet: float,
        extended: bool,
    ) -> Any:
        """
        Make the factory of a session that logs in, for C{--check}, and does
        nothing else.

        @param quiet: Seconds for which the session shall have no pings.
        @param extended: Whether to name our extension.
        @return: A factory of protocols with C{whenReady}, C{close}, C{unanswered},
            C{extended} and C{quiet}; asked for only if L{logsIn}.
        """
        raise badOption(f"--dialect {self.name} logs in when the WebSocket opens")

    # At the server

    def portProtocols(self, sessions: ServerSessions) -> Sequence[PortProtocol]:
        """
        Make what serves connections that begin neither with HTTP nor with another
        dialect's first bytes.
        """
        return ()

    def keyShown(self, sessions: ServerSessions) -> str:
        """
        Find the key by which its clients recognize the server, as they show it.

        @return: Its fingerprint; nothing, where TLS says who the server is.
        @raise TunnelError: C{bad-option}, if it cannot be served.
        """
        return ""

    def takesFirst(self, message: bytes, isBinary: bool) -> bool:
        """Whether a WebSocket's first message is one of this dialect's."""
        return False

    def receiver(self, sessions: ServerSessions, arrival: Arrival) -> Receiver:
        """
        Make the receiver of a WebSocket whose first message was taken; it is told of
        the opening first, and then of that message.
        """
        raise TunnelError("protocol-error", f"{self.name} does not run over WebSockets")

    def receiverBelow(self, sessions: ServerSessions, path: str) -> Receiver | None:
        """
        Make what receives a WebSocket that belongs to a session, below one of the
        paths where clients connect.

        @raise TunnelError: C{unknown-tunnel}, if none is expected there.
        """
        return None

    def pages(
        self, sessions: ServerSessions, callers: HTTPCallers
    ) -> Mapping[str, WebSocketPath]:
        """
        Make the pages that the dialect has besides the paths where clients
        connect, by the names in L{pageNames}; and announce to C{callers} whose
        connections are awaited.
        """
        return {}

    def otherPage(
        self, sessions: ServerSessions, callers: HTTPCallers
    ) -> OtherPage | None:
        """Make what finds pages by more than their paths, if the dialect has any."""
        return None

    def memberOf(self, path: str, members: int) -> int | None:
        """
        Find out in which of several processes of a server a WebSocket belongs.

        @param path: The path of its request.
        @param members: How many processes there are.
        @return: An index, or C{None} if any of them will do.
        """
        return None

    def isMember(self, sessions: ServerSessions, member: int) -> None:
        """Learn which of several processes of a server this is, from 0."""

    def portsGiven(self, sessions: ServerSessions, ports: PortRange | None) -> None:
        """Learn which ports the operator gives out; C{None} if nobody said."""
