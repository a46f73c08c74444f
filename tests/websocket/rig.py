"""
A server that speaks WebSocket, in the test's own process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.defer import Deferred
from twisted.internet.tcp import Connection as TCPConnection
from twisted.python.failure import Failure

from tests.support.awaited import Awaited
from tests.support.loopback import LoopbackTestCase, Talk
from tests.support.polling import until
from tests.websocket.frames import Frame, readFrames, upgrade
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.connect.address import ServerAddress, parseConnect
from tristunnel.connect.route import ConnectOptions
from tristunnel.dialects.framed.dialect import FramedPortProtocol
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.errors import TunnelError
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.forwarded import Forwarded
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import Health, HTTPPortProtocol, rootOf, rpcPages
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.service import TunnelServerService
from tristunnel.server.websocket_pages import webSocketPages
from tristunnel.service.preauth import PER_ADDRESS, TOTAL, PreauthLimiter
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.websocket.connection import Connection

__all__ = ["RawPeer", "Recorder", "WebSocketTestCase"]


class Recorder(Awaited):
    """
    A L{Receiver<tristunnel.websocket.connection.Receiver>} that remembers.

    @ivar connection: The WebSocket, once it is open.
    @ivar data: Bytes of binary messages.
    @ivar messages: Pieces of binary messages, an empty one for an empty one.
    @ivar texts: Text messages.
    @ivar closes: What C{closeReceived} was told.
    @ivar why: Why it is over, as far as there is more to say.
    """

    def __init__(self) -> None:
        super().__init__()
        self.connection: Any = None
        self.data = bytearray()
        self.messages: list[bytes] = []
        self.texts: list[bytes] = []
        self.closes: list[TunnelError | None] = []
        self.why: TunnelError | None = None

    @property
    def reason(self) -> str:
        assert self.lost is not None
        return "" if self.why is None else self.why.code.name

    def opened(self, connection: Connection) -> None:
        self.connection = connection
        self._look()

    def bytesReceived(self, data: bytes) -> None:
        self.data += data
        self.messages.append(data)
        self._look()

    def textReceived(self, text: bytes) -> None:
        self.texts.append(text)
        self._look()

    def closeReceived(self, reason: TunnelError | None) -> None:
        self.closes.append(reason)
        self._look()

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        self.why = reason
        self._end(failure)


class RawPeer(Talk):
    """A client that writes its frames by hand."""

    @property
    def head(self) -> str:
        return bytes(self.data).partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def frames(self) -> list[Frame]:
        return readFrames(bytes(self.data).partition(b"\r\n\r\n")[2])

    def hasFrames(self, count: int) -> Deferred[RawPeer]:
        return self.until(lambda peer: len(peer.frames) >= count)


class WebSocketTestCase(LoopbackTestCase):
    """
    A test with a whole server on one port.

    @cvar users: Names and secrets of those who may connect; empty for all.
    @cvar unauthenticated: How many may be that: from one address, and in all.
    @ivar limiter: Counts them.
    """

    users: Mapping[str, str] = {}
    unauthenticated = (PER_ADDRESS, TOTAL)

    async def startServer(  # type: ignore[override] # it has parameters of its own
        self,
        port: int = 0,
        grace: float = 0.2,
        paths: Sequence[str] = ("/tunnel",),
        pingInterval: float = 0.0,
        timeout: float = 10.0,
        trusted: Sequence[str] = (),
    ) -> TunnelServerService:
        self.addCleanup(self._settle)
        listeners = {
            name: TCPListeners(self.reactor, "127.0.0.1")
            for name in ("tcp", "loopback")
        }
        self.tunnels = TunnelService(
            self.reactor, MemoryBook(self.reactor), listeners, self.notes
        )
        authenticator = Authenticator()
        if self.users:
            checker = InMemoryUsernamePasswordDatabaseDontUse(
                **{name: secret.encode() for name, secret in self.users.items()}
            )
            authenticator = Authenticator(portalFor([checker]))
        self.sessions = TunnelServerFactory(
            self.reactor, self.tunnels, authenticator, handshakeTimeout=timeout
        )
        forwarded = Forwarded(trusted)
        self.limiter = PreauthLimiter(
            self.reactor.seconds,
            *self.unauthenticated,
            speaksForOthers=forwarded.speaksFor,
        )
        callers = HTTPCallers(authenticator, forwarded, self.limiter)
        pages = {
            b"health": Health(),
            **rpcPages(self.tunnels, callers),
            **webSocketPages(self.sessions, callers, paths, forwarded, pingInterval),
        }
        self.site = LimitedSite(
            rootOf(pages), reactor=self.reactor, admit=callers.admit
        )
        detector = ProtocolDetectorFactory(
            self.reactor,
            [FramedPortProtocol(self.sessions), HTTPPortProtocol(self.site)],
            self.notes,
            limiter=self.limiter,
        )
        where = self.portAt(f"tcp:{port}:interface=127.0.0.1")
        return self.startListening(detector, where, grace)

    async def _settle(self) -> None:
        """Wait for the connections of a stopped server to end: a WebSocket's close
        takes a round trip."""
        await self._leaveAll()
        readers = self.reactor.getReaders
        await until(lambda: not any(isinstance(it, TCPConnection) for it in readers()))

    def url(self, path: str) -> str:
        scheme = "wss" if self.tls else "ws"
        return f"{scheme}://localhost:{self.serverPort}{path}"

    def server(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> ServerAddress:
        route = ConnectOptions(None, headers or {}, 0.0)
        where = path if "://" in path else self.url(path)
        return parseConnect(self.reactor, where, self.trust, route)

    async def open(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
    ) -> Recorder:
        recorder = Recorder()
        endpoint: Any = self.server(path, headers).endpoint
        await endpoint.open(recorder, subprotocols)
        self.addCleanup(self._leave, recorder)
        return recorder

    async def _leave(self, recorder: Recorder) -> None:
        if recorder.lost is None:
            recorder.connection.abort()
            await recorder.gone()

    async def raw(self, path: str = "/tunnel", **headers: str) -> RawPeer:
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.serverPort)
        peer: RawPeer = await connectProtocol(endpoint, RawPeer())
        self._talks.append(peer)
        peer.say(upgrade(path, **headers))
        await peer.until(lambda it: b"\r\n\r\n" in it.data)
        return peer
