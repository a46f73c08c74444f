"""Visits by standard input and output: C{tristunnel connect}."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.stdio import StandardIO
from twisted.internet.threads import deferToThread
from twisted.python.usage import UsageError
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.support.loopback import LoopbackTestCase, Service
from tests.support.processes import startProgram
from tristunnel.cli.client_tap import Options as ClientOptions
from tristunnel.cli.connect import Options
from tristunnel.client import standard
from tristunnel.client.standard import StandardEnd, StandardVisit, openStandard
from tristunnel.connect.address import parseConnect
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.dialect import bySession
from tristunnel.errors import TunnelError

DATA = os.urandom(1_000_000)


class OptionTests(SynchronousTestCase):
    """The command line."""

    def test_refused(self) -> None:
        """What makes no sense is refused in one line."""
        connect = ("--connect", "tcp:localhost:1")
        for words, part in (
            (connect, "which service?"),
            (("a", "b", *connect), "'b' is one word too many"),
            (("a", "--forward", "3000", *connect), "unknown option --forward"),
            (("a", "--dialect", "vtunnel", *connect), "vtunnel"),
        ):
            error = self.assertRaises(UsageError, Options().parseOptions, words)
            self.assertIn(part, str(error))

    def test_service(self) -> None:
        """A word is the service; there is no port."""
        options = Options()
        options.parseOptions(["db", "--connect", "tcp:localhost:1"])
        self.assertEqual(options["service"], "db")
        self.assertIsNone(options.localEndpoint)

    def test_listen(self) -> None:
        """C{--listen stdio:} names the command that there is for it."""
        words = ["--connect", "tcp:h:1", "--service", "db", "--listen", "stdio:"]
        error = self.assertRaises(UsageError, ClientOptions().parseOptions, words)
        self.assertIn("tristunnel connect SERVICE", str(error))


class VisitTests(LoopbackTestCase):
    """A visit by two pipes, or by one socket."""

    async def begin(self, service: Service) -> None:
        await self.startServer()
        await self.startClient(f"db=127.0.0.1:{self.offer(service)}")

    def visitBy(self, name: str = "db", open: Any = None) -> None:
        """Visit by pipes, whose other ends are C{self.inward} and C{self.outward}."""
        theirs, self.inward = os.pipe()
        self.outward, ours = os.pipe()

        def pipes(reactor: Any, arrived: Any) -> None:
            end = StandardEnd(reactor, arrived, ours)
            # The stubs know the class of Windows alone.
            StandardIO(end, theirs, ours, reactor)  # type: ignore[call-arg] # the stubs know only that of Windows

        self.over: Deferred[tuple[TunnelError | None, bool]] = Deferred()
        visit = StandardVisit(
            self.reactor, lambda *told: self.over.callback(told), open or pipes
        )
        address = parseConnect(
            self.reactor, f"tcp:127.0.0.1:{self.serverPort}", self.trust
        )

        def makeRoute(observer: Any, gaveUp: Any) -> Any:
            client = TunnelClientService(
                self.reactor, address, [], {}, observer, gaveUp=gaveUp
            )
            return client, bySession(client, name), name

        visit.lead(makeRoute)
        visit.startService()
        self.addCleanup(visit.stopService)
        for descriptor in (theirs, ours):
            self.addCleanup(os.close, descriptor)

    async def test_halfClose(self) -> None:
        """Both directions end by themselves, whichever is first, and lose nothing."""
        service = Service(b"banner")
        await self.begin(service)
        for visitorFirst in (True, False):
            self.visitBy()
            at = await service.arrivals.get()
            reading = deferToThread(self._readAll)
            writing = deferToThread(self._writeAll)
            if visitorFirst:
                await at.ended()
                at.say(DATA)
                at.finish()
            else:
                at.say(DATA)
                at.finish()
                await at.ended()
            self.assertEqual(await reading, b"banner" + DATA)
            await writing
            self.assertEqual(bytes(at.data), DATA)
            self.assertEqual(await self.over, (None, False))

    def _readAll(self) -> bytes:
        with open(self.outward, "rb") as output:
            return output.read()

    def _writeAll(self) -> None:
        with open(self.inward, "wb") as theirInput:
            theirInput.write(DATA)

    async def test_readerLeaves(self) -> None:
        """An output that nobody reads ends the visit."""
        service = Service()
        await self.begin(service)
        self.visitBy()
        at = await service.arrivals.get()
        os.close(self.outward)
        at.say(DATA)
        reason, unread = await self.over
        self.assertTrue(unread)
        self.assertIsNotNone(reason)
        await at.gone()
        os.close(self.inward)

    async def test_refused(self) -> None:
        """A service that does not exist, or a server, is told of once."""
        await self.begin(Service())
        self.visitBy("nosuch")
        reason, unread = await self.over
        assert reason is not None
        self.assertEqual(reason.message, "there is no service 'nosuch'")
        self.assertFalse(unread)
        self._closePipes()
        await self.client.stopService()
        self.serverPort = 1
        self.visitBy()
        reason, _ = await self.over
        assert reason is not None
        self.assertIn("connection was refused", reason.message)
        self._closePipes()

    def _closePipes(self) -> None:
        os.close(self.inward)
        os.close(self.outward)

    async def test_oneSocket(self) -> None:
        """Input and output may be one socket, which ends both directions apart."""
        service = Service()
        await self.begin(service)
        ours, theirs = socket.socketpair()
        self.patch(standard, "IN", theirs.fileno())
        self.patch(standard, "OUT", theirs.fileno())
        self.visitBy(open=openStandard)
        ours.sendall(b"hello")
        ours.shutdown(socket.SHUT_WR)
        at = await service.arrivals.get()
        await at.ended()
        self.assertEqual(bytes(at.data), b"hello")
        at.say(b"answer")
        at.finish()
        theirs.close()
        with ours:
            ours.settimeout(10)
            answer = await deferToThread(ours.makefile("rb").read)
        self.assertEqual(answer, b"answer")
        self.assertEqual(await self.over, (None, False))
        self._closePipes()


class ProgramTests(LoopbackTestCase):
    """The program itself."""

    timeout = 60

    def command(self, *words: str) -> list[str]:
        where = f"tcp:127.0.0.1:{self.serverPort}"
        return [
            *(sys.executable, "-m", "tristunnel", "connect"),
            *("--connect", where, *words),
        ]

    async def test_statusAndStreams(self) -> None:
        """
        The standard output has the service's bytes alone, and errors one line; the
        status says how it went.
        """
        await self.startServer()
        service = Service(b"banner\n")
        await self.startClient(f"db=127.0.0.1:{self.offer(service)}")
        good = startProgram(self.outside, "good", self.command("db"), self.directory)
        bad = startProgram(self.outside, "bad", self.command("no"), self.directory)
        at = await service.arrivals.get()
        await good.says("banner")
        assert good.transport is not None
        good.transport.closeStdin()
        await at.ended()
        at.finish()
        await good.whenEnded()
        self.assertEqual((good.status, good.lines), (0, ["banner"]))
        await bad.whenEnded()
        self.assertEqual(
            (bad.status, bad.lines), (1, ["tristunnel: there is no service 'no'"])
        )

    async def test_openSSH(self) -> None:
        """OpenSSH's own client and scp reach a private service by ProxyCommand."""
        if not os.environ.get("TRISTUNNEL_LONG"):
            raise SkipTest("set TRISTUNNEL_LONG=1 to run sshd")
        if not shutil.which("sshd") and not Path("/usr/sbin/sshd").exists():
            raise SkipTest("there is no sshd")
        await self.startServer()
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name],
                cwd=self.directory,
                check=True,
            )
        # inetd's way: a connection is the daemon's standard input and output.
        daemon = (
            f"/usr/sbin/sshd -i -f /dev/null -h {self.directory}/host"
            f" -o AuthorizedKeysFile={self.directory}/user.pub -o StrictModes=no"
            " -o UsePAM=no -o Subsystem='sftp internal-sftp'"
        )
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)

        def serve() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    subprocess.run(
                        daemon,
                        shell=True,
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                    )

        serving = deferToThread(serve)
        await self.startClient(f"ssh=127.0.0.1:{server.getsockname()[1]}")
        big = self.directory / "big"
        big.write_bytes(DATA * 20)
        options = [
            *("-i", "user", "-o", "StrictHostKeyChecking=no"),
            *("-o", f"UserKnownHostsFile={self.directory}/known"),
            *("-o", f"ProxyCommand={' '.join(self.command('ssh'))}"),
        ]
        for command in (
            ["ssh", *options, "x", f"cat > {self.directory}/first"],
            ["scp", *options, "big", f"x:{self.directory}/second"],
        ):
            with big.open() as stdin:
                await deferToThread(
                    subprocess.run,
                    command,
                    stdin=stdin,
                    cwd=self.directory,
                    env={**os.environ, "PYTHONPATH": os.getcwd()},
                    check=True,
                )
        await serving
        for name in ("first", "second"):
            self.assertEqual((self.directory / name).read_bytes(), DATA * 20)
