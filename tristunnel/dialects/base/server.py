"""
Clients' sessions at the server, whatever their dialect.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tristunnel.auth.realm import Authenticator
from tristunnel.dataplane.probe import PROBE
from tristunnel.dialects.base.messages import ConnectedSession
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.base.unauthenticated import HANDSHAKE_TIMEOUT
from tristunnel.errors import TunnelError
from tristunnel.forwards.destinations import Destinations
from tristunnel.http.callers import uncounted
from tristunnel.model.observer import ServerObserver
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.processes.passing import Passing
from tristunnel.service.caller import Caller
from tristunnel.service.clients import ClientFacts, ConnectedClient
from tristunnel.service.leases import Lease
from tristunnel.service.preauth import PendingConnection
from tristunnel.service.returning import Returning, maySomebodyReturn
from tristunnel.service.siblings import Siblings
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.service.visiting import Visiting
from tristunnel.util.hosts import addressText

if TYPE_CHECKING:
    from tristunnel.websocket.connection import Connection

__all__ = ["Arrival", "ServerSession", "ServerSessions", "Session"]

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

    async def endDead(self, session: ServerSession, tag: str) -> None:
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
            END_DEAD,
            lambda caller, tag: Deferred.fromCoroutine(self._endDeadHere(tag)),
        )

    async def _endDeadHere(
        self, tag: str, session: ServerSession | None = None
    ) -> list[str]:
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


class ServerSession(ConnectedSession):
    """
    One client's session::

        ========= ==================================================================
        state
        ========= ==================================================================
        coming    messages are kept, from admit on, until it is known who it is
        admitted  it is among the service's clients, and its messages are taken
        leaving   it serves the visitors that it has, and gets no new ones
        over      lost says why; its tunnels are gone
        ========= ==================================================================

    @param sessions: The server's sessions, of which this is one.
    @param arrival: How it came.

    @cvar dialect: How it speaks.
    @ivar tunnels: The client's tunnels, by what the dialect knows them by.
    @ivar leases: What keeps them open until the client is back, where it can be known
        again.
    @ivar facts: What the client says of itself.
    """

    dialect: ClassVar[str]
    facts = ClientFacts()
    _log = Logger(namespace="tristunnel.server")

    def __init__(self, sessions: ServerSessions, arrival: Arrival) -> None:
        super().__init__()
        self.tunnels: dict[Any, Tunnel] = {}
        self.leases: list[Lease] = []
        self._openings = 0
        self._sessions = sessions
        self._service = sessions.service
        self._caller = replace(arrival.caller, clientSide=self)
        self._vouched = arrival.vouched
        self._pending = arrival.pending
        self._client: ConnectedClient | None = None
        self._isIn = False
        self._leaving: TunnelError | None = None
        self._early: list[bytes] = []
        self._work: set[Deferred[Any]] = set()

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        self._sessions.add(self)

    # Coming in

    def admit(
        self, identifying: Coroutine[Any, Any, Identity], take: Callable[[bytes], None]
    ) -> None:
        """
        Let the client in once it is known who it is, and read nothing until then.

        @param identifying: Finds that out, or raises L{TunnelError}.
        @param take: Takes messages that were read already.
        """
        self.connection.pauseReading()
        self.whileUp(self._admit(identifying, take))

    async def _admit(
        self, identifying: Coroutine[Any, Any, Identity], take: Callable[[bytes], None]
    ) -> None:
        peer = self.connection.peerAddress
        try:
            identity = await identifying
            self._pending.known()
            if self._leaving is not None:
                raise self._leaving
            if identity.anonymous and (said := self.facts.name or self.facts.host):
                identity = replace(identity, claimed=said)
            self._caller = replace(self._caller, identity=identity)
            self._client = self._service.clients.enter(
                identity,
                addressText(peer),
                self.dialect,
                self.endOnPurpose,
                self,
                self.facts,
            )
            await self.prepare()
        except TunnelError as refusal:
            if refusal.code.name == "auth-refused":
                self._pending.failed()
            if not self._ended:
                self._service.observer.authenticationFailed(peer, refusal)
                self.turnAway(refusal)
        except CancelledError:
            raise
        except Exception:
            self._log.failure("A client could not be admitted")
            self.turnAway(TunnelError("internal"))
        else:
            self._isIn = True
            self._service.observer.clientConnected(peer, identity, self.dialect)
            self.admitted()
            self.connection.resumeReading()
            early, self._early = self._early, []
            for message in early:
                take(message)

    async def prepare(self) -> None:
        """
        Get ready what the client is to have, before it is let in.

        @raise TunnelError: Why it is not let in.
        """

    async def authenticate(
        self, fields: dict[str, object], key: bytes = b""
    ) -> Identity:
        """
        Find out who the client is: the identity of its request, if that was checked.

        @param fields: What its messages say of that.
        @param key: The public key that it has proved to have.
        @raise TunnelError: C{auth-refused}, or why nobody can tell.
        """
        if self._vouched:
            return self._caller.identity
        return await self._sessions.authenticator.authenticate(
            fields, self.connection.peerAddress, self._caller.certificate, key
        )

    def admitted(self) -> None:
        """Called when the client has been let in."""

    def turnAway(self, refusal: TunnelError) -> None:
        """Do not let the client in, and say why."""
        self.fail(refusal)

    def caller(self) -> Caller:
        """As whom the client calls the tunnel service."""
        return self._caller

    def whileUp(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that is cancelled when the session is over."""
        doing: Deferred[Any] = Deferred.fromCoroutine(work)
        self._work.add(doing)
        doing.addBoth(self._done, doing)
        doing.addErrback(lambda failure: failure.trap(CancelledError))
        doing.addErrback(lambda f: self._log.failure("A request failed", f))

    def _done(self, result: object, doing: Deferred[Any]) -> object:
        self._work.discard(doing)
        return result

    def noteRefusal(self, asked: str, refusal: TunnelError) -> None:
        """
        Log what the client was refused, since not every client does.

        @param asked: What it did, for example C{asked for port 80}.
        """
        peer = addressText(self.connection.peerAddress)
        text = f"at {peer} {asked} and was refused: {refusal}"
        self._service.observer.requestNoted(self._caller.identity, text, True)

    async def openFor(
        self, key: object, options: Mapping[str, object], what: str
    ) -> Tunnel:
        """
        Open a tunnel for the client, or give it back the one that is kept for it.

        @param key: What the session knows it by.
        @param what: What the client asks for, in words that it will use again.
        @raise TunnelError: Why there is none.
        """
        self._openings += 1
        try:
            if self._leaving is not None:
                raise self._leaving
            self._service.rights.checkServices(len(self.tunnels) + self._openings - 1)
            tunnel = await self._openOrReturn(options, what)
            if self.lost is not None:
                self._service.discard([tunnel], self.lost)
                raise self.lost
        finally:
            self._openings -= 1
            self._letGo()
        self.tunnels[key] = tunnel
        return tunnel

    async def _openOrReturn(self, options: Mapping[str, object], what: str) -> Tunnel:
        identity = self._caller.identity
        if not maySomebodyReturn(identity):
            return await self._service.open(self._caller, options)
        returning, what = self._sessions.returning, f"{self.dialect} {what}"
        await self._sessions.endDead(self, returning.tagOf(identity, what))
        lease, elsewhere = await returning.take(identity, what, self)
        self.leases.append(lease)
        caller = replace(self._caller, lease=lease)
        for record in elsewhere:
            try:
                await self._service.adopt(caller, record)
            except TunnelError as refusal:
                # The client can get another one.
                self.noteRefusal(f"came back for {record.uri}", refusal)
        if lease.tunnels:
            options = {**options, "resume": lease.tunnels[0].uri}
        return await self._service.open(caller, options)

    def _letGo(self) -> None:
        """Give up leases that keep nothing, unless something is just being opened."""
        empty = [] if self._openings else [e for e in self.leases if not e.tunnels]
        for lease in empty:
            self.leases.remove(lease)
            self._service.leases.holderLost(lease, self)

    def keyOf(self, tunnel: Tunnel) -> Any:
        """
        Find what the session knows a tunnel by.

        @raise TunnelError: C{client-away}.
        """
        for key, each in self.tunnels.items():
            if each is tunnel:
                return key
        raise TunnelError("client-away")

    @abstractmethod
    def streams(self) -> int:
        """How many visitors there are."""

    # LeaseHolder

    def displaced(self) -> None:
        """End the session, because another one has what it had."""
        self.fail(TunnelError("displaced"))

    # IClientSide

    @abstractmethod
    def serve(self, stream: Stream) -> None:
        """Find a client end for a visitor."""

    def isThere(self) -> Deferred[bool]:
        """Whether the client still answers."""
        probe: Deferred[bool] = self.connection.probe()
        return probe

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        # None of these dialects has a message for it; without any tunnel, the session
        # ends, too.
        for key in [key for key, mine in self.tunnels.items() if mine is tunnel]:
            del self.tunnels[key]
            if self.idle and self.lost is None:
                self.fail(reason)
        self._letGo()

    @property
    def idle(self) -> bool:
        """Whether the client has no tunnel, and none is being opened for it."""
        return not self.tunnels

    # Going

    def leave(self, reason: TunnelError) -> None:
        """Take no new visitors; those that are here may finish."""
        self._leaving = reason

    def sendAway(self, reason: TunnelError) -> None:
        """
        Send the client to another member of the cluster, if it can go there. One that
        has not been let in yet will not be.
        """
        if not self._isIn:
            self.leave(reason)

    def endOnPurpose(self, reason: TunnelError) -> None:
        """
        End the session because somebody wants that, or because its permission has
        ended.
        """
        self.fail(reason)

    def comesBack(self, reason: TunnelError) -> bool:
        """Whether a client whose session is over may be expected back."""
        return reason.code.name == "session-lost"

    def sessionOver(self, reason: TunnelError) -> None:
        self._sessions.sessions.discard(self)
        for work in list(self._work):
            work.cancel()
        tunnels, self.tunnels = list(self.tunnels.values()), {}
        leases, self.leases = self.leases, []
        if self.comesBack(reason):
            kept = {tunnel for lease in leases for tunnel in lease.tunnels}
            tunnels = [tunnel for tunnel in tunnels if tunnel not in kept]
        self._service.discard(tunnels, reason)
        for lease in leases:
            self._service.leases.holderLost(lease, self)
        client, self._client = self._client, None
        if client is not None:
            self._service.clients.leave(client)
        if self._isIn:
            self._service.observer.clientGone(
                self.connection.peerAddress, self._caller.identity, reason
            )
