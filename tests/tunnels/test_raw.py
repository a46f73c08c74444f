"""
Tests for L{tristunnel.tunnels.raw}.
"""

from __future__ import annotations

from tests.sessions.network import NetworkTestCase
from tests.tunnels.test_service import ServiceTestCase
from tests.waiting import WaitingEnd
from tristunnel.errors import TunnelError
from tristunnel.tunnels.raw import UNCLAIMED
from tristunnel.tunnels.rendezvous import PATIENCE
from tristunnel.wire.framed import Frame, FrameType, decodeObject, encodeObject

_OFFER = {"versions": [1], "streamWindow": 1 << 18, "sessionWindow": 1 << 20}


class RawTests(ServiceTestCase):
    """
    Tunnels whose client's ends are raw connections.
    """

    def make(self, **options: object) -> None:
        """
        Open a tunnel.
        """
        self.uri = self.open(**options)
        self.clients = self.visitors.at(self.uri)
        self.port = self.visitors.at(self.address(self.uri))

    def assertReason(self, code: str) -> None:
        """
        Assert that the tunnel is over, why, and that nothing of it is left.
        """
        self.assertEqual(self.notes.named("tunnelDestroyed")[0][1], code)
        self.assertNothingLeft()

    def part(self, client: WaitingEnd, visitor: WaitingEnd) -> None:
        """
        Have a conversation end.
        """
        client.leave(None)
        visitor.leave(None)

    def test_one(self) -> None:
        """
        A tunnel is for one visitor unless its caller says otherwise, and is
        over when that one's conversation is.
        """
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
        """
        The visitor may come first.
        """
        self.make()
        visitor, client = self.port.come(), self.clients.come()
        self.assertIs(client.peer, visitor)

    def test_oneOnly(self) -> None:
        """
        A second one is turned away, on either side, while the first waits and
        while it talks.
        """
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
        """
        Also a client's connection that comes while another one waits.
        """
        self.make()
        client = self.clients.come()
        self.assertEqual(self.clients.come().refused, "limit-reached")
        self.assertIs(self.port.come().peer, client)

    def test_clientLeaves(self) -> None:
        """
        When the client's end breaks before the visitor came, the tunnel is
        over.
        """
        self.make()
        self.clients.come().leave(None)
        self.assertReason("closed")

    def test_clientLeavesBytes(self) -> None:
        """
        Not if it has left bytes for the visitor, in good order; but it is not
        waited for without end.
        """
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
        """
        When a visitor leaves before a client's end came, another may come.
        """
        self.make()
        self.port.come().leave(None)
        self.assertFalse(self.port.closed)
        visitor = self.port.come()
        self.assertIs(self.clients.come().peer, visitor)

    def test_visitorWaits(self) -> None:
        """
        A visitor waits for a while, and another may come after it.
        """
        self.make()
        visitor = self.port.come()
        self.clock.advance(PATIENCE)
        self.assertEqual(visitor.refused, "client-away")
        visitor = self.port.come()
        self.assertIs(self.clients.come().peer, visitor)

    def test_visitors(self) -> None:
        """
        A tunnel for several visitors gives each a connection of its own, and
        is over after the last one.
        """
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
        """
        They need not come at the same time.
        """
        self.make(visitors=3)
        for _ in range(3):
            self.assertEqual(self.notes.named("tunnelDestroyed"), [])
            self.part(self.clients.come(), self.port.come())
            self.clock.advance(10)
        self.assertReason("closed")

    def test_severalClientLeaves(self) -> None:
        """
        In a tunnel for several visitors, one end that leaves makes room for
        another.
        """
        self.make(visitors=2)
        self.clients.come().leave(None)
        clients = [self.clients.come(), self.clients.come()]
        visitors = [self.port.come(), self.port.come()]
        self.assertEqual([c.peer for c in clients], visitors)

    def test_unclaimed(self) -> None:
        """
        A tunnel to whose URI nobody connects is over in a while; its last
        visitors are told.
        """
        self.make()
        self.clock.advance(UNCLAIMED - 1)
        visitor = self.port.come()
        self.clock.advance(1)
        self.assertEqual(visitor.refused, "expired")
        self.assertReason("expired")

    def test_claimed(self) -> None:
        """
        A client's end that waits keeps it, and so does a conversation.
        """
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
        """
        A tunnel for more visitors than come is over, too.
        """
        self.make(visitors=5)
        self.part(self.clients.come(), self.port.come())
        self.clock.advance(UNCLAIMED)
        self.assertReason("expired")

    def test_halfGone(self) -> None:
        """
        A client's end that has sent all it had to send waits for its visitor
        no longer than that: it may have left long ago.
        """
        self.make()
        client = self.clients.come()
        client.ended = True
        self.clock.advance(UNCLAIMED)
        self.assertReason("expired")

    def test_ttl(self) -> None:
        """
        Who says how long a tunnel is to live gets it.
        """
        self.make(ttl=10 * UNCLAIMED)
        for _ in range(9):
            self.clock.advance(UNCLAIMED)
        self.assertEqual(self.notes.named("tunnelDestroyed"), [])
        client = self.clients.come()
        self.clock.advance(UNCLAIMED)
        self.assertEqual(client.refused, "expired")
        self.assertReason("expired")

    def test_closed(self) -> None:
        """
        Closing a tunnel breaks what goes through it and who waits.
        """
        self.make(visitors=3)
        ends = [self.clients.come(), self.port.come(), self.port.come()]
        self.close(self.uri)
        self.assertEqual([end.refused for end in ends], ["closed"] * 3)
        self.assertReason("closed")

    def test_connected(self) -> None:
        """
        The list tells whether a client's end is there.
        """
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
        """
        A private tunnel has no address.
        """
        uri = self.open(private=True)
        self.assertEqual(self.address(uri), "")
        self.assertEqual(sorted(self.visitors.open_), [8010])
        self.close(uri)
        self.assertNothingLeft()


class OverSessionTests(NetworkTestCase):
    """
    The same service over control frames.
    """

    def test_calls(self) -> None:
        """
        A session opens tunnels for itself, and raw ones for anybody, which
        stay when it ends.
        """
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
