"""
The dialect and the listener that C{docs/extending.rst} goes through.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

import tristunnel
from tests.docs.pages import ROOT
from tests.support.loopback import LoopbackTestCase, Service, Talk
from tristunnel.cli.client_tap import Options
from tristunnel.client.fleet import makeClient
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.dialects.table import DIALECTS, portProtocols
from tristunnel.listeners.table import LISTENERS, ListenerSettings
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.ports import UNPRIVILEGED
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.service.tunnel_service import TunnelService

_EXAMPLES = ROOT / "examples"


class NameTests(SynchronousTestCase):
    """No file but a dialect's own knows its name."""

    def test_names(self) -> None:
        """
        Outside of the dialects and of what their bytes mean, the name of one is in no
        string of the program: what is asked of a dialect is asked of its entry in the
        table.
        """
        package = Path(tristunnel.__file__).parent
        found = [
            f"{path.relative_to(package)}:{node.lineno} {node.value!r}"
            for path in package.rglob("*.py")
            if path.relative_to(package).parts[0] not in ("dialects", "wire")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and node.value in DIALECTS
        ]
        self.assertEqual(found, [])


class ExtendingTests(LoopbackTestCase):
    """
    A server and a client with a dialect and a listener of one's own, which are one
    line in a table each, and nothing else.
    """

    if not _EXAMPLES.is_dir():
        skip = "the examples are not installed"

    def setUp(self) -> None:
        super().setUp()
        sys.path.insert(0, str(_EXAMPLES))
        self.addCleanup(sys.path.remove, str(_EXAMPLES))
        from dialect import OneDialect
        from listener import HereListeners

        for table, line in (
            (DIALECTS, {"one": OneDialect()}),
            (LISTENERS, {"here": HereListeners}),
        ):
            patched: Any = patch.dict(table, line)
            patched.start()
            self.addCleanup(patched.stop)
        here = "127.0.0.1"
        settings = ListenerSettings(
            self.reactor, here, here, UNPRIVILEGED, 60.0, None, lambda: None
        )
        made = {name: make(settings) for name, make in LISTENERS.items()}
        listeners = {name: each for name, each in made.items() if each is not None}
        self.tunnels = TunnelService(
            self.reactor, MemoryBook(self.reactor), listeners, self.notes, here
        )
        self.sessions = TunnelServerFactory(self.reactor, self.tunnels)
        detector = ProtocolDetectorFactory(
            self.reactor, portProtocols(self.sessions), self.notes
        )
        self.startListening(detector)

    async def ask(self, line: bytes) -> tuple[Talk, str]:
        """Say a line as a client; the connection, and the answer."""
        client = await self.visit(self.serverPort)
        client.say(line)
        await client.until(lambda talk: b"\n" in talk.data)
        answer = client.data.decode().strip()
        client.data.clear()
        return client, answer

    async def leave(self, talk: Talk) -> None:
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
        self.assertEqual(list(self.tunnels.here), [])

    async def test_early(self) -> None:
        """What the client says before its visitor is there is not lost."""
        client, address = await self.ask(b"ONE here 0\nSSH-2.0\r\n")
        visitor = await self.visit(int(address.rpartition(":")[2]))
        await visitor.has(9)
        self.assertEqual(bytes(visitor.data), b"SSH-2.0\r\n")
        client.close()
        await self.leave(visitor)

    async def test_refused(self) -> None:
        """A refusal is a line with its code, and ends the connection."""
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
        """A client that leaves takes its visitor and its tunnel along."""
        client, address = await self.ask(b"ONE here 0\n")
        visitor = await self.visit(int(address.rpartition(":")[2]))
        visitor.say(b"x")
        await client.has(1)
        client.abort()
        await self.leave(visitor)
        self.assertEqual(list(self.tunnels.here), [])

    async def ready(self) -> str:
        """Wait until the client has its tunnel; the tunnel's address."""
        ready: Deferred[None] = Deferred()

        def told(event: tuple[Any, ...]) -> None:
            if self.seen.named("tunnelReady") and not ready.called:
                ready.callback(None)

        self.seen.listeners.append(told)
        told(())
        await ready
        address: str = self.seen.named("tunnelReady")[0][0]
        return address

    async def test_client(self) -> None:
        """
        The client's command line knows the dialect, and what it cannot do; and it
        brings a visitor to the service.
        """
        options = Options()
        service = Service(b"hello")
        words = ["--dialect", "one", "--connect", f"tcp:127.0.0.1:{self.serverPort}"]
        forward = ["--forward", f"0=127.0.0.1:{self.offer(service)}", "--grace", "0"]
        options.parseOptions([*words, *forward])
        client = makeClient(self.reactor, options, self.seen, lambda reason: None)
        client.startService()
        self.addCleanup(client.stopService)
        address = await self.ready()
        visitor = await self.visit(int(address.rpartition(":")[2]))
        await visitor.has(5)
        self.assertEqual(bytes(visitor.data), b"hello")
        visitor.close()
        await visitor.gone()
        for more in (["--forward", "0=localhost:1"], ["--private"]):
            error = self.assertRaises(
                UsageError, Options().parseOptions, [*words, *forward, *more]
            )
            self.assertIn("--dialect one", str(error))

    async def test_withSession(self) -> None:
        """
        A client that speaks the framed protocol has its tunnel at the other
        listener.
        """
        service = Service(b"hello")
        self.beginClient(f"0=127.0.0.1:{self.offer(service)}")
        self.client.offered.tunnelOptions = {"listener": "here"}
        address = await self.ready()
        visitor = await self.visit(int(address.rpartition(":")[2]))
        await visitor.has(5)
        self.assertEqual(bytes(visitor.data), b"hello")
        visitor.abort()
