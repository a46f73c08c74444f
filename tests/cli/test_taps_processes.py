"""C{twistd tunnel} and C{twistd tunnel-client} as processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults, race
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody

from tests.support.listening import listenHere
from tests.support.loopback import Service, Talk, comeTo
from tests.support.processes import STEADY, Program, freePort, startTristunnel
from tests.tls.authority import Authority, makeAuthority
from tests.tls.files import replace

_LISTENING = r"Listening for clients on \S+:(\d+) "


class ProcessTestCase(TestCase):
    """A test with programs of ours."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self._talks: list[Talk] = []
        self.addCleanup(self._leaveAll)

    async def _leaveAll(self) -> None:
        for talk in self._talks:
            if talk.lost is None:
                talk.abort()
                await talk.gone()

    def start(self, command: str, *options: str, **more: Any) -> Program:
        state = ("--state-dir", str(self.directory / f"{command}-state"))
        given = options if "--state-dir" in options else (*options, *state)
        program = startTristunnel(
            self.reactor, command, list(given), self.directory, **more
        )
        self.addCleanup(program.kill)
        return program

    async def server(
        self, *options: str, port: str = "tcp:0:interface=127.0.0.1", **more: Any
    ) -> Program:
        where = ("--interface", "127.0.0.1", "--hostname", "127.0.0.1")
        program = self.start("tunnel", "--port", port, *where, *options, **more)
        if port.startswith(("tcp", "ssl", "haproxy:tcp:")):
            await self.listening(program)
        else:
            await program.says("Listening for clients on")
        return program

    async def listening(self, server: Program) -> None:
        self.port = int((await server.says(_LISTENING))[1])

    async def client(self, *options: str, connect: str = "", **more: Any) -> Program:
        connect = connect or f"tcp:127.0.0.1:{self.port}"
        program = self.start("tunnel-client", "--connect", connect, *options, **more)
        self.visitors = await self.address(program)
        return program

    async def address(self, client: Program, since: int = 0) -> int:
        return int((await client.says(r"^t(?:cp|ls)://[^:]+:(\d+)$", since))[1])

    def offer(self, service: Service) -> int:
        port = listenHere(self, self.reactor, service)
        self.addCleanup(self._endAll, service)
        return port

    async def _endAll(self, service: Service) -> None:
        for talk in service.talks:
            if talk.lost is None:
                talk.abort()
                await talk.gone()

    async def visit(self, port: int = 0) -> Talk:
        talk = await comeTo(self.reactor, port or self.visitors)
        self._talks.append(talk)
        return talk

    async def hears(self, service: Service, port: int = 0) -> None:
        visitor = await self.visit(port)
        await visitor.has(len(service.greeting))
        self.assertEqual(bytes(visitor.data), service.greeting)
        visitor.abort()

    async def ended(self, program: Program) -> int:
        """Wait for a program's end. @return: Its status."""
        await program.whenEnded()
        for line in program.lines:
            self.assertNotIn("Traceback", line, "\n".join(program.lines))
        assert program.status is not None
        return program.status

    def lines(self, program: Program, word: str) -> list[str]:
        return [line for line in program.lines if word in line]


class RestartTests(ProcessTestCase):
    """Programs that are killed and come back."""

    async def test_clientKilled(self) -> None:
        """A client that was killed and starts again has its port at once."""
        service = Service(b"hello")
        forward = ("--forward", f"0=127.0.0.1:{self.offer(service)}")
        await self.server()
        client = await self.client(*forward)
        before = self.visitors
        await client.kill()
        client = await self.client(*forward)
        self.assertEqual(self.visitors, before)
        await self.hears(service)
        # So has one that left in order.
        client.signal("TERM")
        self.assertEqual(await self.ended(client), -signal.SIGTERM)
        await self.client(*forward)
        self.assertEqual(self.visitors, before)

    async def test_serverKilled(self) -> None:
        """After a server was killed and starts again, its clients come back by
        themselves and have the ports that they had."""
        service = Service(b"hello")
        target = f"127.0.0.1:{self.offer(service)}"
        port = f"tcp:{freePort()}:interface=127.0.0.1"
        server = await self.server("--ports", STEADY, port=port)
        client = await self.client("--forward", f"0={target}")
        before = self.visitors
        await self.hears(service)
        since = len(client.lines)
        await server.kill()
        await self.server("--ports", STEADY, port=port)
        self.assertEqual(await self.address(client, since), before)
        await self.hears(service)


class StopTests(ProcessTestCase):
    """SIGTERM."""

    async def test_drain(self) -> None:
        """A server that is told to stop takes no new visitors, and lets those that are
        there finish."""
        service = Service()
        server = await self.server("--grace", "30")
        await self.client("--forward", f"0=127.0.0.1:{self.offer(service)}")
        visitor = await self.visit()
        talk = await service.arrivals.get()
        server.signal("TERM")
        await server.says("shutting down")
        await self._turnedAway(service)
        talk.say(b"the rest")
        await visitor.has(8)
        self.assertIsNone(server.status)
        talk.close()
        await visitor.ended()
        visitor.close()
        self.assertEqual(await self.ended(server), -signal.SIGTERM)
        self.assertEqual(bytes(visitor.data), b"the rest")

    async def _turnedAway(self, service: Service) -> None:
        """Come until nobody is let in, which is soon after the first line."""
        while True:
            late = await self.visit()
            which, seen = await race([late.ended(), service.arrivals.get()])
            if which == 0:
                self.assertEqual(bytes(late.data), b"")
                return
            seen.abort()

    async def test_graceEnds(self) -> None:
        """Streams get no more than the grace."""
        service = Service()
        server = await self.server("--grace", "0.3")
        await self.client("--forward", f"0=127.0.0.1:{self.offer(service)}")
        visitor = await self.visit()
        await service.arrivals.get()
        server.signal("TERM")
        self.assertEqual(await self.ended(server), -signal.SIGTERM)
        await visitor.gone()

    async def hurry(self, which: str) -> None:
        service = Service()
        server = await self.server("--grace", "1000")
        client = await self.client(
            "--grace", "1000", "--forward", f"0=127.0.0.1:{self.offer(service)}"
        )
        await self.visit()
        await service.arrivals.get()
        program = {"server": server, "client": client}[which]
        program.signal("TERM")
        await program.says("shutting down")
        await deferLater(self.reactor, 0.2)
        self.assertIsNone(program.status)
        program.signal("TERM")
        self.assertEqual(await self.ended(program), -signal.SIGTERM)

    async def test_secondSignalToServer(self) -> None:
        """A second SIGTERM ends a server at once."""
        await self.hurry("server")

    async def test_secondSignalToClient(self) -> None:
        """A second SIGTERM ends a client at once."""
        await self.hurry("client")


class CannotStartTests(ProcessTestCase):
    """Programs that end by themselves: with a line and a status."""

    async def test_portTaken(self) -> None:
        """A port that somebody has."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            server = self.start("tunnel", "--port", port)
            self.assertEqual(await self.ended(server), 1)
        (line,) = self.lines(server, "Cannot start")
        self.assertIn("in use", line)
        self.assertIn(port, line)

    async def test_portsTaken(self) -> None:
        """Several ports of several processes: a line for each, and no traceback."""
        with socket.socket() as one, socket.socket() as two:
            words = []
            for other in (one, two):
                other.bind(("127.0.0.1", 0))
                other.listen()
                port = other.getsockname()[1]
                words += ["--port", f"tcp:{port}:interface=127.0.0.1"]
            server = self.start("tunnel", *words, "--processes", "2")
            self.assertEqual(await self.ended(server), 1)
        self.assertEqual(len(self.lines(server, "Cannot start")), 2)
        self.assertEqual(self.lines(server, "Traceback"), [])

    async def test_usage(self) -> None:
        """A mistake on the command line."""
        program = self.start("tunnel-client", "--connect", "ssl:h:1")
        self.assertEqual(await self.ended(program), 2)
        (line,) = program.lines
        self.assertIn("twistd tunnel-client: --connect ssl: does not verify", line)

    async def test_portNotPermitted(self) -> None:
        """A port that the server does not give out, or that is privileged."""
        server = await self.server()
        await server.says("ANYBODY MAY CONNECT .*--auth")
        client = self.start(
            "tunnel-client",
            "--connect",
            f"tcp:127.0.0.1:{self.port}",
            "--forward",
            "80=localhost:1",
        )
        self.assertEqual(await self.ended(client), 1)
        (line,) = self.lines(client, "No tunnel for port 80")
        self.assertIn("start the server with --ports", line)


class DemoTests(ProcessTestCase):
    """C{twistd tunnel --demo}."""

    async def test_demo(self) -> None:
        """It prints what to open, and its address alone on a line: a page with
        the three commands for an own service, and the dashboard."""
        demo = self.start("tunnel", "--demo")
        (address,) = (await demo.says(r"^(http://\S+)$")).groups()
        response = await Agent(self.reactor).request(b"GET", address.encode())
        page = await readBody(response)
        self.assertIn(b"It works", page)
        for command in (
            b"tristunnel server",
            b"tristunnel join",
            b"tristunnel http 3000",
        ):
            self.assertIn(b"<code>" + command, page)
        await demo.says("dashboard is at")
        (dashboard,) = (await demo.says(rf"^(http://(?!{address[7:]})\S+)$")).groups()
        self.assertIn(f'<a href="{dashboard}">'.encode(), page)
        for url, words in (
            (dashboard, b"tristunnel at"),
            (f"{address}copy.js", b"clipboard"),
            (f"{address}style.css", b".copy"),
        ):
            response = await Agent(self.reactor).request(b"GET", url.encode())
            self.assertIn(words, await readBody(response))
        # No access log, whose dates would be those of a clock that starts at 0.
        self.assertEqual(self.lines(demo, "/1970"), [])
        self.assertEqual(self.lines(demo, "GET /"), [])
        demo.signal("TERM")
        self.assertEqual(await self.ended(demo), -signal.SIGTERM)


class EndpointTests(ProcessTestCase):
    """Every way from a client to a server."""

    async def through(self, *options: str, connect: str = "") -> Program:
        service = Service(b"hello")
        client = await self.client(
            *options, "--forward", f"0=127.0.0.1:{self.offer(service)}", connect=connect
        )
        await self.hears(service)
        return client

    async def test_credentials(self) -> None:
        """A client whose secret is right comes in under its name; another one ends with
        a line and a status."""
        clients = self.directory / "clients"
        clients.write_text("laptop:right\n")
        server = await self.server("--auth", f"clients:{clients}")
        secrets = self.directory / "me.json"
        secrets.write_text('{"id": "laptop", "secret": "right"}')
        await self.through("--credentials-file", str(secrets))
        self.assertTrue(self.lines(server, "Client laptop connected"))
        self.assertEqual(self.lines(server, "ANYBODY"), [])
        # Refused is who has another secret; that is a status and a line.
        client = self.start(
            "tunnel-client",
            "--connect",
            f"tcp:127.0.0.1:{self.port}",
            "1",
            environment={"TRISTUNNEL_CREDENTIALS": '{"id":"laptop","secret":"wrong"}'},
        )
        self.assertEqual(await self.ended(client), 1)
        (line,) = self.lines(client, "Giving up")
        self.assertIn("did not accept these credentials", line)
        self.assertEqual(self.lines(client, "Not connected"), [])
        self.assertEqual(self.lines(server, "wrong"), [])

    async def test_selfSigned(self) -> None:
        """C{ssl:} makes a certificate and prints the command that pins it; that command
        works, word for word."""
        server = await self.server(port="ssl:0:interface=127.0.0.1")
        line = (await server.says("Clients pin it: (.*)"))[1]
        words = re.fullmatch(
            r"twistd -n --pidfile= tunnel-client --connect (\S+) --pin (\S+)", line
        )
        assert words is not None, line
        self.assertEqual(words[1], f"tls:127.0.0.1:{self.port}")
        await self.through("--pin", words[2], connect=words[1])
        # Another certificate is not accepted, and the reason is a line.
        other = self.start(
            "tunnel-client", "--connect", words[1], "--pin", "ab" * 32, "1"
        )
        await other.says("Not connected: .*pin")

    async def test_systemd(self) -> None:
        """A socket that systemd passes on."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            self.port = listening.getsockname()[1]
            # LISTEN_PID must be the program's own, which only itself knows.
            code = (
                "import os; os.environ.update(LISTEN_PID=str(os.getpid()),"
                " LISTEN_FDS='1', LISTEN_FDNAMES='x');"
                "from twisted.scripts.twistd import run; run()"
            )
            program = self.start(
                "tunnel",
                "--port",
                "systemd:domain=INET:index=0",
                "--interface",
                "127.0.0.1",
                "--hostname",
                "127.0.0.1",
                code=code,
                childFDs={0: "w", 1: "r", 2: "r", 3: listening.fileno()},
                fresh=True,  # Twisted looks when it is imported
            )
        await program.says("Listening for clients on")
        await self.through()

    async def test_otherKind(self) -> None:
        """A client that reaches a server of another kind says what to write."""
        authority = makeAuthority()
        files = self.certificate(authority)
        secure = await self.server("--certificate", files)
        client = self.start(
            "tunnel-client", "--connect", f"tcp:127.0.0.1:{self.port}", "1"
        )
        await client.says("Not connected: .*write tls: instead of tcp:")
        await secure.says("closed: the peer did not use TLS, .*tls: instead of tcp:")
        await gatherResults([client.kill(), secure.kill()])
        plain = await self.server()
        client = self.start(
            "tunnel-client",
            "--connect",
            f"tls:127.0.0.1:{self.port}",
            "--insecure",
            "1",
        )
        await client.says(f"Not connected: .*write tcp:127.0.0.1:{self.port} instead")
        await plain.says("closed: the peer sent a TLS hello.*tcp: instead of tls:")
        self.assertEqual(self.lines(plain, "Traceback"), [])

    def certificate(self, authority: Authority) -> str:
        """Write, or renew, the server's certificate. @return: Its path."""
        certificate, key = authority.issue(["localhost", "127.0.0.1", "::1"])
        return str(replace(self.directory / "cert.pem", certificate + key))


class StateTests(ProcessTestCase):
    """What a client remembers."""

    async def test_unusable(self) -> None:
        """A state file that is damaged or in use, or a directory that cannot be used,
        is a line, and the client works."""
        service = Service(b"hello")
        forward = ("--forward", f"0=127.0.0.1:{self.offer(service)}")
        await self.server()
        client = await self.client(*forward)
        await client.kill()
        (path,) = (self.directory / "tunnel-client-state").glob("lease-*.json")
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(
            json.loads(path.read_text())["ports"], {forward[1]: self.visitors}
        )
        path.write_bytes(os.urandom(200))
        client = await self.client(*forward)
        self.assertEqual(len(self.lines(client, "is damaged")), 1)
        before = self.visitors
        # Another one that is alike has tunnels of its own, and says so.
        second = await self.client(*forward)
        self.assertNotEqual(self.visitors, before)
        self.assertEqual(len(self.lines(second, "Another client like this")), 1)
        self.assertEqual(self.lines(client, "Not connected"), [])
        client = await self.client(*forward, "--state-dir", "/proc/nowhere")
        self.assertEqual(len(self.lines(client, "writable --state-dir")), 1)
