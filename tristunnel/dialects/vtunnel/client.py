"""
vtunnel's dialect at the client: its service, which finds out what a server speaks, and
a session with JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall

from tristunnel.dialects.base.client import WebSocketClientService, openWebSocket
from tristunnel.dialects.base.client_session import (
    ASK_AGAIN,
    MessageClientSession,
)
from tristunnel.dialects.base.messages import MessageSession
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.vtunnel.session import (
    TextLink,
    VTunnelClientSide,
    VTunnelSession,
)
from tristunnel.errors import TunnelError
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.ssh import BEGINNING
from tristunnel.wire.vtunnel import (
    CONNECT,
    LISTEN,
    LISTEN_ERR,
    LISTEN_OK,
    PING,
    PONG,
    Message,
)
from tristunnel.wire.vtunnel_ssh import parsePrivateKey

if TYPE_CHECKING:
    from tristunnel.dialects.base.stream import SessionStream

__all__ = ["VTunnelClientService", "VTunnelClientSession", "WireFinder"]

ANSWER_TIME = 2.0
"""Seconds after which a server that has not answered requests is taken for an early
one, which never does."""

WIRE_TIME = 2.0
"""Seconds in which a server that speaks SSH begins, which it does at once; one that
speaks JSON waits for requests."""

JSON, SSH = "json", "ssh"


class WireFinder(MessageSession):
    """
    Waits for a server to show what it speaks.

    @param reactor: Tells time.
    @param patience: Seconds that it has for that; 0 if it is known to speak JSON.

    @ivar found: Fires with L{JSON} or L{SSH}; fails with L{TunnelError} if the
        connection ends before.
    """

    def __init__(self, reactor: Any, patience: float) -> None:
        super().__init__()
        self.found: Deferred[str] = Deferred()
        self._reactor = reactor
        self._patience = patience
        self._timer: IDelayedCall | None = None
        self._first: tuple[bytes, bool] | None = None

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        if self._patience:
            self._timer = self._reactor.callLater(self._patience, self._find, JSON)
        else:
            self._find(JSON)

    def bytesReceived(self, data: bytes) -> None:
        self._first = data, True
        self._find(SSH if data.startswith(BEGINNING) else JSON)

    def textReceived(self, text: bytes) -> None:
        self._first = text, False
        self._find(JSON)

    def _find(self, wire: str) -> None:
        stopTimer(self._timer)
        # What follows is for the session, which is made at once.
        self.found.callback(wire)

    def handOver(self, session: MessageClientSession) -> None:
        """Let C{session} take over, with what has come so far."""
        self.connection.receiver = session
        session.opened(self.connection)
        if self._first is not None:
            data, isBinary = self._first
            (session.bytesReceived if isBinary else session.textReceived)(data)

    def sessionOver(self, reason: TunnelError) -> None:
        stopTimer(self._timer)
        if not self.found.called:
            self.found.errback(reason)


class VTunnelClientSession(VTunnelSession, MessageClientSession):
    """
    A session with a vtunnel server.

    @ivar limits: What it may hold.
    @ivar pingInterval: Seconds between the messages that keep a later server
        from hanging up, which it does after 60 s; 0 for none.
    @ivar maybeMute: Whether a server that says nothing at all may be an early
        one, which answers no pings. Otherwise it is dead after two of them.
    @ivar mute: Whether this session ended for that.
    """

    multiplexer: VTunnelClientSide | None

    limits = Limits()
    pingInterval = 30.0
    maybeMute = mute = False
    _answers = _heard = _ponged = False
    _silence: IDelayedCall | None = None

    def makeMultiplexer(self, link: TextLink) -> VTunnelClientSide:
        return VTunnelClientSide(
            link,
            self.reactor.seconds,
            self._opened,
            self.limits,
            self.reactor.callLater,
        )

    # Asking

    def opened(self, connection: object) -> None:
        self._kinds = {
            CONNECT: self._connect,
            LISTEN_OK: self._listenOK,
            LISTEN_ERR: self._listenErr,
            PONG: self._pong,
        }
        super().opened(connection)
        self._byPort = {each.port: each for each in self._forwards if not each.hasHost}
        self._observer.connected(self.connection.peerAddress)
        self._observer.acknowledged("vtunnel")
        for port in self._byPort:
            self._ask(port)
        for forward in [each for each in self._forwards if each.hasHost]:
            self._observer.tunnelFailed(
                forward.wanted,
                TunnelError(
                    "not-permitted",
                    "a vtunnel server that speaks JSON does not support domains",
                ),
            )
        self.later(ANSWER_TIME, self._noAnswer)
        if self.pingInterval > 0:
            self._silence = self.later(2 * self.pingInterval, self._noPong)
            self.later(self.pingInterval, self._ping)

    def textReceived(self, text: bytes) -> None:
        self._heard = True
        if self._silence is not None and self._silence.active():
            self._silence.reset(2 * self.pingInterval)
        super().textReceived(text)

    def _pong(self, message: Message) -> None:
        self._ponged = True

    def _noPong(self) -> None:
        """
        Decide what it means that nothing came for two pings. Servers from before 13
        February 2026 do not answer pings, and send nothing until the first visitor
        comes.
        """
        if self._ponged or not (self._heard or self.maybeMute):
            self.mute = not self._ponged
            why = f"the server sent nothing for {2 * self.pingInterval:g} s"
            if self.mute:
                why += "; if it does not answer pings, it will not be asked to again"
            self.fail(TunnelError("session-lost", why))
        else:
            self._silence = self.later(2 * self.pingInterval, self._noPong)

    def _ask(self, port: int) -> None:
        self.send(Message(LISTEN, port=port))

    def _ping(self) -> None:
        # The early server skips it.
        self.send(Message(PING))
        self.later(self.pingInterval, self._ping)

    def _noAnswer(self) -> None:
        if not self._answers:
            for forward in self._byPort.values():
                self.ready(forward)

    # What the server says

    def _listenOK(self, message: Message) -> None:
        self._answers = True
        if message.port in self._byPort:
            self.ready(self._byPort[message.port])

    def _listenErr(self, message: Message) -> None:
        self._answers = True
        forward = self._byPort.get(message.port)
        if forward is not None:
            self._observer.tunnelFailed(
                forward.wanted, TunnelError("port-taken", message.error)
            )
            self.later(ASK_AGAIN, self._ask, message.port)

    def _connect(self, message: Message) -> None:
        if self.multiplexer is not None:
            self.multiplexer.connectArrived(message)

    def _opened(self, stream: SessionStream, info: dict[str, object]) -> None:
        forward = self._byPort.get(int(str(info["port"])))
        if forward is None:
            stream.reset(TunnelError("unknown-tunnel", "that port was not requested"))
        elif self.multiplexer is not None:
            endpoint: Any = forward.endpoint
            self._connector.connect(
                stream, forward.target, endpoint, self.multiplexer.accept
            )


class VTunnelClientService(WebSocketClientService[MessageClientSession]):
    """
    Stays connected to a vtunnel server, which speaks SSH, or JSON if it is of before
    version 0.1.0.
    """

    _mute = False
    _wire = ""
    _last: VTunnelClientSession | None = None

    def makeSession(self) -> VTunnelClientSession:
        endpoint: Any = self._server.endpoint
        session = VTunnelClientSession(
            self._reactor,
            self._forwards,
            self.observer,
            self._server.host,
        )
        session.pingInterval = getattr(endpoint, "pingInterval", 0.0)
        session.maybeMute = self._mute
        self._last = session
        return session

    def makeSSHSession(self) -> MessageClientSession:
        """Make a session with SSH."""
        from tristunnel.dialects.vtunnel.ssh_client import VTunnelSSHClientSession

        key = self._credentials.get("key")
        return VTunnelSSHClientSession(
            self._reactor,
            parsePrivateKey(str(key)) if key else None,
            self._forwards,
            self.observer,
            self._server.host,
        )

    async def openSession(self) -> MessageClientSession:
        finder = WireFinder(self._reactor, 0.0 if self._wire == JSON else WIRE_TIME)
        connection = await openWebSocket(self._server, finder)
        try:
            self._wire = await finder.found
        except CancelledError:
            connection.abort()
            raise
        session = self.makeSession() if self._wire == JSON else self.makeSSHSession()
        finder.handOver(session)
        return session

    async def _oneSession(self) -> tuple[TunnelError, bool]:
        ended = await super()._oneSession()
        self._mute = self._mute or (self._last is not None and self._last.mute)
        return ended
