"""
Crowds of unauthenticated peers at a server's doors. The long form, with ten thousand of
them, is C{python -m benchmarks.faults --only floods}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.support.loopback import Service, Talk
from tests.support.polling import until
from tests.websocket.frames import upgrade
from tests.websocket.rig import WebSocketTestCase

MANY = 200

HARM = {
    "silence": b"",
    "a TLS hello": bytes.fromhex("16030100c8010000c40303"),
    "a framed login": b"W3PTUNL\x00\x00\x80\x00{",
    "HTTP's headers": b"GET /health HTTP/1.1\r\nHost: ",
    "HTTP's body": b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n[",
    "HTTP, and no more": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "a WebSocket": upgrade("/tunnel"),
    "a WebSocket's message": upgrade("/tunnel") + b"\x82\xfe\x40\x00\0\0\0\0W3P",
}
"""What each of a crowd says; for most it is half of something."""


class CrowdTests(WebSocketTestCase):
    """There is never more than a part of the crowd inside; a tunnel's visitors are
    served meanwhile, and in the end nothing is left."""

    unauthenticated = (40, 60)

    async def crowd(self, words: bytes) -> list[Talk]:
        came = []
        for _ in range(MANY):
            talk = await self.visit(self.serverPort)
            talk.say(words)
            came.append(talk)
        return came

    async def test_crowds(self) -> None:
        """One crowd after the other."""
        service = Service(b"hello")
        await self.startServer()
        (port,) = await self.startClient(f"0=127.0.0.1:{self.offer(service)}")
        usual = len(self.reactor.getReaders())
        first = await self.visit(port)
        for what, words in HARM.items():
            came = await self.crowd(words)
            self.assertLessEqual(self.limiter.unauthenticated, 40, what)
            visitor = await self.visit(port)
            await visitor.has(5)
            visitor.close()
            for talk in came:
                if talk.lost is None:
                    talk.abort()
                    await talk.gone()
            await until(lambda: not self.limiter.unauthenticated)
        await first.has(5)
        first.close()
        for talk in service.talks:
            talk.close()
        # Nothing that was opened for any of them is open still.
        while len(self.reactor.getReaders()) > usual:
            await self.turn()

    def turn(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.reactor.callLater(0.005, done.callback, None)
        return done
