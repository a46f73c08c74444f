"""How long the server's sessions last, and what is kept of them."""

from __future__ import annotations

from tests.dialects.framed.network import RawPeer
from tests.dialects.framed.server_rig import WINDOW, ServerTestCase, call
from tristunnel.dataplane import answers
from tristunnel.dataplane.answers import TAKE_TIME
from tristunnel.dialects.framed.liveness import DEADLINE, PING_INTERVAL
from tristunnel.dialects.framed.session import MOST_QUIET
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import Frame, FrameType, decodeObject, encodeCredit


class LivenessTests(ServerTestCase):
    """Peers that say nothing."""

    def test_pings(self) -> None:
        """A client is asked for a sign of life at most every 25 s."""
        peer = self.extended()
        peer.frames()
        measured = len(self.notes.named("roundTripMeasured"))
        for _ in range(4):
            self.advance(25)
            pings = [f for f in peer.frames() if f.kind == FrameType.PING]
            self.assertGreaterEqual(len(pings), 1)
            peer.say(*(Frame(0, FrameType.PONG, p.payload) for p in pings))
            # One that was not asked for counts for nothing.
            peer.say(Frame(0, FrameType.PONG, bytes(8)))
            self.settle()
            before, measured = measured, len(self.notes.named("roundTripMeasured"))
            self.assertTrue(before < measured <= before + len(pings))
        self.assertIsNone(peer.lost)

    def test_pong(self) -> None:
        """A ping is answered with the same eight bytes."""
        peer = self.extended(Frame(0, FrameType.PING, b"12345678"))
        self.assertIn(Frame(0, FrameType.PONG, b"12345678"), peer.frames())

    def test_silence(self) -> None:
        """
        A client that is silent is given up at the deadline, and its visitors
        with it; its port stays for the lease's time.
        """
        peer = self.extended()
        self.openTunnel(peer)
        visitor = self.listeners.only().visit()
        peer.say(Frame(2, FrameType.OPENED, encodeCredit(WINDOW)))
        self.advance(DEADLINE + 6)
        self.assertIsNotNone(peer.lost)
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "session-lost")
        self.assertEqual(
            self.notes.named("clientGone"), [("anonymous", "session-lost")]
        )
        self.assertEqual(len(self.listeners.open_), 1)

    def test_quiet(self) -> None:
        """
        A client that asks for it is left in peace for a while, and then looked
        after as usual.
        """
        for asked, granted in ((100, 100.0), (1e5, MOST_QUIET)):
            peer = self.extended(quiet=asked)
            self.assertEqual(peer.handshake["tristunnel"]["quiet"], granted)
            peer.frames()
            self.advance(granted - 1, 5)
            self.assertEqual(peer.frames(), [])
            self.advance(PING_INTERVAL + 5)
            self.assertIn(FrameType.PING, [f.kind for f in peer.frames()])
            self.advance(DEADLINE + 6)
            self.assertIsNotNone(peer.lost)

    def test_notQuiet(self) -> None:
        """What is no time is not granted."""
        for asked in (0, -1, 1e7, True, "100", None):
            peer = self.extended(quiet=asked)
            self.assertNotIn("quiet", peer.handshake["tristunnel"])

    def test_anythingCounts(self) -> None:
        """Any byte is a sign of life."""
        peer = self.extended()
        for _ in range(5):
            self.advance(DEADLINE - 10)
            peer.say(Frame(0, 0x77, b""))
            self.settle()
        self.assertIsNone(peer.lost)

    def test_takesNoAnswers(self) -> None:
        """
        A client that asks and asks, and takes no answer, is cut off before
        the answers fill the memory.
        """
        for asked, held in (
            (Frame(1, FrameType.OPEN, bytes(8) + b"{}"), True),
            (call(1, "listTunnels"), True),
            (Frame(0, FrameType.PING, b"12345678"), False),
        ):
            peer = self.extended()
            (session,) = self.sessions.sessions
            # As the connection does when its buffer is full.
            session.connection.transport.producer.pauseProducing()
            for number in range(3000):
                peer.say(asked._replace(stream=asked.stream and 2 * number + 1))
            self.settle()
            assert session.multiplexer is not None
            self.assertEqual(held, bool(session.multiplexer.holds))
            self.assertEqual(held, bool(session.multiplexer.unsent))
            self.advance(TAKE_TIME, 5)
            self.assertIsNotNone(peer.lost)
            self.assertEqual(
                self.notes.named("clientGone")[-1], ("anonymous", "stalled")
            )

    def test_manyCalls(self) -> None:
        """
        Of many calls in one read, as many are answered as the client takes
        answers, and in the end all.
        """
        peer = self.extended()
        self.patch(answers, "MOST_WAITING", 1000)
        (session,) = self.sessions.sessions
        producer = session.connection.transport.producer
        producer.pauseProducing()
        peer.say(*[call(number, "listTunnels") for number in range(200)])
        self.settle()
        came = list(self.answers(peer))
        self.assertLess(len(came), 20)
        for _ in range(100):
            producer.resumeProducing()
            producer.pauseProducing()
            self.settle()
            came += self.answers(peer)
        self.assertEqual(came, list(range(200)))
        assert session.multiplexer is not None
        producer.resumeProducing()
        self.assertFalse(session.multiplexer.holds)

    def test_plainIsLeftAlone(self) -> None:
        """A plain client cannot be asked, and may be silent for ever."""
        peer = self.dial({"id": "x"})
        self.advance(DEADLINE * 5, 5)
        self.assertIsNone(peer.lost)


class LeaseTests(ServerTestCase):
    """What is kept for a client that comes back."""

    def lease(self, peer: RawPeer) -> dict[str, object]:
        """What a peer offers to come back to its lease."""
        lease = peer.handshake["tristunnel"]["lease"]
        return {key: lease[key] for key in ("id", "secret", "fence")}

    def test_displaced(self) -> None:
        """
        The holder of a lease displaces at once a session that has not
        noticed yet that it is dead, and its tunnels are served by the new one.
        """
        stale = self.extended()
        uri = self.openTunnel(stale)
        visitor = self.listeners.only().visit()
        fresh = self.extended(lease=self.lease(stale))
        # No time has passed.
        self.assertIsNotNone(stale.lost)
        assert visitor.broken is not None
        self.assertEqual(fresh.handshake["tristunnel"]["tunnels"], [uri])
        self.listeners.only().visit()
        self.settle()
        self.assertIn(FrameType.OPEN, self.kinds(fresh))
        self.assertEqual(self.notes.named("tunnelDestroyed"), [])

    def test_displacedIsTold(self) -> None:
        """The session that is displaced is told so."""
        stale = self.extended()
        self.openTunnel(stale)
        self.extended(lease=self.lease(stale))
        (goaway,) = (f for f in stale.frames() if f.kind == FrameType.GOAWAY)
        self.assertEqual(decodeObject(goaway.payload)["code"], "displaced")

    def test_comesBack(self) -> None:
        """
        After a lost connection the ports wait, and visitors meanwhile are
        turned away at once.
        """
        peer = self.extended()
        uri = self.openTunnel(peer)
        offer = self.lease(peer)
        self.wires[-1].cut()
        visitor = self.listeners.only().visit()
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "client-away")
        self.advance(100, 10)
        back = self.extended(call(1, "openTunnel", resume=uri), lease=offer)
        self.assertEqual(back.handshake["tristunnel"]["tunnels"], [uri])
        lease = back.handshake["tristunnel"]["lease"]
        self.assertNotIn("secret", lease)
        self.assertEqual(lease["fence"] - 1, offer["fence"])
        self.assertEqual(self.answers(back)[1]["result"], uri)
        self.advance(40, 10)
        self.assertEqual(list(self.listeners.open_), [41001])

    def test_expires(self) -> None:
        """When nobody comes back the ports are free again."""
        peer = self.extended()
        self.openTunnel(peer)
        self.wires[-1].cut()
        self.advance(121, 11)
        self.assertEqual(self.listeners.open_, {})
        ((_, code),) = self.notes.named("tunnelDestroyed")
        self.assertEqual(code, "expired")

    def test_wrongSecret(self) -> None:
        """
        Without the secret a lease is nobody's: the client gets a new one, and
        the old session lives on.
        """
        peer = self.extended()
        self.openTunnel(peer)
        offer = {**self.lease(peer), "secret": "wrong"}
        other = self.extended(lease=offer)
        self.assertEqual(other.handshake["tristunnel"]["tunnels"], [])
        self.assertNotEqual(other.handshake["tristunnel"]["lease"]["id"], offer["id"])
        self.assertIsNone(peer.lost)

    def test_prefer(self) -> None:
        """
        A client whose lease a new server does not know asks for the port that
        it had.
        """
        peer = self.extended(call(1, "openTunnel", prefer=43210))
        self.assertIn(1, self.answers(peer))
        self.assertEqual(list(self.listeners.open_), [43210])


class LeaseTLSTests(LeaseTests):
    """The same over TLS."""

    tls = True


class LeavingTests(ServerTestCase):
    """A server that goes away."""

    def test_goaway(self) -> None:
        """
        Clients are told, and when to come back; streams go on, new visitors
        are turned away.
        """
        peer = self.extended()
        self.openTunnel(peer)
        early = self.listeners.only().visit()
        self.settle()
        peer.frames()
        self.sessions.leave(TunnelError("shutting-down", retryAfter=1.5))
        late = self.listeners.only().visit()
        self.settle()
        (goaway,) = peer.frames()
        self.assertEqual(goaway.kind, FrameType.GOAWAY)
        self.assertEqual(decodeObject(goaway.payload)["retryAfter"], 1.5)
        assert late.broken is not None
        self.assertEqual(late.broken.code.name, "shutting-down")
        peer.say(Frame(2, FrameType.DATA, b"still here"))
        self.settle()
        self.assertEqual(early.taken, b"still here")
        self.assertEqual(self.sessions.streams(), 1)

    def test_newClients(self) -> None:
        """Clients that come now are sent away, and told when to come back."""
        self.sessions.leave(TunnelError("shutting-down", retryAfter=1.5))
        peer = self.extended()
        refused = peer.handshake["tristunnel"]["refused"]
        self.assertEqual(refused["code"], "shutting-down")
        self.assertEqual(refused["retryAfter"], 1.5)

    def test_plainClients(self) -> None:
        """A plain client cannot be told; its streams go on too."""
        peer = self.dial({"id": "x"})
        visitor = self.listeners.only().visit()
        self.settle()
        self.sessions.leave(TunnelError("shutting-down"))
        (empty,) = peer.frames()
        peer.say(Frame(empty.stream, FrameType.DATA, b"more"))
        self.settle()
        self.assertEqual(visitor.taken, b"more")

    def test_close(self) -> None:
        """In the end every session is closed."""
        peers = [self.extended(), self.dial({"id": "x"})]
        self.sessions.close(TunnelError("shutting-down"))
        self.settle()
        for peer in peers:
            self.assertIsNotNone(peer.lost)
        self.assertEqual(self.sessions.sessions, set())
