"""Tokens over WebSockets: vtunnel's clients, and rooms for raw ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.support.processes import freePort
from tests.websocket.rig import Recorder, WebSocketTestCase
from tristunnel.auth.realm import portalFor
from tristunnel.auth.token_store import TokenStore
from tristunnel.auth.tokens import TokenFile
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Permissions
from tristunnel.model.policy import VisitorPolicy, parseNetworks
from tristunnel.model.ports import parsePorts


class TokenWebSocketTests(WebSocketTestCase):
    """What tokens permit holds for WebSockets as well."""

    async def start(self, **permissions: Any) -> None:
        self.path = Path(self.mktemp())
        self.store = TokenStore(self.path)
        self.token = self.store.create("laptop", Permissions(**permissions))
        self.checker = TokenFile(self.path, self.reactor)
        await self.startServer()
        self.sessions.authenticator._portal = portalFor([self.checker])

    async def connect(self, path: str) -> Recorder:
        return await self.open(path, {"Authorization": f"Bearer {self.token}"})

    async def notConnected(self, path: str) -> str:
        connecting = Deferred.fromCoroutine(self.connect(path))
        error = await self.assertFailure(connecting, TunnelError)
        return str(error)

    def revoke(self) -> None:
        self.store.revoke("laptop")
        self.checker.follow()

    async def listen(self, port: int) -> tuple[Recorder, dict[str, Any]]:
        client = await self.connect("/tunnel")
        client.connection.sendText(
            json.dumps({"type": "listen", "port": port}).encode()
        )
        await client.until(lambda it: it.texts or it.lost)
        return client, json.loads(client.texts[0])

    async def test_port(self) -> None:
        """A vtunnel client is refused a port that is not its token's."""
        await self.start(ports=parsePorts("1-1023"))
        _, answer = await self.listen(31000)
        self.assertEqual(answer["type"], "listen_err")
        self.assertIn("[port-not-permitted]", answer["error"])

    async def test_revoked(self) -> None:
        """Its session ends with its token, and its tunnel with that."""
        await self.start(protocols=frozenset({"tcp"}))
        port = freePort()
        client, answer = await self.listen(port)
        self.assertEqual(answer["type"], "listen_ok")
        (known,) = self.tunnels.clients
        self.assertEqual((known.dialect, known.identity.name), ("vtunnel", "laptop"))
        self.revoke()
        await client.gone()
        self.assertEqual(list(self.tunnels.clients), [])
        self.assertEqual(len(self.tunnels.here), 0)

    async def test_services(self) -> None:
        """A vtunnel client has no more tunnels than any other."""
        await self.start()
        self.tunnels.rights.services = 1
        client, _ = await self.listen(freePort())
        client.connection.sendText(
            json.dumps({"type": "listen", "port": freePort()}).encode()
        )
        await client.until(lambda it: len(it.texts) == 2)
        self.assertIn("[limit-reached]", json.loads(client.texts[1])["error"])

    async def test_clientLimit(self) -> None:
        """It counts among the clients."""
        await self.start()
        self.tunnels.clients.limit = 1
        await self.listen(freePort())
        late = await self.connect("/tunnel")
        late.connection.sendText(b'{"type": "listen", "port": 9}')
        await late.gone()
        self.assertEqual(len(self.tunnels.clients), 1)

    async def test_room(self) -> None:
        """A room is a tunnel of its host's token, and ends with it."""
        await self.start(protocols=frozenset({"ws"}), maxTunnels=1)
        host = await self.connect("/host/den")
        visitor = await self.connect("/client/den")
        error = await self.notConnected("/host/other")
        self.assertIn("429", error)
        self.revoke()
        await host.gone()
        await visitor.gone()

    async def test_roomPolicy(self) -> None:
        """What a token asks of visitors holds for its room, also for one who came
        before the room was anybody's."""
        await self.start(policy=VisitorPolicy(deny=parseNetworks(["127.0.0.0/8"])))
        other = self.store.create("visitor", Permissions())
        self.checker.follow()
        early = await self.open(f"/client/den?token={other}", {})
        await self.connect("/host/den")
        await early.gone()
        late = await self.open(f"/client/den?token={other}", {})
        await late.gone()
        self.assertEqual(
            [code for _, code in self.notes.named("visitorRefused")], ["not-permitted"]
        )

    async def test_noRooms(self) -> None:
        """A token for other protocols has no room."""
        await self.start(protocols=frozenset({"tcp"}))
        self.assertIn("403", await self.notConnected("/host/den"))

    async def test_guestIsRevoked(self) -> None:
        """A revoked token ends a visitor of a room as well, and a token may come in the
        URL, for programs that can give no header."""
        await self.start()
        other = self.store.create("visitor", Permissions())
        self.checker.follow()
        host = await self.connect("/host/room")
        guest = await self.open(f"/client/room?token={other}", {})
        guest.connection.sendBytes(b"hello")
        await host.until(lambda it: it.data)
        self.store.revoke("visitor")
        self.checker.follow()
        await guest.until(lambda it: it.lost)

    async def test_wrongTokenInURL(self) -> None:
        """A token in the URL is checked like any other."""
        await self.start()
        opening = Deferred.fromCoroutine(self.open("/client/room?token=wrong", {}))
        await self.assertFailure(opening, TunnelError)
