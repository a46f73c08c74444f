"""
Our programs and the real zlayer-tunnel crate.

The environment variable C{TRISTUNNEL_ZLAYER} names a directory with three small
programs around the crate; C{programs/Cargo.toml} says how they are built.
C{zlayer-server} and C{zlayer-client} do what the
crate leaves to its user: they start the listeners, and open or take the data
connections that C{docs/zlayer.rst} describes. They print JSON lines.
C{zlayer-codec} reads messages in hexadecimal, one on each line, and prints for
each what the crate writes after it has read it, how many bytes it read and what
it understood, or C{error}.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.zlayer.rig import ZLayerTestCase, named
from tests.integration.udp_loopback import Party
from tests.support.loopback import Service
from tests.support.processes import Program, freePorts
from tests.wire.test_zlayer import messages
from tristunnel.connect.address import parseConnect
from tristunnel.connect.route import ConnectOptions
from tristunnel.dialects.zlayer.client_service import ZLayerClientService
from tristunnel.dialects.zlayer.data import ZLayerSessions
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.wire.zlayer import MESSAGES, Message, decodeMessage, encodeMessage

_PROGRAMS = os.environ.get("TRISTUNNEL_ZLAYER", "")

if not _PROGRAMS:
    skip = "set TRISTUNNEL_ZLAYER to a directory with zlayer-server and zlayer-client"


class CodecTests(SynchronousTestCase):
    """The crate and we read and write the same bytes."""

    def setUp(self) -> None:
        self.codec = subprocess.Popen(
            [str(Path(_PROGRAMS) / "zlayer-codec")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.end)

    def end(self) -> None:
        self.codec.kill()
        self.codec.communicate()

    def ask(self, data: bytes) -> list[str]:
        assert self.codec.stdin is not None and self.codec.stdout is not None
        self.codec.stdin.write(data.hex() + "\n")
        self.codec.stdin.flush()
        return self.codec.stdout.readline().split(" ", 2)

    @settings(max_examples=500)
    @given(messages)
    def test_messages(self, message: Message) -> None:
        """It reads what we write, as the same kind, and writes the same bytes."""
        data = encodeMessage(message)
        again, size, meaning = self.ask(data)
        self.assertEqual((again, size), (data.hex(), str(len(data))))
        self.assertTrue(meaning.startswith(type(message).__name__))

    def test_kinds(self) -> None:
        """The crate knows the same types."""
        for code in range(256):
            data = bytes([code]) + bytes(4)
            known = "unknown message type" not in " ".join(self.ask(data)).lower()
            self.assertEqual(known, code in MESSAGES, hex(code))

    @settings(max_examples=500)
    @given(messages, st.data())
    def test_broken(self, message: Message, data: st.DataObject) -> None:
        """What it cannot read, we cannot read either; only what has bytes too many is
        more to it than to us."""
        whole = bytearray(encodeMessage(message))
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
        answer = self.ask(bytes(whole))
        try:
            ours = encodeMessage(decodeMessage(bytes(whole))).hex()
        except TunnelError as error:
            self.assertTrue(
                answer[0] == "error"
                or "too many" in error.message
                or int(answer[1]) < len(whole),
                (error.message, answer),
            )
        else:
            self.assertEqual(answer[0], ours)


class RealTestCase(ZLayerTestCase):
    """A test with one of the real programs."""

    def start(self, name: str, arguments: Sequence[str], **environment: str) -> Program:
        program = Program(name)
        path = str(Path(_PROGRAMS) / name)
        self.reactor.spawnProcess(
            program, path, [path, *arguments], env={**os.environ, **environment}
        )
        self.addCleanup(program.kill)
        return program


class RealClientTests(RealTestCase):
    """The real client at our server."""

    async def begin(self, *services: str, token: str = "t", **names: str) -> Program:
        program = self.start(
            "zlayer-client", [self.url(self.path), token, *services], **names
        )
        await program.waitForEvent("authenticated")
        return program

    async def test_tcp(self) -> None:
        """It registers services in any order, and visitors reach each of them."""
        await self.startServer()
        services = [Service(b"%d" % number) for number in range(5)]
        program = await self.begin(
            *(f"s{n}:tcp:{self.offer(each)}:0" for n, each in enumerate(services))
        )
        for count in range(5):
            await program.waitForEvent("registered", count)
        await program.says('"name":"s4"')
        for number, service in enumerate(services):
            tunnel = await named(self.tunnels, f"s{number}")
            assert tunnel.listener is not None
            visitor, arrival = await self.pair(tunnel.listener.address[2], service)
            visitor.say(b"question")
            await arrival.has(8)
            arrival.say(b"answer")
            arrival.finish()
            await visitor.ended()
            self.assertEqual(visitor.data, b"%danswer" % number)

    async def test_visitorFinishes(self) -> None:
        """A visitor that sends its last byte before the answer comes has it all the
        same."""
        await self.startServer()
        service = Service()
        program = await self.begin(f"web:tcp:{self.offer(service)}:0")
        await program.waitForEvent("registered")
        (tunnel,) = list(self.tunnels.here)
        assert tunnel.listener is not None
        visitor, arrival = await self.pair(tunnel.listener.address[2], service)
        visitor.say(b"question")
        visitor.finish()
        await arrival.has(8)
        arrival.say(b"answer")
        arrival.finish()
        await visitor.ended()
        self.assertEqual(visitor.data, b"answer")

    async def test_bulk(self) -> None:
        """Many bytes arrive whole."""
        await self.startServer()
        service = Service()
        program = await self.begin(f"web:tcp:{self.offer(service)}:0")
        await program.waitForEvent("registered")
        (tunnel,) = list(self.tunnels.here)
        assert tunnel.listener is not None
        visitor, arrival = await self.pair(tunnel.listener.address[2], service)
        there, back = os.urandom(2_000_000), os.urandom(2_000_000)
        visitor.say(there)
        arrival.say(back)
        await arrival.has(len(there))
        arrival.finish()
        await visitor.ended()
        self.assertTrue(arrival.data == there and visitor.data == back)

    async def test_udp(self) -> None:
        """Datagrams pass both ways."""
        await self.startServer()
        echo = self.party(Party.service)
        echo.arrived = lambda datagram, sender: echo.say(datagram, sender)
        program = await self.begin(f"dns:udp:{echo.number}:0")
        await program.waitForEvent("registered")
        tunnel = await named(self.tunnels, "dns")
        assert tunnel.listener is not None
        visitor = self.party(Party.visitor, tunnel.listener.address[2])
        sent = [b"one", bytes(1400), bytes(60000)]
        for number, datagram in enumerate(sent, 1):
            visitor.say(datagram)
            await visitor.has(number)
        self.assertEqual([datagram for datagram, _ in visitor.heard], sent)

    async def test_refusals(self) -> None:
        """It reads why a service is not open, and turns a visitor away."""
        await self.startServer()
        taken = self.offer(Service())
        program = await self.begin(f"bad:tcp:1:{taken}")
        failed = await program.waitForEvent("failed")
        self.assertIn("[port-taken]", failed["reason"])
        program = await self.begin("refused:tcp:1:0", token="u")
        await program.waitForEvent("registered")
        tunnel = await named(self.tunnels, "refused")
        assert tunnel.listener is not None
        visitor = await self.visit(tunnel.listener.address[2])
        await visitor.gone()
        gone = await self.told(self.notes, "visitorGone")
        self.assertEqual(gone[2], "service-unreachable")

    async def test_tokenInUse(self) -> None:
        """A second one with the same token is refused, and gets in when the first is
        gone."""
        await self.startServer()
        first = await self.begin()
        second = self.start(
            "zlayer-client", [self.url(self.path), "t"], ZL_RECONNECT="50"
        )
        await second.says("Token already in use")
        await first.kill()
        await second.waitForEvent("authenticated")

    async def test_heartbeat(self) -> None:
        """It answers our heartbeats."""
        await self.startServer()
        program = await self.begin()
        await program.waitForEvent("heartbeat")

    async def test_comesBack(self) -> None:
        """It comes back when it was disconnected, with its services."""
        await self.startServer()
        program = await self.begin("web:tcp:80:0", ZL_RECONNECT="50")
        await program.waitForEvent("registered")
        session: Any
        (session,) = self.sessions.shared(ZLayerSessions).inUse.values()
        since = len(program.lines)
        session.fail(TunnelError("closed", "by order"))
        lost = await program.waitForEvent("disconnected", since)
        self.assertIn("by order [closed]", lost["reason"])
        await program.waitForEvent("registered", since)


class RealServerTests(RealTestCase):
    """Our client at the real server."""

    async def begin(
        self, *forwards: str, token: str = "t", **names: str
    ) -> tuple[Program, ZLayerClientService]:
        self.addCleanup(self._settle)
        first = freePorts(8)
        program = self.start(
            "zlayer-server", ["t", str(first), str(first + 7)], **names
        )
        port = (await program.waitForEvent("listening"))["port"]
        client = ZLayerClientService(
            self.reactor,
            parseConnect(
                self.reactor,
                f"ws://127.0.0.1:{port}/tunnel/v1",
                self.trust,
                ConnectOptions(pingInterval=0.0),
            ),
            [parseForward(self.reactor, spec) for spec in forwards],
            {"token": token},
            self.seen,
            grace=0.0,
            delay=lambda failures, hint: 0.05,
        )
        client.startService()
        self.addCleanup(self._stop, client)
        return program, client

    async def portOf(self, program: Program, name: str) -> int:
        def match(line: str) -> int | None:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "service" and event["name"] == name:
                return int(event["port"])
            return None

        return await program.waitFor(match)

    async def test_tcp(self) -> None:
        """Visitors of the real server reach our services."""
        services = [Service(b"%d" % number) for number in range(3)]
        program, _ = await self.begin(
            *(f"s{n}=127.0.0.1:{self.offer(each)}" for n, each in enumerate(services))
        )
        for number, service in enumerate(services):
            port = await self.portOf(program, f"s{number}")
            visitor, arrival = await self.pair(port, service)
            visitor.say(b"question")
            await arrival.has(8)
            arrival.say(b"answer")
            arrival.finish()
            await visitor.ended()
            self.assertEqual(visitor.data, b"%danswer" % number)

    async def test_bulk(self) -> None:
        """Many bytes arrive whole."""
        service = Service()
        program, _ = await self.begin(f"web=127.0.0.1:{self.offer(service)}")
        visitor, arrival = await self.pair(await self.portOf(program, "web"), service)
        there, back = os.urandom(2_000_000), os.urandom(2_000_000)
        visitor.say(there)
        arrival.say(back)
        await arrival.has(len(there))
        arrival.finish()
        await visitor.ended()
        self.assertTrue(arrival.data == there and visitor.data == back)

    async def test_heartbeat(self) -> None:
        """Our client answers heartbeats: it is still there after several."""
        program, client = await self.begin("web=127.0.0.1:1", ZL_HEARTBEAT="20")
        await self.portOf(program, "web")
        beats: Deferred[None] = Deferred()
        session: Any = client.session
        sent: list[Any] = []
        send = session.send

        def counted(message: Any) -> None:
            send(message)
            sent.append(message)
            if len(sent) == 20:
                beats.callback(None)

        session.send = counted
        await beats
        self.assertEqual(self.seen.named("disconnected"), [])

    async def test_refused(self) -> None:
        """A wrong token stops our client."""
        await self.begin(token="wrong")
        (code,) = (await self.told(self.seen, "gaveUp"))[:1]
        self.assertEqual(code, "auth-refused")

    async def test_portRefused(self) -> None:
        """A port that is not in the real server's range is refused in its words."""
        await self.begin("2222=127.0.0.1:1")
        failed = await self.told(self.seen, "tunnelFailed")
        self.assertIn("port-taken", failed)
