"""Tests for L{tristunnel.cli.main}."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from twisted.python import usage
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.auth.token_store import TokenStore
from tristunnel.cli import access_tap, client_tap, server_tap, token
from tristunnel.cli.call import parseCommand
from tristunnel.cli.main import main, parser
from tristunnel.model.permissions import RIGHTS
from tristunnel.model.policy import VisitorPolicy, parseNetworks
from tristunnel.model.ports import parsePorts

NOW = 1_900_000_000.0


class AbbreviationTests(SynchronousTestCase):
    """Every command line: options cannot be abbreviated, and what is not understood is
    not repeated."""

    WORDS = (
        "--token s3cret",
        "--token=s3cret",
        "--tok=s3cret",
        "--credential x=s3cret",
        "--prox=http://me:s3cret@proxy",
        "--heade Authorization=s3cret",
        "--nothing=s3cret",
        "--password=s3cret",
    )

    def test_twistd(self) -> None:
        """The programs that C{twistd} runs."""
        for tap in (server_tap, client_tap, access_tap):
            for words in self.WORDS:
                options = tap.Options()
                error = self.assertRaises(
                    usage.UsageError, options.parseOptions, words.split()
                )
                self.assertIn(words.partition(" ")[0].partition("=")[0], str(error))
                self.assertNotIn("s3cret", str(error))
                self.assertNotIn("\n", str(error))

    def test_suggested(self) -> None:
        """What was meant is suggested."""
        error = self.assertRaises(
            usage.UsageError, client_tap.Options().parseOptions, ["--token", "s3cret"]
        )
        self.assertEqual(
            str(error),
            "unknown option --token; did you mean --token-file, which names a file?"
            " The token itself goes into the variable TRISTUNNEL_TOKEN",
        )

    def test_others(self) -> None:
        """The other programs."""
        err = io.StringIO()
        self.patch(sys, "stderr", err)
        calls: list[tuple[Any, list[str]]] = [
            (main, ["status", "http://localhost:1"]),
            (main, ["token", "list"]),
            (main, ["access", "list"]),
            (parseCommand, ["http://localhost:1", "listTunnels"]),
        ]
        for call, before in calls:
            for words in self.WORDS:
                if call is parseCommand and words.startswith("--token"):
                    continue
                err.truncate(0)
                ended = self.assertRaises(
                    SystemExit, call, [*before, *words.split()[:1]]
                )
                self.assertEqual(ended.code, 2)
                self.assertNotIn("s3cret", err.getvalue())
                self.assertIn("unknown option --", err.getvalue())


class HelpTests(SynchronousTestCase):
    """C{--help} of every command."""

    def test_all(self) -> None:
        """It is the command's own, with its name and every option's text."""
        commands = [*parser().others, "token create", "access end"]
        for words in map(str.split, commands):
            out = io.StringIO()
            self.patch(sys, "stdout", out)
            ended = self.assertRaises(SystemExit, main, [*words, "--help"])
            self.assertEqual(ended.code, 0)
            self.assertIn(f"Usage: tristunnel {' '.join(words)}", out.getvalue())
            self.assertNotIn("Managing it:", out.getvalue())


class ForegroundTests(SynchronousTestCase):
    """The pid file of C{twistd}."""

    def pidFile(self, *words: str) -> str:
        self.patch(sys, "argv", ["twistd", *words])
        options = ServerOptions()
        options.parseOptions(list(words))
        return str(options["pidfile"] and Path(options["pidfile"]).name)

    def test_foreground(self) -> None:
        """In the foreground there is none, unless it is named."""
        self.patch(client_tap.Options, "check", lambda self: None)
        for command in (
            *(["tunnel", "--port", "tcp:0"], ["tunnel-client", "--pin", "ab" * 32]),
            ["tunnel-access", "--connect", "tcp:localhost:9000", "--service", "x"],
        ):
            self.assertEqual(self.pidFile("-n", *command), "")
            self.assertEqual(self.pidFile("--nodaemon", *command), "")
            self.assertEqual(self.pidFile(*command), "twistd.pid")
            for named in ("--pidfile=twistd.pid", "--pid=twistd.pid"):
                self.assertEqual(self.pidFile("-n", named, *command), "twistd.pid")
            self.assertEqual(self.pidFile("-n", "--pidfile", "a", *command), "a")

    def test_check(self) -> None:
        """C{--check} is not sent to the background, where nobody sees what it says."""
        for command in ("tunnel", "tunnel-client"):
            words = [command, "--connect=tcp:localhost:9000"][: 1 + command.count("-")]
            for more, foreground in (([], 0), (["--check"], 1)):
                options = ServerOptions()
                options.parseOptions([*words, *more])
                self.assertEqual(options["nodaemon"], foreground, (words, more))


class TokenCommandTests(SynchronousTestCase):
    """C{tristunnel token}."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(token, "now", lambda: NOW)
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def run_(self, *words: str) -> tuple[int, str, str]:
        for stream in (self.out, self.err):
            stream.seek(0)
            stream.truncate()
        try:
            status = main(["token", *words, "--file", str(self.path)])
        except SystemExit as error:
            assert isinstance(error.code, int)
            status = error.code
        return status, self.out.getvalue(), self.err.getvalue()

    def good(self, *words: str) -> str:
        """Run a command that works. @return: The output."""
        status, out, err = self.run_(*words)
        self.assertEqual((status, err), (0, ""))
        return out

    def test_create(self) -> None:
        """The token is the last word of the output, and what it was said to permit is
        in the file."""
        words = (
            "create --name laptop --ports 9000-9010 --protocols tcp,udp --max-tunnels 5"
            " --max-visitors 100 --rate 10MB/s --expires 30d"
        )
        out = self.good(*words.split())
        store = TokenStore(self.path)
        found = store.read()
        made = found.find(out.split()[-1].encode())
        assert made is not None
        permissions = made.permissions
        self.assertEqual(made.name, "laptop")
        self.assertEqual(permissions.ports, parsePorts("9000-9010"))
        self.assertEqual(permissions.protocols, {"tcp", "udp"})
        self.assertEqual(permissions.maxTunnels, 5)
        self.assertEqual(permissions.maxVisitors, 100)
        self.assertEqual(permissions.rate, 10_000_000)
        self.assertEqual(permissions.expires, NOW + 30 * 86400)
        self.assertEqual(permissions.may, {"open"})

    def test_rights(self) -> None:
        """Rights and services."""
        self.good("create", "--name", "a", "--may", "open,access", "--services", "db-*")
        permissions = TokenStore(self.path).read().byName["a"].permissions
        self.assertEqual(permissions.may, {"open", "access"})
        self.assertEqual(permissions.services, ("db-*",))

    def test_policy(self) -> None:
        """What is asked of visitors is in the file, and in what is listed."""
        words = (
            "create --name a --allow 10.0.0.0/8,2001:db8::/32 --deny 10.9.0.0/16"
            " --visitors-per-tunnel 5 --visitors-per-address 2 --visitor-rate 30"
            " --rate-per-tunnel 1MB/s --idle-timeout 90 --max-stream-age 12h"
        )
        self.good(*words.split())
        self.assertEqual(
            TokenStore(self.path).read().byName["a"].permissions.policy,
            VisitorPolicy(
                parseNetworks(["10.0.0.0/8", "2001:db8::/32"]),
                parseNetworks(["10.9.0.0/16"]),
                5,
                2,
                30,
                1_000_000,
                90.0,
                43200.0,
            ),
        )
        line = self.good("list")
        for needle in ("visitors from 10.0.0.0/8", "none from 10.9", "12h", "1m30s"):
            self.assertIn(needle, line)
        self.assertIn("deny: 10.9.0.0/16\n", self.good("show", "a"))

    def test_badOptions(self) -> None:
        """A wrong option is named, with an example, and nothing is made."""
        for option, value, words in (
            ("--ports", "9-1", "port range"),
            ("--rate", "fast", "10MB/s"),
            ("--expires", "soon", "30d"),
            ("--expires", "2001-01-01", "past"),
            ("--max-tunnels", "many", "whole number"),
            ("--max-visitors", "-1", "--max-visitors"),
            ("--may", "all", ", ".join(RIGHTS)),
            ("--protocols", ",", "missing"),
            ("--allow", "office", "10.0.0.0/8"),
            ("--idle-timeout", "0", "45s"),
            ("--rate-per-tunnel", "0", "10MB/s"),
        ):
            status, out, err = self.run_("create", "--name", "x", option, value)
            self.assertEqual((status, out), (2, ""))
            self.assertIn(words, err)
            self.assertIn(option, err)
        status, out, err = self.run_("create", "--name", "x", "--protocols", "T:P")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("protocols", err)
        self.assertFalse(self.path.exists())

    def test_names(self) -> None:
        """A name is needed, and is given once."""
        self.assertEqual(self.run_("create")[0], 2)
        self.good("create", "--name", "laptop")
        status, out, err = self.run_("create", "--name", "laptop")
        self.assertEqual((status, out), (1, ""))
        self.assertTrue(err.startswith("tristunnel: a token 'laptop' already exists"))
        self.assertEqual(err.count("\n"), 1)

    def test_list(self) -> None:
        """A line for each, with what it permits and whether it is good; broken lines
        are named."""
        self.assertEqual(self.run_("list")[0], 1)
        self.good(
            "create", "--name", "laptop", "--ports", "9000-9010", "--rate", "5kB/s"
        )
        self.good("create", "--name", "x", "--expires", "2d")
        self.good("create", "--name", "gone", "--may", "access,admin")
        self.good("revoke", "gone")
        lines = self.good("list").splitlines()
        self.assertEqual(
            [re.split("  +", line) for line in lines],
            [
                ["laptop", "valid", "open, ports 9000-9010, 5kB/s"],
                ["x", "valid for 2d", "open"],
                ["gone", "revoked", "access, admin"],
            ],
        )
        values = [json.loads(line) for line in self.good("list", "--json").splitlines()]
        self.assertEqual([each["name"] for each in values], ["laptop", "x", "gone"])
        with self.path.open("a") as stream:
            stream.write("oops\n")
        status, _, err = self.run_("list")
        self.assertEqual((status, err), (0, "line 4: it is not a JSON object\n"))

    def test_show(self) -> None:
        """All that is known of a token, but not the token."""
        out = self.good("create", "--name", "laptop", "--protocols", "udp")
        secret = out.split()[-1]
        out = self.good("show", "laptop")
        self.assertIn("state: valid\n", out)
        self.assertIn("protocols: udp\n", out)
        self.assertNotIn(secret, out)
        self.assertEqual(self.run_("show", "nobody")[0], 1)

    def test_revoke(self) -> None:
        """A token is revoked by its name."""
        self.good("create", "--name", "laptop")
        self.assertIn("laptop was revoked", self.good("revoke", "laptop"))
        self.assertIn("state: revoked", self.good("show", "laptop"))
        self.assertEqual(self.run_("revoke", "nobody")[0], 1)

    def test_stateDirectory(self) -> None:
        """Without C{--file} it is the state directory's."""
        directory = Path(self.mktemp()).absolute()
        self.patch(os, "environ", {"STATE_DIRECTORY": str(directory)})
        self.assertEqual(main(["token", "create", "--name", "laptop"]), 0)
        self.assertEqual(
            list(TokenStore(directory / "tokens").read().byName), ["laptop"]
        )
