"""
The dialect and the listener that C{docs/extending.rst} goes through.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint

from tests.docs.pages import ROOT
from tests.support.loopback import LoopbackTestCase, Service, Talk
from tristunnel.dialects.framed.dialect import FramedPortProtocol
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.ports import ServerPort
from tristunnel.server.service import TunnelServerService
from tristunnel.service.registry import MemoryRegistry
from tristunnel.service.tunnel_service import TunnelService

_EXAMPLES = ROOT / "examples"


class ExtendingTests(LoopbackTestCase):
    """
    A server with a dialect and a listener of one's own.
    """

    if not _EXAMPLES.is_dir():
        skip = "the examples are not installed"

    def setUp(self) -> None:
        """
        Start a server that has both.
        """
        super().setUp()
        sys.path.insert(0, str(_EXAMPLES))
        self.addCleanup(sys.path.remove, str(_EXAMPLES))
        from dialect import OneDoor
        from listener import HereListeners

        listeners: Any = {
            "tcp": TCPListeners(self.reactor, "127.0.0.1"),
            "here": HereListeners(self.reactor),
        }
        self.tunnels = TunnelService(
            self.reactor, MemoryRegistry(), listeners, self.notes, "127.0.0.1"
        )
        self.sessions = TunnelServerFactory(self.reactor, self.tunnels)
        doors = ProtocolDetectorFactory(
            self.reactor,
            [FramedPortProtocol(self.sessions), OneDoor(self.tunnels)],
            self.notes,
        )
        port = ServerPort(
            "tcp:0", TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        )
        server = TunnelServerService(
            self.reactor, [(port, doors)], self.sessions, self.tunnels, 0.2
        )
        server.startService()
        self.addCleanup(self._stop, server)
        at: Any = server.listening[0].getHost()
        self.serverPort = at.port

    async def ask(self, line: bytes) -> tuple[Talk, str]:
        """
        Say a line as a client.

        @return: The connection, and the answer.
        """
        client = await self.visit(self.serverPort)
        client.say(line)
        await client.until(lambda talk: b"\n" in talk.data)
        answer = client.data.decode().strip()
        client.data.clear()
        return client, answer

    async def leave(self, talk: Talk) -> None:
        """
        Leave when the other side has left.
        """
        await talk.ended()
        talk.close()
        await talk.gone()

    async def test_bytes(self) -> None:
        """
        The visitor of either listener talks with the client, both ways; when the
        visitor leaves, so does the client, and the tunnel is over.
        """
        for kind in (b"tcp", b"here"):
            client, address = await self.ask(b"ONE " + kind + b" 0\r\n")
            self.assertEqual(address.rpartition(":")[0], "tcp://127.0.0.1")
            visitor = await self.visit(int(address.rpartition(":")[2]))
            visitor.say(b"who is there?")
            await client.has(13)
            client.say(b"it is me")
            await visitor.has(8)
            self.assertEqual(bytes(client.data), b"who is there?")
            self.assertEqual(bytes(visitor.data), b"it is me")
            visitor.close()
            await self.leave(client)
        self.assertEqual(await self.tunnels.registry.tunnels(), [])

    async def test_early(self) -> None:
        """
        What the client says before its visitor is there is not lost.
        """
        client, address = await self.ask(b"ONE here 0\nSSH-2.0\r\n")
        visitor = await self.visit(int(address.rpartition(":")[2]))
        await visitor.has(9)
        self.assertEqual(bytes(visitor.data), b"SSH-2.0\r\n")
        client.close()
        await self.leave(visitor)

    async def test_refused(self) -> None:
        """
        A refusal is a line with its code, and ends the connection.
        """
        for line, code in (
            (b"ONE here\n", "[bad-option]"),
            (b"ONE nowhere 0\n", "[bad-option]"),
            (f"ONE here {self.serverPort}\n".encode(), "[port-taken]"),
        ):
            client, answer = await self.ask(line)
            self.assertTrue(answer.startswith("NO "), answer)
            self.assertIn(code, answer)
            await self.leave(client)

    async def test_clientLeaves(self) -> None:
        """
        A client that leaves takes its visitor and its tunnel along.
        """
        client, address = await self.ask(b"ONE here 0\n")
        visitor = await self.visit(int(address.rpartition(":")[2]))
        visitor.say(b"x")
        await client.has(1)
        client.abort()
        await self.leave(visitor)
        self.assertEqual(await self.tunnels.registry.tunnels(), [])

    async def test_withSession(self) -> None:
        """
        A client that speaks the framed protocol has its tunnel at the other
        listener.
        """
        service = Service(b"hello")
        self.beginClient(f"0=127.0.0.1:{self.offer(service)}")
        self.client.tunnelOptions = {"listener": "here"}
        await self.startClientAgain()
        ((address, _),) = self.seen.named("tunnelReady")
        visitor = await self.visit(int(address.rpartition(":")[2]))
        await visitor.has(5)
        self.assertEqual(bytes(visitor.data), b"hello")
        visitor.abort()

    async def startClientAgain(self) -> None:
        """
        Wait until the client has its tunnel.
        """
        from twisted.internet.defer import Deferred

        ready: Deferred[None] = Deferred()

        def told(event: tuple[Any, ...]) -> None:
            if self.seen.named("tunnelReady") and not ready.called:
                ready.callback(None)

        self.seen.listeners.append(told)
        told(())
        await ready
