"""On-demand access: C{twistd tunnel-access} and C{tristunnel access}."""

from __future__ import annotations

import json
import os
import socket
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.loopback import LoopbackTestCase, Service
from tests.support.polling import until
from tests.support.processes import startTristunnel
from tests.support.short import shortDirectory
from tristunnel.cli.access_tap import Options
from tristunnel.cli.main import parser
from tristunnel.client.access import AccessService
from tristunnel.client.control import (
    ClientControl,
    ControlPort,
    accessSocket,
    accessSockets,
)
from tristunnel.client.local import localEndpoint
from tristunnel.client.visitor import LocalPort
from tristunnel.connect.address import (
    ServerAddress,
    Trust,
    parseAccessURI,
    parseConnect,
)
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.dialect import bySession
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.service.caller import Caller
from tristunnel.service.granting import Granting

URI = "w3p://server:9000/access/0011#secret"


class OptionTests(SynchronousTestCase):
    """The command line."""

    def parse(self, *arguments: str, **environment: str) -> Options:
        options = Options()
        with patch.dict("os.environ", {"XDG_STATE_HOME": "/nowhere", **environment}):
            options.parseOptions(arguments)
        return options

    def test_named(self) -> None:
        """A server, a name, a port and a time."""
        options = self.parse(
            *("--connect", "tls:server:9000", "--service", "ssh", "--ttl", "90m"),
            *("--listen", "tcp:2222:interface=127.0.0.1"),
            TRISTUNNEL_TOKEN="t",
        )
        self.assertEqual(options.server.where, "tls:server:9000")
        self.assertEqual(options.ttl, 5400.0)
        self.assertEqual(options.credentials, {"token": "t"})
        self.assertEqual(options.stateDirectory, Path("/nowhere/tristunnel"))

    def test_capability(self) -> None:
        """A capability says which server and service, also from the environment."""
        for options in (self.parse("--access", URI), self.parse(TRISTUNNEL_ACCESS=URI)):
            self.assertEqual(options.server.host, "server")
            self.assertEqual(options.server.access, {"id": "0011", "secret": "secret"})
            self.assertEqual(options.ttl, 3600.0)

    def test_refused(self) -> None:
        """What makes no sense is refused in one line, which has no secret."""
        for arguments, part in (
            ("", "which service?"),
            ("--connect tcp:h:1", "which service?"),
            ("--access w3p://server:9000/0011#secret", "grantAccess"),
            ("--access http://server/access/1#secret", "grantAccess"),
            ("--access w3p://[server:9000/access/1#secret", "grantAccess"),
            (f"--access {URI} --ttl soon", "is not a duration"),
            (f"--access {URI} --ttl 31d", "up to 30d"),
            (f"--access {URI} --listen nonsense:1", "is not a valid endpoint"),
            (f"--access {URI} --grace -1", "--grace"),
            (f"--access {URI} --insecure --ca x", "--insecure"),
        ):
            error = self.assertRaises(UsageError, self.parse, *arguments.split())
            self.assertIn(part, str(error))
            self.assertNotIn("secret", str(error))

    def test_tls(self) -> None:
        """C{w3ps} is over TLS."""
        from twisted.internet import reactor

        address = parseAccessURI(reactor, URI.replace("w3p:", "w3ps:"), Trust())
        self.assertEqual(address.where, "tls:server:9000")


class AccessCase(LoopbackTestCase):
    async def begin(self, service: Service) -> None:
        await self.startServer()
        await self.startClient(f"ssh=127.0.0.1:{self.offer(service)}")
        self.owner = Caller(Identity("anonymous", anonymous=True), "127.0.0.1")

    def access(self, server: ServerAddress, name: str = "ssh") -> AccessService:
        """Make the visitors' side; C{self.ends} has the reasons of its end."""
        self.ends: list[TunnelError] = []
        self.gaveUp: Deferred[TunnelError] = Deferred()
        client = TunnelClientService(
            self.reactor,
            server,
            [],
            {},
            self.seen,
            grace=0.0,
            gaveUp=self.gaveUp.callback,
            delay=lambda failures, hint: 0.02,
        )
        where = "tcp:0:interface=127.0.0.1"
        self.port = LocalPort(
            self.reactor,
            localEndpoint(self.reactor, where),
            where,
            bySession(client, name),
            "ssh",
            0.0,
        )
        return AccessService(
            self.reactor, client, self.port, server.where, 3600.0, self.ends.append
        )

    def byName(self) -> ServerAddress:
        where = f"tcp:127.0.0.1:{self.serverPort}"
        return parseConnect(self.reactor, where, Trust())

    async def byCapability(self, uses: int = 0) -> ServerAddress:
        self.uri = await Granting(self.tunnels).grantAccess(
            self.owner, "ssh", 3600.0, "", "", uses
        )
        return parseAccessURI(self.reactor, self.uri, Trust())

    async def run_(self, access: AccessService) -> int:
        """Start it, and wait until it is connected. @return: The local port."""
        access.startService()
        self.addCleanup(self._stop, access)
        await until(
            lambda: (
                access.client.session is not None and self.port.listening is not None
            )
        )
        address: Any = self.port.listening.getHost()
        return int(address.port)


class AccessTests(AccessCase):
    """A local port to a named service."""

    async def test_byName(self) -> None:
        """What connects there reaches the service; who is there is listed."""
        service = Service(b"hello")
        await self.begin(service)
        access = self.access(self.byName())
        port = await self.run_(access)
        visitor, arrival = await self.pair(port, service)
        visitor.say(b"question")
        await gatherResults([visitor.has(5), arrival.has(8)])
        own, guest = access.describe()
        self.assertEqual(own["listen"], f"127.0.0.1:{port}")
        self.assertEqual((own["kind"], own["visitors"]), ("access", 1))
        self.assertEqual((own["bytesIn"], own["bytesOut"]), (8, 5))
        here = visitor.transport.getHost()
        self.assertEqual(guest["from"], f"127.0.0.1:{here.port}")
        self.assertEqual(guest["id"], f"{access.id}.1")
        visitor.finish()
        await arrival.ended()
        arrival.finish()
        await visitor.gone()
        await until(lambda: len(access.describe()) <= 1)
        self.assertEqual(access.describe()[0]["visitorsTotal"], 1)
        self.assertEqual(access.describe()[0]["bytesIn"], 8)

    async def test_byCapability(self) -> None:
        """A capability needs no name and no credentials."""
        service = Service(b"hello")
        await self.begin(service)
        port = await self.run_(self.access(await self.byCapability(), name=""))
        visitor = await self.visit(port)
        await visitor.has(5)

    async def test_kick(self) -> None:
        """One visitor is sent away, and the others stay."""
        service = Service()
        await self.begin(service)
        access = self.access(self.byName())
        port = await self.run_(access)
        first, one = await self.pair(port, service)
        second, other = await self.pair(port, service)
        access.close(f"{access.id}.1")
        await gatherResults([first.gone(), one.gone()])
        second.say(b"still here")
        await other.has(10)
        for wrong in (f"{access.id}.1", f"{access.id}.x", "a.1", ""):
            self.assertRaises(TunnelError, access.close, wrong)

    async def test_timeUp(self) -> None:
        """When the time is over, streams end wherever they are."""
        service = Service()
        await self.begin(service)
        access = self.access(self.byName())
        port = await self.run_(access)
        visitor, arrival = await self.pair(port, service)
        visitor.say(bytes(100_000))
        await arrival.has(1)
        timer: Any = access._timer
        timer.reset(0)
        await gatherResults([visitor.gone(), arrival.gone()])
        self.assertEqual([end.code.name for end in self.ends], ["expired"])

    def test_clock(self) -> None:
        """The time counts from the start, to the second, and a stop ends it."""
        clock = Clock()
        ends: list[TunnelError] = []
        client: Any = TunnelClientService(clock, self._nowhere(), [])
        port: Any = LocalPort(clock, self._nobody(), "x", bySession(client, ""), "x")
        access = AccessService(clock, client, port, "y", 60.0, ends.append)
        with patch.object(client, "startService"), patch.object(port, "startService"):
            access.startService()
        self.assertEqual(access.describe()[0]["timeLeft"], 60.0)
        clock.advance(59.9)
        self.assertEqual(ends, [])
        clock.advance(0.1)
        self.assertEqual(len(ends), 1)
        self.assertEqual(clock.getDelayedCalls(), [])

    def _nowhere(self) -> ServerAddress:
        return ServerAddress("nowhere", "nowhere", None)  # type: ignore[arg-type] # nobody connects

    def _nobody(self) -> Any:
        return None

    async def test_capabilityEnds(self) -> None:
        """When the server's time for a capability is over, streams end. Over plain TCP
        anybody may have said so: the visitors' side tries again, and says so."""
        service = Service()
        await self.begin(service)
        access = self.access(await self.byCapability(), name="")
        port = await self.run_(access)
        visitor, arrival = await self.pair(port, service)
        (grant,) = self.tunnels.access.of(None)
        queued: Deferred[float] = Deferred()

        def note(delay: float) -> None:
            if not queued.called:
                queued.callback(delay)

        self.patch(self.seen, "reconnectQueued", note)
        Granting(self.tunnels).revokeAccess(self.owner, grant.id)
        await gatherResults([visitor.gone(), arrival.gone()])
        await queued
        self.assertFalse(self.gaveUp.called)

    async def test_usedTwice(self) -> None:
        """A capability for one use is good for one session."""
        await self.begin(Service())
        server = await self.byCapability(uses=1)
        await self.run_(self.access(server, name=""))
        again = self.access(server, name="")
        again.startService()
        self.addCleanup(self._stop, again)
        reason = await self.gaveUp
        self.assertEqual(reason.code.name, "auth-refused")

    async def test_otherService(self) -> None:
        """A capability reaches nothing else."""
        await self.begin(Service())
        other = Service()
        await self.startClient(f"db=127.0.0.1:{self.offer(other)}")
        port = await self.run_(self.access(await self.byCapability(), name="db"))
        visitor = await self.visit(port)
        await visitor.gone()
        self.assertEqual(other.talks, [])

    async def test_unknownService(self) -> None:
        """A visitor of no service is turned away."""
        await self.begin(Service())
        port = await self.run_(self.access(self.byName(), name="none"))
        visitor = await self.visit(port)
        await visitor.gone()


class ControlTests(AccessCase):
    """C{tristunnel access}."""

    async def command(self, *arguments: str) -> str:
        state = ("--state-dir", str(self.directory))
        options = parser().parse_args(["access", *arguments, *state])
        with redirect_stdout(StringIO()) as output:
            await options.run(self.reactor, options)
        return output.getvalue()

    def startControl(self, port: ControlPort, access: AccessService) -> None:
        control = ClientControl(self.reactor, port, access.methods)
        control.startService()
        self.addCleanup(self._stop, control)

    async def test_list(self) -> None:
        """What is open is listed, and ended, by its id; nobody else may ask."""
        service = Service()
        await self.begin(service)
        access = self.access(self.byName())
        port = await self.run_(access)
        control = accessSocket(self.reactor, self.directory, access.id)
        self.startControl(control, access)
        assert control.path is not None
        self.assertEqual(control.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(control.path.parent.stat().st_mode & 0o777, 0o700)
        stale = accessSockets(self.directory) / "a00.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(os.path.relpath(stale))
        visitor, _ = await self.pair(port, service)
        listed = await self.command("list")
        first, second = listed.splitlines()
        self.assertIn(f"{access.id}  127.0.0.1:{port} to ssh at tcp:", first)
        self.assertIn("left, 1 visitors", first)
        self.assertIn(f"  {access.id}.1  from 127.0.0.1:", second)
        self.assertFalse(stale.exists())
        listed = await self.command("list", "--json")
        self.assertEqual(json.loads(listed.splitlines()[1])["kind"], "visitor")
        await self.command("end", f"{access.id}.1")
        await visitor.gone()
        for wrong in (f"{access.id}.1", "a11"):
            with self.assertRaises(TunnelError):
                await self.command("end", wrong)
        await self.command("end", access.id)
        # The answer goes out first.
        await until(lambda: self.ends)
        self.assertEqual([end.code.name for end in self.ends], ["closed"])

    async def test_nothing(self) -> None:
        """Where nothing is open, nothing is listed."""
        self.assertEqual(await self.command("list"), "")

    async def test_longPath(self) -> None:
        """Where no socket can be, access works without."""
        await self.begin(Service())
        access = self.access(self.byName())
        directory = self.directory / ("x" * 120)
        self.startControl(accessSocket(self.reactor, directory, access.id), access)


class ProcessTests(TestCase):
    """The programs."""

    timeout = 60

    async def test_all(self) -> None:
        """A port is open for a while; then the program ends by itself, and leaves
        nothing behind."""
        from twisted.internet import reactor

        directory = shortDirectory(self)

        def start(name: str, *options: str) -> Any:
            program = startTristunnel(
                reactor, name, [*options, "--state-dir", str(directory)], directory
            )
            self.addCleanup(program.stop)
            return program

        server = start("tunnel", "--port", "tcp:0:interface=127.0.0.1")
        listening = await server.says(r"Listening for clients on 127.0.0.1:(\d+)")
        where = f"tcp:127.0.0.1:{listening[1]}"
        client = start("tunnel-client", "--connect", where, "--forward", f"me={where}")
        await client.says("Visitors of")
        access = start(
            *("tunnel-access", "--connect", where, "--service", "me"),
            *("--listen", "tcp:0:interface=127.0.0.1", "--ttl", "2"),
        )
        await access.says("ends in 2s")
        here = await access.says(r"Visitors of (127.0.0.1:\d+) reach me")
        await access.says(f"^{here[1]}$")
        await access.says("ended: the 2s of access have passed")
        await access.whenEnded()
        self.assertEqual(access.status, 0)
        access = start("tunnel-access", "--access", f"w3p://{where[4:]}/access/1#2")
        await access.says("this access does not exist")
        await access.whenEnded()
        self.assertEqual(access.status, 1)
        self.assertEqual(list(accessSockets(directory).iterdir()), [])
