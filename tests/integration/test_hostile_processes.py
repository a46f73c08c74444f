"""
The two programs in a hostile world: secrets that must not be seen, descriptors
that are used up, and what C{--check} says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.loopback import Service, Talk
from tests.support.processes import Program

_FEW = (
    "from resource import RLIMIT_NOFILE, setrlimit\n"
    "setrlimit(RLIMIT_NOFILE, (160, 160))\n"
    "from twisted.scripts.twistd import run\n"
    "run()"
)

SECRETS = (
    "hunter2-the-password",
    "tun_guessed-wrong",
    "Zq9-fragment",
    "tun_in-the-address",
)


class HostileTestCase(ProcessTestCase):
    """A test that asks its server."""

    async def rpc(self, method: str, secret: str, **params: object) -> str:
        agent = Agent(self.reactor)
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = Headers(
            {
                "Content-Type": ["application/json"],
                "Authorization": [f"Bearer {secret}"],
            }
        )
        response = await agent.request(
            b"POST",
            f"http://127.0.0.1:{self.port}/rpc".encode(),
            headers,
            _Body(json.dumps(body).encode()),
        )
        return (await readBody(response)).decode()


class SecretTests(HostileTestCase):
    """Secrets are in no log, in no list of processes and in no answer."""

    def commandLine(self, program: Program) -> str:
        """What everybody on the machine sees of a program."""
        transport: Any = program.transport
        path = Path(f"/proc/{transport.pid}/cmdline")
        if not path.exists():
            self.skipTest("there is no /proc here")
        shown = path.read_bytes().replace(b"\0", b" ").decode()
        self.assertIn("tunnel-client", shown)
        return shown

    async def test_secrets(self) -> None:
        """Good and bad credentials, and the URI of a tunnel."""
        password, guess, fragment, _ = SECRETS
        clients = self.directory / "clients"
        clients.write_text(f"laptop:{password}\n")
        server = await self.server("--auth", f"clients:{clients}")
        good = await self.client(
            "--credentials",
            "id=laptop",
            "--credentials",
            f"secret={password}",
            "--forward",
            f"0=127.0.0.1:{self.offer(Service())}",
            fresh=True,  # with a command line of its own
        )
        self.assertNotIn(password, self.commandLine(good))
        bad = self.start(
            "tunnel-client",
            "--connect",
            f"tcp:127.0.0.1:{self.port}",
            "3000",
            environment={"TRISTUNNEL_TOKEN": guess},
        )
        await bad.says("Giving up")
        uri = f"w3p://127.0.0.1:{self.port}/0011223344556677#{fragment}"
        lost = self.start("tunnel-client", "--tunnel", uri, "--to", "127.0.0.1:1")
        await lost.says("has a secret on the command line")
        await lost.says("Not connected|Giving up")
        self.assertIn("did not accept", await self.rpc("listTunnels", guess))
        login = f"laptop:{password}"
        answers = [
            await self.rpc(method, login, **params)
            for method, params in (
                ("listTunnels", {}),
                ("listSessions", {}),
                ("openTunnel", {"via": "w3p", "port": "wrong"}),
                ("openTunnel", {"password": password}),
                ("nothing", {"token": guess}),
            )
        ]
        # Last, since by now this address has failed too often.
        where = f"ws://127.0.0.1:{self.port}/client/room?token={SECRETS[3]}"
        guest = self.start(
            *("tunnel-client", "--connect", where),
            *("--listen", "tcp:0", "--service", "x"),
            fresh=True,
        )
        await guest.says("has a secret on the command line")
        self.assertNotIn(SECRETS[3], self.commandLine(guest))
        await guest.says("ot connected|Giving up|refused")
        mistaken = self.start("tunnel-client", "--connect", uri, "--to", "127.0.0.1:1")
        await mistaken.whenEnded()
        said = "\n".join(
            line
            for program in (server, good, bad, lost, guest, mistaken)
            for line in (*program.lines, *answers)
        )
        for secret in SECRETS:
            self.assertNotIn(secret, said)
        self.assertIn("laptop", said)


@implementer(IBodyProducer)
class _Body:
    """A body that is all there."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def stopProducing(self) -> None:
        """Nothing to stop."""

    pauseProducing = resumeProducing = stopProducing


class DescriptorTests(HostileTestCase):
    """Visitors use up all the descriptors that they can have."""

    async def test_reserve(self) -> None:
        """
        They are turned away before the last ones are gone; the operator's call
        is answered all the while and tells of it, those who are in stay, and
        when they leave there is room again.
        """
        server = self.start(
            "tunnel",
            "--port",
            "tcp:0:interface=127.0.0.1",
            "--interface",
            "127.0.0.1",
            "--hostname",
            "127.0.0.1",
            code=_FEW,
        )
        await self.listening(server)
        service = Service(b"served")
        await self.client("--forward", f"0=127.0.0.1:{self.offer(service)}")
        talks = []
        for _ in range(200):
            talks.append(await self.visit())
        await server.says("descriptors")
        listed = json.loads(await self.rpc("listTunnels", "x"))
        (tunnel,) = listed["result"]
        self.assertGreater(tunnel["refusals"]["limit-reached"], 0)
        self.assertGreater(tunnel["visitors"], 20)
        talks[0].say(b"still here")
        await self.reaches(service, b"still here")
        for talk in talks:
            talk.abort()
            await talk.gone()
        # Those who left may have to be let in before they are seen to leave.
        while True:
            late = await self.visit()
            late.say(b"again")
            await late.until(lambda talk: talk.data or talk.eof or talk.lost)
            if late.data:
                break
        await self.reaches(service, b"again")

    async def reaches(self, service: Service, words: bytes) -> Talk:
        """
        Wait until somebody has said something to a service, whichever of its
        conversations that is.

        @return: The conversation.
        """
        while True:
            for talk in service.talks:
                if talk.data == words:
                    return talk
            await deferLater(self.reactor, 0.01)


class CheckTests(ProcessTestCase):
    """C{--check} of both programs."""

    async def test_good(self) -> None:
        """Where all is well each line says so, and the status is 0."""
        await self.server()
        client = self.start(
            "tunnel-client",
            "--check",
            "--connect",
            f"tcp:127.0.0.1:{self.port}",
            "--forward",
            f"0=127.0.0.1:{self.offer(Service())}",
            "--check-idle",
            "0.1",
        )
        await client.whenEnded()
        self.assertEqual(client.status, 0, client.lines)
        for subject in ("name", "route", "credential", "clock", "service"):
            await client.says(rf"^OK +{subject} ")
        await client.says(r"^WAIT +idle .*for 0.1 s")
        await client.says(r"^WARN +idle .*survived 0.1 s of silence")

    async def test_bad(self) -> None:
        """
        What is wrong is said with its cure, what builds upon it is left out,
        and the status is 1.
        """
        clients = self.directory / "clients"
        clients.write_text("laptop:secret\n")
        await self.server("--auth", f"clients:{clients}")
        for connect, line in (
            ("tcp:127.0.0.1:1", "^FAIL  route .*is the server running"),
            (f"tcp:127.0.0.1:{self.port}", "^FAIL  credential .*auth-refused"),
            (f"tls:127.0.0.1:{self.port}", "^FAIL  tls .*write tcp:"),
            (f"ws://127.0.0.1:{self.port}/no", "^FAIL  websocket .*check the path"),
        ):
            client = self.start("tunnel-client", "--check", "--connect", connect)
            await client.whenEnded()
            await client.says(line)
            self.assertEqual(client.status, 1)

    async def test_server(self) -> None:
        """The server's says whether it could start, without doing so."""
        server = await self.server()
        taken = f"tcp:{self.port}:interface=127.0.0.1"
        for port, status, line in (
            (taken, 1, "^FAIL  port .*in use.*stop the program that uses it"),
            ("tcp:0:interface=127.0.0.1", 0, "^OK +port .*is free"),
        ):
            check = self.start(
                "tunnel", "--check", "--port", port, "--interface", "127.0.0.1"
            )
            await check.whenEnded()
            await check.says(line)
            self.assertEqual(check.status, status, check.lines)
        self.assertIsNone(server.status)
