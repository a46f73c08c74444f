"""
The framed protocol at the server: a connection, and what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import INegotiated
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tristunnel.auth.certificate import certificateName
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.base.unauthenticated import whyNotFramed
from tristunnel.dialects.framed.extended_session import (
    ExtendedSession,
    connectionTickets,
)
from tristunnel.dialects.framed.negotiated_session import takeOver
from tristunnel.dialects.framed.server_session import FramedSession, PlainSession
from tristunnel.dialects.framed.session import EXTENSION, FramedProtocol, extensionOffer
from tristunnel.dialects.framed.shared import FramedShared
from tristunnel.errors import TunnelError
from tristunnel.http.callers import uncounted
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.service.caller import Caller
from tristunnel.service.methods import methodsOf
from tristunnel.service.preauth import PendingConnection, sourceOf
from tristunnel.tls.explanation import whyNoTLS
from tristunnel.wire.framed import encodeHandshake

__all__ = ["ServerConnection"]


class ServerConnection(FramedProtocol):
    """
    A connection that has come to the server. Its handshake tells whether it is a
    session, an extra connection of one, or a stream's own.

    @param sessions: The server's sessions.
    @param remaining: Seconds that the peer has for its handshake.
    @param pending: Told when it is known who the peer is, or that its login failed.
    @param arrival: How it came, if that was by WebSocket.

    @ivar session: The session that it is.
    @ivar extraConnectionOver: Called when it ends, if it is an extra connection.
    """

    __slots__ = (
        "_arriving",
        "_cameBy",
        "_observer",
        "_pending",
        "_service",
        "_sessions",
        "_shared",
        "extraConnectionOver",
        "session",
    )

    def __init__(
        self,
        sessions: ServerSessions,
        remaining: float,
        pending: PendingConnection | None = None,
        arrival: Arrival | None = None,
    ) -> None:
        self._shared = shared = sessions.shared(FramedShared)
        if shared.dispatcher is None:
            shared.dispatcher = Dispatcher(
                {
                    **methodsOf(sessions.service),
                    # The wire keeps the name that released clients ask by.
                    "laneTickets": connectionTickets,
                    "takeOver": takeOver,
                }.get
            )
        super().__init__(
            sessions.reactor, sessions.limits, shared.dispatcher, remaining
        )
        self.session: FramedSession | None = None
        self.extraConnectionOver: Callable[[FramedProtocol], None] | None = None
        self._sessions = sessions
        self._service = sessions.service
        self._observer = sessions.observer
        self._pending = pending or uncounted()
        self._cameBy = arrival
        self._arriving: Deferred[None] | None = None
        shared.coming.add(self)

    # What it is for

    def handshakeReceived(self, message: dict[str, object]) -> None:
        """Find out what it is for; until that is done, read nothing more."""
        offer = message.get(EXTENSION)
        if isinstance(offer, dict) and "ticket" in offer:
            if not self._pass("ticket", message, offer["ticket"]):
                self._redeem(offer)
            return
        self.pauseReading()
        self._arriving = Deferred.fromCoroutine(self._arrive(message))
        self._arriving.addErrback(lambda failure: failure.trap(CancelledError))
        self._arriving.addErrback(lambda f: self._log.failure("No session began", f))

    def _pass(self, kind: str, message: dict[str, object], mark: object) -> bool:
        """
        Pass the connection on, if it belongs to another process of this server.

        @param kind: What it is, for the counters.
        @param message: What the client has said.
        @param mark: Begins with the mark of that process.
        @return: Whether it was passed on.
        """
        passing = self._sessions.passing
        owner = None if passing is None else passing.ownerOf(mark)
        if passing is None or owner is None or not passing.mayPass(self.transport):
            return False
        began = encodeHandshake(message) + self.stepAside()
        try:
            passing.give(kind, self.transport, began, owner)
        except TunnelError as refusal:
            self._observer.peerRefused(self.peerAddress, refusal)
            self.transport.abortConnection()
        return True

    async def _arrive(self, message: dict[str, object]) -> None:
        """
        Begin a session, unless another process of this server has the tunnel that the
        client comes for.
        """
        offer = message.get(EXTENSION)
        claim = offer.get("tunnel") if isinstance(offer, dict) else None
        if self._service.siblings is not None and isinstance(claim, dict):
            with suppress(TunnelError):
                record = await self._service.entries.find(str(claim.get("id")))
                if self._pass("session", message, f"{record.place.member}."):
                    return
        self._begin(message)

    def _begin(self, message: dict[str, object]) -> None:
        offer = message.pop(EXTENSION, None)
        arrival = self._arrival()
        if message:
            # What a client says itself counts for more than what its request said.
            arrival = replace(arrival, vouched=False)
        if isinstance(offer, dict):
            self.session = ExtendedSession(self._sessions, arrival, message, offer)
        else:
            self.session = PlainSession(self._sessions, arrival, message)
        self._shared.coming.discard(self)
        self.session.opened(self)

    def _arrival(self) -> Arrival:
        if self._cameBy is not None:
            return self._cameBy
        here = self.transport.getHost()
        caller = Caller(
            ANONYMOUS_IDENTITY,
            getattr(here, "host", "localhost"),
            getattr(here, "port", 0),
            address=sourceOf(self.peerAddress),
            secure=INegotiated.providedBy(self.transport),
            certificate=certificateName(self.transport),
        )
        return Arrival(caller, False, self._pending)

    def _redeem(self, offer: dict[str, object]) -> None:
        """Use the connection for what its ticket is for."""
        use = self._service.tickets.redeem(offer["ticket"])
        if use is None or not use(self, offer):
            self.refuse(TunnelError("expired", "the ticket is not valid"), True)
        else:
            self._pending.known()

    def stepAside(self) -> bytes:
        """
        Give up the connection, which becomes a stream.

        @return: What came after the handshake.
        """
        self._ended = True
        self._shared.coming.discard(self)
        return self.taken()

    def becomeExtraConnection(
        self, opened: Callable[..., None], offer: dict[str, object]
    ) -> None:
        """
        Carry another session's streams, and nothing else.

        @param opened: What the other session does with a stream that its client opens.
        @param offer: What the client said of its windows.
        """
        multiplexer = self.extendedMultiplexer(
            offer, True, partial(opened, peer=self.peerAddress)
        )
        # Nobody has logged in here, so nobody may call anything.
        self.control.dispatcher = None
        self.sendHandshake(
            {EXTENSION: {"accepted": True, **extensionOffer(self.limits)}}
        )
        self.establish(multiplexer)

    def refuse(self, refusal: TunnelError, extended: bool) -> None:
        """Turn the client away; an extended one is told why."""
        self.lost = refusal
        if extended:
            self.sendHandshake({EXTENSION: {"refused": refusal.asDict()}})
        self.close()

    # The session

    def caller(self) -> object:
        assert self.session is not None
        return self.session.caller()

    def peerLeaves(self, reason: TunnelError) -> None:
        if self.session is not None:
            self.session.peerLeaves(reason)

    def roundTripMeasured(self, seconds: float) -> None:
        self._observer.roundTripMeasured(seconds)

    # The end

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """End the session, or refuse it if it never began."""
        if self.multiplexer is None and self.lost is None:
            if not self._handshakeBegun() and reason.code.name != "handshake-timeout":
                reason = whyNotFramed(self._handshake.received)
            self._observer.peerRefused(self.peerAddress, reason)
        super().fail(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, or never came through TLS."""
        if self.multiplexer is None and self.lost is None:
            broken = whyNoTLS(reason)
            if broken is not None:
                self._observer.peerRefused(self.peerAddress, broken)
        super().connectionLost(reason)

    def _handshakeBegun(self) -> bool:
        """Whether the first bytes were the protocol's."""
        seen = self._handshake.received
        return seen.startswith(b"W3PTUNL"[: len(seen)]) and bool(seen)

    def sessionOver(self, reason: TunnelError) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
        self._shared.coming.discard(self)
        if self.extraConnectionOver is not None:
            self.extraConnectionOver(self)
        if self.session is not None:
            self.session.end(reason)
