"""
zlayer's dialect at the server: a client's session.

The control connection announces visitors; each of them comes by a data
connection of its own, see L{tristunnel.dialects.zlayer.data}.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from tristunnel.dialects.zlayer.life import SignsOfLife
from tristunnel.dialects.zlayer.messages import MessageSession
from tristunnel.dialects.zlayer.reasons import IN_USE, reasonIn, shorten
from tristunnel.errors import TunnelError
from tristunnel.util.hosts import addressText
from tristunnel.websocket.incoming import REQUEST_EFFORT
from tristunnel.wire.zlayer import (
    MAX_MESSAGE,
    UDP,
    Auth,
    AuthFail,
    AuthOk,
    Connect,
    ConnectAck,
    ConnectFail,
    Disconnect,
    Heartbeat,
    HeartbeatAck,
    Message,
    Register,
    RegisterFail,
    RegisterOk,
    Unregister,
    decodeMessage,
    encodeMessage,
)

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from tristunnel.dialects.base.unauthenticated import PendingLogin
    from tristunnel.dialects.framed.server import TunnelServerFactory
    from tristunnel.model.permissions import Identity
    from tristunnel.model.tunnel import Stream, Tunnel
    from tristunnel.service.caller import Caller
    from tristunnel.service.clients import ConnectedClient

__all__ = ["ZLayerServerSession"]

_WAITING_REGISTERS = 64


class ZLayerServerSession(MessageSession):
    """
    The L{Receiver<tristunnel.websocket.connection.Receiver>} of one zlayer
    client's control connection.

    @param sessions: The server's sessions, of which this is one.
    @param caller: Who it is, and how it reached this server.
    @param vouched: Whether that was checked.
    @param stranger: Told when it is known who it is, or if its token is not
        accepted.
    @param now: The time of day, in seconds.

    @ivar lost: Why the session is over, or C{None}.
    @ivar tunnels: The client's services, by their ids.
    """

    carriesDatagrams = True
    _log = Logger(namespace="tristunnel.server")

    peersName = "the client"

    def __init__(
        self,
        sessions: TunnelServerFactory,
        caller: Caller,
        vouched: bool,
        stranger: PendingLogin | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.lost: TunnelError | None = None
        self.tunnels: dict[UUID, Tunnel] = {}
        self.connection: Any = None
        self._sessions = sessions
        self._service = sessions.service
        self._shared = sessions.zlayer
        self._caller = replace(caller, clientSide=self)
        self._vouched = vouched
        self._stranger = stranger
        self._now = now
        self._token = b""
        self._client: ConnectedClient | None = None
        self._admitting: Deferred[None] | None = None
        self._early: list[bytes] = []
        self._requests: deque[Message] = deque()
        self._answering: Deferred[None] | None = None
        self._leaving: TunnelError | None = None
        self._full = False
        self._life = SignsOfLife(sessions.reactor, self._beat, self.fail)
        self._take: dict[type[Message], Callable[[Any], None]] = {
            Register: self._request,
            Unregister: self._request,
            ConnectAck: lambda message: None,
            ConnectFail: self._connectFailed,
            HeartbeatAck: lambda message: None,
            Heartbeat: lambda message: self._send(HeartbeatAck(message.time)),
        }

    # Receiver

    def opened(self, connection: Any) -> None:
        self.connection = connection
        connection.wholeUpTo = MAX_MESSAGE
        connection.registerProducer(self)
        self._sessions.sessions.add(self)  # type: ignore[arg-type]

    def bytesReceived(self, data: bytes) -> None:
        if self.lost is not None:
            return
        self._life.heard()
        if self._admitting is not None and self._client is None:
            self._early.append(data)
            return
        try:
            message = decodeMessage(data)
            if self._client is None:
                self._login(message)
                return
            self.take(message)
        except TunnelError as error:
            self.fail(error)

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        self.lost = self.lost or reason or TunnelError("session-lost", "it has left")
        self._over(self.lost)

    @property
    def source(self) -> str:
        """What connections from its address are counted by."""
        return self._caller.address

    # Coming in

    def _login(self, message: Message) -> None:
        if not isinstance(message, Auth):
            refusal = TunnelError("protocol-error", "Expected AUTH message")
            self._service.observer.peerRefused(self.connection.peerAddress, refusal)
            self._turnAway(refusal)
            return
        self.connection.pauseReading()
        self._admitting = Deferred.fromCoroutine(self._admit(message.token))

    async def _admit(self, token: str) -> None:
        peer = self.connection.peerAddress
        try:
            identity = await self._identify(token)
            digest = sha256(token.encode()).digest()
            self._checkUse(digest)
            if self._leaving is not None:
                raise self._leaving
            if self._stranger is not None:
                self._stranger.known()
            self._caller = replace(self._caller, identity=identity)
            self._client = self._service.clients.enter(
                identity, addressText(peer), "zlayer", self.fail, self
            )
        except TunnelError as refusal:
            if self._stranger is not None and refusal.code.name == "auth-refused":
                self._stranger.failed()
            self._service.observer.authenticationFailed(peer, refusal)
            self._turnAway(refusal)
        except CancelledError:
            pass
        else:
            self._token = digest
            self._shared.inUse[digest] = self
            self._service.observer.clientConnected(peer, identity, "zlayer")
            self._send(AuthOk(uuid4()))
            self._life.start()
            self.connection.resumeReading()
            early, self._early = self._early, []
            for data in early:
                self.bytesReceived(data)

    async def _identify(self, token: str) -> Identity:
        """
        Find out whose a token is. C{ID:SECRET} is one, too, for checkers that
        ask for both.
        """
        if not token:
            raise TunnelError("auth-refused", "Token cannot be empty")
        if self._vouched:
            return self._caller.identity
        fields: dict[str, object] = {"token": token}
        name, colon, secret = token.partition(":")
        if colon:
            fields.update(id=name, secret=secret)
        peer = self.connection.peerAddress
        return await self._sessions.authenticator.authenticate(fields, peer)

    def _checkUse(self, digest: bytes) -> None:
        """
        @raise TunnelError: C{name-taken}, if another session has the token;
            that one must show that it lives.
        """
        other = self._shared.inUse.get(digest)
        if other is not None:
            other.probe()
            raise TunnelError("name-taken", IN_USE)

    def _turnAway(self, refusal: TunnelError) -> None:
        self.lost = refusal
        text = refusal.message
        if refusal.code.name not in ("name-taken", "protocol-error"):
            text = str(refusal)
        self._send(AuthFail(text))
        self.connection.fail(refusal)

    def _beat(self) -> None:
        self._send(Heartbeat(int(self._now() * 1000)))

    def probe(self) -> None:
        """Have the client show that it lives: somebody else came with its token."""
        self._life.probe()

    # What the client asks for

    def _request(self, message: Message) -> None:
        """
        Answer requests in their order: the client tells the answers apart by
        nothing else.
        """
        self.connection.effort += REQUEST_EFFORT
        self._requests.append(message)
        if self._answering is None:
            answering = self._answering = Deferred.fromCoroutine(self._answer())
            answering.addErrback(lambda failure: failure.trap(CancelledError))
            answering.addBoth(self._answered)
            answering.addErrback(
                lambda failure: self._log.failure("A request failed", failure)
            )
        elif len(self._requests) == _WAITING_REGISTERS:
            self.connection.pauseReading()

    async def _answer(self) -> None:
        while self._requests and self.lost is None:
            message = self._requests.popleft()
            if isinstance(message, Register):
                await self._register(message)
            elif isinstance(message, Unregister):
                await self._unregister(message)

    def _answered(self, result: object) -> object:
        self._answering = None
        if self.lost is None and self.connection.paused:
            self.connection.resumeReading()
        return result

    async def _register(self, message: Register) -> None:
        try:
            if self._leaving is not None:
                raise self._leaving
            self._service.rights.checkServices(len(self.tunnels))
            tunnel = await self._open(message)
        except TunnelError as refusal:
            peer = addressText(self.connection.peerAddress)
            self._service.observer.requestNoted(
                self._caller.identity,
                f"at {peer} registered {shorten(message.name)} and was refused:"
                f" {refusal}",
                True,
            )
            self._send(RegisterFail(str(refusal)))
            return
        if self.lost is not None:
            self._service.discard([tunnel], self.lost)
            return
        service = uuid4()
        self.tunnels[service] = tunnel
        self._send(RegisterOk(service))

    async def _open(self, message: Register) -> Tunnel:
        name = await self._nameFor(message.name)
        options: dict[str, object] = {"name": name}
        if message.protocol == UDP:
            options["listener"] = "udp"
        for port in self._candidates(message.remotePort):
            try:
                tunnel = await self._service.open(
                    self._caller, {**options, "port": port}, bool(message.remotePort)
                )
            except TunnelError as refusal:
                if message.remotePort or refusal.code.name != "port-taken":
                    raise
            else:
                if not name:
                    service = shorten(message.name)
                    text = f"has its tunnel at {tunnel.address} for {service}"
                    observer = self._service.observer
                    observer.requestNoted(self._caller.identity, text, False)
                return tunnel
        raise TunnelError(
            "ports-exhausted", f"all ports ({self._shared.ports}) are taken"
        )

    def _candidates(self, wanted: int) -> Iterator[int]:
        ports = self._shared.ports
        grant = self._caller.identity.grant
        if ports is None or (grant is not None and grant.permissions.ports is not None):
            return iter([wanted])
        if wanted:
            ports.check(wanted)
            return iter([wanted])
        return ports.shuffled()

    async def _nameFor(self, name: str) -> str:
        """
        The tunnel's name. zlayer's names are known to their client alone, so
        two clients may have the same: the second one's is reached by its port
        only, and so is one that cannot be a name here.
        """
        if len(name) > 64 or not all(c.isalnum() or c in "-_." for c in name):
            return ""
        try:
            await self._service.registry.findNamed(name)
        except TunnelError:
            return name
        return ""

    async def _unregister(self, message: Unregister) -> None:
        tunnel = self.tunnels.pop(message.serviceId, None)
        if tunnel is not None:
            await self._service.destroy(
                tunnel, TunnelError("closed", "its owner closed the tunnel")
            )

    def _connectFailed(self, message: ConnectFail) -> None:
        self._shared.refuse(
            message.connectionId,
            self,
            reasonIn(message.reason, "service-unreachable", "the client says: "),
        )

    def _send(self, message: Message) -> None:
        self.connection.sendWhole(encodeMessage(message))

    # IClientSide

    def serve(self, stream: Stream) -> None:
        ids = {tunnel: service for service, tunnel in self.tunnels.items()}
        service = ids.get(stream.tunnel)
        if service is None or self._leaving is not None or self.lost is not None:
            stream.refuse(self._leaving or TunnelError("client-away"))
        elif self._full:
            stream.refuse(TunnelError("limit-reached", "the client takes no more"))
        else:
            try:
                connection = self._shared.expect(stream, self)
            except TunnelError as refusal:
                stream.refuse(refusal)
            else:
                self._send(Connect(service, connection, stream.visitorAddress))

    def isThere(self) -> Deferred[bool]:
        probe: Deferred[bool] = self.connection.probe()
        return probe

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """
        A tunnel is over, for which the dialect has no word; when it was the
        last one, the session is, too.
        """
        for service, mine in list(self.tunnels.items()):
            if mine is tunnel:
                del self.tunnels[service]
                if not self.tunnels and self.lost is None:
                    self.fail(reason)

    # IPushProducer, for the connection

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False

    def stopProducing(self) -> None:
        """L{connectionLost} follows."""

    # Going

    def streams(self) -> int:
        """How many visitors there are."""
        return sum(
            stream.client is not None
            for tunnel in self.tunnels.values()
            for stream in tunnel.streams
        )

    def leave(self, reason: TunnelError) -> None:
        """Take no new visitors; those that are here may finish."""
        self._leaving = reason

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """
        End the session because of C{reason}, and say so.

        @param code: The close code, if it is another than the reason's.
        """
        if self.lost is not None:
            return
        self.lost = reason
        if self._client is not None:
            self._send(Disconnect(str(reason)))
        else:
            self._service.observer.peerRefused(self.connection.peerAddress, reason)
        self.connection.fail(reason, code)
        self._over(reason)

    def _over(self, reason: TunnelError) -> None:
        self._sessions.sessions.discard(self)
        self._life.stop()
        if self._shared.inUse.get(self._token) is self:
            del self._shared.inUse[self._token]
        for pending in (self._admitting, self._answering):
            if pending is not None:
                pending.cancel()
        self._shared.sessionOver(self, reason)
        tunnels, self.tunnels = list(self.tunnels.values()), {}
        self._service.discard(tunnels, reason)
        client, self._client = self._client, None
        if client is not None:
            self._service.clients.leave(client)
            self._service.observer.clientGone(
                self.connection.peerAddress, self._caller.identity, reason
            )
