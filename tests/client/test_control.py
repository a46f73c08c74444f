"""Tests for L{tristunnel.client.control}."""

from __future__ import annotations

import os
import re
import socket
import stat
import tempfile
from pathlib import Path
from shutil import rmtree
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from tests.support.protocols import Hearing
from tristunnel.cli.call import ask, parseCommand
from tristunnel.client.control import (
    ClientControl,
    ControlPort,
    clientSocket,
    clientSockets,
    parseControl,
    statusMethods,
)
from tristunnel.client.status import ProcessStatus
from tristunnel.errors import TunnelError
from tristunnel.inspect.calls import callsOf
from tristunnel.inspect.record import Limits, Record
from tristunnel.inspect.replay import Replays


class ParseTests(SynchronousTestCase):
    """What C{--rpc} of a client takes."""

    def refusal(self, description: str) -> str:
        """
        @return: Why that is not taken.
        """
        error = self.assertRaises(TunnelError, parseControl, Clock(), description)
        self.assertEqual(error.code.name, "bad-option")
        return error.message

    def test_good(self) -> None:
        """A socket, or a port that only this machine reaches."""
        for description in (
            "unix:/run/client.sock",
            "unix:/run/client.sock:mode=660",
            "tcp:9001:interface=127.0.0.1",
            "tcp:0:interface=127.1.2.3",
            r"tcp6:9001:interface=\:\:1",
        ):
            self.assertEqual(
                parseControl(Clock(), description).description, description
            )

    def test_open(self) -> None:
        """A port that others reach is refused, with what to write: nobody would be
        asked for a password."""
        for description in (
            "tcp:9001",
            "tcp:9001:interface=0.0.0.0",
            "tcp:9001:interface=192.0.2.1",
            "tcp:9001:interface=localhost",
        ):
            self.assertIn("tcp:9001:interface=127.0.0.1", self.refusal(description))
        self.assertIn("interface=[::1]", self.refusal("tcp6:9001"))

    def test_others(self) -> None:
        """So is everything else."""
        for description in ("tls:/x", "", "unix", "tcp:x:interface=127.0.0.1"):
            self.assertIn("unix:PATH", self.refusal(description))


class DocumentationTests(SynchronousTestCase):
    """The calls and their documentation."""

    def setUp(self) -> None:
        docs = Path(__file__).resolve().parents[2] / "docs" / "reference.rst"
        if not docs.exists():
            raise SkipTest("there is no documentation beside these tests")
        text = docs.read_text("utf-8").partition("Methods of a client\n")[2]
        self.section = text.partition("Options of openTunnel\n")[0]

    def test_methods(self) -> None:
        """Every call of a client has an entry in the reference."""
        found = re.findall(r"^``(\w+)\(.*\)``$", self.section, re.M)
        methods = statusMethods(ProcessStatus(Clock().seconds))
        record = Record(Limits(), Clock().seconds)
        calls = callsOf(record, Replays(Clock(), record), str)
        self.assertEqual(found, [*methods, "reload", *calls])

    def test_names(self) -> None:
        """What they answer is there, too."""
        status = ProcessStatus(Clock().seconds)
        client = status.follow("tcp:h:1")
        client.tunnelReady("tcp://h:2", "web")
        found: Any = status.describe()
        names = [*found, *found["servers"][0], *found["tunnels"][0]]
        for name in (*names, *found["events"][0]):
            self.assertIn(f"``{name}``", self.section)


class ControlTests(TestCase):
    """A client answers."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(rmtree, self.directory)
        self.status = ProcessStatus(self.reactor.seconds)
        self.status.follow("tcp:server.example:9000")
        self.failed: list[TunnelError] = []

    def start(self, port: ControlPort) -> ClientControl:
        self.methods = statusMethods(self.status)
        control = ClientControl(self.reactor, port, self.methods, self.failed.append)
        control.startService()
        self.addCleanup(control.stopService)
        return control

    async def ask(self, where: str, *words: str) -> Any:
        return await ask(self.reactor, parseCommand([where, *words], {}))

    async def test_ownSocket(self) -> None:
        """Without being told, a client answers at a socket that is its user's alone,
        which goes when the client does."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        port = clientSocket(self.reactor, self.directory)
        control = self.start(port)
        (path,) = clientSockets(self.directory).iterdir()
        self.assertEqual(port.description, f"unix:{path}")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(path.parent.stat().st_mode), 0o700)
        self.assertEqual(os.umask(0), 0)
        found = await self.ask(port.description, "status")
        self.assertEqual(found["servers"][0]["server"], "tcp:server.example:9000")
        self.assertEqual(found["pid"], os.getpid())
        self.assertEqual(await self.ask(port.description, "listTunnels"), [])
        self.assertEqual(await self.ask(port.description, "listVisitors"), [])
        await control.stopService()
        self.assertEqual(list(clientSockets(self.directory).iterdir()), [])

    async def test_more(self) -> None:
        """Other calls can be added."""
        port = clientSocket(self.reactor, self.directory)
        self.start(port)
        self.methods["reload"] = lambda caller: ["done"]
        self.assertEqual(await self.ask(port.description, "reload"), ["done"])

    async def test_limit(self) -> None:
        """Nobody gets more visitors than are good for the client."""
        port = clientSocket(self.reactor, self.directory)
        self.start(port)
        for limit in ("0", "-1", "10001", "true", "1.5", "many"):
            asking = self.ask(port.description, "listVisitors", f"limit={limit}")
            error = await self.assertFailure(
                Deferred.fromCoroutine(asking), TunnelError
            )
            self.assertEqual(error.code.name, "bad-option")

    def test_noDirectory(self) -> None:
        """Without a place for its own socket a client works all the same."""
        (self.directory / "file").touch()
        self.start(clientSocket(self.reactor, self.directory / "file"))
        self.assertEqual(self.failed, [])

    def test_taken(self) -> None:
        """A place that was asked for must be had."""
        port = f"unix:{self.directory}/none/c.sock"
        self.start(parseControl(self.reactor, port))
        (reason,) = self.failed
        self.assertEqual(reason.code.name, "bad-option")
        self.assertIn("none/c.sock", reason.message)
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    async def test_leftovers(self) -> None:
        """A socket that a killed client has left is no obstacle."""
        path = self.directory / "c.sock"
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(str(path))
        self.start(parseControl(self.reactor, f"unix:{path}"))
        self.assertEqual(self.failed, [])
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        await self.ask(f"unix:{path}", "status")

    async def heard(self, endpoint: Any, *headers: str) -> bytes:
        body = b'{"jsonrpc": "2.0", "id": 1, "method": "status"}'
        lines = [
            "POST /rpc HTTP/1.1",
            "Content-Type: application/json",
            "Connection: close",
            f"Content-Length: {len(body)}",
            *headers,
        ]
        request = "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body
        asking = await connectProtocol(endpoint, Hearing(request))
        return bytes((await asking.gone()).data).partition(b"\r\n")[0]

    async def test_pages(self) -> None:
        """A web page of somebody else's cannot ask through a browser on this machine,
        neither by its own name for us nor across sites."""
        opened = parseControl(self.reactor, "tcp:0:interface=127.0.0.1")
        control = self.start(opened)
        listening: Any = control._listening
        at = listening.getHost().port
        endpoint = HostnameEndpoint(self.reactor, "127.0.0.1", at)
        good, bad = b"HTTP/1.1 200 OK", b"HTTP/1.1 403 Forbidden"
        for headers, answer in (
            ([f"Host: 127.0.0.1:{at}"], good),
            ([f"Host: localhost:{at}"], good),
            ([f"Host: evil.example:{at}"], bad),
            ([f"Host: 127.0.0.1:{at}", "Origin: http://evil.example"], bad),
            ([f"Host: 127.0.0.1:{at}", "Sec-Fetch-Site: cross-site"], bad),
        ):
            self.assertEqual(await self.heard(endpoint, *headers), answer, headers)

    async def test_socketPages(self) -> None:
        """The same holds at a socket."""
        path = self.directory / "c.sock"
        self.start(parseControl(self.reactor, f"unix:{path}"))
        endpoint = UNIXClientEndpoint(self.reactor, str(path))
        self.assertEqual(
            await self.heard(endpoint, "Host: evil.example"), b"HTTP/1.1 403 Forbidden"
        )
