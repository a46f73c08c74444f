"""
A server and clients that speak zlayer's dialect, in the test's own process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.integration.udp_loopback import Party
from tests.support.notes import ClientNotes
from tests.websocket.frames import RecordingConnection
from tests.websocket.rig import Recorder, WebSocketTestCase
from tristunnel.dialects.zlayer.client_service import ZLayerClientService
from tristunnel.dialects.zlayer.data import ZLayerSessions
from tristunnel.forwards.forward import parseForward
from tristunnel.listeners.udp import UDPListeners
from tristunnel.model.tunnel import Tunnel
from tristunnel.server.service import TunnelServerService
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.wire.zlayer import (
    Auth,
    AuthOk,
    Heartbeat,
    Message,
    Register,
    RegisterOk,
    decodeMessage,
    encodeMessage,
)

__all__ = ["CLIENT_ID", "FakeConnection", "Peer", "ZLayerTestCase", "named"]


async def named(tunnels: TunnelService, name: str) -> Tunnel:
    record = await tunnels.entries.holder(f"name:{name}")
    assert record is not None
    return tunnels.here.live(record)


CLIENT_ID = UUID(int=0x0123456789ABCDEF0123456789ABCDEF)


class FakeConnection(RecordingConnection):
    """One whose messages are zlayer's."""

    decode = staticmethod(decodeMessage)
    reactor: Any = Clock()


class Peer(Recorder):
    """A zlayer client that a test writes by hand."""

    def say(self, message: Message) -> None:
        self.connection.sendWhole(encodeMessage(message))

    def opened(self, connection: Any) -> None:
        connection.wholeUpTo = 65536
        super().opened(connection)

    def heard(self, kind: type[Message]) -> list[Any]:
        return [
            message
            for message in map(decodeMessage, self.messages)
            if isinstance(message, kind)
        ]

    async def next(self, kind: type[Message], count: int = 1) -> Any:
        """
        Wait for a message of a kind.

        @param count: Which of them.
        """
        await self.until(lambda peer: len(self.heard(kind)) >= count)
        return self.heard(kind)[count - 1]


class ZLayerTestCase(WebSocketTestCase):
    """A test with a whole server."""

    path = "/tunnel/v1"

    async def startServer(self, *args: Any, **named: Any) -> TunnelServerService:
        server = await super().startServer(*args, **named)
        self.tunnels.listeners["udp"] = UDPListeners(self.reactor, "127.0.0.1")
        self.sessions.shared(ZLayerSessions).ports = None
        return server

    async def peer(self, path: str = "", receiver: Recorder | None = None) -> Peer:
        peer = receiver or Peer()
        endpoint: Any = self.server(path or self.path).endpoint
        await endpoint.open(peer)
        self.addCleanup(self._leave, peer)
        return peer  # type: ignore[return-value] # or what the caller gave

    async def loggedIn(self, token: str = "token") -> Peer:
        peer = await self.peer()
        peer.say(Auth(token, CLIENT_ID))
        await peer.next(AuthOk)
        await peer.next(Heartbeat)
        return peer

    async def register(
        self, peer: Peer, name: str = "web", protocol: int = 0
    ) -> tuple[UUID, int]:
        """Register a service; its id, and the visitors' port."""
        count = len(peer.heard(RegisterOk)) + 1
        peer.say(Register(name, protocol, 80, 0))
        answer = await peer.next(RegisterOk, count)
        tunnel = (list(self.tunnels.here))[-1]
        assert tunnel.listener is not None
        return answer.serviceId, tunnel.listener.address[2]

    async def startClient(  # type: ignore[override] # it has parameters of its own
        self, *forwards: str, token: str = "token"
    ) -> list[int]:
        """
        Start our own client, and wait for its services.

        @param forwards: As on the command line.
        @return: The visitors' ports.
        """
        ready: Deferred[None] = Deferred()
        self.zSeen = seen = ClientNotes()

        def told(event: tuple[Any, ...]) -> None:
            if len(seen.named("tunnelReady")) == len(forwards) and not ready.called:
                ready.callback(None)

        seen.listeners.append(told)
        before = len(list(self.tunnels.here))
        self.zClient = ZLayerClientService(
            self.reactor,
            self.server(self.path),
            [parseForward(self.reactor, spec) for spec in forwards],
            {"token": token},
            seen,
            grace=0.0,
            delay=lambda failures, hint: 0.02,
        )
        self.zClient.startService()
        self.addCleanup(self._stop, self.zClient)
        await ready
        tunnels = list(self.tunnels.here)
        return [
            tunnel.listener.address[2]
            for tunnel in tunnels[before:]
            if tunnel.listener is not None
        ]

    async def told(self, notes: Any, name: str, count: int = 1) -> Any:
        """
        Wait until an observer was told of something so often.

        @return: What it was told the last time.
        """
        done: Deferred[None] = Deferred()

        def told(event: tuple[Any, ...]) -> None:
            if len(notes.named(name)) >= count and not done.called:
                done.callback(None)

        notes.listeners.append(told)
        told(())
        await done
        return notes.named(name)[count - 1]

    def party(self, make: Callable[..., Party], *args: Any) -> Party:
        party = make(self.reactor, *args)
        self.addCleanup(party.port.close)
        return party
