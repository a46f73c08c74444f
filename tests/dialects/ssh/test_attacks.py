"""
What SSH clients do who mean no good: each of it is bounded, and the server goes on.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.dialects.framed.memory import RecordingEnd
from tests.dialects.ssh.rig import Peer, SSHTestCase
from tests.support.loopback import Service
from tests.support.polling import until
from tristunnel.auth.checkers import checkingCallable
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.conch import client, key_exchange
from tristunnel.dialects.conch.client import ClientPackets, Credentials
from tristunnel.dialects.conch.credit import LEAST_WINDOW
from tristunnel.dialects.conch.link import TURN_PACKETS
from tristunnel.dialects.conch.login import ATTEMPTS
from tristunnel.dialects.conch.server import ServerPackets
from tristunnel.errors import TunnelError
from tristunnel.wire.ssh import Message, packNumbers, packText, packTexts

LONG = bool(os.environ.get("TRISTUNNEL_LONG"))
CHANNELS = 100_000 if LONG else 2000
ROOM = 50


def _open(number: int, kind: str = "direct-tcpip", size: int = 32768) -> bytes:
    place = packText("nobody") + packNumbers(1) + packText("x") + packNumbers(1)
    return packTexts(kind) + packNumbers(number, 1 << 20, size) + place


class EnemyTestCase(SSHTestCase):
    """A test with clients that mean no good."""

    async def deaf(self, link: ClientPackets, kind: int, rest: bytes) -> None:
        """Send a message again and again, and read nothing, until nobody reads us."""
        (session,) = self.sessions.sessions
        # What is refused is no matter for a log here.
        self.patch(session, "noteRefusal", lambda asked, refusal: None)
        link.transport.pauseProducing()
        sent = 0
        while "answers" not in session.connection.holds and sent < 200_000:
            for _ in range(500):
                sent += 1
                link.sendPacket(kind, rest)
            await self.turn()
        self.assertIn("answers", session.connection.holds)
        link.abort()
        await until(lambda: not self.sessions.sessions)

    async def turn(self) -> None:
        await deferLater(self.outside, 0)


class AttackTests(EnemyTestCase):
    """Those who are in."""

    limits = Limits(streams=ROOM, sessionWindow=1024 * 1024)

    async def ends(self, peer: Peer, why: str = "") -> None:
        """Wait for the server to end the connection, and see that it lives."""
        reason = await peer.lost
        self.assertIn(why, reason.message)
        await self.come()

    async def test_violations(self) -> None:
        """Whoever violates the protocol is put out with a reason."""
        await self.startServer()
        most = 0xFFFFFFFF
        for kind, numbers, rest in (
            (Message.CHANNEL_DATA, (77, 1), b"x"),
            (Message.CHANNEL_DATA, (77, most), b"x"),
            (Message.CHANNEL_WINDOW_ADJUST, (77, 1), b""),
            (Message.CHANNEL_EOF, (77,), b""),
            (Message.CHANNEL_CLOSE, (77,), b""),
            (Message.CHANNEL_REQUEST, (77,), packText("shell") + b"\1"),
            (Message.CHANNEL_OPEN_CONFIRMATION, (0, 0, most, 32768), b""),
            (Message.CHANNEL_OPEN_FAILURE, (0, 1), packTexts("", "")),
            (Message.REQUEST_SUCCESS, (), b""),
            (Message.CHANNEL_OPEN, (), b"\xff\xff\xff\xff"),
            (Message.CHANNEL_OPEN, (), _open(1, size=1)),
            (Message.GLOBAL_REQUEST, (), packText("tcpip-forward") + b"\1"),
        ):
            peer = await self.come()
            peer.send(kind, *numbers, rest=rest)
            await self.ends(peer, "[protocol-error]")

    async def test_window(self) -> None:
        """Nobody sends past a window, or opens one too far."""
        await self.startServer()
        for kind, rest in (
            (Message.CHANNEL_WINDOW_ADJUST, packNumbers(0xFFFFFFFF)),
            (Message.CHANNEL_DATA, packText(bytes(200_000))),
        ):
            peer = await self.come()
            port = await peer.listen()
            visitor = await self.visit(port)
            visitor.transport.pauseProducing()
            channels = peer.channels
            await until(partial(bool, channels))
            channel = channels[-1][0]
            for _ in range(100):
                peer.send(kind, channel.recipient or 0, rest=rest)
            await self.ends(peer, "window")

    async def test_channels(self) -> None:
        """Of channels there are so many, and no more, whatever becomes of them."""
        await self.startServer()
        peer = await self.come()
        (session,) = self.sessions.sessions
        most = 0
        for number in range(CHANNELS):
            peer.send(Message.CHANNEL_OPEN, rest=_open(number, "session"))
            most = max(most, len(session.channels.channels))
            if number % 500 == 0:
                await self.turn()
        with self.assertRaises(TunnelError):
            # It is still answered, in its turn.
            await peer.connection.ask("no-such-thing")
        self.assertLessEqual(most, ROOM)
        self.assertEqual(10, len(session.channels.channels))

    async def test_turns(self) -> None:
        """A flood of small messages keeps nobody waiting, and all are taken."""
        await self.startServer()
        peer = await self.come()
        turn = 0
        taken: list[int] = []
        self.patch(ServerPackets, "ssh_DEBUG", lambda link, packet: taken.append(turn))
        for _ in range(1000):
            peer.link.sendPacket(4, packNumbers(0, 0))
        while len(taken) < 1000:
            turn += 1
            await self.turn()
        self.assertLessEqual(max(Counter(taken).values()), 2 * TURN_PACKETS)

    async def test_requests(self) -> None:
        """A flood of requests gets so many tunnels as a client may have."""
        await self.startServer()
        peer = await self.come()
        asked = [peer.forward("", 0) for _ in range(300)]
        granted = []
        for each in asked:
            granted.append(await each.addErrback(lambda failure: None))
        self.assertEqual(
            self.tunnels.rights.services, sum(each is not None for each in granted)
        )

    async def test_deaf(self) -> None:
        """
        A client that has much to be answered and reads nothing is read no further,
        whatever the answer is.
        """
        await self.startServer()
        nowhere = packText("tcpip-forward") + b"\0" + packText("x") + packNumbers(1)
        for kind, rest in (
            (Message.GLOBAL_REQUEST, packText("keepalive@x") + b"\1"),
            # Refused, with a word for whoever listens and no answer.
            (Message.GLOBAL_REQUEST, nowhere),
            # Unknown.
            (192, b""),
        ):
            peer = await self.come()
            await self.deaf(peer.link, kind, rest)

    async def test_stalled(self) -> None:
        """
        Visitors who do not read have what the client sends wait, within a bound, and
        disturb nobody else.
        """
        await self.startServer()
        peer = await self.come()
        (session,) = self.sessions.sessions
        port = await peer.listen()
        for number in range(ROOM // 2):
            visitor = await self.visit(port)
            visitor.transport.pauseProducing()
            await until(lambda n=number: len(peer.channels) > n)
            peer.channels[-1][0].write(bytes(4 * 1024 * 1024))
        busy = await self.visit(port)
        await until(lambda: len(peer.channels) > ROOM // 2)
        peer.channels[-1][0].write(b"y" * 1024 * 1024)
        await busy.has(1024 * 1024)
        most = self.limits.sessionWindow if self.limits else 0
        self.assertLessEqual(session.channels.waiting, most + ROOM * LEAST_WINDOW)

    async def test_exchanges(self) -> None:
        """Who does nothing but exchange keys is read more slowly."""
        # A busy machine may not do as many in a second as are let pass.
        self.patch(key_exchange, "EXCHANGES", 1)
        await self.startServer()
        peer = await self.come()
        (session,) = self.sessions.sessions
        link = peer.link
        held = False
        for _ in range(60):
            link.sendKexInit()
            while link._keyExchangeState != link._KEY_EXCHANGE_NONE:
                held = held or "exchanges" in session.connection.holds
                await self.turn()
            if held:
                break
        self.assertTrue(held)


class StrangerTests(EnemyTestCase):
    """Those who are not in."""

    authenticator = Authenticator(
        portalFor([checkingCallable(lambda fields: fields.get("secret") == "right")])
    )

    async def test_login(self) -> None:
        """The right password lets somebody in, under its name."""
        await self.startServer()
        await self.come(Credentials("laptop", "right"))
        (client,) = self.tunnels.clients
        self.assertEqual("laptop", client.identity.name)

    async def test_wrong(self) -> None:
        """A wrong one does not, and counts against the address."""
        await self.startServer()
        with self.assertRaises(TunnelError):
            await self.come(Credentials("laptop", "wrong"))
        self.assertEqual(
            ["auth-refused"],
            [code for *_, code in self.notes.named("authenticationFailed")],
        )

    async def test_attempts(self) -> None:
        """So many wrong ones end the connection."""
        await self.startServer()
        tried = 0

        class Guessing(client._Login):
            def _next(self, methods: Any) -> None:
                nonlocal tried
                tried += 1
                self._ask("password", b"\0" + packTexts(f"guess {tried}"))

        self.patch(client, "_Login", Guessing)
        with self.assertRaises(TunnelError) as caught:
            await self.come(Credentials("laptop", "x"))
        self.assertIn(f"{ATTEMPTS} logins failed", str(caught.exception))
        self.assertEqual(ATTEMPTS, tried)

    async def test_early(self) -> None:
        """Nothing but a login is taken before one."""
        await self.startServer()
        for rest in (b"SSH-2.0-x\r\n" + bytes(40_000), b"SSH-" + b"x" * 5000):
            talk = await self.visit(self.serverPort)
            talk.say(rest)
            await talk.ended()
        (refused, *more) = self.notes.named("peerRefused")
        self.assertEqual(2, 1 + len(more), refused)

    async def test_questions(self) -> None:
        """Who has itself asked for passwords and reads nothing is read no further."""
        links: list[ClientPackets] = []
        self.patch(client._Login, "serviceStarted", lambda it: links.append(it._link))
        await self.startServer()
        lost = Deferred.fromCoroutine(self.come())
        await until(lambda: bool(links))
        wants = packTexts("me", "ssh-connection", "keyboard-interactive", "", "")
        await self.deaf(links[0], 50, wants)
        with self.assertRaises(TunnelError):
            await lost

    async def test_service(self) -> None:
        """Who is not in opens no channels, and no tunnels."""

        class Hasty(client._Login):
            def serviceStarted(self) -> None:
                self._link.sendPacket(
                    Message.GLOBAL_REQUEST,
                    packText("tcpip-forward") + b"\1" + packText("") + packNumbers(0),
                )

        self.patch(client, "_Login", Hasty)
        await self.startServer()
        with self.assertRaises(TunnelError):
            await self.come()
        self.assertEqual([], self.tunnels.tunnels)


class ChannelTests(SSHTestCase):
    """What clients open themselves."""

    async def test_visit(self) -> None:
        """C{ssh -W NAME:PORT}: a service of that name is visited."""
        await self.startServer()
        service = Service(b"hello")
        await self.startClient(f"web=127.0.0.1:{self.offer(service)}")
        peer = await self.come()
        place = packText("web") + packNumbers(80) + packText("") + packNumbers(0)
        channel = peer.streams.openChannel("direct-tcpip", place)
        end = RecordingEnd()
        end.meet(channel)
        await until(lambda: end.taken == b"hello")
        channel = peer.streams.openChannel("direct-tcpip", _open(0)[28:])
        reasons: list[Any] = []
        channel.whileWaiting(reasons.append)
        await until(lambda: bool(reasons))

    async def test_session(self) -> None:
        """
        Without C{-N} there is a screen, with what was refused before; Ctrl-C ends it.
        """
        await self.startServer()
        peer = await self.come()
        with self.assertRaises(TunnelError):
            await peer.forward("nowhere", 1)
        port = await peer.listen()
        channel = peer.streams.openChannel("session", b"")
        end = RecordingEnd()
        end.meet(channel)
        await until(lambda: channel.answered)
        size = packText("xterm") + packNumbers(80, 50, 0, 0) + packText("")
        peer.streams.tell(channel, "pty-req", size)
        peer.streams.tell(channel, "shell", b"")
        await until(lambda: b"Ctrl-C" in end.taken)
        self.assertIn(f":{port}".encode(), end.taken)
        self.assertIn(b"'nowhere' is not an address", end.taken)
        channel.write(b"\x03")
        await until(lambda: channel.over)
        peer.link.close()
