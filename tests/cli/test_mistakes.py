"""
Mistakes that people make in their first hour, each with the line that they read: of
these lines, each was read aloud.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import socket
import sys
from pathlib import Path
from unittest.mock import patch

from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.loopback import Service
from tests.support.processes import freePort, startProgram
from tristunnel.auth.token_store import TokenStore
from tristunnel.cli.main import main
from tristunnel.cli.running import PROGRAMS
from tristunnel.config.servers import KnownServer, ServerStore
from tristunnel.model.permissions import Permissions
from tristunnel.version import VERSION

# Before a test has an environment of its own.
_WRITES = bool(os.environ.get("TRISTUNNEL_GOLDEN"))
_USAGE = Path(__file__).parent / "golden" / "mistakes.txt"


class UsageTests(SynchronousTestCase):
    """A mistake on a command line is one line, with status 2."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        here = os.getcwd()
        os.chdir(self.directory)
        self.addCleanup(os.chdir, here)
        # What command lines name: a text, nothing, too much, and no text at all.
        for name, data in (
            ("empty", b""),
            ("big", b"a" * 100_000),
            ("binary", b"\x7fELF\0"),
        ):
            Path(name).write_bytes(data)
            Path(name).chmod(0o600)
        Path("site").mkdir()
        Path("site/index.html").touch()
        names = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME")
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TRISTUNNEL_", "STATE_")) and name != "PORT"
        }
        clean |= dict.fromkeys(names, str(self.directory))
        patcher = patch.dict(os.environ, clean, clear=True)
        patcher.start()
        self.addCleanup(patcher.stop)

    def said(self, line: str) -> tuple[object, str]:
        """Run a command line. @return: Its status, and what it says."""
        for short, whole in (
            ("C", "twistd -n tunnel-client"),
            ("S", "twistd -n tunnel"),
            ("A", "twistd -n tunnel-access"),
        ):
            if line.split()[0] == short:
                line = whole + line[1:]
        line = line.replace("TOKEN", "tst_SeCrEt").replace("LONG", "a" * 300)
        program, *words = shlex.split(line)
        err = io.StringIO()
        with patch.object(sys, "stderr", err), patch.object(sys, "argv", ["x", *words]):
            ended = self.assertRaises(
                SystemExit, main if program == "tristunnel" else _twistd, words
            )
        return ended.code, err.getvalue()

    def test_table(self) -> None:
        """What is said, word for word; C{TRISTUNNEL_GOLDEN=1} writes it anew."""
        table = _USAGE.read_text()
        seen = []
        for line in table.splitlines():
            if not line.startswith("$ "):
                continue
            if "wrok" in line:
                ServerStore().keep(KnownServer("work", "h"))
            status, said = self.said(line.removeprefix("$ "))
            said = said.replace(str(self.directory), "HERE")
            self.assertEqual((status, said.count("\n")), (2, 1), line)
            self.assertLessEqual(len(said), 320, line)
            self.assertNotIn("SeCrEt", said)
            seen.append((line, said))
        told = dict(seen)
        wanted = re.sub(
            r"^(\$ .*\n).*\n",
            lambda found: f"{found[1]}{told[found[1][:-1]]}",
            table,
            flags=re.MULTILINE,
        )
        if _WRITES:
            _USAGE.write_text(wanted)
        self.assertEqual(wanted.splitlines(), table.splitlines())

    def test_nothing(self) -> None:
        """Without a command there is the list of them."""
        err = io.StringIO()
        with patch.object(sys, "stderr", err):
            self.assertEqual(main([]), 2)
        self.assertIn("tristunnel http 3000", err.getvalue())

    def test_help(self) -> None:
        """C{--help} has examples, and every option in a group; C{--version} is ours."""
        lines = [f"tristunnel {name}" for name in PROGRAMS]
        for line in (*lines, "twistd tunnel", "twistd tunnel-client"):
            program, *words = line.split()
            run = main if program == "tristunnel" else _twistd
            for option, wanted in (("--help", "Examples:"), ("--version", VERSION)):
                out = io.StringIO()
                with patch.object(sys, "stdout", out):
                    ended = self.assertRaises(SystemExit, run, [*words, option])
                self.assertFalse(ended.code)
                self.assertIn(wanted, out.getvalue())
                self.assertNotIn("Other options", out.getvalue(), line)
                self.assertNotIn("Twisted version", out.getvalue())

    def test_narrow(self) -> None:
        """On a narrow terminal, usage and options are as narrow."""
        out = io.StringIO()
        with patch.object(sys, "stdout", out), patch.dict(os.environ, COLUMNS="40"):
            self.assertRaises(SystemExit, main, ["http", "--help"])
        usage, _, rest = out.getvalue().partition("Examples:")
        options = [line for line in rest.splitlines() if line.startswith("    ")]
        self.assertIn("[--name NAME]", usage)
        for line in (*usage.splitlines(), *options):
            self.assertLessEqual(len(line), 40, line)

    def test_taken(self) -> None:
        """What would fail at the start fails before the program leaves its terminal."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            words = ["tunnel", "--port", port]
            options = ServerOptions()
            options.parseOptions(words)
            plugin = options.loadedPlugins["tunnel"]
            ended = self.assertRaises(
                SystemExit, plugin.makeService, options.subOptions
            )
        self.assertEqual(
            ended.code,
            f"Cannot start: --port {port} cannot be listened on: Address already in"
            " use; choose another or stop the program that uses it [port-taken]",
        )


def _twistd(words: list[str]) -> None:
    options = ServerOptions()
    options.parseOptions(words)
    options.loadedPlugins[options.subCommand].makeService(options.subOptions)


# What is said first, by what a client is told: TOKENS is a port that asks for tokens,
# PLAIN one that does not, SECURE one with TLS, and NOBODY one that is closed.
REFUSALS = (
    (
        "http 3000 --to tcp:127.0.0.1:NOBODY",
        "warning: Not connected: tcp:127.0.0.1:NOBODY was not reached: the connection"
        " was refused; does the server run there, on this port? [session-lost]",
    ),
    (
        "http 3000 --to tcp:nosuchname.invalid:9000",
        "warning: Not connected: tcp:nosuchname.invalid:9000 was not reached: there is"
        " no address for nosuchname.invalid; check the spelling [session-lost]",
    ),
    (
        "http 3000 --to tcp:127.0.0.1:TOKENS",
        "Giving up: the server asks for a token; none was given: use --token-file FILE,"
        " the variable TRISTUNNEL_TOKEN, or once tristunnel join INVITATION"
        " [auth-refused]",
    ),
    (
        "http 3000 --to tcp:127.0.0.1:TOKENS --token-file wrong",
        "Giving up: the server does not know the token tst_wr...: is it one of that"
        " server's, and whole? [auth-refused]",
    ),
    (
        "http 3000 --to tcp:127.0.0.1:TOKENS --token-file open",
        "warning: open has a secret, which others on this machine can read: chmod 600"
        " open",
    ),
    (
        "http 3000 --to tcp:127.0.0.1:TOKENS --token-file expired",
        "Giving up: the token expired at 2020-01-01 00:00 UTC [token-expired]",
    ),
    (
        "http 3000 --to tcp:127.0.0.1:TOKENS --token-file revoked",
        "Giving up: the token was revoked at 2020-01-02 00:00 UTC [token-revoked]",
    ),
    (
        "http 3000 --to tcp:127.0.0.1:SECURE",
        "warning: Not connected: tcp:127.0.0.1:SECURE closed the connection before it"
        " answered; if it speaks TLS, write tls: instead of tcp: [session-lost]",
    ),
    (
        "http 3000 --to 127.0.0.1:PLAIN",
        "warning: Not connected: 127.0.0.1 closed the connection before it showed a"
        " certificate: if it does not use TLS on this port, write tcp:127.0.0.1:PLAIN"
        " instead of tls:127.0.0.1:PLAIN. [session-lost]",
    ),
    (
        "http 3000 --to ws://127.0.0.1:PLAIN/health",
        "warning: Not connected: the server answered 200 OK instead of opening a"
        " WebSocket; check the path of the URL: tristunnel's is /tunnel [session-lost]",
    ),
    (
        "tcp 80=3000 --to tcp:127.0.0.1:PLAIN",
        "error: No tunnel for port 80: port 80 is not allowed here; start the server"
        " with --ports to allow privileged ports [port-not-permitted]",
    ),
    (
        "tcp PLAIN=3000 --to tcp:127.0.0.1:PLAIN",
        "error: No tunnel for port PLAIN: port PLAIN is used by the server itself;"
        " choose another, or 0 for any [port-taken]",
    ),
)


class RefusalTests(ProcessTestCase):
    """What a server, or the lack of one, has to say against a client."""

    # Two dozen programs, one after another.
    timeout = 150

    async def test_table(self) -> None:
        """What is said first, word for word; and whatever is final is said once."""
        store = TokenStore(self.directory / "tokens", lambda: 1577923200.0)
        for name, expires in (("expired", 1577836800.0), ("revoked", None)):
            token = store.create(name, Permissions(expires=expires))
            (self.directory / name).write_text(token)
            (self.directory / name).chmod(0o600)
        store.revoke("revoked")
        for name, mode in (("wrong", 0o600), ("open", 0o644)):
            (self.directory / name).write_text("tst_wrong")
            (self.directory / name).chmod(mode)
        ports = {"NOBODY": freePort()}
        for name, port, *more in (
            ("TOKENS", "tcp:0:interface=127.0.0.1", "--auth", "tokens:tokens"),
            ("PLAIN", "tcp:0:interface=127.0.0.1"),
            ("SECURE", "ssl:0:interface=127.0.0.1"),
        ):
            await self.server(*more, port=port)
            ports[name] = self.port
        # There is one, so that nothing is said of its absence.
        service = str(self.offer(Service()))
        for line, wanted in REFUSALS:
            line = line.replace("3000", service)
            for name, number in ports.items():
                line, wanted = (
                    text.replace(name, str(number)) for text in (line, wanted)
                )
            words = ["-m", "tristunnel", *line.split(), "--no-screen", "--rpc", "off"]
            client = startProgram(
                self.reactor,
                line,
                [sys.executable, *words],
                self.directory,
                {"HOME": str(self.directory), "XDG_STATE_HOME": str(self.directory)},
            )
            self.addCleanup(client.kill)
            said = await client.says(r"^\d\S+ ((?:warning|error|Giving).*)")
            self.assertEqual(said[1], wanted, line)
            if wanted.startswith("Giving up"):
                self.assertEqual(await self.ended(client), 1)
                self.assertEqual(len(client.lines), 1, client.lines)
            await client.kill()
