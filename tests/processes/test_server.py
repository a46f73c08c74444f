"""A server of two processes, as it is run."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.loopback import Service
from tests.support.processes import Program
from tests.websocket.rig import Recorder
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.websocket.end import RELAY_SUBPROTOCOL
from tristunnel.wire.framed import encodeHandshake

LONG = bool(os.environ.get("TRISTUNNEL_LONG"))

PASSES = 10_000 if LONG else 200
"""Connections, about half of which come to the wrong member."""

BULK = 3_000_000
"""Bytes that have a stream move to a connection of its own."""


def pidOf(program: Program) -> int:
    """The number of a program's process."""
    transport: Any = program.transport
    pid: int = transport.pid
    return pid


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [
        int(each)
        for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


class TwoProcessesTestCase(ProcessTestCase):
    """A server that has two members, and what it says of them."""

    timeout = 60

    async def server(self, *options: str, **more: Any) -> Program:
        program = await super().server("--processes", "2", *options, **more)
        # The second one.
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
        server = await self.server()
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
        """Have both sides of a channel meet."""
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

    async def test_descriptors(self) -> None:
        """Nothing is left of connections that were passed."""
        server = await self.server()
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
        """Come with tickets that nobody has granted."""
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

    async def call(self, method: str, **params: object) -> Any:
        """Call a method, by a connection of its own."""
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

    async def _spread(self) -> list[dict[str, Any]]:
        """
        Have clients come until each member has some.

        @return: Their tunnels.
        """
        while True:
            peer = await self.visit(self.port)
            peer.say(encodeHandshake({"id": "peer"}))
            await peer.has(1)
            tunnels: list[dict[str, Any]] = await self.call("listTunnels")
            if len({each["member"] for each in tunnels}) == 2:
                return tunnels

    async def test_calls(self) -> None:
        """
        Lists are of all members; what names a tunnel, a client or a visitor reaches
        whoever has it.
        """
        await self.server()
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

    async def test_visits(self) -> None:
        """A client visits a service of another member's client."""
        server = await self.server()
        service = Service(b"hello")
        await self.client("--forward", f"shop=127.0.0.1:{self.offer(service)}")
        while True:
            before = len(server.lines)
            visitor = self.start(
                *("tunnel-client", "--connect", f"tcp:127.0.0.1:{self.port}"),
                *("--listen", "tcp:0:interface=127.0.0.1", "--service", "shop"),
            )
            found = await visitor.says(r"127\.0\.0\.1:(\d+) reach|:(\d+) reach")
            await server.says("connected from", before)
            await self.hears(service, int(found[1] or found[2]))
            clients = await self.call("listSessions")
            at = {each["member"] for each in clients if each["kind"] == "client"}
            if len(at) == 2:
                break
