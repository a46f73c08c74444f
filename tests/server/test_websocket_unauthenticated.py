"""
Those who come by HTTP or WebSocket and do not say who they are.
"""

from __future__ import annotations

import json
from types import MappingProxyType

from twisted.internet.error import ConnectError

from tests.support.polling import until
from tests.websocket.frames import BINARY, CLOSE, TEXT, frame
from tests.websocket.rig import RawPeer, WebSocketTestCase
from tristunnel.dialects.relay import channels as meetings
from tristunnel.errors import TunnelError
from tristunnel.service.preauth import PENALTY, PENALTY_FREE

_GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
_FAILURES = int(PENALTY_FREE / PENALTY) + 1


def framedLogin(**fields: str) -> bytes:
    body = json.dumps(fields).encode()
    return frame(BINARY, b"W3PTUNL" + len(body).to_bytes(4, "big") + body)


class UnauthenticatedTestCase(WebSocketTestCase):
    """A server that knows somebody."""

    users = MappingProxyType({"laptop": "secret"})

    async def setsOn(self, unauthenticated: int) -> None:
        await until(lambda: self.limiter.unauthenticated == unauthenticated)

    async def turnsAway(self) -> None:
        try:
            peer = await self.visit(self.serverPort)
        except ConnectError:
            return
        peer.say(_GET)
        await peer.ended()
        self.assertEqual(bytes(peer.data), b"")


class UnauthenticatedWebSocketTests(UnauthenticatedTestCase):
    """Clients that have opened a WebSocket."""

    async def test_silent(self) -> None:
        """Whoever opens a WebSocket in silence is unauthenticated, until it leaves."""
        await self.startServer()
        peers = [await self.raw() for _ in range(3)]
        await self.setsOn(3)
        for peer in peers:
            peer.abort()
        await self.setsOn(0)

    async def test_loggedIn(self) -> None:
        """Who has logged in is none, whatever it speaks."""
        await self.startServer()
        peer = await self.raw()
        peer.say(framedLogin(id="laptop", secret="secret"))
        await peer.hasFrames(1)
        self.assertIn(b"port", peer.frames[0].payload)
        await self.setsOn(0)
        peer.abort()
        await peer.gone()
        self.assertEqual(self.limiter.unauthenticated, 0)

    async def test_vtunnel(self) -> None:
        """So it is in text messages."""
        self.users = MappingProxyType({})
        await self.startServer()
        peer = await self.raw()
        await self.setsOn(1)
        peer.say(frame(TEXT, b'{"type":"ping"}'))
        await peer.hasFrames(1)
        self.assertEqual(self.limiter.unauthenticated, 0)

    async def test_penalty(self) -> None:
        """Wrong logins in messages count as those over TCP do: after some of them there
        is no WebSocket any more for that address."""
        await self.startServer()
        for _ in range(_FAILURES):
            peer = await self.raw()
            self.assertIn("101", peer.head)
            peer.say(framedLogin(id="laptop", secret="guess"))
            await peer.hasFrames(1)
            self.assertEqual(peer.frames[0].opcode, CLOSE)
            peer.abort()
        await self.turnsAway()
        await self.setsOn(0)

    async def test_tooMany(self) -> None:
        """There is no WebSocket for one more than may be unauthenticated, and there is
        when one of them has left."""
        self.unauthenticated = (3, 3)
        await self.startServer()
        first = await self.raw()
        await self.raw()
        await self.setsOn(2)
        last = await self.raw()
        await self.setsOn(3)
        self.assertIn("101", last.head)
        await self.turnsAway()
        first.abort()
        await self.setsOn(2)
        self.assertIn("101", (await self.raw()).head)

    async def test_behindProxy(self) -> None:
        """A proxy's clients are counted by their own addresses."""
        self.unauthenticated = (2, 100)
        await self.startServer(trusted=["127.0.0.1"])
        for last, status in ((1, "101"), (1, "101"), (1, "429"), (2, "101")):
            address = f"192.0.2.{last}"
            peer = await self.raw(**{"X-Forwarded-For": address})
            self.assertIn(status, peer.head, address)
        self.assertIn("Retry-After: 5", (await self.forwarded("192.0.2.1")).head)

    async def forwarded(self, address: str) -> RawPeer:
        return await self.raw(**{"X-Forwarded-For": address})


class UnauthenticatedHTTPTests(UnauthenticatedTestCase):
    """Connections that ask for nothing, or for nothing more."""

    async def test_dribbled(self) -> None:
        """Half a request counts as unauthenticated until the rest has come, and while
        it waits with the next one."""
        await self.startServer()
        peer = await self.visit(self.serverPort)
        peer.say(_GET[:-2])
        await self.setsOn(1)
        peer.say(_GET[-2:])
        await peer.until(lambda it: it.data.endswith(b"ok\n"))
        self.assertEqual(self.limiter.unauthenticated, 1)
        peer.abort()
        await self.setsOn(0)

    async def test_body(self) -> None:
        """So is who sends half a body."""
        await self.startServer()
        peer = await self.visit(self.serverPort)
        peer.say(
            b"POST /rpc HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        await self.setsOn(1)
        peer.abort()
        await self.setsOn(0)

    async def test_idle(self) -> None:
        """Connections that are kept for a next request never take more than half of the
        places: the others are closed after their answer."""
        self.unauthenticated = (8, 8)
        await self.startServer()
        peers = [await self.visit(self.serverPort) for _ in range(6)]
        for peer in peers:
            peer.say(_GET)
            await peer.until(lambda it: it.data.endswith(b"ok\n"))
        await self.setsOn(4)
        ended = [peer for peer in peers if peer.lost is not None or peer.eof]
        self.assertEqual(len(ended), 2)
        later = await self.visit(self.serverPort)
        later.say(_GET)
        await later.until(lambda it: it.data.endswith(b"ok\n"))

    async def test_pipelined(self) -> None:
        """Requests that come at once are counted as what they are: one connection."""
        await self.startServer()
        peer = await self.visit(self.serverPort)
        peer.say(_GET * 3)
        await peer.until(lambda it: it.data.count(b"ok\n") == 3)
        self.assertEqual(self.limiter.unauthenticated, 1)


class DescriptorTests(UnauthenticatedTestCase):
    """Raw WebSockets when there are hardly any descriptors left."""

    users = MappingProxyType({})

    async def test_reserve(self) -> None:
        """Neither end of a relay opens then, and it says so before the WebSocket
        does."""
        await self.startServer()
        short = _Short()
        self.patch(meetings, "RESERVE", short)
        for path in ("/host", "/client", "/host/a", "/client/a"):
            peer = await self.raw(path)
            self.assertIn("429", peer.head)
            self.assertIn("Retry-After: 30", peer.head)
            self.assertIn(b"descriptors", peer.data)
        self.assertEqual(short.asked, ["session", "visitor"] * 2)
        self.assertEqual(self.notes.named("tunnelCreated"), [])


class _Short:
    """A reserve that has begun."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def _refuse(self, what: str) -> None:
        self.asked.append(what)
        raise TunnelError("limit-reached", "there are no descriptors", 30.0)

    def checkVisitor(self) -> None:
        self._refuse("visitor")

    def checkSession(self) -> None:
        self._refuse("session")
