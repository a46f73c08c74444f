"""
Mistakes that people make in their first hour, each with the line that they read: of
these lines, each was read aloud.
"""

from __future__ import annotations

import io
import os
import shlex
import socket
import sys
from pathlib import Path
from unittest.mock import patch

from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.processes import freePort, startProgram
from tristunnel.auth.tokens import TokenStore
from tristunnel.cli.main import main
from tristunnel.cli.running import PROGRAMS
from tristunnel.config.servers import KnownServer, ServerStore
from tristunnel.model.permissions import Permissions
from tristunnel.version import VERSION

# Each command line, and what is said of it; C is "twistd -n tunnel-client", S is
# "twistd -n tunnel", and TOKEN is one.
C = "twistd tunnel-client: "
S = "twistd tunnel: "
USAGE = (
    # Nothing said, or not enough.
    (
        "C",
        C + "which server? use --connect HOST, for example: twistd -n tunnel-client"
        " --connect tunnel.example.com --forward 3000",
    ),
    (
        "C --connect h",
        C + "nothing is offered: give --forward, for example --forward 3000 for port"
        " 3000 of this machine",
    ),
    (
        "tristunnel http",
        "tristunnel http: what do you want to share? give its port, for example 3000",
    ),
    (
        "tristunnel http 3000",
        "tristunnel http: which server? give --to HOST, or accept its"
        " invitation first: tristunnel join INVITATION",
    ),
    (
        "tristunnel join",
        "tristunnel join: INVITATION is missing; see tristunnel join --help",
    ),
    ("C --connect", C + "--connect needs a value"),
    ("S --demo=yes", S + "--demo takes no value"),
    # Misspelt options, and commands.
    ("C --forwrad 3000", C + "unknown option --forwrad; did you mean --forward?"),
    ("C --conect h", C + "unknown option --conect; did you mean --connect?"),
    ("C --forw 3000", C + "unknown option --forw; did you mean --forward?"),
    ("S --prot tcp:9001", S + "unknown option --prot; did you mean --port?"),
    ("S --hostnam x", S + "unknown option --hostnam; did you mean --hostname?"),
    (
        "S -p 9001",
        S + "unknown option -p; did you mean --port or --ports or"
        " --print-config or --private-key?",
    ),
    (
        "C -n",
        C + "-n is an option of twistd itself: write it before 'tunnel-client'",
    ),
    (
        "tristunnel http 3000 --nmae blog",
        "tristunnel http: unknown option --nmae; did you mean --name?",
    ),
    (
        "tristunnel status --wach",
        "tristunnel status: unknown option --wach; did you mean --watch?",
    ),
    (
        "tristunnel htpp 3000",
        "tristunnel: unknown command 'htpp'; did you mean http?",
    ),
    (
        "tristunnel sever",
        "tristunnel: unknown command 'sever'; did you mean server?",
    ),
    (
        "tristunnel token creat",
        "tristunnel token: unknown command 'creat'; did you mean create?",
    ),
    (
        "tristunnel --verison",
        "tristunnel: unknown option --verison; did you mean --version?",
    ),
    ("tristunnel -v", "tristunnel: unknown option -v; did you mean --version?"),
    (
        "tristunnel token",
        "tristunnel token: which command? choose from create, list, show, revoke",
    ),
    (
        "tristunnel token create --name",
        "tristunnel token create: --name needs a value",
    ),
    (
        "tristunnel completion zhs",
        "tristunnel completion: unknown shell 'zhs'; did you mean zsh?",
    ),
    (
        "tristunnel http 3000 --port 8080 --to h",
        "tristunnel http: unknown option --port; the public port is written in front,"
        " for example 8080=3000",
    ),
    ("S —port 9001", S + "unknown option —port; did you mean --port?"),
    (
        "tristunnel http 3000 —name blog --to h",
        "tristunnel http: unknown option —name; did you mean --name?",
    ),
    (
        "tristunnel invite —nmae x",
        "tristunnel invite: unknown option —nmae; did you mean --name?",
    ),
    (
        "tristunnel status --watch=no",
        "tristunnel status: --watch takes no value",
    ),
    # Words in another order, or left out.
    (
        "tristunnel --name blog http 3000",
        "tristunnel: unknown option --name; the options of a command follow it",
    ),
    (
        "tristunnel 3000",
        "tristunnel: unknown command '3000'; did you mean http 3000?",
    ),
    (
        "tristunnel http://localhost:3000",
        "tristunnel: unknown command 'http://localhost:3000'; did you mean http"
        " http://localhost:3000?",
    ),
    (
        "tristunnel h#SeCrEt",
        "tristunnel: unknown command 'HOST#CODE'; did you mean join, for an"
        " invitation?",
    ),
    (
        "tristunnel expose 3000",
        "tristunnel: unknown command 'expose'; see tristunnel --help",
    ),
    # Words too many.
    ("S check", S + "'check' is one word too many; did you mean --check?"),
    ("S 9001", S + "'9001' is one word too many"),
    ("tristunnel status a b", "tristunnel status: 'b' is one word too many"),
    # Services.
    (
        "C --connect h localhost",
        C + "--forward 'localhost' names no service; write its port, for example 3000,"
        " or HOST:PORT, or PORT=HOST:PORT with the port for visitors in front",
    ),
    (
        "tristunnel http localhost --to h",
        "tristunnel http: 'localhost' names no service; write its port, for example"
        " 3000, or HOST:PORT, or PORT=HOST:PORT with the port for visitors in front",
    ),
    (
        "tristunnel http http://localhost:3000/admin --to h",
        "tristunnel http: 'http://localhost:3000/admin': a tunnel leads to a whole"
        " server; write http://localhost:3000",
    ),
    (
        "C --connect h 8081=tpc:localhost:3000",
        C + "--forward '8081=tpc:localhost:3000': 'tpc:localhost:3000' is not a valid"
        " target (unknown type 'tpc'; did you mean tcp?); write HOST:PORT,"
        " tcp:HOST:PORT, tls:HOST:PORT or unix:PATH",
    ),
    (
        "C --connect h 'my app=3000'",
        C + "--forward 'my app=3000': a name has letters, digits, '-', '_' and '.'",
    ),
    (
        "C --connect h 8081=1 8081=2",
        C + "two --forward ask for port 8081; 0= takes any port",
    ),
    (
        "tristunnel http 80=1 80=2 --to h",
        "tristunnel http: two services ask for port 80; 0= takes any port",
    ),
    (
        "C --connect h a=1 a=2",
        C + "two --forward ask for a; give each a name of its own",
    ),
    ("C --connect h 70000=1", C + "--forward '70000=1': 70000 is not a port"),
    (
        "tristunnel tcp udp/53 --to h",
        "tristunnel tcp: 'udp/53' is a UDP service: write tristunnel udp",
    ),
    (
        "tristunnel http 1 2 --name a --to h",
        "tristunnel http: --name is for one service, and there are several",
    ),
    (
        "tristunnel http 1 --name 'my app' --to h",
        "tristunnel http: --name 'my app': a name has letters, digits, '-', '_' and"
        " '.', and is not a number",
    ),
    # Servers.
    (
        "C --connect tcp:h 3000",
        C
        + "--connect 'tcp:h' is not a valid server (the port is missing); write HOST or"
        " HOST:PORT for TLS, tcp:HOST:PORT without, https://HOST or unix:PATH",
    ),
    (
        "C --connect h#SeCrEt 3000",
        C + "--connect names a server; accept an invitation by: tristunnel join"
        " INVITATION",
    ),
    (
        "tristunnel http 3000 --to h#SeCrEt",
        "tristunnel http: --to names a server; accept an invitation by: tristunnel join"
        " INVITATION",
    ),
    (
        "C --connect tpc:h:9000 3000",
        C + "--connect 'tpc:h:9000' is not a valid server (unknown type 'tpc'; did you"
        " mean tcp?); write HOST or HOST:PORT for TLS, tcp:HOST:PORT without, https://HOST"
        " or unix:PATH",
    ),
    (
        "tristunnel http 3000 --to htps://h",
        "tristunnel http: --to 'htps://h' is not a valid server (unknown type 'htps';"
        " did you mean https?); write HOST or HOST:PORT for TLS, tcp:HOST:PORT without,"
        " https://HOST or unix:PATH",
    ),
    (
        "C --connect h:99999 3000",
        C + "--connect 'h:99999' is not a valid server ('99999' is not a port); write"
        " HOST or HOST:PORT for TLS, tcp:HOST:PORT without, https://HOST or unix:PATH",
    ),
    (
        "C --connect tcp:h:1 --insecure 3000",
        C + "--pin, --ca, --insecure and --certificate need TLS; write --connect"
        " tls:HOST:PORT",
    ),
    (
        "C --server wrk 3000",
        C
        + "there is no server called 'wrk'; join it first: tristunnel join INVITATION",
    ),
    (
        "tristunnel http 3000 --server wrok",
        "tristunnel http: there is no server called 'wrok'; did you mean work?",
    ),
    # Tokens where they do not belong.
    (
        "C --connect h --token TOKEN 3000",
        C + "unknown option --token; did you mean --token-file, which names a file?"
        " The token itself goes into the variable TRISTUNNEL_TOKEN",
    ),
    (
        "C --connect h --token-file TOKEN 3000",
        C + "--token-file takes a file, not the token itself; that goes into the"
        " variable TRISTUNNEL_TOKEN",
    ),
    (
        "C --connect h --credentials-file {} 3000",
        C + "--credentials-file takes a file, not what is in it; that goes into the"
        " variable TRISTUNNEL_CREDENTIALS",
    ),
    (
        "C --connect h --credentials TOKEN 3000",
        C + "--credentials takes KEY=VALUE, for example id=laptop",
    ),
    (
        "tristunnel http 3000 TOKEN --to h",
        "tristunnel http: a token does not belong on the command line, which everybody"
        " can read: put it into the variable TRISTUNNEL_TOKEN, or a file for"
        " --token-file",
    ),
    # Where to listen.
    (
        "S --port tpc:9000",
        S + "--port 'tpc:9000' is not a valid endpoint (unknown type 'tpc'; did you"
        " mean tcp?); write for example tcp:9000, ssl:9000 or unix:/run/tunnel.sock",
    ),
    (
        "S --ports 30000:31000",
        S + "--ports: '30000:31000' is not a port range; write for example 30000-31000",
    ),
    (
        "S --hostname http://t.example.com",
        S + "--hostname 'http://t.example.com' is not a host; write its name or"
        " address, for example tunnel.example.com",
    ),
    (
        "S --hostname 'a b'",
        S + "--hostname 'a b' is not a host; write its name or address, for example"
        " tunnel.example.com",
    ),
    # Who may connect.
    ("S --auth token:tokens", S + "unknown --auth 'token'; did you mean tokens?"),
    (
        "S --auth tokens:none",
        S + "--auth tokens: cannot read the token file 'HERE/none': No such file or"
        " directory; make one with: tristunnel token create --name NAME --file"
        " HERE/none",
    ),
    ("S --auth file:none", S + "--auth file: cannot find the file 'none'"),
    (
        "S --auth tokens:TOKEN",
        S + "--auth tokens: takes the name of a file, not a token",
    ),
    # Choices, and numbers.
    (
        "C --connect h --dialect vtunel 3000",
        C + "unknown --dialect 'vtunel'; did you mean vtunnel?",
    ),
    (
        "C --connect h --carrier drect 3000",
        C + "unknown --carrier 'drect'; did you mean direct?",
    ),
    (
        "S --log-format jsn",
        S + "unknown --log-format 'jsn'; did you mean json?",
    ),
    ("S --lease x", S + "--lease takes a number, not 'x'"),
    # Files.
    (
        "C --config none.toml",
        C + "--config none.toml cannot be read: No such file or directory",
    ),
)


class UsageTests(SynchronousTestCase):
    """A mistake on a command line is one line, with status 2."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        here = os.getcwd()
        os.chdir(self.directory)
        self.addCleanup(os.chdir, here)
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
        ):
            if line.split()[0] == short:
                line = whole + line[1:]
        program, *words = shlex.split(line.replace("TOKEN", "tst_SeCrEt"))
        err = io.StringIO()
        with patch.object(sys, "stderr", err), patch.object(sys, "argv", ["x", *words]):
            ended = self.assertRaises(
                SystemExit, main if program == "tristunnel" else _twistd, words
            )
        return ended.code, err.getvalue()

    def test_table(self) -> None:
        """What is said, word for word."""
        work = KnownServer("work", "h")
        for line, wanted in USAGE:
            if "wrok" in line:
                ServerStore().keep(work)
            status, said = self.said(line)
            said = said.replace(str(self.directory), "HERE")
            self.assertEqual(said, f"{wanted}\n", line)
            self.assertEqual(status, 2, line)
            self.assertLessEqual(len(said), 240, line)
            self.assertNotIn("SeCrEt", said)

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
        "http 3000 --to ws://127.0.0.1:PLAIN/",
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
        for line, wanted in REFUSALS:
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
