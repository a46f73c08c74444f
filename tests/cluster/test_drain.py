"""A cluster of real servers that are drained, and started again one after the other."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

import tristunnel
from tests.cli.test_taps_processes import ProcessTestCase
from tests.cluster import load
from tests.support.loopback import Talk
from tests.support.polling import until
from tests.support.processes import Program, freePort
from tests.support.redis import RedisServer

_ROOT = str(Path(tristunnel.__file__).parent.parent)
_ENVIRONMENT = {**os.environ, "PYTHONPATH": _ROOT}

_RUN = "from tristunnel.cli.main import main; raise SystemExit(main())"

SIZE = 1 << 30
_PIECE = bytes(range(256)) * 256


class Source(Protocol):
    """Echoes; but whoever asks for it gets a gigabyte."""

    _left = 0

    def dataReceived(self, data: bytes) -> None:
        if data == b"more":
            self._left = SIZE
            self.transport.registerProducer(self, False)
        else:
            self.transport.write(data)

    def resumeProducing(self) -> None:
        piece = _PIECE[: self._left]
        self._left -= len(piece)
        self.transport.write(piece)
        if not self._left:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def stopProducing(self) -> None:
        self._left = 0


class Sink(Protocol):
    """Takes what comes, and checks it."""

    count = wrong = 0
    isOver = False

    def connectionMade(self) -> None:
        self.transport.write(b"more")

    def dataReceived(self, data: bytes) -> None:
        at = self.count % len(_PIECE)
        expected = (_PIECE * (len(data) // len(_PIECE) + 2))[at : at + len(data)]
        self.wrong += data != expected
        self.count += len(data)

    def connectionLost(self, reason: object = None) -> None:
        self.isOver = True


class DrainTests(ProcessTestCase):
    """Three machines are three addresses of this one."""

    if not os.environ.get("TRISTUNNEL_LONG"):
        skip = "set TRISTUNNEL_LONG=1 to drain servers of a cluster"
    timeout = 300

    def machine(self, number: int) -> Any:
        host, port, listen = self.places[number]
        program: Any = self.start(
            "tunnel",
            *("--port", f"tcp:{port}:interface={host}", "--interface", host),
            *("--hostname", "t.example", "--cluster", f"redis+unix:{self.redis.path}"),
            *("--cluster-listen", f"tcp:{host}:{listen}"),
            *("--cluster-token-file", str(self.directory / "member")),
            *("--state-dir", str(self.directory / host)),
        )
        return program

    async def begin(self, *options: str) -> int:
        """Start three servers, and a client of the first; its tunnel's port."""
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.redis.start()
        (self.directory / "member").write_text("a secret of the cluster")
        self.places = [(f"127.0.0.{n}", freePort(), freePort()) for n in (1, 2, 3)]
        self.machines = [self.machine(n) for n in range(3)]
        for each in self.machines:
            await each.says("Listening for clients on")
        service = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(Source)
        )
        self.addCleanup(service.stopListening)
        # For the grace of an engine that is new.
        await deferLater(reactor, 4.0)
        host, port, _ = self.places[0]
        program = self.start(
            "tunnel-client",
            *("--connect", f"tcp:{host}:{port}", *options),
            *("--forward", f"0=127.0.0.1:{service.getHost().port}"),
        )
        return await self.address(program)

    async def command(self, *words: str, by: int) -> str:
        """Run a command of C{tristunnel cluster}, and ask one of the servers."""
        host, port, _ = self.places[by]
        where = ("--server", f"http://{host}:{port}")
        out, err, status = await getProcessOutputAndValue(
            sys.executable, ["-c", _RUN, "cluster", *words, *where], env=_ENVIRONMENT
        )
        self.assertEqual((err, status), (b"", 0))
        return out.decode()

    def load(self, port: int) -> Program:
        program = Program("load")
        places = [f"{host}:{port}" for host, port, _ in self.places]
        reactor.spawnProcess(
            program,
            sys.executable,
            [sys.executable, load.__file__, str(port), *places],
            env=_ENVIRONMENT,
        )
        self.addCleanup(program.kill)
        return program

    async def result(self, program: Program) -> dict[str, Any]:
        program.order("end")
        said = await program.says(r"load (\{.*\})")
        print(said[1])
        found: dict[str, Any] = json.loads(said[1])
        return found

    async def download(self, *options: str) -> None:
        """A gigabyte comes whole through a member that is drained meanwhile."""
        port = await self.begin(*options)
        sink = Sink()
        began = time.monotonic()
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), sink)
        await until(lambda: sink.count > SIZE // 20)
        self.assertIn("is draining", await self.command("drain", "127.0.0.1", by=1))
        # The client is elsewhere while that goes on.
        talk = Talk()
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
        self._talks.append(talk)
        talk.say(b"hello")
        await talk.has(5)
        talk.close()
        await until(lambda: sink.isOver)
        print(f"{sink.count} bytes in {time.monotonic() - began:.1f} s")
        self.assertEqual((sink.count, sink.wrong), (SIZE, 0))
        await self.command("drain", "127.0.0.1", "--wait", "60s", by=1)
        lines = (await self.command("status", "--json", by=2)).splitlines()
        states = {each["address"]: each for each in map(json.loads, lines)}
        first = states[f"tcp:127.0.0.1:{self.places[0][2]}"]
        self.assertEqual((first["state"], first["tunnels"]), ("drained", 0))

    async def test_download(self) -> None:
        """With a session that stands by, the streams within the session."""
        await self.download("--standby", "1", "--carrier", "session")

    async def test_direct(self) -> None:
        """Without one, the stream on a connection of its own."""
        await self.download("--carrier", "direct")

    async def upgrade(self, *options: str, drains: bool) -> None:
        """Start all servers anew, one after the other."""
        port = await self.begin(*options)
        visiting = self.load(port)
        await visiting.says(r"healthy \S+ \S+ \S+")
        for number, (host, _, _) in enumerate(self.places):
            if drains:
                other = (number + 1) % 3
                await self.command("drain", host, "--wait", "60s", by=other)
                # A balancer needs a moment to see it.
                await deferLater(reactor, 0.5)
            self.machines[number].signal("TERM")
            await self.machines[number].whenEnded()
            since = len(visiting.lines)
            self.machines[number] = self.machine(number)
            await visiting.says(r"healthy \S+ \S+ \S+", since)
            await deferLater(reactor, 3.0)
        found = await self.result(visiting)
        self.assertEqual(found["refused"], [])
        self.assertGreater(found["visits"], 300)

    async def test_upgrade(self) -> None:
        """Three servers are upgraded under load, and nobody is refused."""
        await self.upgrade("--standby", "1", drains=True)

    async def test_withoutStandby(self) -> None:
        """The same with a client that has no second session."""
        await self.upgrade(drains=True)
