"""A server of two processes, as it is run."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers

from tests.cli.test_taps_processes import ProcessTestCase
from tests.docs.standins import Echoing, Knocking
from tests.processes.fakes import descriptors
from tests.support.awaited import Awaited
from tests.support.loopback import Service, Talk, comeTo
from tests.support.processes import Program
from tests.websocket.rig import Recorder
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.websocket.end import RELAY_SUBPROTOCOL
from tristunnel.wire.framed import (
    FrameType,
    HandshakeDecoder,
    encodeFrame,
    encodeHandshake,
    encodeObject,
)

LONG = bool(os.environ.get("TRISTUNNEL_LONG"))

PASSES = 21_000 if LONG else 200
"""Connections, about half of which come to the wrong member."""

BULK = 3_000_000
"""Bytes that have a stream move to a connection of its own."""


def pidOf(program: Program) -> int:
    transport: Any = program.transport
    pid: int = transport.pid
    return pid


def children(pid: int) -> list[int]:
    return [
        int(each)
        for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]


class TwoProcessesTestCase(ProcessTestCase):
    """A server that has two members, and what it says of them."""

    timeout = 300 if LONG else 120

    async def serve(self, members: int = 2, *options: str) -> Program:
        """Start a server of several members, and wait for all of them."""
        program = await self.server("--processes", str(members), *options)
        while len(self.lines(program, "Listening for clients on")) < members:
            await program.says("Listening for clients on", len(program.lines))
        return program

    def note(self, text: str) -> None:
        """Print figures, where somebody asks for them."""
        if LONG:
            print(f"\n{self.id()}: {text}")

    async def get(self, path: str) -> str:
        """Have a page of the server, by a connection of its own."""
        agent = Agent(self.reactor)
        url = f"http://127.0.0.1:{self.port}{path}".encode()
        return (await readBody(await agent.request(b"GET", url))).decode()

    async def call(self, method: str, **params: object) -> Any:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        response = await Agent(self.reactor).request(
            b"POST",
            f"http://127.0.0.1:{self.port}/rpc".encode(),
            Headers({b"content-type": [b"application/json"]}),
            FileBodyProducer(BytesIO(json.dumps(request).encode())),
        )
        answer = json.loads(await readBody(response))
        self.assertNotIn("error", answer)
        return answer["result"]

    async def passed(self) -> dict[str, float]:
        """How many connections were passed, by what they are."""
        found: dict[str, float] = {}
        page = await self.get("/metrics")
        pattern = r'^tristunnel_connections_passed_total\{kind="(\w+)".*\} (\S+)'
        for kind, number in re.findall(pattern, page, re.MULTILINE):
            found[kind] = found.get(kind, 0) + float(number)
        return found


class PassingTests(TwoProcessesTestCase):
    """Whatever member a connection comes to, it is served where it belongs."""

    async def test_dialects(self) -> None:
        """
        Moved streams and extra connections of a session, data connections of zlayer,
        and both sides of a relay.
        """
        server = await self.serve()
        service = Service(b"hello")
        target = f"127.0.0.1:{self.offer(service)}"
        await self.client(
            *("--carrier", "direct", "--sessions", "3", "--forward", f"0={target}")
        )
        framed = self.visitors
        zlayer = self.start(
            *("tunnel-client", "--dialect", "zlayer"),
            *("--connect", f"ws://127.0.0.1:{self.port}/tunnel/v1"),
            *("--forward", f"web={target}"),
            environment={"TRISTUNNEL_TOKEN": "t"},
        )
        await zlayer.says(r"Visitors of web")
        opened = await server.says(r"is open at tcp://127.0.0.1:(3\d{4})")
        passed: dict[str, float] = {}
        room = 0
        while not {"ticket", "page"} <= passed.keys():
            for port in (framed, int(opened[1])):
                await self._bulk(service, port)
            await self._relay(f"room{room}")
            room += 1
            passed = await self.passed()
        await self._noneLeft(server)

    async def _bulk(self, service: Service, port: int) -> None:
        """Have a visitor and a service exchange much, and little."""
        visitor = await self.visit(port)
        arrival = await service.arrivals.get()
        await visitor.has(5)
        visitor.say(b"question")
        await arrival.has(8)
        arrival.say(b"x" * BULK)
        await visitor.has(5 + BULK)
        visitor.finish()
        await arrival.ended()
        arrival.finish()
        await visitor.gone()
        self.assertEqual(bytes(arrival.data), b"question")

    async def _relay(self, room: str) -> None:
        ends = [Recorder(), Recorder()]
        for end, page in zip(ends, ("host", "client"), strict=True):
            where = f"ws://127.0.0.1:{self.port}/{page}/{room}"
            endpoint: Any = parseConnect(self.reactor, where, Trust()).endpoint
            await endpoint.open(end, [RELAY_SUBPROTOCOL])
        for end, other in (ends, reversed(ends)):
            end.connection.sendWhole(room.encode())
            await other.until(lambda it: bytes(it.data) == room.encode())
        for end in ends:
            end.connection.abort()

    async def _noneLeft(self, server: Program) -> None:
        """Make sure that nothing is left of connections that were passed."""
        parent = pidOf(server)
        pids = [parent, *children(parent)]
        await self._tickets(20)
        before = [descriptors(pid) for pid in pids]
        await self._tickets(PASSES)
        passed = (await self.passed())["ticket"]
        self.assertGreater(passed, PASSES / 4)
        while any(
            descriptors(pid) > count for pid, count in zip(pids, before, strict=True)
        ):
            # Those of the last ones are closed a moment later.
            await deferLater(self.reactor, 0)
        self.note(f"{passed:.0f} connections passed; descriptors {before} as before")

    async def _tickets(self, count: int) -> None:
        for number in range(count):
            peer = await self.visit(self.port)
            ticket = {"ticket": f"{number % 2}.abc.def"}
            peer.say(encodeHandshake({"tristunnel": ticket}))
            await peer.ended()
            peer.close()
            await peer.gone()
            self.assertIn(b"expired", bytes(peer.data))
            self._talks.remove(peer)


class EverywhereTests(TwoProcessesTestCase):
    """Any member answers for all."""

    async def _spread(self) -> list[dict[str, Any]]:
        """Have clients come until each member has some; their tunnels."""
        while True:
            peer = await self.visit(self.port)
            peer.say(encodeHandshake({"id": "peer"}))
            await peer.has(1)
            tunnels: list[dict[str, Any]] = await self.call("listTunnels")
            if len({each["member"] for each in tunnels}) == 2:
                return tunnels

    async def test_calls(self) -> None:
        """
        Lists are of all members; what names a tunnel, a client, a visitor or a service
        reaches whoever has it.
        """
        await self.serve()
        tunnels = await self._spread()
        self.assertEqual(len({each["uri"] for each in tunnels}), len(tunnels))
        for each in tunnels:
            policy = await self.call(
                "setPolicy", uri=each["uri"], policy={"maxVisitors": 7}
            )
            self.assertEqual(policy, {"maxVisitors": 7})
            address = await self.call("getTunnelAddress", uri=each["uri"])
            self.assertEqual(address, each["address"])
            await self.visit(int(address.rpartition(":")[2]))
        wanted = dict.fromkeys(("client", "tunnel", "visitor"), len(tunnels))
        kinds: Counter[str] = Counter()
        while kinds != wanted:
            # A visitor is accepted a moment later than it thinks.
            sessions = await self.call("listSessions")
            kinds = Counter(each["kind"] for each in sessions)
        for each in sessions:
            if each["kind"] == "visitor":
                await self.call("kick", visitor=each["id"])
        for each in sessions:
            if each["kind"] == "client":
                await self.call("closeSession", id=each["id"])
        while await self.call("listTunnels"):
            """Their ends take a moment."""
        await self._closes()
        await self._visits()
        await self._moves()
        await self._claims()

    async def _closes(self) -> None:
        """Close tunnels by connections that come to any member."""
        opened = [await self.call("openTunnel", via="tcp") for _ in range(8)]
        for number, uri in enumerate(opened):
            finish = bool(number % 2)
            self.assertIsNone(await self.call("closeTunnel", uri=uri, finish=finish))
        self.assertEqual(await self.call("listTunnels"), [])

    async def _session(
        self, lease: dict[str, Any], **more: object
    ) -> tuple[Talk, dict[str, Any]]:
        """
        Begin a session.

        @param lease: What it comes back to; nothing for a new one.
        @param more: What else it says.
        @return: It, and what the server answered.
        """
        peer = await self.visit(self.port)
        offer = {"versions": [1], "streamWindow": 65536, "sessionWindow": 65536}
        peer.say(encodeHandshake({"tristunnel": {**offer, "lease": lease, **more}}))
        handshake = HandshakeDecoder()
        await peer.until(lambda it: b"}}" in it.data)
        answer: Any = handshake.feed(bytes(peer.data))
        return peer, answer[0]["tristunnel"]

    async def _moves(self) -> None:
        """
        Have a client come back to another member while its own one takes it for
        present: its tunnel moves with its port, and the session before it ends.
        """
        peer, answer = await self._session({})
        lease = answer["lease"]
        request = {"jsonrpc": "2.0", "id": 1, "method": "openTunnel", "params": {}}
        peer.say(encodeFrame(0, FrameType.CONTROL, encodeObject(request)))
        mine: list[dict[str, Any]] = []
        while not mine:
            mine = await self._mine()
        moved = mine
        while moved[0]["member"] == mine[0]["member"]:
            before, (peer, answer) = peer, await self._session(lease)
            self.assertEqual(answer["tunnels"], [mine[0]["uri"]])
            await before.ended()
            before.close()
            moved = await self._mine()
        self.assertEqual(moved[0]["address"], mine[0]["address"])
        size = len(peer.data)
        await self.visit(int(moved[0]["address"].rpartition(":")[2]))
        # It is told of its visitor.
        await peer.until(lambda it: b'"visitor"' in it.data[size:])

    async def _claims(self) -> None:
        """Come with a tunnel's URI until another member has had to pass it on."""
        while not (await self.passed()).get("session"):
            uri = await self.call("openTunnel", via="w3p")
            identifier, _, secret = uri.rpartition("/")[2].partition("#")
            claim = {"tunnel": {"id": identifier, "secret": secret}}
            _, answer = await self._session({}, **claim)
            self.assertEqual(answer["tunnels"], [uri.partition("#")[0]])

    async def _mine(self) -> list[dict[str, Any]]:
        """The tunnel of the only client who shares no service."""
        tunnels: list[dict[str, Any]] = await self.call("listTunnels")
        return [each for each in tunnels if not each["name"]]

    async def _visits(self) -> None:
        """
        Have clients visit a service, until one comes from another member; and have the
        service's client dial it for others, likewise.
        """
        service = Service(b"hello")
        target = f"127.0.0.1:{self.offer(service)}"
        await self.client(
            *("--forward", f"shop={target}", "--dial-allow", target),
            *("--dial-allow", "udp/127.0.0.1:*", "--credentials", "id=office"),
        )
        here = "tcp:0:interface=127.0.0.1"
        heard = partial(self.hears, service)
        await self._visitedBy(heard, "--listen", here, "--service", "shop")
        if LONG:
            await self._visitedBy(heard, "--listen", f"{here}={target}@office")
            echo = self.reactor.listenUDP(0, Echoing(), interface="127.0.0.1")
            self.addCleanup(echo.stopListening)
            datagrams = f"udp:0=127.0.0.1:{echo.getHost().port}@office"
            await self._visitedBy(self._echoed, "--listen", datagrams)

    async def _echoed(self, port: int) -> None:
        knocking = Knocking(port)
        visiting = self.reactor.listenUDP(0, knocking, interface="127.0.0.1")
        self.assertEqual(b"anybody there?", await knocking.answer)
        await visiting.stopListening()

    async def _visitedBy(
        self, heard: Callable[[int], Awaitable[object]], *options: str
    ) -> None:
        while True:
            visitor = self.start(
                *("tunnel-client", "--connect", f"tcp:127.0.0.1:{self.port}"), *options
            )
            found = await visitor.says(r"127\.0\.0\.1:(\d+) reach|:(\d+) reach")
            # Its own session: another one's line may come late.
            await visitor.says("The server has admitted this client")
            await heard(int(found[1] or found[2]))
            clients = await self.call("listSessions")
            at = {each["member"] for each in clients if each["kind"] == "client"}
            if len(at) == 2:
                break


class KilledTests(TwoProcessesTestCase):
    """Members that are killed while visitors come."""

    timeout = 240

    async def test_killed(self) -> None:
        """
        No visitor is refused, whoever is killed: each tunnel has its port and its URI
        again, and all that a member's end breaks are its streams.
        """
        for members in (2, 4) if LONG else (2,):
            await self._endEach(members, signal.SIGKILL)

    async def test_stopped(self) -> None:
        """Nor is anybody cut off by one that is told to end."""
        if not LONG:
            raise SkipTest("set TRISTUNNEL_LONG=1 to end one member after the other")
        broken = await self._endEach(2, signal.SIGTERM)
        self.assertEqual(broken, 0)

    async def test_stopping(self) -> None:
        """
        While one that is told to end waits for its last visitor, its client goes to
        another one, and whoever comes, wherever, is served.
        """
        if not LONG:
            raise SkipTest("set TRISTUNNEL_LONG=1 to end a member that has a visitor")
        server = await self.serve()
        service = Service(b"hello")
        await self.client("--forward", f"0=127.0.0.1:{self.offer(service)}")
        stays = await self.visit()
        await stays.has(5)
        (before,) = await self._tunnels()
        since, member = len(server.lines), before["member"]
        os.kill(children(pidOf(server))[int(member)], signal.SIGTERM)
        while member == before["member"]:
            await self.hears(service)
            tunnels = await self.call("listTunnels")
            # It is at neither for a moment.
            member = tunnels[0]["member"] if tunnels else member
        for _ in range(20):
            await self.hears(service)
            await self.call("listTunnels")
        self.assertIsNone(stays.lost)
        self.assertEqual(self.lines(server, "is started again"), [])
        stays.abort()
        await server.says("is started again", since)

    async def _endEach(self, members: int, how: signal.Signals) -> int:
        """End members while visitors come; how many visitors were cut off."""
        server = await self.serve(members)
        service = Service(b"hello")
        target = f"127.0.0.1:{self.offer(service)}"
        ports = []
        for number in range(2 * members if LONG else 1):
            state = str(self.directory / f"client-{members}-{number}")
            await self.client("--forward", f"0={target}", "--state-dir", state)
            ports.append(self.visitors)
        tunnels = await self._tunnels()
        before = {each["address"]: each["uri"] for each in tunnels}
        self.assertEqual(len(before), len(ports))
        crowds = [Crowd(self.reactor, port) for port in ports]
        for crowd in crowds:
            crowd.start()
        for index, pid in enumerate(children(pidOf(server))):
            if not LONG and str(index) != tunnels[0]["member"]:
                continue
            since = len(server.lines)
            os.kill(pid, how)
            await server.says("is started again", since)
            for crowd in crowds:
                await crowd.served(10)
            if LONG:
                await server.says("Listening for clients on", since)
        for crowd in crowds:
            await crowd.stop()
        after = {each["address"]: each["uri"] for each in await self._tunnels()}
        self.assertEqual(after, before)
        self.assertEqual([crowd.refused for crowd in crowds], [0] * len(crowds))
        served = sum(crowd.count for crowd in crowds)
        broken = sum(crowd.broken for crowd in crowds)
        gaps = [f"{crowd.longest:.2f}" for crowd in crowds]
        self.note(
            f"{members} processes, each ended by {how.name}: {served} visitors served,"
            f" 0 refused, {broken} broken; longest gaps of the tunnels:"
            f" {', '.join(gaps)} s"
        )
        await server.stop()
        return broken

    async def _tunnels(self) -> list[dict[str, Any]]:
        while True:
            tunnels: list[dict[str, Any]] = await self.call("listTunnels")
            if all(each["connected"] for each in tunnels):
                return tunnels


class Crowd(Awaited):
    """
    Visitors of one port, one after the other.

    @ivar count: How many were served.
    @ivar refused: How many found nobody listening.
    @ivar broken: How many were cut off.
    @ivar longest: Seconds of the longest time in which nobody was served.
    """

    def __init__(self, reactor: Any, port: int) -> None:
        super().__init__()
        self.count = self.refused = self.broken = 0
        self.longest = 0.0
        self._reactor = reactor
        self._port = port
        self._last = reactor.seconds()
        self._running = True
        self._over: Deferred[None] | None = None

    def start(self) -> None:
        self._over = Deferred.fromCoroutine(self._come())

    async def stop(self) -> None:
        self._running = False
        if self._over is not None:
            await self._over

    def served(self, more: int) -> Deferred[Self]:
        count = self.count + more
        return self.until(lambda it: it.count >= count)

    async def _come(self) -> None:
        while self._running:
            try:
                visitor = await comeTo(self._reactor, self._port)
                await visitor.has(5)
            except ConnectionRefusedError:
                self.refused += 1
            except (ConnectionLost, ConnectionDone):
                self.broken += 1
            else:
                self._served()
                visitor.abort()
                await visitor.gone()

    def _served(self) -> None:
        self.count += 1
        now = self._reactor.seconds()
        self.longest, self._last = max(self.longest, now - self._last), now
        self._look()
