"""Tests for L{tristunnel.cli.status} and L{tristunnel.cli.question}."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

import tristunnel
from tests.screen.example import clientStatus, serverStatus
from tests.support.listening import listenHere
from tests.support.processes import runProgram
from tristunnel.auth.realm import Authenticator
from tristunnel.cli import question as asking
from tristunnel.cli import status as module
from tristunnel.cli.main import parser
from tristunnel.cli.question import Question, lookAt
from tristunnel.cli.status import tunnelNamed
from tristunnel.client.control import (
    ClientControl,
    clientSocket,
    clientSockets,
    statusMethods,
)
from tristunnel.client.status import ProcessStatus
from tristunnel.errors import TunnelError
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.resource import JSONRPCResource
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import rootOf
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.service.invitations import ServerPlace
from tristunnel.tls.certificates import fingerprintOfFile, selfSigned

_ROOT = Path(tristunnel.__file__).parent.parent


def questionOf(words: Sequence[str]) -> Question:
    return Question(parser().parse_args(["status", *words]))


class QuestionTests(SynchronousTestCase):
    """What C{tristunnel status} takes."""

    def setUp(self) -> None:
        self.patch(os, "environ", {"XDG_STATE_HOME": self.mktemp()})

    def refusal(self, *words: str) -> TunnelError:
        return self.assertRaises(TunnelError, lambda: questionOf(words).places())

    def test_places(self) -> None:
        """A server by its URL, a client by its socket."""
        path = Path(self.mktemp()).absolute()
        path.touch()
        for where, scheme in (
            ("http://h.example:9000", "http"),
            ("https://h.example/rpc", "https"),
            (f"unix:{path}", "unix"),
        ):
            ((name, target),) = questionOf([where]).places()
            self.assertEqual((name, target.scheme), (where, scheme))

    def test_wrong(self) -> None:
        """Mistakes are told with what to write."""
        for words, cure in (
            (["--token-file", "x"], "name it"),
            (["http://h", "--insecure"], "https://"),
            (["http://h", "--token-file", "none"], "none"),
        ):
            error = self.refusal(*words)
            self.assertEqual(error.code.name, "bad-option")
            self.assertIn(cure, error.message)

    def test_noSocket(self) -> None:
        """A socket that is not there, or not for us."""
        path = Path(self.mktemp()).absolute()
        self.assertIn("running", self.refusal(f"unix:{path}").message)
        path.touch()
        self.patch(os, "access", lambda path, mode: False)
        error = self.refusal(f"unix:{path}")
        self.assertEqual(error.code.name, "not-permitted")
        self.assertIn("another user", error.message)

    def test_token(self) -> None:
        """A token goes to whom somebody named, and to nobody else."""
        os.environ["TRISTUNNEL_TOKEN"] = "abc"
        question = questionOf(["http://h.example:9000"])
        ((_, target),) = question.places()
        self.assertEqual(question.request(target, "status").authorization, "Bearer abc")
        question = questionOf([])
        ((where, target),) = question.places()
        self.assertEqual(where, "http://localhost:9000")
        self.assertIsNone(question.request(target, "status").authorization)

    def test_serverHere(self) -> None:
        """The server of this machine is known by its certificate, and so gets the
        token of who asks."""
        os.environ["TRISTUNNEL_TOKEN"] = "abc"
        state = Path(self.mktemp()).absolute()
        certificate = str(selfSigned(state, ["localhost"]))
        ServerPlace("t.example.com", 9443, certificate).write(state)
        question = questionOf(["--state-dir", str(state)])
        ((where, target),) = question.places()
        call = question.request(target, "status")
        self.assertEqual((where, target.port), ("https://localhost:9443", 9443))
        self.assertEqual(call.authorization, "Bearer abc")
        self.assertTrue(fingerprintOfFile(certificate).startswith(call.pins[0].hex()))


class NamedTests(SynchronousTestCase):
    """C{--qr TUNNEL}."""

    def test_found(self) -> None:
        """By address, port, service or name."""
        status = clientStatus()
        status["tunnels"][0]["forward"] = "shop=localhost:8080"
        web = "http://tunnel.example.com:30001/"
        for name in ("shop", "30001", "localhost:8080", web, web[:-1]):
            self.assertEqual(tunnelNamed([status], name), web)
        self.assertEqual(
            tunnelNamed([serverStatus()], "web"), "http://tunnel.example.com:30001/"
        )

    def test_notFound(self) -> None:
        """What there is, is told."""
        for name in ("x", ""):
            error = self.assertRaises(TunnelError, tunnelNamed, [clientStatus()], name)
            self.assertIn("http://tunnel.example.com:2222/", error.message)
        error = self.assertRaises(TunnelError, tunnelNamed, [], "x")
        self.assertIn("no tunnel has", error.message)
        # Both lead to the same service.
        status = clientStatus()
        for tunnel in status["tunnels"]:
            tunnel["target"] = "web"
        error = self.assertRaises(TunnelError, tunnelNamed, [status], "web")
        self.assertIn("several", error.message)


class ShowTests(SynchronousTestCase):
    """What is printed."""

    status = clientStatus()

    def show(self, *words: str, encoding: str = "utf-8") -> str:
        raw = io.BytesIO()
        self.patch(sys, "stdout", io.TextIOWrapper(raw, encoding))
        options: Namespace = parser().parse_args(["status", *words])
        module._show([{"where": "unix:/x", **self.status}, serverStatus()], options)
        return raw.getvalue().decode(encoding)

    def test_text(self) -> None:
        """A file gets text without codes, of which nothing is cut off."""
        text = self.show()
        self.assertNotIn("\x1b", text)
        self.assertIn("tristunnel 0.1.0, client 4711\n", text)
        self.assertIn("1.2 MB/s\n", text)
        self.assertIn("\n\ntristunnel server\n", text)
        self.assertIn("laptop at 203.0.113.50:41000", text)

    def test_events(self) -> None:
        """The last eight events are printed, of which half are not of visitors if there
        are such; or all."""
        event = clientStatus()["events"][0]
        visitors = [{**event, "text": f"came {n}"} for n in range(40)]
        others = [{**event, "kind": "tunnel", "text": f"open {n}"} for n in range(10)]
        for events, shown in (
            (visitors + others, ["came 0", "came 3", "open 0", "open 3"]),
            (others + visitors, ["came 0", "came 3", "open 0", "open 3"]),
            (visitors + others[:1], ["came 0", "came 6", "open 0"]),
            (others + visitors[:1], ["came 0", "open 0", "open 6"]),
        ):
            self.patch(self, "status", {**clientStatus(), "events": events})
            lines = self.show().partition("\nEvents\n")[2].partition("\n\n")[0]
            self.assertEqual(len(lines.splitlines()), 8, lines)
            for text in shown:
                self.assertIn(f"{text}\n", f"{lines}\n")
            lines = self.show("--all-events").partition("\nEvents\n")[2]
            lines = lines.partition("\n\n")[0]
            self.assertEqual(len(lines.splitlines()), len(events))

    def test_ascii(self) -> None:
        """Where nothing but ASCII can be written, nothing else is."""
        self.assertIn("* http://tunnel.example.com:30001", self.show(encoding="ascii"))

    def test_json(self) -> None:
        """A program gets one JSON object per line."""
        lines = self.show("--json").splitlines()
        found = [json.loads(line) for line in lines]
        self.assertEqual([each["program"] for each in found], ["client", "server"])
        self.assertEqual(found[0]["visitors"], 13)

    def test_code(self) -> None:
        """A code comes with its address."""
        lines = self.show("--qr", "2222").splitlines()
        self.assertEqual(lines[0], "http://tunnel.example.com:2222/")
        self.assertEqual({len(line) for line in lines[1:]}, {33})


class LookTests(TestCase):
    """Programs are asked."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(rmtree, self.directory)

    def client(self) -> None:
        status = ProcessStatus(self.reactor.seconds)
        status.follow("tcp:server.example:9000")
        control = ClientControl(
            self.reactor,
            clientSocket(self.reactor, self.directory),
            statusMethods(status),
        )
        control.startService()
        self.addCleanup(control.stopService)

    def serve(self, methods: dict[str, Any], callers: Any = None) -> str:
        """Run a server with these methods. @return: Its URL."""
        callers = callers or HTTPCallers(Authenticator())
        page = JSONRPCResource(Dispatcher(methods.get), callers)
        site = LimitedSite(rootOf({b"rpc": page}), reactor=self.reactor)
        port = listenHere(self, self.reactor, site)
        return f"http://127.0.0.1:{port}"

    async def look(self, *words: str) -> list[dict[str, Any]]:
        question = questionOf([*words, "--state-dir", str(self.directory)])
        return await lookAt(self.reactor, question)

    async def refusal(self, *words: str) -> TunnelError:
        try:
            await self.look(*words)
        except TunnelError as error:
            self.assertNotIn("\n", error.message)
            return error
        raise self.failureException("somebody answered")

    async def test_clients(self) -> None:
        """All clients of this user are found; what a killed one left is removed."""
        self.client()
        self.client()
        left = clientSockets(self.directory) / "left.sock"
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(left))
        found = await self.look()
        self.assertEqual([each["program"] for each in found], ["client"] * 2)
        self.assertTrue(all(each["where"].startswith("unix:/") for each in found))
        self.assertFalse(left.exists())

    async def test_server(self) -> None:
        """A server is asked for its sessions, and they are summed up."""
        status = serverStatus()
        sums = {"bytesIn": 1, "bytesOut": 2}
        entries = [{**tunnel, **sums} for tunnel in status["tunnels"]]
        entries += [*status["clients"], {"kind": "visitor"}]
        url = self.serve({"listSessions": lambda caller: entries})
        (found,) = await self.look(url)
        self.assertEqual(found["program"], "server")
        self.assertEqual((found["visitors"], found["bytesOut"]), (24, 4))
        self.assertEqual(len(found["tunnels"]), 2)
        self.assertEqual(found["clients"], status["clients"])

    async def test_unauthenticated(self) -> None:
        """Who answers otherwise is no server of ours."""
        half = {"program": "client", "tunnels": 5}
        wrong: list[Any] = [5, None, {}, half, [{}], [{"kind": "tunnel"}], ["x"]]
        for answer in wrong:
            url = self.serve({"status": lambda caller, a=answer: a})
            self.assertIn("not a tunnel server", (await self.refusal(url)).message)
            url = self.serve({"listSessions": lambda caller, a=answer: a})
            self.assertIn("not a tunnel server", (await self.refusal(url)).message)

    async def test_notAllowed(self) -> None:
        """A server that wants to know who asks."""

        def nobody(request: object) -> None:
            raise TunnelError("auth-refused")

        url = self.serve({}, nobody)
        error = await self.refusal(url)
        self.assertEqual(error.code.name, "auth-refused")
        self.assertIn("--token-file", error.message)
        self.patch(asking, "DEFAULT_SERVER", url)
        error = await self.refusal()
        self.assertIn(f"tristunnel status {url} --token-file", error.message)

    async def test_nobody(self) -> None:
        """Where nobody is, that is said, with what to do."""
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
            message = (await self.refusal(url)).message
            self.assertIn("was refused; is the program running there?", message)
            self.patch(asking, "DEFAULT_SERVER", url)
            error = await self.refusal()
            self.assertIn("no client of this user runs here", error.message)

    async def test_otherProgram(self) -> None:
        """An HTTP server that is something else."""
        site = LimitedSite(rootOf({}), reactor=self.reactor)
        port = listenHere(self, self.reactor, site)
        error = await self.refusal(f"http://127.0.0.1:{port}")
        self.assertIn("is that a tunnel server", error.message)

    async def test_command(self) -> None:
        """The command itself: an object of JSON and 0, or a line and 1."""
        self.client()
        for directory, status, start in (
            (self.directory, 0, '{"where": "unix:'),
            (self.directory / "none", 1, "tristunnel: "),
        ):
            out, err, code = await runProgram(
                [
                    *(sys.executable, "-m", "tristunnel", "status", "--json"),
                    *("--state-dir", str(directory)),
                    *([f"unix:{directory}/x.sock"] if status else []),
                ]
            )
            self.assertEqual(code, status, err)
            said = (err if status else out).decode()
            self.assertTrue(said.startswith(start), said)
            self.assertEqual(said.count("\n"), 1)

    def test_private(self) -> None:
        """The directory of the sockets is its user's alone."""
        self.client()
        mode = clientSockets(self.directory).stat().st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o700)
