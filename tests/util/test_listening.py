"""
Tests for L{tristunnel.util.listening}, and for what each command does before
it goes to the background.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tristunnel.cli import access_tap, client_tap, server_tap
from tristunnel.util.listening import checkBeforeFork, inBackground

_ACCESS = "w3p://server:9000/access/00112233445566778899aabbccddeeff#secret"

BACKGROUND = {"nodaemon": 0, "debug": False}


class BeforeForkTests(TestCase):
    """What would fail in the background fails before."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        held = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(held.close)
        self.taken = f"tcp:{held.getsockname()[1]}:interface=127.0.0.1"
        variables = dict(os.environ)
        os.environ["XDG_STATE_HOME"] = str(self.directory)

        def restore() -> None:
            os.environ.clear()
            os.environ.update(variables)

        self.addCleanup(restore)

    def refused(self, tap: Any, *words: str) -> str:
        """
        Expect that a command ends before it leaves its terminal.

        @return: What it says; its exit status is 1 then.
        """
        options = tap.Options()
        options.parent = BACKGROUND
        options.parseOptions(list(words))
        said = self.assertRaises(SystemExit, tap.makeService, options).code
        self.assertIsInstance(said, str)
        self.assertNotIn("\n", str(said))
        return str(said)

    def test_commands(self) -> None:
        """Each command names the option whose port is taken."""
        connect = ("--connect", "tcp:127.0.0.1:1")
        free = "tcp:0:interface=127.0.0.1"
        for tap, option, words in (
            (server_tap, "--port", ()),
            (server_tap, "--rpc", ("--port", free)),
            (client_tap, "--listen", (*connect, "--service", "x")),
            (client_tap, "--rpc", connect),
            (access_tap, "--listen", ("--access", _ACCESS)),
        ):
            said = self.refused(tap, option, self.taken, *words)
            self.assertIn(f"{option} {self.taken} cannot be listened on", said)
            self.assertIn("choose another", said)

    def test_state(self) -> None:
        """So it is with a directory that cannot be made."""
        (self.directory / "file").write_text("")
        where = str(self.directory / "file" / "state")
        free = "tcp:0:interface=127.0.0.1"
        said = self.refused(server_tap, "--port", free, "--state-dir", where)
        self.assertIn(f"{where} cannot be written to", said)

    async def test_free(self) -> None:
        """What is free still is afterwards: ports and sockets."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            number = other.getsockname()[1]
        path = os.path.relpath(self.directory / "s")
        for where in (f"tcp:{number}:interface=127.0.0.1", f"unix:{path}:lockfile=1"):
            endpoint = serverFromString(self.reactor, where)
            checkBeforeFork(BACKGROUND, [("--port", endpoint)])
            factory = Factory.forProtocol(Protocol)
            factory.noisy = False
            port = await endpoint.listen(factory)
            await port.stopListening()

    def test_foreground(self) -> None:
        """
        Whoever stays in the foreground is told when it happens, and C{twist} has
        no background.
        """
        endpoint = serverFromString(self.reactor, self.taken)
        for outer in (None, {}, {"nodaemon": 1}, {"nodaemon": 0, "debug": True}):
            self.assertFalse(inBackground(outer))
            checkBeforeFork(outer, [("--port", endpoint)])
        ends = self.assertRaises(
            SystemExit, checkBeforeFork, BACKGROUND, [("--port x", endpoint)]
        )
        self.assertIn("--port x cannot be listened on", str(ends.code))
