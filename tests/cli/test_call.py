"""Tests for L{tristunnel.cli.call}: the command C{python -m tristunnel.rpc}."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Request

from tests.jsonrpc.loopback import LoopbackTestCase, reactor
from tests.support.processes import runProgram
from tests.support.short import shortDirectory
from tristunnel.cli.call import (
    CallFailed,
    ask,
    paramsFrom,
    parseCommand,
    parseTarget,
    valueFrom,
)
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.pending import RemoteError
from tristunnel.tls.certificates import fingerprintOfFile, selfSigned
from tristunnel.tls.server_context import ReloadingCertificate


class WordsTests(SynchronousTestCase):
    """Tests for L{tristunnel.cli.call}."""

    def test_values(self) -> None:
        """JSON is JSON, all else is a string."""
        for word, value in (
            ("5", 5),
            ("-5", -5),
            ('"5"', "5"),
            ("true", True),
            ("null", None),
            ("[1, 2]", [1, 2]),
            ("tcp://server:8010", "tcp://server:8010"),
            ("", ""),
            ("NaN", "NaN"),
            ("1e999", "1e999"),
            ("9" * 5000, "9" * 5000),
            ("[" * 100_000, "[" * 100_000),
            ("\udcff", "\udcff"),
        ):
            self.assertEqual(valueFrom(word), value)

    def test_params(self) -> None:
        """Parameters go by position or by name."""
        self.assertEqual(paramsFrom([]), [])
        self.assertEqual(paramsFrom(["a", "5"]), ["a", 5])
        self.assertEqual(
            paramsFrom(["via=w3p", "port=5", "empty=", "eq=a=b"]),
            {"via": "w3p", "port": 5, "empty": "", "eq": "a=b"},
        )
        self.assertEqual(
            paramsFrom(["w3p://server:9000/ID#SECRET=", '"a=b"']),
            ["w3p://server:9000/ID#SECRET=", "a=b"],
        )
        self.assertRaises(ValueError, paramsFrom, ["a", "b=1"])
        self.assertRaises(ValueError, paramsFrom, ["b=1", "b=2"])

    def test_targets(self) -> None:
        """URLs have defaults for the port and the path."""
        for text, expected in (
            ("http://server:9000", ("server", 9000, "http://server:9000/rpc")),
            ("http://server/", ("server", 80, "http://server/rpc")),
            ("https://server", ("server", 443, "https://server/rpc")),
            ("http://[::1]:9000/x?y", ("::1", 9000, "http://[::1]:9000/x?y")),
            ("HTTP://my_host:80/", ("my_host", 80, "http://my_host/rpc")),
            ("http://[fe80::1%25lo]", ("fe80::1%lo", 80, "http://[fe80::1]/rpc")),
            (
                "https://BÜCHER.test/ü%20",
                ("xn--bcher-kva.test", 443, "https://xn--bcher-kva.test/%C3%BC%20"),
            ),
        ):
            target = parseTarget(text)
            self.assertEqual((target.host, target.port, target.url), expected)
        self.assertEqual(parseTarget("unix:/run/x.sock").socketPath, "/run/x.sock")

    def test_badTargets(self) -> None:
        """What is no URL is said to be none."""
        for text in (
            "",
            "server:9000",
            "ftp://server",
            "http://",
            "http://server:port",
            "http://server:99999",
            "http://[::1",
            "http://id:secret@server",
            "server:9000",
            "tcp://server:9000",
            "http:/server",
            "http//server",
            "http://ser ver",
            "http://a..b",
            "http://server:0",
            "http://server/a b",
            "unix:relative",
        ):
            self.assertRaises(ValueError, parseTarget, text)

    def test_credentials(self) -> None:
        """A token, a token from the environment, or a name and a password."""
        environment = {"TRISTUNNEL_TOKEN": "hidden\n"}
        words = ["http://server", "openTunnel"]
        for more, expected in (
            ([], "Bearer hidden"),
            (["--token", "seen"], "Bearer seen"),
            (["--user", "id:secret"], "Basic aWQ6c2VjcmV0"),
        ):
            request = parseCommand([*words, *more], environment)
            self.assertEqual(request.authorization, expected)
        self.assertIsNone(parseCommand(words, {}).authorization)

    def test_optionsAnywhere(self) -> None:
        """Options may stand before, between and behind the words."""
        request = parseCommand(
            ["--timeout", "5", "http://server", "--token", "t", "m", "a", "-5"], {}
        )
        self.assertEqual((request.method, request.params), ("m", ["a", -5]))
        self.assertEqual(request.timeout, 5)

    @given(st.text())
    def test_garbage(self, text: str) -> None:
        """Garbage raises C{ValueError} at most."""
        for parse in (parseTarget, valueFrom, lambda word: paramsFrom([word])):
            try:
                parse(text)
                parse("http://" + text)
            except ValueError:
                pass


class Strange(Resource):
    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        answers = {
            b"text": b"hello",
            b"other": b'{"jsonrpc": "2.0", "id": 7, "result": 1}',
            b"neither": b'{"jsonrpc": "2.0", "id": 1}',
            b"error": b'{"jsonrpc": "2.0", "id": 1, "error": {"code": 5, "message":'
            b' "a\\u001b[1mb\\nc"}}',
            b"odd": b"x",
        }
        assert request.prepath is not None
        if request.prepath[-1] == b"odd":
            request.setResponseCode(500)
            request.setHeader(b"Content-Type", b"\xa0")
        return answers[request.prepath[-1]]


class StrangeSiteTestCase(LoopbackTestCase):
    """A site with a strange resource at some paths, too."""

    def root(self) -> Resource:
        root = super().root()
        assert isinstance(root, Resource)
        for name in (b"text", b"other", b"neither", b"error", b"odd"):
            root.putChild(name, Strange())
        return root


class AskTests(StrangeSiteTestCase):
    """Tests for L{ask}."""

    async def ask(self, *words: str, path: str = "") -> object:
        url = f"http://127.0.0.1:{self.port}{path}"
        return await ask(reactor, parseCommand([url, *words], {}))

    async def failing(self, *words: str, path: str = "") -> str:
        asking = Deferred.fromCoroutine(self.ask(*words, path=path))
        return str(await self.assertFailure(asking, CallFailed))

    async def test_results(self) -> None:
        """Calls by position and by name have their results."""
        self.assertEqual(await self.ask("subtract", "42", "23"), 19)
        self.assertEqual(await self.ask("subtract", "minuend=1", "subtrahend=2"), -1)

    async def test_errors(self) -> None:
        """Errors are exceptions."""
        refused = Deferred.fromCoroutine(self.ask("refuse", "port-taken", "null"))
        error: Any = await self.assertFailure(refused, TunnelError)
        self.assertEqual(str(error), "No, because. [port-taken]")
        unknown = Deferred.fromCoroutine(self.ask("foobar"))
        await self.assertFailure(unknown, RemoteError)

    async def test_unauthenticated(self) -> None:
        """What is no JSON-RPC server is told from one."""
        for path in ("/text", "/other"):
            self.assertEqual(
                await self.failing("x", path=path),
                "The answer is not JSON-RPC 2.0. Is the URL right?",
            )
        self.assertEqual(
            await self.failing("x", path="/nothing"),
            "There is nothing at this address. [HTTP status 404] The usual path"
            " is /rpc.",
        )
        self.assertEqual(await self.failing("x", path="/odd"), "HTTP status 500")
        neither = Deferred.fromCoroutine(self.ask("x", path="/neither"))
        await self.assertFailure(neither, RemoteError)

    async def test_timeout(self) -> None:
        """A call that takes too long is given up, on both sides."""
        self.assertEqual(
            await self.failing("wait", "--timeout", "0.05"),
            "No answer within 0.05 seconds.",
        )
        await self.site.whenQuiet()
        self.assertEqual(self.published.cancelled, len(self.published.pending))

    async def test_tls(self) -> None:
        """A server with TLS is believed if its certificate is trusted, pinned, or
        nobody cares."""
        file = selfSigned(Path(self.mktemp()), ["localhost"])
        port = await self.listenTLS(ReloadingCertificate(file))
        url = f"https://localhost:{port}"
        for options in (
            ["--ca", str(file)],
            ["--pin", fingerprintOfFile(file)],
            ["--insecure"],
        ):
            request = parseCommand([url, "echo", "hi", *options], {})
            self.assertEqual(await ask(reactor, request), "hi")
        for options in ([], ["--pin", "00" * 32]):
            request = parseCommand([url, "update", *options], {})
            asking = Deferred.fromCoroutine(ask(reactor, request))
            error: Any = await self.assertFailure(asking, CallFailed)
            self.assertIn("certificate", str(error))
        self.assertEqual(self.published.callers, [])

    async def test_ipv6Host(self) -> None:
        """An IPv6 address in the URL is connected to, and fails in one line."""
        request = parseCommand(["http://[::1]:1", "x"], {})
        asking = Deferred.fromCoroutine(ask(reactor, request))
        error: Any = await self.assertFailure(asking, CallFailed)
        self.assertTrue(str(error).startswith("Could not connect to ::1 port 1"))


class CommandTests(StrangeSiteTestCase):
    """The command as a process."""

    async def run_(self, *words: str, **environment: str) -> tuple[str, str, int]:
        out, err, status = await runProgram(
            [sys.executable, "-m", "tristunnel.rpc", *words],
            {"COLUMNS": "80", "PYTHONWARNINGS": "", **environment},
        )
        return out.decode("utf-8"), err.decode("utf-8"), status

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def test_results(self) -> None:
        """A string is printed as it is, all else as JSON."""
        self.assertEqual(
            await self.run_(self.url, "echo", "tcp://server:8010"),
            ("tcp://server:8010\n", "", 0),
        )
        out, err, status = await self.run_(self.url, "named", "a=1", "b=ü")
        self.assertEqual(json.loads(out), {"a": 1, "b": "ü"})
        self.assertEqual(out, '{\n  "a": 1,\n  "b": "ü"\n}\n')
        self.assertEqual((err, status), ("", 0))

    async def test_errors(self) -> None:
        """An error is one line, without the means to deceive a terminal."""
        self.assertEqual(
            await self.run_(self.url, "refuse", "port-taken", "null"),
            ("", "No, because. [port-taken]\n", 1),
        )
        self.assertEqual(
            await self.run_(self.url, "foobar"),
            ("", "foobar: Method not found [-32601]\n", 1),
        )
        self.assertEqual(
            await self.run_(self.url + "/error", "x"), ("", "x: a?[1mb?c [5]\n", 1)
        )

    async def test_unauthenticated(self) -> None:
        """No server, no traceback."""
        out, err, status = await self.run_("unix:/nowhere/at/all", "x")
        self.assertEqual((out, status), ("", 1))
        self.assertIn("Could not connect to /nowhere/at/all", err)
        self.assertEqual(err.count("\n"), 1)

    async def test_timeout(self) -> None:
        """Waiting has an end."""
        self.assertEqual(
            await self.run_(self.url, "wait", "--timeout", "0.1"),
            ("", "No answer within 0.1 seconds.\n", 1),
        )

    async def test_usage(self) -> None:
        """A wrong command line is status 2; help is status 0."""
        for words in (
            [],
            ["http://server"],
            ["server", "x"],
            ["http://server", "x", "a", "b=1"],
            ["http://server", "x", "--insecure"],
            ["http://server", "x", "--user", "nobody"],
        ):
            out, err, status = await self.run_(*words)
            self.assertEqual((out, status), ("", 2))
            self.assertIn("python -m tristunnel.rpc: ", err)
        out, err, status = await self.run_("--help")
        self.assertEqual((err, status), ("", 0))
        self.assertIn("http://server:9000 openTunnel", out)

    async def test_credentials(self) -> None:
        """Credentials are sent, and asked for if they are missing."""
        self.demanded = "Bearer hidden"
        self.assertEqual(
            await self.run_(self.url, "echo", "hi", TRISTUNNEL_TOKEN="hidden"),
            ("hi\n", "", 0),
        )
        self.assertEqual(
            await self.run_(self.url, "echo", "hi"),
            (
                "",
                "The credentials were not accepted. [HTTP status 401] Give --token"
                " or --user.\n",
                1,
            ),
        )

    async def test_unix(self) -> None:
        """A server at a UNIX socket is asked, too."""
        path = str(shortDirectory(self) / "s")
        await self.listenUNIX(path)
        self.assertEqual(await self.run_(f"unix:{path}", "echo", "hi"), ("hi\n", "", 0))
