"""
A client's session at the server, as far as the client is let in and sent away.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dialects.base.messages import ConnectedSession
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.clients import ClientFacts, ConnectedClient
from tristunnel.util.hosts import addressText

__all__ = ["AdmittedSession"]

Result = TypeVar("Result")

NO_FACTS = ClientFacts()


class AdmittedSession(ConnectedSession, ABC):
    """
    A session that is one of the service's clients, once it is known whose it is::

        ========= ==================================================================
        state
        ========= ==================================================================
        coming    messages are kept, from admit on, until it is known who it is
        admitted  it is among the service's clients, and its messages are taken
        leaving   it serves the visitors that it has, and gets no new ones
        over      lost says why; what it had was let go
        ========= ==================================================================

    @param sessions: The server's sessions, of which this is one.
    @param arrival: How it came.

    @cvar dialect: How it speaks.
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
        "_pending",
        "_service",
        "_sessions",
        "_vouched",
        "_work",
        "connection",
        "facts",
        "lost",
    )

    def __init__(self, sessions: ServerSessions, arrival: Arrival) -> None:
        self.connection: Any = None
        self.lost: TunnelError | None = None
        self._ended = False
        self.facts = NO_FACTS
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
        self.whileUp(self._admit(identifying, take), self.fail)

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

    def whileUp(
        self, work: Coroutine[Any, Any, None], failed: Callable[[TunnelError], object]
    ) -> None:
        """
        Do something that is cancelled when the session is over.

        @param failed: Told C{internal}, if C{work} fails with an error that it does not
            expect: somebody waits for what is not done.
        """

        def unexpected(failure: Failure) -> None:
            if not failure.check(CancelledError):
                self._log.failure("A request failed", failure)
                failed(TunnelError("internal"))

        self.untilOver(work).addErrback(unexpected)

    def untilOver(self, work: Coroutine[Any, Any, Result]) -> Deferred[Result]:
        """
        Do something that is cancelled when the session is over, for somebody who waits
        for it.

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

    @abstractmethod
    def streams(self) -> int:
        """How many visitors there are."""

    # IClientSide

    @abstractmethod
    def serve(self, stream: Stream) -> None:
        """Find a client end for a visitor."""

    @abstractmethod
    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """Note that one of its tunnels is over."""

    def isThere(self) -> Deferred[bool]:
        """Whether the client still answers."""
        probe: Deferred[bool] = self.connection.probe()
        return probe

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

    def letGo(self, reason: TunnelError) -> None:
        """Give up what the client has; nothing more is being done for it."""

    def sessionOver(self, reason: TunnelError) -> None:
        self._sessions.sessions.discard(self)
        for work in list(self._work):
            work.cancel()
        self.letGo(reason)
        client, self._client = self._client, None
        if client is not None:
            self._service.clients.leave(client)
        if self._isIn:
            self._service.observer.clientGone(
                self.connection.peerAddress, self._caller.identity, reason
            )
