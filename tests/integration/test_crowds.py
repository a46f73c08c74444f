"""
Two hundred visitors at once, each of whom has a connection of its own between our
client and our server: all of those come from one address, and none of them is a
stranger's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.dialects.relay.test_relay import AdapterTestCase
from tests.server.test_websocket_dialects import basic
from tests.support.loopback import Service, Talk
from tests.websocket.rig import WebSocketTestCase
from tristunnel.dialects.zlayer.client_service import ZLayerClientService
from tristunnel.forwards.forward import parseForward

VISITORS = 200


class Answering(Service):
    """Answers once, and closes."""

    def buildProtocol(self, addr: object) -> Talk:
        class Answer(Talk):
            def dataReceived(self, data: bytes) -> None:
                self.say(b"answer to " + data)
                self.close()

        return Answer()


class CrowdMixin:
    """The visitors."""

    timeout = 60
    visit: Callable[[int], Any]
    assertEqual: Any

    async def come(self, port: int) -> None:
        visitors = await gatherResults(
            [Deferred.fromCoroutine(self.visit(port)) for _ in range(VISITORS)]
        )
        for number, visitor in enumerate(visitors):
            visitor.say(b"%d" % number)
        await gatherResults([visitor.ended() for visitor in visitors])
        self.assertEqual(
            [bytes(visitor.data) for visitor in visitors],
            [b"answer to %d" % number for number in range(VISITORS)],
        )


class ZLayerTests(CrowdMixin, WebSocketTestCase):
    """Data connections of a zlayer client."""

    async def test_crowd(self) -> None:
        """Every visitor is answered."""
        await self.startServer()
        ready: Deferred[None] = Deferred()

        def told(event: tuple[Any, ...]) -> None:
            if event[0] == "tunnelReady":
                ready.callback(None)

        self.seen.listeners.append(told)
        client = ZLayerClientService(
            self.reactor,
            self.server("/tunnel/v1"),
            [parseForward(self.reactor, f"web=127.0.0.1:{self.offer(Answering())}")],
            {"id": "laptop", "secret": "secret"} if self.users else {"token": "token"},
            self.seen,
            grace=0.0,
        )
        client.startService()
        self.addCleanup(self._stop, client)
        await ready
        (tunnel,) = list(self.tunnels.here)
        assert tunnel.listener is not None
        await self.come(tunnel.listener.address[2])


class ZLayerAuthTests(ZLayerTests):
    """The same over TLS, where clients log in."""

    tls = True
    users: Mapping[str, str] = {"laptop": "secret"}


class RelayTests(CrowdMixin, AdapterTestCase):
    """WebSockets of a relay."""

    async def test_crowd(self) -> None:
        """Every visitor is answered."""
        await self.startServer()
        await self.host(Answering())
        await self.come(self.listen())


class RelayAuthTests(RelayTests):
    """The same over TLS, where both sides log in."""

    tls = True
    users: Mapping[str, str] = {"laptop": "secret"}

    def server(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        return super().server(path, {"Authorization": basic("laptop", "secret")})


del AdapterTestCase, WebSocketTestCase
