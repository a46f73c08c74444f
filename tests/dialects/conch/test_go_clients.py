"""
Our clients with the wires of vtunnel and chisel at our own server, over the loopback
interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from tests.dataplane.test_datagrams import RecordingFlow
from tests.dialects.framed.memory import RecordingEnd
from tests.docs.standins import Echoing
from tests.support.loopback import Service
from tests.support.notes import ClientNotes
from tests.support.polling import until
from tests.support.processes import freePort
from tests.websocket.rig import WebSocketTestCase
from tristunnel.dialects.base.client import openWebSocket
from tristunnel.dialects.chisel.client import ChiselClientSession
from tristunnel.dialects.chisel.flows import ChannelFlows
from tristunnel.dialects.conch import key_exchange
from tristunnel.dialects.conch.client import Credentials
from tristunnel.dialects.conch.client_session import SSHClientSession
from tristunnel.dialects.conch.hostkey import HostKey
from tristunnel.dialects.conch.streams import ChannelStreams
from tristunnel.dialects.vtunnel.client import SSH, VTunnelClientSession, WireFinder
from tristunnel.dialects.vtunnel.ssh_client import VTunnelSSHClientSession
from tristunnel.errors import TunnelError
from tristunnel.forwards.dialling import dialDestinations
from tristunnel.forwards.forward import Forward, parseForward
from tristunnel.listeners.names import NameListeners
from tristunnel.names.public import PublicNames

_NONE = Credentials("", "")


class GoWireTestCase(WebSocketTestCase):
    """A test with a client that speaks SSH in a WebSocket."""

    def makeSession(self, forward: Forward) -> SSHClientSession:
        raise NotImplementedError

    def forward(self, service: Service) -> Forward:
        spec = f"{freePort()}=127.0.0.1:{self.offer(service)}"
        return parseForward(self.reactor, spec)

    async def begin(self, session: SSHClientSession) -> SSHClientSession:
        """Connect, and wait for the tunnel or the end."""
        done: Deferred[None] = Deferred()

        def told(event: tuple[Any, ...]) -> None:
            if event[0] in ("tunnelReady", "tunnelFailed") and not done.called:
                done.callback(None)

        def over(reason: TunnelError) -> None:
            if not done.called:
                done.callback(None)

        self.seen.listeners.append(told)
        session.whenOver().addCallback(over)
        await openWebSocket(self.server("/"), session)
        self.addCleanup(self._close, session)
        await done
        return session

    async def _close(self, session: SSHClientSession) -> None:
        session.close()
        while session.link.transport is not None and not session.connection.gone:
            await session.whenOver()


class Conversations:
    """What holds for both."""

    seen: ClientNotes

    async def test_conversation(self: Any) -> None:
        """A visitor and a service talk, and the service's end is that of both."""
        await self.startServer()
        service = Service(b"220 ready")
        forward = self.forward(service)
        session = await self.begin(self.makeSession(forward))
        self.assertEqual(1, len(self.seen.named("tunnelReady")))
        visitor, talk = await self.pair(forward.port, service)
        await visitor.has(9)
        visitor.say(b"question")
        await talk.has(8)
        talk.say(b"answer" * 100_000)
        talk.close()
        await visitor.ended()
        self.assertEqual(9 + 600_000, len(visitor.data))
        self.assertIn(session.speaks, str(self.notes.named("clientConnected")))

    async def test_keys(self: Any) -> None:
        """So it does while both sides want new keys, again and again."""
        self.patch(key_exchange, "REKEY_BYTES", 100_000)
        await self.test_conversation()

    async def test_answerDue(self: Any) -> None:
        """A visitor's end is kept back while its answer is due."""
        await self.startServer()
        service = Service()
        forward = self.forward(service)
        await self.begin(self.makeSession(forward))
        visitor, talk = await self.pair(forward.port, service)
        visitor.say(b"question")
        visitor.finish()
        await talk.has(8)
        talk.say(b"answer")
        await visitor.has(6)
        talk.close()
        await visitor.ended()

    async def test_taken(self: Any) -> None:
        """A port that is taken is refused with a reason."""
        await self.startServer()
        spec = f"{self.serverPort}=127.0.0.1:1"
        await self.begin(self.makeSession(parseForward(self.reactor, spec)))
        ((wanted, *_),) = self.seen.named("tunnelFailed")
        self.assertIn(str(self.serverPort), str(wanted))


class VTunnelTests(Conversations, GoWireTestCase):
    """vtunnel from version 0.1.0 on."""

    def makeSession(self, forward: Forward) -> SSHClientSession:
        return VTunnelSSHClientSession(
            self.reactor, None, [forward], self.seen, "localhost"
        )

    async def test_domain(self) -> None:
        """Where the server has names, a domain is one, with its headers."""
        await self.startServer()
        names = PublicNames()
        names.offered = frozenset(("http",))
        names.opened("http", 80)
        self.tunnels.listeners["http"] = NameListeners("http", names, "http")
        self.tunnels.hosts.change(["example.com"], "")
        spec = f"http/shop.example.com={self.offer(Service())},request=X-A: one"
        await self.begin(self.makeSession(parseForward(self.reactor, spec)))
        self.assertEqual(
            "http://shop.example.com", self.seen.named("tunnelReady")[0][0]
        )
        (tunnel,) = self.tunnels.tunnels
        self.assertEqual("http://shop.example.com", tunnel.address)
        found = names.table.find("http", "shop.example.com")
        assert found is not None
        self.assertEqual(("X-A: one",), found.options.requestHeaders)

    async def test_wrongKey(self) -> None:
        """With a key, only a server that knows it will do."""
        await self.startServer()
        session = VTunnelSSHClientSession(
            self.reactor, bytes(32), [], self.seen, "localhost"
        )
        await self.begin(session)
        self.assertEqual("bad-pin", (await session.whenOver()).code.name)


class ChiselTests(Conversations, GoWireTestCase):
    """chisel."""

    users: Mapping[str, str] = {}

    def makeSession(
        self, forward: Forward, credentials: Credentials = _NONE, fingerprint: str = ""
    ) -> SSHClientSession:
        return ChiselClientSession(
            self.reactor, credentials, [forward], self.seen, "localhost", fingerprint
        )

    async def test_login(self) -> None:
        """Who comes with a password is asked for the right one."""
        self.users = {"laptop": "secret"}
        await self.startServer()
        forward = self.forward(Service())
        session = await self.begin(
            self.makeSession(forward, Credentials("laptop", "wrong"))
        )
        self.assertEqual("auth-refused", (await session.whenOver()).code.name)
        self.assertEqual([], self.seen.named("tunnelReady"))
        await self.begin(self.makeSession(forward, Credentials("laptop", "secret")))
        self.assertEqual(1, len(self.seen.named("tunnelReady")))

    async def test_fingerprint(self) -> None:
        """Another key than the one that is told is another server."""
        await self.startServer()
        key = self.sessions.kept(HostKey.inDirectory)
        forward = self.forward(Service())
        session = await self.begin(
            self.makeSession(forward, _NONE, "SHA256:" + "A" * 43)
        )
        reason = await session.whenOver()
        self.assertEqual("bad-pin", reason.code.name)
        self.assertIn(key.fingerprint, reason.message)
        await self.begin(self.makeSession(forward, _NONE, key.fingerprint))
        self.assertEqual(1, len(self.seen.named("tunnelReady")))


class ChiselRemotesTests(GoWireTestCase):
    """chisel's remotes without C{R:}: the server dials."""

    async def come(self) -> ChannelStreams:
        await self.startServer()
        session = ChiselClientSession(
            self.reactor, _NONE, [self.forward(Service())], self.seen, "localhost"
        )
        await self.begin(session)
        assert session.multiplexer is not None
        return session.multiplexer

    async def test_socks(self) -> None:
        """Instead of a service there is a proxy, into what the server may dial."""
        streams = await self.come()
        at = self.offer(Service(b"hello"))
        refused = streams.openChannel("chisel", b"socks")
        reasons: list[Any] = []
        refused.whileWaiting(reasons.append)
        await until(lambda: bool(reasons))
        self.assertIn("give --dial-allow", str(reasons[0]))
        self.sessions.destinations = dialDestinations([f"127.0.0.1:{at}"])
        for port, code, said in ((at, 0, b"hello"), (1, 2, b"")):
            end = RecordingEnd()
            end.meet(streams.openChannel("chisel", b"socks"))
            end.say(b"\5\1\0")
            end.say(b"\5\1\0\1\x7f\0\0\1" + port.to_bytes(2, "big"))
            answer = b"\5\0\5" + bytes([code, 0, 1]) + bytes(6) + said
            await until(lambda end=end, answer=answer: end.taken == answer)
        self.assertEqual(3, len(self.notes.named("visitorConnected")))

    async def test_datagrams(self) -> None:
        """Datagrams go where the server may dial, and what is refused cools down."""
        streams = await self.come()
        echo = self.outside.listenUDP(0, Echoing(), interface="127.0.0.1")
        self.addCleanup(echo.stopListening)
        at = echo.getHost().port
        self.sessions.destinations = dialDestinations([f"udp/127.0.0.1:{at}"])
        flows = ChannelFlows(
            self.reactor, streams.openChannel("chisel", b"127.0.0.1:%d/udp" % at)
        )
        answers = []
        for source in ("10.0.0.1:5", "10.0.0.2:5"):
            flow, answer = flows.open(source), RecordingFlow()
            flow.join(answer, lambda reason: None)
            flows.sendTo(flow, source.encode())
            answers.append((answer, source.encode()))
        await until(lambda: all(each.taken == [said] for each, said in answers))
        other = ChannelFlows(
            self.reactor, streams.openChannel("chisel", b"127.0.0.1:1/udp")
        )
        for _ in range(3):
            other.sendTo(other.open("10.0.0.1:5"), b"x")
        await until(lambda: bool(self.notes.named("requestNoted")))
        ((_, text, isBad),) = self.notes.named("requestNoted")
        self.assertIn("asked to dial udp/127.0.0.1:1", str(text))
        self.assertTrue(isBad)

    async def test_named(self) -> None:
        """A host that is neither is the name of a service, of the right kind."""
        streams = await self.come()
        await self.startClient(f"web=127.0.0.1:{self.offer(Service(b'hello'))}")
        end = RecordingEnd()
        end.meet(streams.openChannel("chisel", b"web:80"))
        await until(lambda: end.taken == b"hello")
        for target, why in (
            (b"nobody:80", "--dial-allow nobody:80"),
            (b"web:http", "no port here"),
        ):
            reasons: list[Any] = []
            channel = streams.openChannel("chisel", target)
            channel.whileWaiting(reasons.append)
            await until(lambda reasons=reasons: reasons)
            self.assertIn(why, str(reasons[0]))


class WireFinderTests(GoWireTestCase):
    """What a vtunnel server speaks."""

    async def test_found(self) -> None:
        """A server that begins with SSH is spoken to so, and all others by JSON."""
        for first, wire in ((b"SSH-2.0-Go\r\n", SSH), (b"", "json"), (b"x", "json")):
            finder = WireFinder(self.outside, 0.01)
            finder.opened(object())
            if first:
                finder.bytesReceived(first)
            self.assertEqual(wire, await finder.found)

    async def test_handOver(self) -> None:
        """The session that follows is told of what came."""
        finder = WireFinder(self.outside, 0.0)
        connection = Connection()
        finder.opened(connection)
        session = VTunnelClientSession(self.outside, [])
        finder.handOver(session)
        self.assertIs(session, connection.receiver)
        session.end(TunnelError("closed"))


class Connection:
    """A WebSocket of which nothing is asked."""

    receiver: Any = None
    peerAddress = None

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None
