"""
Resets: a connection that breaks at one side of a tunnel breaks at the other, and does
not look like the end of all that was to be said. For every dialect whose wire can
tell the difference, and every carrier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater

from tests.dialects.relay.test_relay import AdapterTestCase
from tests.dialects.zlayer.rig import ZLayerTestCase
from tests.support.loopback import LoopbackTestCase, Service
from tristunnel.connect.greeting import NEVER
from tristunnel.connect.route import ConnectOptions
from tristunnel.dialects.framed.moves import Carrier


class ResetsMixin:
    """What holds for each carrier."""

    pair: Callable[..., Any]
    reactor: Any
    assertEqual: Any
    assertIsNone: Any
    assertFalse: Any

    async def breakEach(self, port: int, service: Service, case: str) -> None:
        """
        Break either side, once with bytes that it has not read.

        @param port: Where visitors come.
        """
        for breaking in (0, 1):
            for unread in (0, 99):
                pair = await self.pair(port, service)
                broken, other = pair[breaking], pair[1 - breaking]
                broken.say(b"half of a mess")
                await other.has(14)
                other.say(b"?")
                await broken.has(1)
                broken.transport.pauseProducing()
                other.say(bytes(unread))
                broken.abort()
                await other.gone()
                where = (case, breaking, unread)
                self.assertIsNone(other.lost.check(ConnectionDone), where)
                self.assertFalse(other.eof, where)

    async def breakLater(self, port: int, service: Service, case: str) -> None:
        """
        Break either side after it has ended its own direction: nothing of what it
        said is lost by that, and who still speaks learns that nobody listens.
        """
        for breaking in (0, 1):
            pair = await self.pair(port, service)
            broken, other = pair[breaking], pair[1 - breaking]
            broken.say(b"all of a message")
            broken.finish()
            await other.ended()
            broken.abort()
            while other.lost is None:
                # Twisted looks no more at a connection that it only may write to.
                other.say(b"?")
                await deferLater(self.reactor, 0.01)
            self.assertEqual(bytes(other.data), b"all of a message")
            self.assertIsNone(other.lost.check(ConnectionDone), (case, breaking))


class FramedTests(ResetsMixin, LoopbackTestCase):
    """
    Sessions on a connection of their own.

    @cvar dialect: What is spoken.
    """

    dialect = "framed"

    async def test_resets(self) -> None:
        """With a move and without, over TCP, TLS or a UNIX socket."""
        path = self.directory / "server"
        for where in ("tcp:0:interface=127.0.0.1", f"unix:{path}")[: 2 - self.tls]:
            await self.startServer(where)
            connect = f"unix:{path}" if where.startswith("unix") else ""
            for how in ("session", "auto"):
                self.carrier = Carrier(how)
                service = Service()
                (port,) = await self.startClient(
                    f"0=127.0.0.1:{self.offer(service)}", connect=connect
                )
                await self.breakEach(port, service, f"{where} {how}")
                if self.route is None:
                    await self.breakLater(port, service, f"{where} {how}")
                await self.client.stopService()
        spoken = {each[-1] for each in self.notes.named("clientConnected")}
        self.assertEqual(spoken, {self.dialect})


class FramedTLSTests(FramedTests):
    """The same over TLS."""

    tls = True


class PlainTests(FramedTests):
    """The same without the extension, as W3P's programs."""

    dialect = "framed-plain"
    route = ConnectOptions(greeting=NEVER)


class PlainTLSTests(PlainTests):
    """The same over TLS."""

    tls = True


class WebSocketTests(ResetsMixin, AdapterTestCase):
    """Sessions and streams over WebSockets."""

    async def test_framed(self) -> None:
        """A session over a WebSocket, with and without a move."""
        await self.startServer()
        for how in ("session", "auto"):
            self.carrier = Carrier(how)
            service = Service()
            (port,) = await self.startClient(
                f"0=127.0.0.1:{self.offer(service)}", connect=self.url("/tunnel")
            )
            await self.breakEach(port, service, how)
            await self.breakLater(port, service, how)
            await self.client.stopService()

    async def test_relay(self) -> None:
        """A relay, between our own clients."""
        await self.startServer()
        service = Service()
        await self.host(service)
        await self.breakEach(self.listen(), service, "relay")


class WebSocketTLSTests(WebSocketTests):
    """The same over TLS."""

    tls = True


class ZLayerTests(ResetsMixin, ZLayerTestCase):
    """Data connections of zlayer's."""

    async def test_resets(self) -> None:
        """A data connection of its own for every visitor."""
        await self.startServer()
        service = Service()
        (port,) = await self.startClient(f"web=127.0.0.1:{self.offer(service)}")
        await self.breakEach(port, service, "zlayer")
        await self.breakLater(port, service, "zlayer")


class ZLayerTLSTests(ZLayerTests):
    """The same over TLS."""

    tls = True


del AdapterTestCase, LoopbackTestCase, ZLayerTestCase
