"""Names of one server, of one in two processes, and of one on two machines."""

from __future__ import annotations

import os
import re
import signal
import ssl
import struct
from http.client import HTTPConnection, HTTPException
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tests.cli.test_taps_processes import ProcessTestCase
from tests.processes.test_server import children, pidOf
from tests.support.listening import listenHere
from tests.support.loopback import Service, Talk
from tests.support.minecraft import handshake
from tests.support.notes import ClientNotes
from tests.support.polling import until
from tests.support.processes import Program, freePort, freePorts
from tests.support.redis import RedisServer
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.forwards.forward import parseForward

LONG = bool(os.environ.get("TRISTUNNEL_LONG"))

VISITS = 8
"""Connections for each name, which come to either member."""


class Page(Resource):
    """Says for whom it is, and what it was told of the visitor."""

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def render_GET(self, request: Request) -> bytes:
        who = request.getHeader("x-forwarded-for") or ""
        return f"{self._name} for {who}\n".encode()


def hello(name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    try:
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("nobody has answered")


def startup(database: str) -> bytes:
    words = b"user\0me\0database\0" + database.encode() + b"\0\0"
    return struct.pack("!II", len(words) + 8, 196608) + words


class NamesTestCase(ProcessTestCase):
    """
    Two clients with names of every kind, if possible at two members.

    @ivar hosts: The addresses that visitors come to.
    @ivar ports: The ports there, by option.
    @ivar offered: How many clients there are.
    @cvar members: How many members the clients must be at.
    """

    timeout = 120
    members: ClassVar[int]
    kinds: ClassVar[tuple[str, ...]] = ("http", "https", "minecraft", "postgres")

    def setUp(self) -> None:
        super().setUp()
        self.hosts = ["127.0.0.1"]
        self.offered = 0
        self.ports = {kind: freePort() for kind in ("port", *self.kinds)}
        self.services = {kind: Service() for kind in ("tls", "minecraft", "postgres")}
        self.log = self.directory / "access.log"
        self.pin = self.directory / "pin"
        self.pin.write_text("258025")
        self.pin.chmod(0o600)

    def options(self, host: str) -> list[str]:
        return [
            *(
                word
                for kind in self.kinds
                for word in (f"--{kind}", f"tcp:{self.ports[kind]}:interface={host}")
            ),
            *("--domain", "t.example", "--access-log", str(self.log)),
        ]

    async def begin(self) -> None:
        raise NotImplementedError

    def place(self, client: int) -> str:
        return f"tcp:{self.hosts[client % len(self.hosts)]}:{self.ports['port']}"

    async def atMembers(self) -> int:
        return 1

    async def clients(self) -> list[str]:
        """Start clients until there is one at each member; what their names end in."""
        started: list[str] = []
        while not started or await self.atMembers() < self.members:
            await self.offering(f"{len(started)}")
            started.append(f"{len(started)}")
        return started

    async def offering(self, which: str) -> None:
        """Start a client that offers services under names."""
        self.offered += 1
        web = listenHere(self, self.reactor, Site(Page(f"web{which}"), timeout=None))
        dead = freePort()
        specs = [
            f"http/web{which}=127.0.0.1:{web}",
            f"http/web{which}/dead=127.0.0.1:{dead}",
            f"http/asks{which}=127.0.0.1:{web},pin={self.pin}",
            *(
                f"{kind}/{kind}{which}=127.0.0.1:{self.offer(service)}"
                for kind, service in self.services.items()
            ),
        ]
        seen, ready = ClientNotes(), Deferred[None]()

        def told(event: tuple[Any, ...]) -> None:
            if len(seen.named("tunnelReady")) == len(specs) and not ready.called:
                ready.callback(None)

        seen.listeners.append(told)
        client = TunnelClientService(
            self.reactor,
            parseConnect(self.reactor, self.place(int(which)), Trust()),
            [parseForward(self.reactor, spec) for spec in specs],
            {"id": f"client{which}"},
            seen,
        )
        client.startService()
        self.addCleanup(client.stopService)
        await ready

    def visits(
        self,
        secure: bool,
        host: str,
        wanted: list[tuple[str, str]],
        cookie: str = "a=b",
    ) -> Any:
        """
        Make requests on one connection, in a thread.

        @param wanted: The name and the path of each.
        @param cookie: What they say in C{Cookie}.
        @return: Fires with the status and the body of each answer.
        """
        port = self.ports["https" if secure else "http"]

        def asking() -> list[tuple[int, str]]:
            connection = HTTPConnection(host, port, timeout=30)
            connection.connect()
            if secure:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                connection.sock = context.wrap_socket(
                    connection.sock, server_hostname=wanted[0][0]
                )
            answers = []
            for name, path in wanted:
                connection.request(
                    "GET", path, headers={"Host": name, "Cookie": cookie}
                )
                answer = connection.getresponse()
                answers.append((answer.status, answer.read().decode()))
            connection.close()
            return answers

        return deferToThread(asking)

    def signsIn(self, host: str, name: str) -> Any:
        """Give a PIN, in a thread; the cookie."""

        def asking() -> str:
            connection = HTTPConnection(host, self.ports["http"], timeout=30)
            kind = "application/x-www-form-urlencoded"
            headers = {"Host": name, "Content-Type": kind}
            connection.request("POST", "/.tristunnel/sign-in", "pin=258025", headers)
            cookie = connection.getresponse().headers["Set-Cookie"].partition(";")[0]
            connection.close()
            return cookie

        return deferToThread(asking)

    async def says(self, kind: str, host: str, first: bytes) -> None:
        """Come to a name by the first bytes, which its service gets as they are."""
        talk = Talk()
        port = self.ports["https" if kind == "tls" else kind]
        await connectProtocol(TCP4ClientEndpoint(self.reactor, host, port), talk)
        self._talks.append(talk)
        talk.say(first)
        arrival = await self.services[kind].arrivals.get()
        await arrival.has(len(first))
        self.assertEqual(bytes(arrival.data), first)
        arrival.say(b"answer")
        arrival.finish()
        await talk.ended()
        self.assertEqual(bytes(talk.data), b"answer")
        talk.finish()
        await arrival.ended()


class Cases:
    """What is the same everywhere; beside a L{NamesTestCase}."""

    async def test_names(self: Any) -> None:
        """
        Whatever member a visitor comes to, it reaches the service of each name: by
        connections of their own, by one for several names, over TLS, by the first
        bytes of other protocols; and it is told what is not there.
        """
        await self.begin()
        which = await self.clients()
        names = [f"web{each}.t.example" for each in (which[0], which[-1])]
        pages = [f"{name.partition('.')[0]} for 127.0.0." for name in names]
        for host in self.hosts:
            for secure in (False, True):
                for number in range(VISITS):
                    wanted = [(names[(number + n) % 2], "/") for n in range(3)]
                    for n, (status, body) in enumerate(
                        await self.visits(secure, host, wanted)
                    ):
                        self.assertEqual(status, 200, (host, number, n, body))
                        self.assertIn(pages[(number + n) % 2], body)
            for each in (which[0], which[-1]):
                for _ in range(2):
                    await self.says("tls", host, hello(f"tls{each}.t.example"))
                    await self.says(
                        "minecraft", host, handshake(f"minecraft{each}.t.example")
                    )
                    await self.says("postgres", host, startup(f"postgres{each}"))
            for name, path, status in (
                (names[0], "/dead", 502),
                (names[1], "/dead", 502),
                ("nobody.t.example", "/", 404),
            ):
                answers = await self.visits(False, host, [(name, path)])
                self.assertEqual(answers[0][0], status)
        # A visitor may have the answer before the line is written.
        visits = (6 * VISITS + 3) * len(self.hosts)
        await until(lambda: len(self.log.read_text().splitlines()) >= visits)
        self.assertEqual(len(self.log.read_text().splitlines()), visits)

    async def test_gate(self: Any) -> None:
        """Each member asks visitors of any name, and knows who has signed in at one."""
        await self.begin()
        names = [f"asks{each}.t.example" for each in await self.clients()]
        for name in (names[0], names[-1]):
            cookie = await self.signsIn(self.hosts[0], name)
            for host in self.hosts:
                for _ in range(VISITS):
                    ((status, _),) = await self.visits(False, host, [(name, "/")])
                    self.assertEqual(status, 401)
                    answers = await self.visits(False, host, [(name, "/")] * 2, cookie)
                    self.assertEqual([status for status, _ in answers], [200, 200])


class OneProcessTests(Cases, NamesTestCase):
    """A server that is one process."""

    members = 1
    if not LONG:
        skip = "set TRISTUNNEL_LONG=1 for names of one process"

    async def begin(self) -> None:
        port = f"tcp:{self.ports['port']}:interface=127.0.0.1"
        self.one = await self.server(*self.options(self.hosts[0]), port=port)


class TwoProcessesTests(Cases, NamesTestCase):
    """A server that is two processes."""

    members = 2

    async def begin(self) -> None:
        port = f"tcp:{self.ports['port']}:interface=127.0.0.1"
        options = self.options(self.hosts[0])
        self.one = await self.server("--processes", "2", *options, port=port)
        pattern = f"Listening for clients on 127.0.0.1:{self.ports['port']} "
        while len(self.lines(self.one, pattern)) < 2:
            await self.one.says(pattern, len(self.one.lines))

    async def atMembers(self) -> int:
        opened = r"in process (\d)\].* is open at"
        return len({m[1] for m in map(re.compile(opened).search, self.one.lines) if m})

    async def test_ended(self) -> None:
        """
        Processes end, killed or in good order: visitors of each name wait until its
        client is back, and none is told that there is nobody.
        """
        if not LONG:
            raise SkipTest("set TRISTUNNEL_LONG=1 to end one process after the other")
        await self.begin()
        which = await self.clients()
        names = [f"web{each}.t.example" for each in (which[0], which[-1])]
        for how in (signal.SIGKILL, signal.SIGTERM):
            for pid in children(pidOf(self.one)):
                since = len(self.one.lines)
                os.kill(pid, how)
                for name in names * 5:
                    try:
                        answers = await self.visits(False, self.hosts[0], [(name, "/")])
                    except (OSError, HTTPException) as problem:
                        # It was on its way to the process that was killed.
                        self.assertEqual(how, signal.SIGKILL, repr(problem))
                    else:
                        self.assertEqual([status for status, _ in answers], [200])
                await self.one.says("Listening for clients on", since)


class TwoMachinesTests(Cases, NamesTestCase):
    """A server on two machines, which are two addresses of this one."""

    members = 2
    processes: ClassVar[int] = 1
    if not LONG:
        skip = "set TRISTUNNEL_LONG=1 for names of a cluster"

    async def begin(self) -> None:
        self.hosts = ["127.0.0.1", "127.0.0.2"]
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.redis.start()
        secret = self.directory / "member"
        secret.write_text("a secret of the cluster")
        secret.chmod(0o600)
        self.machines = [await self.machine(host) for host in self.hosts]
        # For the grace of an engine that is new.
        await deferLater(self.reactor, 3.5)

    async def machine(self, host: str) -> Program:
        machine = self.start(
            "tunnel",
            *("--port", f"tcp:{self.ports['port']}:interface={host}"),
            *("--interface", host, "--hostname", "t.example"),
            *("--cluster", f"redis+unix:{self.redis.path}"),
            *("--cluster-listen", f"tcp:{host}:{freePorts(self.processes, host)}"),
            *("--processes", str(self.processes)),
            *("--cluster-token-file", str(self.directory / "member")),
            *("--state-dir", str(self.directory / host)),
            *self.options(host),
        )
        for line, count in (
            ("Listening for ", len(self.ports)),
            ("The cluster's book is there", 1),
        ):
            since = 0
            for _ in range(self.processes * count):
                since = await self._line(machine, line, since)
        return machine

    async def test_restarted(self) -> None:
        """A machine that is started again knows the names before it listens."""
        await self.begin()
        await self.offering("0")
        await self.machines[1].kill()
        await self.machine(self.hosts[1])
        wanted = [("web0.t.example", "/")]
        answers = await self.visits(False, self.hosts[1], wanted)
        self.assertEqual([status for status, _ in answers], [200])

    async def atMembers(self) -> int:
        return self.offered

    async def _line(self, machine: Program, text: str, since: int) -> int:
        """
        Wait for a line.

        @param since: Where to begin.
        @return: Where it is, and one more.
        """
        found = await machine.says(text, since)
        return machine.lines.index(found.string, since) + 1


class MachinesOfProcessesTests(TwoMachinesTests):
    """A server on two machines, each with two processes."""

    members = 4
    processes = 2
