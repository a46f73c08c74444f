"""SIGHUP and a changed file, with real programs and bytes that flow meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.wire import Echo
from twisted.python.failure import Failure

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.awaited import Awaited
from tests.support.listening import listenHere
from tests.support.loopback import Service
from tests.support.processes import Program

PIECE = 4096
"""Bytes that a stream sends at once."""


class Flow(Awaited, Protocol):
    """A visitor who sends without end to a service that sends everything back, and
    compares."""

    transport: Any

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.sent = self.received = 0
        self.wrong = False
        self._finish = False

    def _bytes(self, start: int, count: int) -> bytes:
        period = bytes((self.seed * 7 + at) % 251 for at in range(251))
        first = start % 251
        return (period * (count // 251 + 2))[first : first + count]

    def connectionMade(self) -> None:
        self._more()

    def _more(self) -> None:
        while not self._finish and self.sent - self.received < 2 * PIECE:
            self.transport.write(self._bytes(self.sent, PIECE))
            self.sent += PIECE

    def dataReceived(self, data: bytes) -> None:
        if data != self._bytes(self.received, len(data)):
            self.wrong = True
        self.received += len(data)
        self._look()
        self._more()

    def pass_(self, count: int) -> Deferred[Self]:
        received = self.received + count
        return self.until(lambda it: it.received >= received)

    def finish(self) -> Deferred[Self]:
        self._finish = True
        return self.pass_(self.sent - self.received)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end(reason)


class ReloadTests(ProcessTestCase):
    """A changed file is put in force, and what did not change goes on."""

    timeout = 90

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def echo(self) -> int:
        """Run a service that sends everything back. @return: Its port."""
        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        return listenHere(self, self.reactor, factory)

    async def reloaded(self, program: Program, since: int) -> str:
        """Have a program read its file again. @return: What it says of it."""
        program.signal("HUP")
        said = await program.says(r"The configuration was (.*)", since)
        return str(said[1])

    async def portOf(self, client: Program, target: int, since: int = 0) -> int:
        pattern = rf"Visitors of tcp://[^:]+:(\d+) reach 127.0.0.1:{target}\b"
        return int((await client.says(pattern, since))[1])

    async def flows(self, port: int, count: int, first: int) -> list[Flow]:
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
        flows: list[Flow] = await gatherResults(
            [connectProtocol(endpoint, Flow(first + at)) for at in range(count)]
        )
        for flow in flows:
            self.addCleanup(self._end, flow)
        return flows

    def _end(self, flow: Flow) -> None:
        if flow.lost is None:
            flow.transport.abortConnection()

    async def greeting(self, port: int) -> bytes:
        talk = await self.visit(port)
        await talk.has(1)
        talk.close()
        return bytes(talk.data)

    def test_client(self) -> Deferred[None]:
        """With a connection for each visitor, where bytes pass through the kernel."""
        return Deferred.fromCoroutine(self._client("direct"))

    def test_clientBySession(self) -> Deferred[None]:
        """With all visitors on one connection."""
        return Deferred.fromCoroutine(self._client("session"))

    async def _client(self, carrier: str) -> None:
        """While a hundred streams flow, a forward is added, another one is removed, and
        a third one leads elsewhere. No stream of what stays loses a byte, nor do those
        that came to the third one's former target. Of a file that is wrong nothing is
        put in force."""
        echoes = [self.echo() for _ in range(2)]
        goneAt, newAt = self.offer(Service(b"gone")), self.offer(Service(b"new"))
        addedAt = self.offer(Service(b"added"))
        await self.server()
        head = (
            f'connect = "tcp:127.0.0.1:{self.port}"\ngrace = 0.1\n'
            f'carrier = "{carrier}"\n'
            f'forward = ["0=127.0.0.1:{echoes[0]}"'
        )
        path = self.write(
            "tunnel.toml",
            f'{head}, "0=127.0.0.1:{goneAt}", "moves=127.0.0.1:{echoes[1]}"]\n',
        )
        client = self.start("tunnel-client", "--config", str(path))
        stays = await self.portOf(client, echoes[0])
        moves = await self.portOf(client, echoes[1])
        goes = await self.portOf(client, goneAt)
        self.assertEqual(await self.greeting(goes), b"gone")
        flows = [*await self.flows(stays, 60, 0), *await self.flows(moves, 40, 60)]
        await gatherResults([flow.pass_(20 * PIECE) for flow in flows])

        # A mistake changes nothing.
        since = len(client.lines)
        self.write("tunnel.toml", f"{head}]\nfrowad = 1\n")
        said = await self.reloaded(client, since)
        self.assertIn("not reloaded, and nothing has changed", said)
        self.assertIn("tunnel.toml:5: unknown key 'frowad'; did you mean", said)
        await gatherResults([flow.pass_(5 * PIECE) for flow in flows])
        self.assertEqual(await self.greeting(goes), b"gone")

        # The same without it.
        since = len(client.lines)
        self.write(
            "tunnel.toml",
            f'{head}, "moves=127.0.0.1:{newAt}", "0=127.0.0.1:{addedAt}"]\n',
        )
        passing = gatherResults([flow.pass_(40 * PIECE) for flow in flows])
        said = await self.reloaded(client, since)
        self.assertIn("reloaded", said)
        added = await self.portOf(client, addedAt, since)
        self.assertEqual(await self.portOf(client, newAt, since), moves)
        self.assertEqual(await self.greeting(added), b"added")
        self.assertEqual(await self.greeting(moves), b"new")
        with self.assertRaises(ConnectionRefusedError):
            await self.visit(goes)
        await passing
        await gatherResults([flow.finish() for flow in flows])
        self.assertEqual([f.seed for f in flows if f.wrong or f.lost], [])
        self.assertEqual([f.seed for f in flows if f.sent != f.received], [])
        self.assertGreater(min(flow.received for flow in flows), 65 * PIECE)

        # A restart finds the same ports.
        for flow in flows:
            flow.transport.abortConnection()
        await client.stop()
        client = self.start("tunnel-client", "--config", str(path))
        self.assertEqual(await self.portOf(client, newAt), moves)
        self.assertEqual(await self.portOf(client, echoes[0]), stays)
        self.assertEqual(await self.portOf(client, addedAt), added)

    async def test_server(self) -> None:
        """A server's limits, policy and range change; its port is said to need a
        restart; streams go on."""
        service = Service(b"hello")
        at = self.offer(service)
        text = (
            'port = "PORT"\ninterface = "127.0.0.1"\nhostname = "127.0.0.1"\n'
            f"state-dir = {json.dumps(str(self.directory / 's'))}\n"
        ).replace('"PORT"', '["tcp:0:interface=127.0.0.1"]')
        path = self.write("server.toml", text)
        server = self.start("tunnel", "--config", str(path))
        await self.listening(server)
        await self.client("--forward", f"0=127.0.0.1:{at}")
        talk, here = await self.visit(self.visitors), await service.arrivals.get()
        await talk.has(5)
        since = len(server.lines)
        self.write("server.toml", f"{text}allow = 10\n")
        said = await self.reloaded(server, since)
        self.assertIn("server.toml:5: allow takes a list of strings", said)
        since = len(server.lines)
        self.write(
            "server.toml",
            text.replace("tcp:0", "tcp:1")
            + 'deny = ["127.0.0.0/8"]\nmax-clients = 7\ngrace = 1\n',
        )
        said = await self.reloaded(server, since)
        for words in (
            "max-clients = 7",
            'deny = ["127.0.0.0/8"]',
            "grace = 1",
            "needs a restart: port",
        ):
            self.assertIn(words, said)
        refused = await self.visit(self.visitors)
        await refused.gone()
        self.assertEqual(refused.data, b"")
        here.say(b" again")
        await talk.has(11)
        self.assertEqual(talk.data, b"hello again")
