"""
Clients' sessions at the server, whatever their dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from tristunnel.auth.realm import Authenticator
from tristunnel.dataplane.probe import PROBE
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.base.unauthenticated import HANDSHAKE_TIMEOUT
from tristunnel.errors import TunnelError
from tristunnel.forwards.destinations import Destinations
from tristunnel.http.callers import uncounted
from tristunnel.model.observer import ServerObserver
from tristunnel.processes.passing import Passing
from tristunnel.service.caller import Caller
from tristunnel.service.preauth import PendingConnection
from tristunnel.service.returning import Returning
from tristunnel.service.siblings import Siblings
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.service.visiting import Visiting

if TYPE_CHECKING:
    from tristunnel.websocket.connection import Connection

__all__ = ["Arrival", "ServerSessions", "Session"]

Shared = TypeVar("Shared")

END_DEAD = "endDead"
"""What members of a server ask each other when a client wants once more what it may
have."""

MOST_ASKED = 8
"""Sessions of one client that are asked whether they are still there, when it asks for
what they have."""


class Session(Protocol):
    """What a server needs of its sessions."""

    def streams(self) -> int:
        """How many visitors there are."""

    def leave(self, reason: TunnelError) -> None:
        """Take no new visitors; those that are here may finish."""

    def sendAway(self, reason: TunnelError) -> None:
        """Send the client to another member of the cluster, if it can go there."""

    def fail(self, reason: TunnelError) -> None:
        """End because of C{reason}."""


class ServerSessions:
    """
    The sessions of a server, and what they share.

    @param reactor: Tells time.
    @param service: The tunnel service that clients call.
    @param authenticator: Who may connect; everybody, if it is left out.
    @param limits: What a session may hold.
    @param handshakeTimeout: Seconds that a client has to say who it is.

    @ivar sessions: All of them, admitted or not.
    @ivar stateDirectory: The server's state directory, or C{None}.
    @ivar destinations: What the server dials for its clients.
    @ivar webSockets: All WebSockets, of sessions and others.
    @ivar passing: Passes connections to other processes of the server, if there are
        some.
    @ivar visiting: Leads visitors to those, likewise.
    @ivar returning: What is kept for clients that do not know of leases.
    @ivar paths: Where datagrams can come past the sessions, or C{None}.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        service: TunnelService,
        authenticator: Authenticator | None = None,
        limits: Limits | None = None,
        handshakeTimeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self.reactor: Any = reactor
        self.service = service
        self.authenticator = authenticator or Authenticator()
        self.limits = limits or Limits()
        self.handshakeTimeout = handshakeTimeout
        # L{Session}s of any dialect; a dialect knows more about its own.
        self.sessions: set[Any] = set()
        self.stateDirectory: Path | None = None
        self.webSockets: set[object] = set()
        self.destinations = Destinations((), "--dial-allow", separatesUDP=True)
        self.passing: Passing | None = None
        self.visiting: Visiting | None = None
        self.returning = Returning(reactor, service.leases, service.book)
        self.paths: Any = None
        self._shared: dict[object, Any] = {}
        self._leaving: TunnelError | None = None

    @property
    def observer(self) -> ServerObserver:
        """Who is told what happens."""
        return self.service.observer

    def shared(self, kind: Callable[[Any], Shared]) -> Shared:
        """
        Find what the sessions of one dialect share at this server.

        @param kind: Its class, which is called with the reactor the first time. If it
            has C{close}, that is called with the sessions'.
        """
        if kind not in self._shared:
            self._shared[kind] = kind(self.reactor)
        found: Shared = self._shared[kind]
        return found

    def kept(self, kind: Callable[[Path | None], Shared]) -> Shared:
        """
        Find what a dialect keeps in the state directory.

        @param kind: Makes or reads it, the first time.
        @raise TunnelError: C{bad-option}, if that cannot be done.
        """
        if kind not in self._shared:
            self._shared[kind] = kind(self.stateDirectory)
        found: Shared = self._shared[kind]
        return found

    def dialler(self, name: str) -> Any:
        """
        Find a client's session that dials for others: by the name that its login
        proves; where nobody logs in, by what the client says of itself.

        @param name: The client's.
        @return: A L{Dials<tristunnel.service.visiting.Dials>}, or C{None}.
        """
        found = None
        for client in self.service.clients:
            if getattr(client.side, "takesDials", False):
                names = {client.identity.name}
                if client.identity.anonymous:
                    names = {client.facts.name, client.facts.host}
                if name in names:
                    # The one that came last: the others may be on their way out.
                    found = client.side
        return found

    def add(self, session: Session) -> None:
        """Take in a session, which learns of it if the server is about to stop."""
        if self._leaving is not None:
            session.leave(self._leaving)
        self.sessions.add(session)

    async def endDead(self, session: Session, tag: str) -> None:
        """
        End the sessions that do not answer any more and have what another one asks
        for, at any member of the server.

        @param tag: What that is, see L{Returning.tagOf}.
        """
        await self._endDeadHere(tag, session)
        siblings = self.service.siblings
        if siblings is not None:
            others = await siblings.gather(END_DEAD, None, tag, patience=2 * PROBE)
            for _, left in others.answers:
                self.returning.left(left)

    def isAmong(self, siblings: Siblings, secret: Callable[[], bytes]) -> None:
        """
        Learn of the other members of the server.

        @param secret: What all of them know, and nobody else.
        """
        self.returning.secret = secret
        siblings.publish(
            END_DEAD, lambda caller, tag: Deferred.fromCoroutine(self._endDeadHere(tag))
        )

    async def _endDeadHere(self, tag: str, session: Session | None = None) -> list[str]:
        """
        Do that at this member.

        @param session: Which one asks, if it is here.
        @return: Leases for the same that nobody has.
        """
        rivals = [
            each
            for each in self.sessions
            if each is not session
            and any(lease.id.startswith(tag) for lease in getattr(each, "leases", ()))
        ][:MOST_ASKED]
        there = await gatherResults([each.isThere() for each in rivals])
        for rival, isThere in zip(rivals, there, strict=True):
            if not isThere:
                rival.fail(TunnelError("session-lost", "it does not answer"))
        return self.service.leases.unheld(tag)

    def streams(self) -> int:
        """How many streams the sessions carry now."""
        return sum(session.streams() for session in self.sessions)

    def leave(self, reason: TunnelError) -> None:
        """Take no new visitors and clients."""
        self._leaving = reason
        for session in list(self.sessions):
            session.leave(reason)

    def drain(self, reason: TunnelError) -> None:
        """
        Take no new clients. Those that are here are sent to where they can go, and are
        served until they are gone.

        @param reason: Says where they may go instead.
        """
        self._leaving = reason
        for session in list(self.sessions):
            session.sendAway(reason)

    def stay(self) -> None:
        """Take clients again."""
        self._leaving = None

    def close(self, reason: TunnelError) -> None:
        """End all sessions."""
        for session in list(self.sessions):
            session.fail(reason)
        for each in (self.paths, *self._shared.values()):
            if (close := getattr(each, "close", None)) is not None:
                close()


@dataclass(eq=False)
class Arrival:
    """
    A client that has come by WebSocket and has not spoken yet.

    @ivar caller: Who it is as far as the request told, and by what name and
        port it reached us.
    @ivar vouched: Whether the request had credentials, and they were good.
    @ivar pending: Told when it is known who the client is, or when it has left,
        and if credentials in its messages are not good.
    @ivar first: What it said first.
    @ivar says: The id that its request names, which nobody has proved; empty for none.
    @ivar connection: Its WebSocket, once it is open.
    @ivar remaining: Seconds left for saying who it is.
    """

    caller: Caller
    vouched: bool
    pending: PendingConnection = field(default_factory=uncounted)
    connection: Connection | None = None
    remaining: float = 0.0
    first: bytes = b""
    says: str = ""
