"""
C{tcpip-forward} over the loopback interface, with a client in the test's process.
"""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from tests.dialects.framed.memory import RecordingEnd
from tests.dialects.ssh.rig import SSHTestCase
from tests.support.loopback import Service
from tests.support.polling import until
from tristunnel.errors import TunnelError
from tristunnel.wire.ssh import Fields, packNumbers, packText


class ForwardingTests(SSHTestCase):
    """Tunnels, and their visitors."""

    async def test_port(self) -> None:
        """
        Who asks for port 0 is told the port; visitors come as channels that say what
        was asked for, and where they come from.
        """
        await self.startServer()
        peer = await self.come()
        port = await peer.listen("localhost")
        visitor = await self.visit(port)
        end = RecordingEnd()
        await until(lambda: bool(peer.channels))
        channel, kind, extra = peer.channels[0]
        fields = Fields(extra)
        self.assertEqual(
            ("forwarded-tcpip", "localhost", port, "127.0.0.1"),
            (kind, fields.text(), fields.number(), fields.text()),
        )
        end.meet(channel)
        visitor.say(b"hello")
        await until(lambda: end.taken == b"hello")
        end.say(b"and you")
        await visitor.has(7)
        visitor.finish()
        await until(lambda: end.finishes == 1)
        end.say(b"later")
        await visitor.has(12)
        end.end()
        await visitor.ended()
        self.assertEqual(b"and youlater", bytes(visitor.data))
        await until(lambda: not peer.streams.channels)

    async def test_asked(self) -> None:
        """A port that is asked for is had, given back, and had again."""
        await self.startServer()
        peer = await self.come()
        port = await peer.listen()
        again = packText("localhost") + packNumbers(port)
        with self.assertRaises(TunnelError):
            await peer.forward("localhost", port)
        await peer.connection.ask("cancel-tcpip-forward", again)
        self.assertEqual(b"", await peer.forward("127.0.0.1", port))
        with self.assertRaises(TunnelError):
            await peer.connection.ask("cancel-tcpip-forward", again)

    async def test_address(self) -> None:
        """An address that is none of the server's is refused, and the log says so."""
        await self.startServer()
        peer = await self.come()
        with self.assertRaises(TunnelError):
            await peer.forward("192.0.2.1", 0)
        self.assertIn("192.0.2.1", str(self.notes.named("requestNoted")))

    async def test_order(self) -> None:
        """Answers come in the order of the requests, known ones and others."""
        await self.startServer()
        peer = await self.come()
        answers = [
            peer.connection.ask(name, data).addCallbacks(
                lambda said: "granted", lambda failure: "refused"
            )
            for name, data in (
                ("tcpip-forward", packText("") + packNumbers(0)),
                ("no-such-thing", b""),
                ("tcpip-forward", packText("") + packNumbers(0)),
            )
        ]
        self.assertEqual(
            ["granted", "refused", "granted"], await gatherResults(answers)
        )

    async def test_refused(self) -> None:
        """A client that reaches no service has its visitor turned away."""
        await self.startServer()
        peer = await self.come()
        peer.taken = lambda channel: channel.reset(TunnelError("service-refused"))
        visitor = await self.visit(await peer.listen())
        await visitor.gone()

    async def test_leaves(self) -> None:
        """The tunnels of a client that has left are over, as are its visitors."""
        await self.startServer()
        peer = await self.come()
        port = await peer.listen()
        visitor = await self.visit(port)
        await until(lambda: bool(peer.channels))
        peer.link.abort()
        await visitor.gone()
        await until(lambda: not self.tunnels.tunnels)
        self.assertEqual(0, self.sessions.streams())


class TLSPortTests(SSHTestCase):
    """A port with TLS, where SSH comes before that."""

    tls = True

    async def test_both(self) -> None:
        """Clients with TLS and those with SSH come to the same port."""
        await self.startServer("ssl:0:interface=127.0.0.1")
        peer = await self.come()
        await self.visit(await peer.listen())
        await until(lambda: bool(peer.channels))
        service = Service()
        (port,) = await self.startClient(f"0=127.0.0.1:{self.offer(service)}")
        visitor, talk = await self.pair(port, service)
        visitor.say(b"hello")
        await talk.has(5)

    async def test_pieces(self) -> None:
        """What begins like SSH, and goes on as something else, is for TLS to refuse."""
        await self.startServer("ssl:0:interface=127.0.0.1")
        for said in (b"SS", b"SSXXXXXX", b"GET / HTTP/1.0\r\n\r\n"):
            talk = await self.visit(self.serverPort)
            talk.say(said)
            if len(said) > 2:
                await talk.ended()
