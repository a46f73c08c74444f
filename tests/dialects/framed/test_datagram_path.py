"""
Datagrams past the session.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dataplane.test_datagrams import FlowPair
from tests.integration.udp_loopback import UDPTestCase
from tristunnel.dialects.framed.datagram_path import (
    CONFIRMED,
    LARGEST,
    PROBE,
    ServerPaths,
    UDPPath,
    clientPath,
    describePath,
)
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import FrameType
from tristunnel.wire.sealed import OVERHEAD, REPLAY_WINDOW, Keys, Sealing, newKeys

_KEYS = Keys(b"pathname", bytes(32), bytes([1]) * 32)


class SealingTests(SynchronousTestCase):
    """Packets are the peer's, whole, and good for once."""

    def setUp(self) -> None:
        self.client, self.server = Sealing(_KEYS, False), Sealing(_KEYS, True)

    def test_bytes(self) -> None:
        """Name, number, and what RFC 8439 makes of the content."""
        packet = self.client.seal(b"?")
        self.assertEqual(packet[:16], b"pathname\0\0\0\0\0\0\0\1")
        self.assertEqual(len(packet), OVERHEAD + 1)
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        content = ChaCha20Poly1305(bytes(32)).decrypt(
            bytes(11) + b"\1", packet[16:], b"pathname"
        )
        self.assertEqual(content, b"?")

    def test_bothWays(self) -> None:
        """
        Each direction has its key: what was sent does not come back as the
        peer's.
        """
        packet = self.client.seal(b"in")
        self.assertIsNone(self.client.open(packet))
        self.assertEqual(self.server.open(packet), (b"in", True))
        self.assertEqual(self.client.open(self.server.seal(b"out")), (b"out", True))

    def test_once(self) -> None:
        """
        A packet is taken once, in whatever order it comes, unless it is too
        far behind.
        """
        packets = [self.client.seal(b"%d" % n) for n in range(REPLAY_WINDOW + 10)]
        for n in (5, 3, 4, REPLAY_WINDOW + 9):
            opened = self.server.open(packets[n])
            self.assertEqual(opened, (b"%d" % n, n in (5, REPLAY_WINDOW + 9)))
        for n in (3, 4, 5, 8, REPLAY_WINDOW + 9):
            self.assertIsNone(self.server.open(packets[n]))
        self.assertEqual(self.server.open(packets[10]), (b"10", False))
        self.assertIsNone(self.server.open(packets[10]))

    def test_farAhead(self) -> None:
        """A number that is far ahead costs no memory."""
        self.client._sent = (1 << 64) - 2
        self.assertEqual(self.server.open(self.client.seal(b"")), (b"", True))

    @given(st.integers(0, 10_000), st.integers(1, 255))
    def test_forged(self, place: int, change: int) -> None:
        """A packet with any byte changed is none, and does no harm."""
        client, server = Sealing(_KEYS, False), Sealing(_KEYS, True)
        packet = client.seal(b"content")
        forged = bytearray(packet)
        forged[place % len(forged)] ^= change
        self.assertIsNone(server.open(bytes(forged)))
        self.assertEqual(server.open(packet), (b"content", True))

    @given(st.binary(max_size=100))
    def test_noise(self, noise: bytes) -> None:
        """Anything else is none."""
        self.assertIsNone(Sealing(_KEYS, True).open(noise))
        self.assertIsNone(Sealing(_KEYS, True).open(_KEYS.name + noise))

    def test_newKeys(self) -> None:
        """No two paths are alike."""
        one, other = newKeys(), newKeys()
        self.assertEqual(len({*one, *other}), 6)


class PathTests(SynchronousTestCase):
    """The path is used while it gets through, and not otherwise."""

    def setUp(self) -> None:
        """Make a session with a flow, and a path beside it."""
        self.clock = Clock()
        self.both = FlowPair()
        self.wire: dict[bool, list[bytes]] = {True: [], False: []}
        self.lost = {True: False, False: False}
        for isServer, side in ((True, self.both.server), (False, self.both.client)):
            flows = side.datagrams
            flows.path = UDPPath(
                self.clock,
                Sealing(_KEYS, isServer),
                lambda flows=flows: bool(flows.flows),  # type: ignore[misc] # it is one of this round
                flows.pathArrived,
                lambda packet, isServer=isServer: self._sent(  # type: ignore[misc] # it is one of this round
                    isServer, packet
                ),
            )
        assert self.both.server.datagrams.path and self.both.client.datagrams.path
        self.server: UDPPath = self.both.server.datagrams.path
        self.client: UDPPath = self.both.client.datagrams.path
        self.flow, self.visitor = self.both.open()
        self.both.pair.settle()
        self.service = self.both.ends[self.flow.id]

    def _sent(self, fromServer: bool, packet: bytes) -> bool:
        if not self.lost[fromServer]:
            self.wire[fromServer].append(packet)
        return True

    def carry(self) -> None:
        while any(self.wire.values()):
            for fromServer, to in ((True, self.client), (False, self.server)):
                packets, self.wire[fromServer] = self.wire[fromServer], []
                for packet in packets:
                    to.packetArrived(packet)

    def pass_(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)
            self.carry()

    def inSession(self) -> list[bytes]:
        """The datagrams that the server sent within the session."""
        frames = self.both.pair.server.sink.frames()
        return [each.payload for each in frames if each.kind == FrameType.DATAGRAM]

    def test_used(self) -> None:
        """
        Once a probe was answered, datagrams go by the path, both ways; until
        then through the session.
        """
        self.flow.send(b"first")
        self.assertEqual(self.inSession(), [b"first"])
        self.carry()
        self.assertTrue(self.server.usable and self.client.usable)
        self.flow.send(b"second")
        self.service.passOn(b"answer")
        self.carry()
        self.assertEqual(self.inSession(), [])
        self.assertEqual(self.service.taken, [b"second"])
        self.assertEqual(self.visitor.taken, [b"answer"])

    def test_large(self) -> None:
        """
        What would not fit a network's packet goes through the session; probes
        are as large as the largest that does.
        """
        self.assertEqual(
            {len(packet) for packet in self.wire[True] + self.wire[False]},
            {LARGEST + 4 + OVERHEAD},
        )
        self.carry()
        self.flow.send(bytes(LARGEST))
        self.flow.send(bytes(LARGEST + 1))
        self.assertEqual(self.inSession(), [bytes(LARGEST + 1)])

    def test_blocked(self) -> None:
        """
        Where a firewall lets nothing through in one direction, everything goes
        through the session, in both.
        """
        for direction in (True, False):
            self.setUp()
            self.lost[direction] = True
            self.pass_(10)
            self.assertFalse(self.server.usable or self.client.usable)
            self.flow.send(b"x")
            self.assertEqual(self.inSession(), [b"x"])

    def test_breaks(self) -> None:
        """
        A path that gets through no more is left after some seconds, and used
        again when it does.
        """
        self.pass_(2)
        self.lost[True] = True
        self.pass_(CONFIRMED + PROBE)
        self.assertFalse(self.server.usable or self.client.usable)
        self.flow.send(b"x")
        self.assertEqual(self.inSession(), [b"x"])
        self.lost[True] = False
        self.pass_(2 * PROBE)
        self.assertTrue(self.server.usable and self.client.usable)

    def test_nobodyThere(self) -> None:
        """When the kernel says so, the path is left at once."""
        self.carry()
        self.server.failed(OSError())
        self.assertFalse(self.server.usable)

    def test_oldAnswer(self) -> None:
        """An answer that was kept back says nothing about now."""
        held, self.wire[True] = self.wire[True], []
        self.carry()
        self.assertTrue(self.client.usable)
        self.assertFalse(self.server.usable)
        self.lost[False] = True
        self.pass_(CONFIRMED + 1)
        self.lost[False] = False
        for packet in held:
            self.client.packetArrived(packet)
        for packet in self.wire[False]:
            self.server.packetArrived(packet)
        self.assertFalse(self.server.usable)

    def test_quiet(self) -> None:
        """Without flows there are no probes and no timers."""
        self.pass_(2)
        self.flow.finish()
        self.both.pair.settle()
        self.pass_(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.both.open()
        self.assertEqual(len(self.wire[True]), 1)

    def test_close(self) -> None:
        """The session's end is the path's."""
        self.carry()
        for side in (self.both.server, self.both.client):
            side.close(TunnelError("session-lost"))
        self.assertFalse(self.server.usable or self.client.usable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_garbage(self) -> None:
        """
        What is not the peer's is counted, and only the newest of its packets
        says where it is.
        """
        moves: list[int] = []
        self.server.packetArrived(b"garbage", lambda: moves.append(0))
        (packet,) = self.wire[False]
        self.server.packetArrived(packet, lambda: moves.append(1))
        self.server.packetArrived(packet, lambda: moves.append(2))
        self.assertEqual((moves, self.server.rejected), ([1], 2))

    def test_otherFlow(self) -> None:
        """A datagram for a flow that is not there is counted only."""
        self.carry()
        self.client.send(77, b"x")
        self.carry()
        self.assertEqual(self.both.server.lateFrames, 1)


class OfferTests(SynchronousTestCase):
    """What the server says of its path."""

    def _path(self, offer: object, peer: object = None) -> UDPPath | None:
        return clientPath(
            Clock(),
            peer or IPv4Address("TCP", "127.0.0.1", 9),
            offer,
            lambda: True,
            lambda number, datagram: None,
        )

    def test_none(self) -> None:
        """Nothing is said, or the session is no network's."""
        offer = describePath(9, newKeys())
        self.assertIsNone(self._path(None))
        self.assertIsNone(self._path(offer, UNIXAddress(b"x")))

    def test_wrong(self) -> None:
        """What is no path breaks the protocol."""
        good = describePath(9, newKeys())
        wrong: list[dict[str, Any]] = [
            {},
            {**good, "port": 0},
            {**good, "port": True},
            {**good, "name": "00"},
            {**good, "toServer": 5},
            {**good, "toClient": "x" * 64},
        ]
        for offer in wrong:
            error = self.assertRaises(TunnelError, self._path, offer)
            self.assertEqual(error.code.name, "protocol-error")


class TunnelTests(UDPTestCase):
    """A real path on the loopback interface."""

    async def _start(self) -> tuple[Any, int, Any, Any]:
        """Start all, with a path; the service, visitors' port, and both flows."""
        service = self.service()
        service.arrived = lambda datagram, sender: service.say(datagram, sender)
        self.startServer()
        self.sessions.paths = ServerPaths(self.reactor, "127.0.0.1")
        self.tunnels.clientPort = (self.serverPort, False)
        (port,) = await self.startClient(f"udp/0=127.0.0.1:{service.number}")
        session = self.client.session
        assert session is not None
        (other,) = self.sessions.sessions
        return (
            service,
            port,
            other.multiplexer.datagrams,
            session.multiplexer.datagrams,
        )

    async def _untilUsed(self, visitor: Any, *sides: Any) -> None:
        """Ask and be answered until the path is used."""
        while not all(side.path.usable for side in sides):
            visitor.say(b"?")
            await visitor.has(visitor.count + 1)

    async def test_used(self) -> None:
        """Datagrams leave the session, and nothing is lost at that."""
        _, port, server, client = await self._start()
        visitor = self.visitor(port)
        await self._untilUsed(visitor, server, client)
        inSession: list[int] = []
        write = ExtendedMultiplexer.writePieces

        def count(side: ExtendedMultiplexer, *pieces: bytes) -> None:
            inSession.append(1)
            write(side, *pieces)

        self.patch(ExtendedMultiplexer, "writePieces", count)
        for number in range(1000):
            visitor.say(b"%d" % number)
            await visitor.has(visitor.count + 1)
            self.assertEqual(visitor.heard[-1][0], b"%d" % number)
        # A machine that stands still for seconds may have a few there.
        self.assertLess(len(inSession), 500)
        self.assertEqual((server.dropped, client.dropped), (0, 0))

    async def test_fallsBack(self) -> None:
        """When the server's UDP port is gone, the session carries on."""
        service, port, server, client = await self._start()
        visitor = self.visitor(port)
        await self._untilUsed(visitor, server, client)
        assert self.sessions.paths is not None
        self.sessions.paths.close()
        visitor.say(b"in the session")
        await service.has(service.count + 1)
        # The service's answer meets a closed port, which the kernel reports.
        while client.path.usable:
            visitor.say(b"again")
            await service.has(service.count + 1)
        before = visitor.count
        visitor.say(b"once more")
        await visitor.has(before + 1)

    async def test_portTaken(self) -> None:
        """
        A server that cannot have the port has no path, and works; it has one
        again when nobody else has the port.
        """
        service = self.service()
        service.arrived = lambda datagram, sender: service.say(datagram, sender)
        self.startServer()
        holder = self.service("127.0.0.1", self.serverPort)
        self.sessions.paths = paths = ServerPaths(self.reactor, "127.0.0.1")
        self.tunnels.clientPort = (self.serverPort, False)
        (port,) = await self.startClient(f"udp/0=127.0.0.1:{service.number}")
        session: Any = self.client.session
        self.assertIsNone(session.multiplexer.datagrams.path)
        visitor = self.visitor(port)
        visitor.say(b"?")
        await visitor.has(1)
        self.assertEqual(paths.port(self.serverPort), 0)
        holder.port.close()
        self.assertEqual(paths.port(self.serverPort), self.serverPort)
        paths.close()
        self.assertEqual(paths.port(self.serverPort), 0)
