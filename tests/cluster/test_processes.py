"""A cluster of real servers, one of which is killed, and its engine too."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyFactory, ProxyServer
from twisted.protocols.wire import Echo

from tests.cli.test_taps_processes import ProcessTestCase
from tests.processes.test_server import children, pidOf
from tests.support.loopback import Talk
from tests.support.processes import Program, freePort, freePorts
from tests.support.redis import RedisServer


class Balancer(ProxyFactory):
    """Leads connections to a machine, and can break those that there are."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._made: list[ProxyServer] = []

    def buildProtocol(self, addr: IAddress | None) -> ProxyServer | None:
        made = super().buildProtocol(addr)
        if made is not None:
            self._made.append(made)
        return made

    def cut(self) -> None:
        made, self._made = self._made, []
        for each in made:
            for side in (each, getattr(each, "peer", None)):
                if side is not None and side.transport is not None:
                    side.transport.abortConnection()


class ClusterProcessesTests(ProcessTestCase):
    """
    Two machines are two addresses of this one.

    @cvar processes: How many of them has each machine.
    """

    processes: ClassVar[int] = 1
    if not os.environ.get("TRISTUNNEL_LONG"):
        skip = "set TRISTUNNEL_LONG=1 to kill servers of a cluster"
    timeout = 120

    async def machine(self, number: int) -> Program:
        host, port = f"127.0.0.{number}", freePort()
        (self.directory / "member").write_text("a secret of the cluster")
        (self.directory / "member").chmod(0o600)
        program = self.start(
            "tunnel",
            *("--port", f"tcp:{port}:interface={host}", "--interface", host),
            *("--hostname", "t.example", "--cluster", f"redis+unix:{self.redis.path}"),
            *("--cluster-listen", f"tcp:{host}:{freePorts(self.processes, host)}"),
            *("--cluster-token-file", str(self.directory / "member")),
            *("--state-dir", str(self.directory / host)),
            *("--processes", str(self.processes)),
        )
        while len(self.lines(program, "Listening for clients on")) < self.processes:
            await program.says("Listening for clients on", len(program.lines))
        await program.says("This is member")
        program.place = (host, port)
        return program

    async def echoes(self, host: str, port: int) -> float:
        """Come as a visitor, and say something; how long the answer took."""
        began = time.monotonic()
        talk = Talk()
        await connectProtocol(TCP4ClientEndpoint(reactor, host, port), talk)
        self._talks.append(talk)
        talk.say(b"hello")
        await talk.has(5)
        return time.monotonic() - began

    async def begin(self, tunnels: int = 1) -> tuple[Program, Program, int]:
        """
        Start all: two servers, a balancer in front of them, and a client.

        @return: The servers, and the port of the first tunnel; L{ports} are all.
        """
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.redis.start()
        one, other = await self.machine(1), await self.machine(2)
        where: Any = one
        self.balancer = Balancer(*where.place)
        front = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            self.balancer
        )
        self.addCleanup(front.stopListening)
        service = await TCP4ServerEndpoint(reactor, 0).listen(Factory.forProtocol(Echo))
        self.addCleanup(service.stopListening)
        # For the grace of an engine that is new.
        await deferLater(reactor, 3.5)
        options = ["--connect", f"tcp:127.0.0.1:{front.getHost().port}"]
        for number in range(1, tunnels + 1):
            options += ["--forward", f"0=127.0.0.{number}:{service.getHost().port}"]
        self.ourClient = self.start("tunnel-client", *options)
        self.ports: list[int] = []
        for number in range(1, tunnels + 1):
            said = await self.ourClient.says(rf":(\d+) reach 127\.0\.0\.{number}:")
            self.ports.append(int(said[1]))
        return one, other, self.ports[0]

    async def test_killed(self) -> None:
        """
        The owner is killed: a visitor at the other machine waits for the client, which
        comes there, and nobody is refused; the port is the same.
        """
        await self.lost("KILL")

    async def test_stopped(self) -> None:
        """The same, when it is stopped in good order."""
        await self.lost("TERM")

    async def lost(self, name: str) -> None:
        one, other, port = await self.begin()
        there: Any = other
        for host in ("127.0.0.1", "127.0.0.2"):
            await self.echoes(host, port)
        self.balancer.host, self.balancer.port = there.place
        one.signal(name)
        await one.whenEnded()
        waited = [await self.echoes("127.0.0.2", port) for _ in range(3)]
        print(f"the longest gap was {max(waited):.2f} s")
        self.assertLess(max(waited), 6.0)

    async def test_broken(self) -> None:
        """
        The client's connection breaks, and it comes back to the other machine, and then
        to the first one, with all of its tunnels: visitors wait, and none is refused.
        """
        one, other, _ = await self.begin(3)
        times = []
        for machine in (other, one):
            where: Any = machine
            since = len(self.ourClient.lines)
            self.balancer.host, self.balancer.port = where.place
            self.balancer.cut()
            await self.ourClient.says("Not connected", since)
            for _ in range(5):
                times += await gatherResults(
                    [
                        Deferred.fromCoroutine(self.echoes(f"127.0.0.{host}", port))
                        for host in (1, 2)
                        for port in self.ports
                    ]
                )
        print(f"the longest visit took {max(times):.2f} s")

    async def test_engine(self) -> None:
        """
        The engine hangs, and then it is killed and comes up empty: visitors come
        through all that time, and the book is whole afterwards.
        """
        _, _, port = await self.begin()
        await self.echoes("127.0.0.2", port)
        self.redis._process.send_signal(signal.SIGSTOP)
        await deferLater(reactor, 2.0)
        times = [await self.echoes(f"127.0.0.{n}", port) for n in (1, 2)]
        self.redis._process.send_signal(signal.SIGCONT)
        self.redis.kill()
        times += [await self.echoes(f"127.0.0.{n}", port) for n in (1, 2)]
        self.redis.start()
        await deferLater(reactor, 4.0)
        times += [await self.echoes(f"127.0.0.{n}", port) for n in (1, 2)]
        print(f"the longest visit took {max(times):.2f} s")
        self.assertLess(max(times), 2.0)


class ProcessesOfMachinesTests(ClusterProcessesTests):
    """The same, where each machine has two processes, all of which are members."""

    processes = 2

    async def test_process(self) -> None:
        """
        Processes are killed one after the other: visitors come in at both machines
        all that time, and nobody is refused; the port is the same.
        """
        one, other, port = await self.begin()
        times = []
        for machine in (one, other):
            for pid in children(pidOf(machine)):
                since = len(machine.lines)
                os.kill(pid, signal.SIGKILL)
                times += [await self.echoes(f"127.0.0.{n}", port) for n in (1, 2) * 3]
                await machine.says("This is member", since)
        times += [await self.echoes(f"127.0.0.{n}", port) for n in (1, 2)]
        print(f"the longest visit took {max(times):.2f} s")
        self.assertLess(max(times), 6.0)
