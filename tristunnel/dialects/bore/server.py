"""
bore's dialect at the server: control connections, and those for visitors, which come
to the same port and begin alike.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.answers import Answers, Holds
from tristunnel.dataplane.closing import WriteDeadline
from tristunnel.dataplane.stock import tuneSocket, unsent
from tristunnel.dataplane.transport_end import Arriving
from tristunnel.dialects.base.awaited import Awaited, noVisitor
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.base.server_session import ServerSession
from tristunnel.errors import TunnelError, protocolError
from tristunnel.model.permissions import ANONYMOUS_IDENTITY, Identity
from tristunnel.model.tunnel import Stream
from tristunnel.service.caller import Caller
from tristunnel.service.preauth import PendingConnection, sourceOf
from tristunnel.util.members import memberMark
from tristunnel.util.repeating import RepeatingCall, stopTimer
from tristunnel.wire.bore import (
    HEARTBEAT,
    Accept,
    Authenticate,
    ClientMessage,
    Hello,
    isAnswer,
    nextMessage,
    packAccept,
    packChallenge,
    packConnection,
    packError,
    packHello,
    unpack,
)

__all__ = [
    "PASSED",
    "BoreConnection",
    "BoreSession",
    "BoreVisitors",
    "PassedConnection",
]

BEAT = 5.0
"""Seconds between two heartbeats. bore's own server sends one each half second; they
only serve to notice that a client has gone."""

SIGN_OF_LIFE = 2.0
"""Seconds in which a client's kernel must have taken one."""

FAREWELL = 5.0
"""Seconds in which a client must have taken the reason why its connection ends."""

PASSED = "bore"
"""What L{Passing<tristunnel.processes.passing.Passing>} calls the port for connections
from other processes of the server."""


def packVouched(identity: Identity) -> bytes:
    """Write down, for another process of the server, who has proved a secret."""
    return json.dumps([identity.name, identity.anonymous]).encode() + b"\0"


def unpackVouched(said: bytes) -> Identity:
    """Read what another process of the server has written."""
    name, anonymous = json.loads(said)
    return Identity(name, anonymous)


class BoreVisitors(Awaited):
    """The visitors of all clients who wait for their connections."""


@implementer(IPushProducer)
class BoreConnection(Protocol):
    """
    One connection of a client's. It proves that it has a secret, if it has to, and
    then is a session's, or a visitor's.

    @param sessions: The server's sessions.
    @param remaining: Seconds in which it must say what it is for.
    @param pending: Told when it is known whose it is, and of failed logins.
    """

    transport: Any
    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self, sessions: ServerSessions, remaining: float, pending: PendingConnection
    ) -> None:
        self._sessions = sessions
        self._remaining = remaining
        self._pending = pending
        self._visitors = sessions.shared(BoreVisitors)
        self._holds = Holds(self._pause, self._resume)
        self._unread = b""
        self._challenge: UUID | None = None
        self._identity: Identity | None = None
        self._checking: Deferred[None] | None = None
        self._late: IDelayedCall | WriteDeadline | None = None
        self._session: BoreSession | None = None
        self._answers: Answers | None = None
        self._ending = False
        self.full = False

    def connectionMade(self) -> None:
        tuneSocket(self.transport)
        reactor = self._sessions.reactor
        self._pending.leave = self.abort
        self._late = reactor.callLater(self._remaining, self._tooLate)
        self._askWho()

    def _askWho(self) -> None:
        if self._sessions.authenticator.admitsAnybody:
            self._identity = ANONYMOUS_IDENTITY
        else:
            self._challenge = uuid4()
            self.transport.write(packChallenge(self._challenge))

    @property
    def peerAddress(self) -> Any:
        """Where the client is."""
        return self.transport.getPeer()

    # What comes

    def dataReceived(self, data: bytes) -> None:
        if self._ending:
            return
        self._unread += data
        try:
            self._takeMessages()
        except TunnelError as problem:
            # The pieces that are kept must not keep all of what was read.
            self._broken(problem.with_traceback(None))

    def _broken(self, reason: TunnelError) -> None:
        (self if self._session is None else self._session).fail(reason)

    def _takeMessages(self) -> None:
        while not (self._holds or self._ending):
            message, self._unread = nextMessage(self._unread)
            if message is None:
                return
            self._take(unpack(message))

    def _take(self, message: ClientMessage) -> None:
        if self._session is not None:
            raise protocolError("bore's client may not send anything more")
        if isinstance(message, Authenticate):
            if self._challenge is None:
                raise protocolError("no secret was asked for")
            self._holds.hold("login")
            checking = Deferred.fromCoroutine(self._check(message.tag))
            self._checking = checking
            checking.addErrback(self._checkFailed)
        elif self._identity is None:
            raise TunnelError("auth-refused", "no --secret was given")
        elif isinstance(message, Hello):
            self._begin(message.port, self._identity)
        else:
            self._accept(message, self._identity)

    async def _check(self, tag: str) -> None:
        challenge, self._challenge = self._challenge, None
        assert challenge is not None
        try:
            self._identity = await self._sessions.authenticator.authenticate(
                {}, self.peerAddress, proves=partial(isAnswer, tag, challenge)
            )
        except TunnelError as refusal:
            self._sessions.observer.authenticationFailed(self.peerAddress, refusal)
            if refusal.code.name == "auth-refused":
                self._pending.failed()
            self._end(refusal)
        else:
            self._checking = None
            self._holds.release("login")

    def _checkFailed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("A login failed", failure)
            self.abort()

    # What it is for

    def _begin(self, port: int, identity: Identity) -> None:
        here, peer = self.transport.getHost(), self.peerAddress
        stopTimer(self._late)
        caller = Caller(
            identity,
            str(getattr(here, "host", "localhost")),
            int(getattr(here, "port", 0)),
            address=sourceOf(peer),
        )
        self._answers = Answers(
            self._sessions.reactor, self.transport, self._holds, self._broken
        )
        self._answers.passTo(self)
        vouched = not self._sessions.authenticator.admitsAnybody
        arrival = Arrival(caller, vouched, self._pending)
        self._session = session = BoreSession(self._sessions, arrival, port)
        session.opened(self)

    def _accept(self, message: Accept, identity: Identity) -> None:
        found = self._visitors.find(message.id)
        if found is None and self._passOn(message, identity):
            return
        if found is None or not self._isFor(found[1], identity):
            raise noVisitor()
        stream = self._visitors.take(message.id)
        if stream is None:
            raise noVisitor()
        stopTimer(self._late)
        self._pending.known()
        early, self._unread = self._unread, b""

        def arrived(end: Any) -> None:
            if early:
                end.begunBy(early)
            stream.connect(end)

        inner = Arriving(self._sessions.reactor, arrived)
        self._ending = True
        self.transport.protocol = inner
        inner.makeConnection(self.transport)

    def _passOn(self, message: Accept, identity: Identity) -> bool:
        """
        Pass the connection to the process of the server whose visitor it is for.

        @return: Whether it was passed on.
        """
        passing = self._sessions.passing
        if passing is None or not passing.mayPass(self.transport):
            return False
        # See L{Awaited.expect}.
        owner = passing.ownerOf(memberMark(message.id.bytes[0]))
        if owner is None:
            return False
        began = packVouched(identity) + packAccept(message.id) + self._unread
        try:
            passing.give("visitor", self.transport, began, owner, PASSED)
        except TunnelError as refusal:
            # That process is not there, or not yet.
            self.fail(refusal)
        return True

    @staticmethod
    def _isFor(session: Any, identity: Identity) -> bool:
        return isinstance(session, BoreSession) and session.identity == identity

    # What goes

    def send(self, message: bytes) -> None:
        """Send a message."""
        if not self._ending:
            if self._answers is not None:
                self._answers.wrote(len(message))
            self.transport.write(message)

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """End the connection because of C{reason}, and say so."""
        if self._session is None and not self._ending:
            self._sessions.observer.peerRefused(self.peerAddress, reason)
        self._end(reason)

    def _end(self, reason: TunnelError) -> None:
        if self._ending:
            return
        self.send(packError(str(reason)))
        self._ending, self._unread = True, b""
        stopTimer(self._late)
        if self._answers is not None:
            self._answers.stop()
        # Bytes that are left unread would turn the end into a reset.
        self.transport.resumeProducing()
        self._late = closing = WriteDeadline(
            self._sessions.reactor, self.transport, FAREWELL
        )
        closing.close()

    def abort(self) -> None:
        """Cut the connection."""
        self._ending = True
        self.transport.abortConnection()

    def close(self) -> None:
        """End the connection."""
        self.fail(TunnelError("closed", "the session is over"))

    def _tooLate(self) -> None:
        seconds = self._remaining
        self.fail(
            TunnelError(
                "handshake-timeout",
                f"its purpose was not stated within {seconds:.0f} s",
            )
        )

    # Reading

    def pauseReading(self) -> None:
        """Stop reading."""
        self._holds.hold("session")

    def resumeReading(self) -> None:
        """Read again."""
        self._holds.release("session")

    def _pause(self) -> None:
        self.transport.pauseProducing()

    def _resume(self) -> None:
        if not self._ending:
            self.transport.resumeProducing()
            self.dataReceived(b"")

    def probe(self) -> Deferred[bool]:
        """Find out whether the client's machine takes what it is sent."""
        answer: Deferred[bool] = Deferred()
        if self._ending:
            answer.callback(False)
            return answer
        self.send(HEARTBEAT)
        self._sessions.reactor.callLater(
            SIGN_OF_LIFE,
            lambda: answer.callback(not self._ending and not unsent(self.transport)),
        )
        return answer

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False

    def stopProducing(self) -> None:
        """The transport is gone."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ending, self._unread = True, b""
        stopTimer(self._late)
        self._pending.known()
        if self._answers is not None:
            self._answers.stop()
        if self._checking is not None:
            self._checking.cancel()
        if self._session is not None:
            self._session.end(TunnelError("session-lost", "the client has left"))


class PassedConnection(BoreConnection):
    """
    A connection that another process of the server has accepted, and asked for its
    secret: what that has found out comes first.
    """

    def _askWho(self) -> None:
        """It is known already."""

    def dataReceived(self, data: bytes) -> None:
        if self._identity is None:
            said, _, data = data.partition(b"\0")
            self._identity = unpackVouched(said)
        super().dataReceived(data)


class BoreSession(ServerSession):
    """
    One client's control connection.

    @param port: The port that it wants; 0 for any.
    """

    dialect = "bore"

    def __init__(self, sessions: ServerSessions, arrival: Arrival, port: int) -> None:
        super().__init__(sessions, arrival)
        self._port = port
        self._visitors = sessions.shared(BoreVisitors)
        self._beating = RepeatingCall(sessions.reactor, self._beat)

    @property
    def identity(self) -> Identity:
        """Whose it is."""
        return self._caller.identity

    @property
    def source(self) -> str:
        """What connections from its address are counted by."""
        return self._caller.address

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        self.admit(self.authenticate({}), lambda message: None)

    def admitted(self) -> None:
        self.whileUp(self._open(), self.fail)

    async def _open(self) -> None:
        try:
            tunnel = await self.openFor(
                self._port, {"port": self._port}, f"port {self._port}"
            )
        except TunnelError as refusal:
            self.noteRefusal(f"asked for port {self._port}", refusal)
            if self.lost is None:
                self.fail(refusal)
            return
        if tunnel.listener is not None:
            self.connection.send(packHello(tunnel.listener.address[2]))
        self._beating.start(BEAT)

    def _beat(self) -> None:
        if not self.connection.full:
            self.connection.send(HEARTBEAT)

    def serve(self, stream: Stream) -> None:
        try:
            if self._leaving is not None or self.lost is not None:
                raise self._leaving or TunnelError("client-away")
            if self.connection.full:
                raise TunnelError("limit-reached", "the client accepts no more")
            visitor = self._visitors.expect(stream, self)
        except TunnelError as refusal:
            stream.refuse(refusal)
        else:
            self.connection.send(packConnection(visitor))

    def streams(self) -> int:
        return sum(
            stream.client is not None
            for tunnel in self.tunnels.values()
            for stream in tunnel.streams
        )

    def sessionOver(self, reason: TunnelError) -> None:
        if self._beating.running:
            self._beating.stop()
        self._visitors.sessionOver(self, reason)
        super().sessionOver(reason)
