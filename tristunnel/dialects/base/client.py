"""
The client as a service, and its sessions over WebSockets, whatever their dialect.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.connect.address import ServerAddress
from tristunnel.connect.credentials import TOKEN_VARIABLE
from tristunnel.connect.websocket import WebSocketEndpoint
from tristunnel.dialects.base.client_session import (
    ClientSession,
    MessageClientSession,
)
from tristunnel.dialects.base.refusals import STEADY, Refusals
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.forwards.forward import Forward
from tristunnel.model.observer import ClientObserver
from tristunnel.util.process import FAREWELL, GRACE, Drain
from tristunnel.websocket.connection import Receiver
from tristunnel.websocket.roles import ClientConnection

__all__ = [
    "SETTLED",
    "ClientService",
    "SessionClientService",
    "WebSocketClientService",
    "backoff",
    "openWebSocket",
]


ASession = TypeVar("ASession", bound=ClientSession)
AMessageSession = TypeVar("AMessageSession", bound=MessageClientSession)


async def openWebSocket(
    server: ServerAddress, receiver: Receiver, subprotocols: tuple[str, ...] = ()
) -> ClientConnection:
    """
    Open a WebSocket to a server.

    @raise TunnelError: With why there is none.
    """
    endpoint = server.endpoint
    if not isinstance(endpoint, WebSocketEndpoint):
        raise badOption(f"{server.where} is not a WebSocket URL")
    try:
        return await endpoint.open(receiver, subprotocols)
    except (CancelledError, TunnelError):
        raise
    except Exception as error:
        raise server.notReached(Failure()) from error


FIRST_DELAY = 1.0
"""The longest delay before the first new attempt, in seconds."""

LONGEST_DELAY = 60.0
"""Seconds up to which the longest delay grows, doubling each time."""

RETRY = 0.3
"""Seconds, at most, between attempts while a port refuses connections that was there a
moment ago: the server is probably being restarted."""

RETRYING = 10.0
"""Seconds after a session for which this goes on."""

SETTLED = 2.0
"""Seconds after which a session counts as a success. The processes of a server may end
one after the other, a few seconds apart, and none of that should make visitors wait."""


def backoff(failures: int, retryAfter: float | None = None) -> float:
    """
    How long to wait before the next attempt.

    The whole delay is random, up to the bound: a thousand clients that lost the same
    server must not come back together. At the longest interval, after L{STEADY}
    failures, half of it is random.

    @param failures: Attempts that failed so far, from 0.
    @param retryAfter: What the server asked for, in seconds.
    @return: Seconds.
    """
    bound = min(FIRST_DELAY * 2.0 ** min(failures, 30), LONGEST_DELAY)
    least = bound / 2 if failures >= STEADY else 0.05
    return (retryAfter or 0.0) + random.uniform(least, bound)


class ClientService(Service, ABC, Generic[ASession]):
    """
    Stays connected to a server, and comes back to it.

    @param reactor: Tells time.
    @param server: Where to connect.
    @param forwards: What to offer.
    @param credentials: What says who we are.
    @param observer: Told what happens.
    @param grace: Seconds that visitors get to finish when the service stops.
    @param gaveUp: Called with the reason when no attempt follows.
    @param delay: Makes the delay of failures and the server's hint; by default
        it is L{backoff}.

    @ivar session: The session that is up now, or C{None}.
    """

    _log = Logger(namespace="tristunnel.client")
    backoff = staticmethod(backoff)

    def __init__(
        self,
        reactor: Any,
        server: ServerAddress,
        forwards: Sequence[Forward],
        credentials: Mapping[str, object] | None = None,
        observer: ClientObserver | None = None,
        grace: float = GRACE,
        gaveUp: Callable[[TunnelError], None] = lambda reason: None,
        delay: Callable[[int, float | None], float] | None = None,
    ) -> None:
        self.session: ASession | None = None
        self.observer = observer or ClientObserver()
        self._reactor = reactor
        self._server = server
        self._forwards = list(forwards)
        self._credentials = dict(credentials or {})
        self._grace = grace
        self._gaveUp = gaveUp
        self._delay = delay or self.backoff
        self._refusals = Refusals()
        self._failures = 0
        self._work: Deferred[None] | None = None
        self._drain: Drain | None = None
        self._attempt: IDelayedCall | None = None

    @property
    def forwards(self) -> Sequence[Forward]:
        """What is offered now."""
        return tuple(self._forwards)

    def startService(self) -> None:
        super().startService()
        self._work = Deferred.fromCoroutine(self._stayConnected())
        self._work.addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        """
        Give up, unless the work has just been stopped: nothing else should end it.
        """
        if not failure.check(CancelledError):
            self._log.failure("The client failed", failure)
            self._end(TunnelError("internal", "the client failed; its log says why"))

    async def _stayConnected(self) -> None:
        since = float("-inf")
        while self.running:
            began = self._reactor.seconds()
            reason, refused = await self._oneSession()
            if not self.running:
                return
            final = self.whyFinal(reason)
            reason = final or reason
            judged = self._refusals.judge(
                reason, self._server, refused, final is not None
            )
            if reason.code.name == "auth-refused" and reason.stated:
                reason.message = self._whyRefused() or reason.message
            reason.final = judged is None
            self.observer.disconnected(judged or reason)
            if judged is None:
                self._end(reason)
                return
            if not refused and self.goesOn():
                continue
            now = self._reactor.seconds()
            if not refused:
                since = now
                if now - began > SETTLED:
                    self._failures = 0
            if judged is not reason:
                delay = self._delay(STEADY, reason.retryAfter)
            elif reason.retryAfter is None and (
                now - since <= RETRYING
                and refused
                and isinstance(reason.__cause__, ConnectionRefusedError)
            ):
                delay = RETRY * random.uniform(0.5, 1.0)
            elif reason.retryAfter is None:
                delay = self._delay(self._failures, None)
                self._failures += 1
            else:
                # A server that says when to come back is well, and knows better.
                delay = self._delay(0, reason.retryAfter)
            self.observer.reconnectQueued(delay)
            if not self.running:
                return
            await self._pause(delay)

    def _whyRefused(self) -> str:
        """Say what was wrong with the credentials, which the server must not."""
        if self._server.capability or self._server.access:
            return ""
        if not self._credentials:
            return (
                "the server asks for a token; none was given: use --token-file FILE,"
                f" the variable {TOKEN_VARIABLE}, or once tristunnel join INVITATION"
            )
        token = self._credentials.get("token")
        if isinstance(token, str) and "id" not in self._credentials:
            return (
                f"the server does not know the token {printable(token[:6])}...: is it"
                " one of that server's, and whole?"
            )
        return ""

    def _pause(self, delay: float) -> Deferred[None]:
        waiting: Deferred[None] = Deferred(lambda cancelled: attempt.cancel())
        attempt = self._reactor.callLater(delay, waiting.callback, None)
        self._attempt = attempt
        return waiting

    def _end(self, reason: TunnelError) -> None:
        self.observer.gaveUp(reason)
        self._gaveUp(reason)

    def goesOn(self) -> bool:
        """Whether another session is ready, so that there is no need to wait."""
        return False

    @abstractmethod
    async def _oneSession(self) -> tuple[TunnelError, bool]:
        """
        Connect, serve, and wait for the end.

        @return: Why it ended, and whether the server turned us away.
        """

    def whyFinal(self, reason: TunnelError) -> TunnelError | None:
        """
        Say why another attempt would be of no use after the end of a session that was
        let in; C{None} if it may be of use.
        """
        return None

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        # An observer may have asked for this in the middle of our work.
        await deferLater(self._reactor, 0)
        session, work = self.session, self._work
        if session is not None and session.multiplexer is not None:
            session.goAway(TunnelError("shutting-down", "the client stops"))
            self._drain = Drain(self._reactor, session.streams, self._grace)
            await self._drain.wait()
            self.sayGoodbye(session)
            session.close()
            transport: Any = session.transport
            # Only a WebSocket's close has to be waited for.
            await Drain(
                self._reactor,
                lambda: int(not getattr(transport, "gone", True)),
                FAREWELL,
            ).wait()
        elif work is not None:
            work.cancel()

    def sayGoodbye(self, session: ASession) -> None:
        """Tell the server what it should know before we leave."""

    def stopNow(self) -> None:
        """Do not wait for visitors any longer."""
        if self._drain is not None:
            self._drain.hurry()


class SessionClientService(ClientService[ASession]):
    """A client with one session after the other."""

    @abstractmethod
    async def openSession(self) -> ASession:
        """
        Begin the next session.

        @raise TunnelError: With why there is none.
        """

    async def _oneSession(self) -> tuple[TunnelError, bool]:
        try:
            session = await self.openSession()
        except TunnelError as refusal:
            return refusal, True
        self.session = session
        self.sessionUp(session)
        try:
            reason = await session.whenOver()
        finally:
            self.session = None
            self.sessionDown()
        return self.sessionEnded(session, reason)

    def sessionUp(self, session: ASession) -> None:
        """A session has begun."""

    def sessionDown(self) -> None:
        """It is over, or the client stops."""

    def sessionEnded(
        self, session: ASession, reason: TunnelError
    ) -> tuple[TunnelError, bool]:
        """
        Say how a session ended.

        @param reason: As the session says.
        @return: Why it ended, and whether the server turned us away.
        """
        return reason, session.refused


class WebSocketClientService(SessionClientService[AMessageSession]):
    """A client whose sessions, one after the other, go over WebSockets."""

    subprotocols: ClassVar[tuple[str, ...]] = ()
    """The subprotocols in the WebSocket's request."""

    @abstractmethod
    def makeSession(self) -> AMessageSession:
        """Make what receives the messages of the next session."""

    async def openSession(self) -> AMessageSession:
        session = self.makeSession()
        await openWebSocket(self._server, session, self.subprotocols)
        return session

    async def _stop(self) -> None:
        await super()._stop()
        self.observer.stopped()
