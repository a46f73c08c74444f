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

from tristunnel.cli.main import main
from tristunnel.config.servers import KnownServer, ServerStore

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
    ("C --connect h 70000=1", C + "--forward '70000=1': 70000 is not a port"),
    (
        "tristunnel tcp udp/53 --to h",
        "tristunnel tcp: 'udp/53' is a UDP service: write tristunnel udp",
    ),
    (
        "tristunnel http 1 2 --name a --to h",
        "tristunnel http: --name is for one service, and there are several",
    ),
    # Servers.
    (
        "C --connect tcp:h 3000",
        C
        + "--connect 'tcp:h' is not a valid server (the port is missing); write HOST or"
        " HOST:PORT for TLS, tcp:HOST:PORT without, https://HOST or unix:PATH",
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
        "tristunnel http 3000 --server wrok",
        "tristunnel http: no server is called 'wrok'; did you mean work?",
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
