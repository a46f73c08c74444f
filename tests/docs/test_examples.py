"""
The examples, run as they say that they are run.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.loopback import Service
from tests.support.processes import Program, startProgram
from tristunnel.cli.client_tap import Options as ClientOptions
from tristunnel.cli.server_tap import Options as ServerOptions

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class ExamplesTests(ProcessTestCase):
    """The server and the client in C{examples/}."""

    if not _EXAMPLES.is_dir():
        skip = "the examples are not installed"

    def run_(self, name: str, *arguments: str, **environment: str) -> Program:
        program = startProgram(
            self.reactor,
            f"examples/{name}",
            [sys.executable, str(_EXAMPLES / name), *arguments],
            self.directory,
            environment,
        )
        self.addCleanup(program.kill)
        return program

    async def test_together(self) -> None:
        """
        The example's client comes to the example's server, and a visitor to
        its service; with a wrong secret it is turned away.
        """
        service = Service(b"hello")
        target = f"tcp:127.0.0.1:{self.offer(service)}"
        server = self.run_("server.py", "tcp:0:interface=127.0.0.1")
        listening = await server.says(r"Clients connect to .*port=(\d+)")
        where = f"tcp:127.0.0.1:{listening[1]}"

        said = (_EXAMPLES / "client.py").read_text("utf-8")
        secret = re.search(r"SECRET='(.*)'", said)
        assert secret is not None
        client = self.run_("client.py", where, target, SECRET=secret[1])
        address = await client.says(r"Visitors come to tcp://[^:]+:(\d+)$")
        self.visitors = int(address[1])
        await self.hears(service)
        await server.says(r"sent 0 bytes and got 5$")
        await client.says(f"A visitor of {re.escape(target)}")

        wrong = self.run_("client.py", where, target, SECRET="wrong")
        self.assertEqual(await self.ended(wrong), 1)
        self.assertIn("did not accept these credentials", wrong.lines[-1])
        await server.says("Turned away")

        server.signal("TERM")
        await client.says("The end: .*")
        self.assertEqual(await self.ended(client), 0)
        self.assertNotIn("Traceback", os.linesep.join(server.lines))


class ConfigurationTests(ProcessTestCase):
    """The files in C{examples/}."""

    if not _EXAMPLES.is_dir():
        skip = "the examples are not installed"

    def _read(self, kind: Any, name: str) -> Any:
        """Read one, as its program does."""
        options = kind()
        state = ("--state-dir", str(self.directory))
        options.parseOptions(["--config", str(_EXAMPLES / name), *state])
        return options

    def test_clients(self) -> None:
        """One process has two servers; only the files of tokens are missing here."""
        text = (_EXAMPLES / "clients.toml").read_text("utf-8")
        token = self.directory / "token"
        token.write_text("a-token")
        for name in ("home", "work"):
            text = text.replace(f"/etc/tristunnel/{name}.token", str(token))
        path = self.directory / "clients.toml"
        path.write_text(text)
        options = self._read(ClientOptions, str(path))
        home, work = options.each
        self.assertEqual(home.server.host, "home.example.com")
        self.assertEqual([f.spec for f in home.forwards], ["photos=localhost:2342"])
        self.assertEqual(len(work.forwards), 2)
        self.assertEqual((home["grace"], work["grace"]), (5.0, 5.0))

    def test_commentedOut(self) -> None:
        """What is commented out in the server's file is right, too."""
        text = (_EXAMPLES / "server.toml").read_text("utf-8")
        token = self.directory / "token"
        token.write_text("a-token")
        text = re.sub(r"^# (\[\[|\w+ = |auth)", r"\1", text, flags=re.M)
        text = text.replace("/etc/tristunnel/office.token", str(token))
        text = text.replace("tokens:/var/lib/tristunnel/tokens", f"clients:{token}")
        path = self.directory / "server.toml"
        path.write_text(text)
        options = self._read(ServerOptions, str(path))
        self.assertEqual([node.name for node in options.nodes], ["office"])
        self.assertEqual(len(options["credCheckers"]), 1)

    async def test_together(self) -> None:
        """
        The client of the one file comes to the server of the other; only the
        ports are others here.
        """
        service = Service(b"hello")
        for name in ("server", "client"):
            text = (_EXAMPLES / f"{name}.toml").read_text("utf-8")
            text = text.replace("localhost:8080", f"127.0.0.1:{self.offer(service)}")
            text = text.replace("port = 30022\n", "")
            text = text.replace('ports = "30000-31000"\n', "")
            (self.directory / f"{name}.toml").write_text(text)
        server = self.start(
            *("tunnel", "--config", "server.toml", "--interface", "127.0.0.1"),
            *("--port", "tcp:0:interface=127.0.0.1"),
        )
        await self.listening(server)
        client = self.start(
            *("tunnel-client", "--config", "client.toml"),
            *("--connect", f"tcp:127.0.0.1:{self.port}"),
        )
        address = await client.says(r"Visitors of tcp://localhost:(\d+) reach 127.0")
        self.visitors = int(address[1])
        await self.hears(service)
