"""
A client's session at the server, whatever its dialect.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from tristunnel.dialects.base.messages import ConnectedSession
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.clients import ClientFacts, ConnectedClient
from tristunnel.service.leases import Lease
from tristunnel.service.returning import maySomebodyReturn
from tristunnel.util.hosts import addressText

__all__ = ["ServerSession"]

Result = TypeVar("Result")

NO_FACTS = ClientFacts()


class ServerSession(ConnectedSession, ABC):
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
    _log = Logger(namespace="tristunnel.server")

    __slots__ = (
        "_caller",
        "_client",
        "_early",
        "_ended",
        "_isIn",
        "_leaving",
        "_openings",
        "_pending",
        "_service",
        "_sessions",
        "_vouched",
        "_work",
        "connection",
        "facts",
        "leases",
        "lost",
        "tunnels",
    )

    def __init__(self, sessions: ServerSessions, arrival: Arrival) -> None:
        self.connection: Any = None
        self.lost: TunnelError | None = None
        self._ended = False
        self.facts = NO_FACTS
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
        doing: Deferred[Any] = self.untilOver(work)
        doing.addErrback(lambda failure: failure.trap(CancelledError))
        doing.addErrback(lambda f: self._log.failure("A request failed", f))

    def untilOver(self, work: Coroutine[Any, Any, Result]) -> Deferred[Result]:
        """
        Likewise, for somebody who waits for it.

        @return: What comes of it.
        """
        doing = Deferred.fromCoroutine(work)
        self._work.add(doing)
        return doing.addBoth(self._done, doing)

    def _done(self, result: Result, doing: Deferred[Any]) -> Result:
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
            self._releaseLeases()
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

    def _releaseLeases(self) -> None:
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
        self._releaseLeases()

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
