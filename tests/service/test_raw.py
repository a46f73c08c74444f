"""Tests for L{tristunnel.service.raw}."""

from __future__ import annotations

from dataclasses import replace

from tests.dialects.framed.network import NetworkTestCase
from tests.service.rig import ALICE, ServiceTestCase
from tests.support.waiting import WaitingEnd
from tristunnel.errors import TunnelError
from tristunnel.model.rendezvous import PATIENCE
from tristunnel.service.caller import Caller
from tristunnel.service.raw import INTRODUCTION, UNCLAIMED, UNPROVEN
from tristunnel.wire.framed import Frame, FrameType, decodeObject, encodeObject

_OFFER = {"versions": [1], "streamWindow": 1 << 18, "sessionWindow": 1 << 20}


class RawTests(ServiceTestCase):
    """Tunnels whose client's ends are raw connections."""

    def make(self, caller: Caller = ALICE, **options: object) -> None:
        self.uri = self.open(caller, **options)
        self.clients = self.visitors.at(self.uri)
        self.port = self.visitors.at(self.address(self.uri, caller))

    def assertReason(self, code: str) -> None:
        self.assertEqual(self.notes.named("tunnelDestroyed")[0][1], code)
        self.assertNothingLeft()

    def part(self, client: WaitingEnd, visitor: WaitingEnd) -> None:
        client.leave(None)
        visitor.leave(None)

    def test_one(self) -> None:
        """A tunnel is for one visitor unless its caller says otherwise, and is over
        when that one's conversation is."""
        self.make()
        client, visitor = self.clients.come(), self.port.come()
        self.assertIs(client.peer, visitor)
        client.leave(None)
        self.assertFalse(self.port.closed)
        visitor.leave(None)
        self.assertTrue(self.port.closed)
        self.assertTrue(self.clients.closed)
        self.assertReason("closed")

    def test_visitorFirst(self) -> None:
        """The visitor may come first."""
        self.make()
        visitor, client = self.port.come(), self.clients.come()
        self.assertIs(client.peer, visitor)

    def test_oneOnly(self) -> None:
        """A second one is turned away, on either side, while the first waits and while
        it talks."""
        self.make()
        visitor = self.port.come()
        self.assertEqual(self.port.come().refused, "limit-reached")
        client = self.clients.come()
        self.assertEqual(self.port.come().refused, "limit-reached")
        self.assertEqual(self.clients.come().refused, "limit-reached")
        self.assertEqual((visitor.refused, client.refused), ("", ""))
        self.part(client, visitor)
        self.assertReason("closed")

    def test_secondClientWaiting(self) -> None:
        """Also a client's connection that comes while another one waits."""
        self.make()
        client = self.clients.come()
        self.assertEqual(self.clients.come().refused, "limit-reached")
        self.assertIs(self.port.come().peer, client)

    def test_scanner(self) -> None:
        """Whoever connects to the URI and leaves without a word, in whatever way, ends
        nothing and takes no place, with a visitor there and without one."""

        def closes(end: WaitingEnd) -> None:
            end.finishSending()
            self.assertTrue(end.refused or end.ended)

        for visitors in (1, 2):
            for leave in (
                closes,
                lambda end: end.leave(None),
                lambda end: end.leave(TunnelError("reset")),
            ):
                for waits in (False, True):
                    self.make(visitors=visitors)
                    visitor = self.port.come(b"") if waits else None
                    for _ in range(3):
                        scanner = self.clients.come(b"")
                        leave(scanner)
                        self.assertIsNone(scanner.peer)
                    client = self.clients.come()
                    self.assertEqual(client.refused, "")
                    visitor = visitor or self.port.come()
                    self.assertIs(client.peer, visitor)
                    self.close(self.uri)
        self.assertNothingLeft()

    def test_scannedAddress(self) -> None:
        """A visitor who is reset before anything was said leaves the client's
        connection to the next one. One that says that it will send nothing is a
        visitor; if nothing came of it, the tunnel is good for another."""
        self.make()
        client = self.clients.come(b"")
        for _ in range(3):
            scanner = self.port.come(b"")
            self.assertEqual(self.port.come().refused, "limit-reached")
            scanner.leave(TunnelError("reset"))
        visitor = self.port.come(b"")
        self.assertIsNone(client.peer)
        visitor.finishSending()
        self.assertIs(client.peer, visitor)
        self.part(client, visitor)
        self.assertEqual(self.notes.named("tunnelDestroyed"), [])
        client, visitor = self.clients.come(), self.port.come()
        self.part(client, visitor)
        self.assertReason("closed")

    def test_silent(self) -> None:
        """Two who have met are joined when either says something."""
        for speaker in (0, 1):
            self.make()
            ends = [self.clients.come(b""), self.port.come(b"")]
            self.assertIsNone(ends[0].peer)
            ends[speaker].say(b"x")
            self.assertIs(ends[0].peer, ends[1])
            self.part(*ends)
        self.assertNothingLeft()

    def test_silentKicked(self) -> None:
        """A visitor that is sent away, and a tunnel that is closed, before anything was
        said, leave nothing behind."""
        self.make()
        client, visitor = self.clients.come(b""), self.port.come(b"")
        tunnel = self.successResultOf(self.service.find(self.uri))
        (stream,) = tunnel.streams
        stream.reset(TunnelError("closed"))
        self.assertEqual((visitor.refused, client.refused), ("closed", ""))
        visitor = self.port.come()
        self.assertIs(client.peer, visitor)
        self.part(client, visitor)
        self.make()
        ends = [self.clients.come(b""), self.port.come(b"")]
        self.assertEqual(self.service.waiting.taken, 2)
        self.close(self.uri)
        self.assertEqual([end.refused for end in ends], ["closed"] * 2)
        self.assertEqual(self.service.waiting.taken, 0)
        self.assertNothingLeft()

    def test_openerOnly(self) -> None:
        """A tunnel can be bound to where it was opened."""
        for here, there, elsewhere in (
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.7", "::ffff:192.0.2.7", "[::ffff:192.0.2.8]"),
            ("2001:db8:1:2::/64", "[2001:db8:1:2::9]", "[2001:db8:1:3::9]"),
        ):
            caller = replace(ALICE, address=here)
            self.make(caller, openerOnly=True)
            self.assertEqual(self.clients.come(host=elsewhere).refused, "not-permitted")
            visitor = self.port.come(host=elsewhere)
            self.assertIs(self.clients.come(host=there).peer, visitor)
            self.close(self.uri, caller)
        self.assertNotOpened("bad-option", replace(ALICE, address=""), openerOnly=True)

    def test_firstLine(self) -> None:
        """A tunnel can be for whoever says the secret of its URI in a first line, in
        pieces of any size. The visitor does not see that."""
        self.make(firstLine=True)
        public, _, secret = self.uri.partition("#")
        self.assertEqual(self.list()[0]["uri"], public)
        self.assertGreaterEqual(len(secret), 32)
        good = secret.encode()
        for wrong in (b"\n", b"x\n", good[:-1] + b"\n", b"x" * 200, good + b"x\n"):
            self.assertEqual(self.clients.come(wrong).refused, "auth-refused")
        scanner = self.clients.come(good)
        scanner.finishSending()
        self.assertIsNone(scanner.peer)
        slow = [self.clients.come(b"") for _ in range(UNPROVEN + 1)]
        self.assertEqual(slow[0].refused, "auth-refused")
        self.clock.advance(INTRODUCTION)
        self.assertTrue(all(end.refused for end in slow))
        for end in (b"\n", b"\r\n"):
            visitor = self.port.come()
            client = self.clients.come(b"")
            for number in range(len(good)):
                client.say(good[number : number + 1])
            self.assertIsNone(client.peer)
            client.say(end + b"welcome\n")
            self.assertIs(client.peer, visitor)
            self.assertEqual((client.early, client.received), (b"welcome\n", 8))
            self.part(client, visitor)
            self.make(firstLine=True)
            good = self.uri.partition("#")[2].encode()
        self.clients.come(b"")
        self.close(self.uri)
        self.assertNothingLeft()

    def test_rawOnly(self) -> None:
        """What is for raw tunnels is refused elsewhere, and not passed over."""
        for option in ({"openerOnly": True}, {"firstLine": True}, {"lookup": "bob"}):
            message = self.assertNotOpened("bad-option", via="w3p", **option)
            self.assertIn(next(iter(option)), message)

    def test_clientLeaves(self) -> None:
        """When the client's end has said something and breaks before the visitor came,
        the tunnel is over."""
        self.make()
        self.clients.come().leave(TunnelError("reset"))
        self.assertReason("closed")

    def test_clientLeavesBytes(self) -> None:
        """Not if it has left bytes for the visitor, in good order; but it is not waited
        for without end."""
        self.make()
        client = self.clients.come()
        client.received = 5
        client.leave(None)
        self.assertIs(self.port.come().peer, client)
        self.make()
        for reason in (TunnelError("reset"), None):
            client = self.clients.come()
            client.received = 5
            client.leave(reason)
            if reason is not None:
                self.assertEqual(self.notes.named("tunnelDestroyed")[0][1], "closed")
                self.make()
        self.clock.advance(UNCLAIMED)
        self.assertEqual(self.notes.named("tunnelDestroyed")[1][1], "expired")

    def test_visitorLeaves(self) -> None:
        """When a visitor leaves before a client's end came, another may come."""
        self.make()
        self.port.come().leave(None)
        self.assertFalse(self.port.closed)
        visitor = self.port.come()
        self.assertIs(self.clients.come().peer, visitor)

    def test_visitorWaits(self) -> None:
        """A visitor waits for a while, and another may come after it."""
        self.make()
        visitor = self.port.come()
        self.clock.advance(PATIENCE)
        self.assertEqual(visitor.refused, "client-away")
        visitor = self.port.come()
        self.assertIs(self.clients.come().peer, visitor)

    def test_visitors(self) -> None:
        """A tunnel for several visitors gives each a connection of its own, and is over
        after the last one."""
        self.make(visitors=3)
        clients = [self.clients.come() for _ in range(2)]
        visitors = [self.port.come() for _ in range(3)]
        self.assertEqual(self.port.come().refused, "limit-reached")
        clients.append(self.clients.come())
        self.assertEqual(self.clients.come().refused, "limit-reached")
        for client, visitor in zip(clients, visitors, strict=True):
            self.assertIs(client.peer, visitor)
            self.assertEqual(self.notes.named("tunnelDestroyed"), [])
            self.part(client, visitor)
        self.assertReason("closed")

    def test_visitorsOneAfterTheOther(self) -> None:
        """They need not come at the same time."""
        self.make(visitors=3)
        for _ in range(3):
            self.assertEqual(self.notes.named("tunnelDestroyed"), [])
            self.part(self.clients.come(), self.port.come())
            self.clock.advance(10)
        self.assertReason("closed")

    def test_severalClientLeaves(self) -> None:
        """In a tunnel for several visitors, one end that leaves makes room for
        another."""
        self.make(visitors=2)
        self.clients.come().leave(TunnelError("reset"))
        clients = [self.clients.come(), self.clients.come()]
        visitors = [self.port.come(), self.port.come()]
        self.assertEqual([c.peer for c in clients], visitors)

    def test_unclaimed(self) -> None:
        """A tunnel to whose URI nobody connects is over in a while; its last visitors
        are told."""
        self.make()
        self.clock.advance(UNCLAIMED - 1)
        visitor = self.port.come()
        self.clock.advance(1)
        self.assertEqual(visitor.refused, "expired")
        self.assertReason("expired")

    def test_claimed(self) -> None:
        """A client's end that waits keeps it, and so does a conversation."""
        self.make()
        client = self.clients.come()
        for _ in range(10):
            self.clock.advance(UNCLAIMED)
        visitor = self.port.come()
        for _ in range(10):
            self.clock.advance(UNCLAIMED)
        self.assertEqual((client.refused, visitor.refused), ("", ""))
        self.part(client, visitor)
        self.assertReason("closed")

    def test_notClaimedAgain(self) -> None:
        """A tunnel for more visitors than come is over, too."""
        self.make(visitors=5)
        self.part(self.clients.come(), self.port.come())
        self.clock.advance(UNCLAIMED)
        self.assertReason("expired")

    def test_halfGone(self) -> None:
        """A client's end that has sent all it had to send waits for its visitor no
        longer than that: it may have left long ago."""
        self.make()
        client = self.clients.come()
        client.ended = True
        self.clock.advance(UNCLAIMED)
        self.assertReason("expired")

    def test_ttl(self) -> None:
        """Who says how long a tunnel is to live gets it."""
        self.make(ttl=10 * UNCLAIMED)
        for _ in range(9):
            self.clock.advance(UNCLAIMED)
        self.assertEqual(self.notes.named("tunnelDestroyed"), [])
        client = self.clients.come()
        self.clock.advance(UNCLAIMED)
        self.assertEqual(client.refused, "expired")
        self.assertReason("expired")

    def test_closed(self) -> None:
        """Closing a tunnel breaks what goes through it and who waits."""
        self.make(visitors=3)
        ends = [self.clients.come(), self.port.come(), self.port.come()]
        self.close(self.uri)
        self.assertEqual([end.refused for end in ends], ["closed"] * 3)
        self.assertReason("closed")

    def test_connected(self) -> None:
        """The list tells whether a client's end is there."""
        self.make(visitors=2)
        told = []
        for happens in (self.clients.come, self.port.come, self.port.come):
            told.append(self.list()[0]["connected"])
            happens()
        told.append(self.list()[0]["connected"])
        self.assertEqual(told, [False, True, True, True])
        self.make()
        self.assertFalse(self.list()[1]["connected"])

    def test_private(self) -> None:
        """A private tunnel has no address."""
        uri = self.open(private=True)
        self.assertEqual(self.address(uri), "")
        self.assertEqual(sorted(self.visitors.open_), [8010])
        self.close(uri)
        self.assertNothingLeft()


class OverSessionTests(NetworkTestCase):
    """The same service over control frames."""

    def test_calls(self) -> None:
        """A session opens tunnels for itself, and raw ones for anybody, which stay when
        it ends."""
        peer = self.dial({"tristunnel": {**_OFFER, "host": "2001:db8::1"}})
        for number, (method, params) in enumerate(
            (
                ("openTunnel", {"name": "shop"}),
                ("openTunnel", {"via": "tcp"}),
                ("getTunnelAddress", {"uri": "tcp://[2001:db8::1]:41002"}),
            )
        ):
            call = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            peer.say(Frame(0, FrameType.CONTROL, encodeObject(call)))
            self.settle()
        answers = [
            decodeObject(frame.payload)["result"]
            for frame in peer.frames()
            if frame.kind == FrameType.CONTROL
        ]
        self.assertRegex(
            str(answers[0]), r"\Aw3p://\[2001:db8::1\]:9000/[0-9a-f]{16}\Z"
        )
        self.assertEqual(
            answers[1:], ["tcp://[2001:db8::1]:41002", "tcp://[2001:db8::1]:41003"]
        )
        self.wires[-1].cut()
        self.clock.advance(200)
        self.assertEqual(sorted(self.listeners.open_), [41002, 41003])
        client, visitor = (self.listeners.open_[n].visit() for n in (41002, 41003))
        client.say(b"hello")
        self.assertEqual(visitor.taken, b"hello")
