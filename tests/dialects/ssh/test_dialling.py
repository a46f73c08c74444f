"""C{ssh -L}: channels to places that the server, or another client, dials."""

from __future__ import annotations

from typing import Any

from tests.dialects.framed.memory import RecordingEnd
from tests.dialects.ssh.rig import Peer, SSHTestCase
from tests.support.loopback import Service
from tests.support.polling import until
from tristunnel.forwards.dialling import dialDestinations
from tristunnel.wire.ssh import packNumbers, packText


def place(host: str, port: int) -> bytes:
    return packText(host) + packNumbers(port) + packText("127.0.0.1") + packNumbers(1)


class DiallingTests(SSHTestCase):
    """The channels."""

    async def reached(self, peer: Peer, kind: str, fields: bytes) -> RecordingEnd:
        """Open a channel to a service that says hello."""
        channel = peer.streams.openChannel(kind, fields)
        end = RecordingEnd()
        end.meet(channel)
        await until(lambda: end.taken == b"hello")
        return end

    async def refused(self, peer: Peer, fields: bytes) -> str:
        """Open a channel that is refused, and say why."""
        channel = peer.streams.openChannel("direct-tcpip", fields)
        reasons: list[Any] = []
        channel.whileWaiting(reasons.append)
        await until(lambda: bool(reasons))
        return str(reasons[0])

    async def test_server(self) -> None:
        """The server dials what its list names, bytes pass, and it is a visit."""
        service = Service(b"hello")
        at = self.offer(service)
        path = str(self.directory / "socket")
        socket = self.outside.listenUNIX(path, service)
        self.addCleanup(socket.stopListening)
        await self.startServer()
        allowed = (f"127.0.0.1:{at}", f"localhost:{at}", f"unix:{path}")
        self.sessions.destinations = dialDestinations(allowed)
        peer = await self.come()
        for kind, fields in (
            ("direct-tcpip", place("127.0.0.1", at)),
            ("direct-tcpip", place("localhost", at)),
            (
                "direct-streamlocal@openssh.com",
                packText(path) + packText("") + packNumbers(0),
            ),
        ):
            end = await self.reached(peer, kind, fields)
            there = await service.arrivals.get()
            end.say(b"and you")
            end.end()
            await there.ended()
            self.assertEqual(b"and you", bytes(there.data))
            there.close()
        self.assertEqual(3, len(self.notes.named("visitorConnected")))
        for host, port, why in (
            ("127.0.0.1", self.serverPort, "--dial-allow"),
            ("localhost", self.serverPort, "no service 'localhost'"),
            ("127.0.0.1@nobody", at, "no client 'nobody'"),
            ("127.0.0.1@no body", at, "no client 'no body'"),
        ):
            self.assertIn(why, await self.refused(peer, place(host, port)), host)

    async def test_service(self) -> None:
        """A name that a network's list might lead to is that of a service."""
        await self.startServer()
        await self.startClient(f"web=127.0.0.1:{self.offer(Service(b'hello'))}")
        self.sessions.destinations = dialDestinations(["0.0.0.0/0:*"])
        await self.reached(await self.come(), "direct-tcpip", place("web", 80))
