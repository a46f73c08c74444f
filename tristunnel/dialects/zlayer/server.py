"""
zlayer's dialect at the server: a client's session.

The control connection announces visitors; each of them gets a data connection of its
own, see L{tristunnel.dialects.zlayer.data}.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any
from uuid import uuid4

from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.base.server_session import ServerSession
from tristunnel.dialects.zlayer.data import ZLayerSessions
from tristunnel.dialects.zlayer.life import SignsOfLife
from tristunnel.dialects.zlayer.messages import IN_USE, ZLayerSession, reasonIn, shorten
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.model.record import named
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.util.words import isName
from tristunnel.websocket.incoming import REQUEST_EFFORT
from tristunnel.wire.zlayer import (
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
)

__all__ = ["ZLayerServerSession"]

_WAITING_REGISTERS = 64


class ZLayerServerSession(ZLayerSession, ServerSession):
    """
    One zlayer client's control connection.

    @param now: The time of day, in seconds.

    @ivar tunnels: The client's services, by their ids.
    """

    dialect = "zlayer"
    carriesDatagrams = True
    peersName = "the client"

    def __init__(
        self,
        sessions: ServerSessions,
        arrival: Arrival,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(sessions, arrival)
        self._shared = sessions.shared(ZLayerSessions)
        self._now = now
        self._token = b""
        self._asked = False
        self._requests: deque[Message] = deque()
        self._answering = False
        self._full = False
        self._life = SignsOfLife(sessions.reactor, self._beat, self.fail)
        self._take = {
            Register: self._request,
            Unregister: self._request,
            ConnectAck: lambda message: None,
            ConnectFail: self._connectFailed,
            HeartbeatAck: lambda message: None,
            Heartbeat: lambda message: self.send(HeartbeatAck(message.time)),
        }

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        connection.registerProducer(self)

    def bytesReceived(self, data: bytes) -> None:
        self._life.heard()
        if self._asked and self._client is None:
            self._early.append(data)
        else:
            super().bytesReceived(data)

    def take(self, message: Message) -> None:
        if self._client is None:
            self._login(message)
        else:
            super().take(message)

    @property
    def source(self) -> str:
        """What connections from its address are counted by."""
        return self._caller.address

    # Coming in

    def _login(self, message: Message) -> None:
        if not isinstance(message, Auth):
            refusal = TunnelError("protocol-error", "Expected AUTH message")
            self._service.observer.peerRefused(self.connection.peerAddress, refusal)
            self.turnAway(refusal)
            return
        self._asked = True
        self.admit(self._identify(message.token), self.bytesReceived)

    async def _identify(self, token: str) -> Identity:
        """
        Find out whose a token is. C{ID:SECRET} is a token, too, for checkers that ask
        for both.

        @raise TunnelError: Also C{name-taken}, if another session has the token; that
            one must show that it is still there.
        """
        if not token:
            raise TunnelError("auth-refused", "Token cannot be empty")
        fields: dict[str, object] = {"token": token}
        name, colon, secret = token.partition(":")
        if colon:
            fields.update(id=name, secret=secret)
        identity = await self.authenticate(fields)
        self._token = sha256(token.encode()).digest()
        other = self._shared.inUse.get(self._token)
        if other is not None:
            other.probe()
            raise TunnelError("name-taken", IN_USE)
        return identity

    def admitted(self) -> None:
        self._shared.inUse[self._token] = self
        self.send(AuthOk(uuid4()))
        self._life.start()

    def turnAway(self, refusal: TunnelError) -> None:
        self.lost = refusal
        text = refusal.message
        if refusal.code.name not in ("name-taken", "protocol-error"):
            text = str(refusal)
        self.send(AuthFail(text))
        self.connection.fail(refusal)

    def _beat(self) -> None:
        self.send(Heartbeat(int(self._now() * 1000)))

    def probe(self) -> None:
        """
        Have the client show that it is still there: somebody else came with its token.
        """
        self._life.probe()

    # What the client asks for

    def _request(self, message: Message) -> None:
        """
        Answer requests in their order: the client tells the answers apart by
        nothing else.
        """
        self.connection.effort += REQUEST_EFFORT
        self._requests.append(message)
        if not self._answering:
            self._answering = True
            self.whileUp(self._answer(), self.fail)
        elif len(self._requests) == _WAITING_REGISTERS:
            self.connection.pauseReading()

    async def _answer(self) -> None:
        try:
            while self._requests and self.lost is None:
                message = self._requests.popleft()
                if isinstance(message, Register):
                    await self._register(message)
                elif isinstance(message, Unregister):
                    await self._unregister(message)
        finally:
            self._answering = False
            if self.lost is None and self.connection.paused:
                self.connection.resumeReading()

    async def _register(self, message: Register) -> None:
        try:
            if self._leaving is not None:
                raise self._leaving
            self._service.rights.checkServices(len(self.tunnels))
            tunnel = await self._open(message)
        except TunnelError as refusal:
            self.noteRefusal(f"registered {shorten(message.name)}", refusal)
            self.send(RegisterFail(str(refusal)))
            return
        if self.lost is not None:
            self._service.discard([tunnel], self.lost)
            return
        service = uuid4()
        self.tunnels[service] = tunnel
        self.send(RegisterOk(service))

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
        Find the tunnel's name. zlayer's names are known to their client alone, so two
        clients may have the same: the second one's is reached by its port only, and so
        is one that cannot be a name here.
        """
        if not isName(name):
            return ""
        rival = await self._service.entries.holder(named(name))
        return name if rival is None else ""

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

    # IClientSide

    def serve(self, stream: Stream) -> None:
        ids = {tunnel: service for service, tunnel in self.tunnels.items()}
        service = ids.get(stream.tunnel)
        if service is None or self._leaving is not None or self.lost is not None:
            stream.refuse(self._leaving or TunnelError("client-away"))
        elif self._full:
            stream.refuse(TunnelError("limit-reached", "the client accepts no more"))
        else:
            try:
                connection = self._shared.expect(stream, self)
            except TunnelError as refusal:
                stream.refuse(refusal)
            else:
                self.send(Connect(service, connection, stream.visitorAddress))

    # IPushProducer, for the connection

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False

    def stopProducing(self) -> None:
        """The end of the connection follows."""

    # Going

    def streams(self) -> int:
        return sum(
            stream.client is not None
            for tunnel in self.tunnels.values()
            for stream in tunnel.streams
        )

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        if self.lost is not None:
            return
        if self._client is not None:
            self.send(Disconnect(str(reason)))
        else:
            self._service.observer.peerRefused(self.connection.peerAddress, reason)
        super().fail(reason, code)

    def sessionOver(self, reason: TunnelError) -> None:
        self._life.stop()
        if self._shared.inUse.get(self._token) is self:
            del self._shared.inUse[self._token]
        self._shared.sessionOver(self, reason)
        super().sessionOver(reason)
