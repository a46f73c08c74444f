"""
A client's session at the server, L{tristunnel.dialects.framed.server}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.dialects.framed.network import NetworkTestCase, RawPeer
from tests.vectors import readVectors
from tristunnel.dataplane import answers
from tristunnel.dataplane.answers import TAKE_TIME
from tristunnel.dataplane.join import ANSWER_LINGER
from tristunnel.dialects.framed.session import (
    DEADLINE,
    HANDSHAKE_TIMEOUT,
    MOST_QUIET,
    PING_INTERVAL,
)
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.wire.framed import (
    Frame,
    FrameType,
    decodeObject,
    encodeCredit,
    encodeObject,
)

WINDOW = 1 << 18
OFFER = {"versions": [1], "streamWindow": WINDOW, "sessionWindow": 1 << 25}


def hello(**offer: object) -> dict[str, object]:
    """The handshake of an extended client."""
    return {"id": "laptop", "tristunnel": {**OFFER, **offer}}


def call(ident: int, method: str, **params: object) -> Frame:
    """A call on the control channel."""
    message = {"jsonrpc": "2.0", "id": ident, "method": method, "params": params}
    return Frame(0, FrameType.CONTROL, encodeObject(message))


class ServerTestCase(NetworkTestCase):
    """A test of sessions with peers that the test plays."""

    def extended(self, *messages: Frame, **offer: object) -> RawPeer:
        """Connect as an extended client."""
        return self.dial(hello(**offer), *messages)

    def answers(self, peer: RawPeer) -> dict[int, dict[str, Any]]:
        """The answers that came on the control channel, by the call's number."""
        messages = [
            decodeObject(frame.payload)
            for frame in peer.frames()
            if frame.kind == FrameType.CONTROL
        ]
        return {m["id"]: m for m in messages if "id" in m}  # type: ignore[misc]

    def openTunnel(self, peer: RawPeer, **options: object) -> str:
        """
        Have the server open a tunnel.

        @return: Its URI.
        """
        peer.say(call(1, "openTunnel", **options))
        self.settle()
        uri: str = self.answers(peer)[1]["result"]
        return uri

    def kinds(self, peer: RawPeer) -> list[int]:
        """The types of the frames that came, without pings."""
        return [f.kind for f in peer.frames() if f.kind != FrameType.PING]


class FactsTests(ServerTestCase):
    """What a client says of itself."""

    def test_said(self) -> None:
        """It is kept beside its session, with the id of whom nobody asks who it is."""
        self.extended(client={"host": "den\n", "program": "tristunnel 0"})
        self.extended(client="nonsense")
        self.dial({"id": "plain"})
        found = [client.facts.asDict() for client in self.service.clients]
        self.assertEqual(
            found,
            [
                {"name": "laptop", "host": "den", "program": "tristunnel 0"},
                {"name": "laptop", "host": "", "program": ""},
                {"name": "plain", "host": "", "program": ""},
            ],
        )

    def test_claimed(self) -> None:
        """Whoever claims a name that nobody checks is still nobody in particular."""
        for name in ("alice", "alice", "bob"):
            self.dial({"id": name, "tristunnel": OFFER})
        found = [client.identity for client in self.service.clients]
        self.assertEqual(
            [each.shown for each in found],
            ["alice (unproven)", "alice (unproven)", "bob (unproven)"],
        )
        self.assertEqual(set(found), {ANONYMOUS_IDENTITY})

    def test_target(self) -> None:
        """A tunnel has where it leads, if it was told; after a return, anew."""
        peer = self.extended()
        uri = self.openTunnel(peer, target="localhost:3000")
        (tunnel,) = list(self.service.here)
        self.assertEqual(tunnel.target, "localhost:3000")
        peer.say(call(2, "openTunnel", resume=uri, target="localhost:4000"))
        self.settle()
        self.assertEqual(tunnel.target, "localhost:4000")


class PlainClientTests(ServerTestCase):
    """Clients that speak W3P's protocol and nothing else."""

    def test_port(self) -> None:
        """The answer has the port and nothing but the port."""
        peer = self.dial({"id": "x"})
        (port,) = self.listeners.open_
        self.assertEqual(peer.handshake, {"port": port})
        self.assertEqual(
            self.notes.named("clientConnected"), [("anonymous", "framed-plain")]
        )

    def test_recorded(self) -> None:
        """
        In the recorded exchange our server does what W3P's own did, byte for
        byte but for the port, the number of the stream, and the empty frame
        that makes services speak first.
        """
        recorded = readVectors("w3p-http-get")
        chunks = [
            (line["from"], bytes.fromhex(line["hex"]))
            for line in recorded
            if line["conn"] == 1 and "hex" in line
        ]
        said = {
            who: b"".join(data for sender, data in chunks if sender == who)
            for who in ("client", "server")
        }
        length = 11 + int.from_bytes(said["client"][7:11], "big")
        peer = self.dial(said["client"][:length])
        listener = self.listeners.only()
        port = str(listener.address[2]).encode()
        answer = said["server"][: 11 + int.from_bytes(said["server"][7:11], "big")]
        self.assertEqual(peer.data, answer.replace(b"45267", port))
        self.assertEqual(peer.handshake, {"port": int(port)})

        request = said["server"][len(answer) :]
        size = 4 + int.from_bytes(request[:4], "big")
        streamId, frame, rest = request[4:8], request[:size], request[size:]
        visitor = listener.visit()
        visitor.say(frame[9:])
        self.settle()
        empty, asked = peer.frames()
        ours = empty.stream.to_bytes(4, "big")
        self.assertEqual(empty, Frame(empty.stream, FrameType.DATA, b""))
        self.assertEqual(asked, Frame(empty.stream, FrameType.DATA, frame[9:]))

        response = said["client"][length:].replace(streamId, ours)
        size = 4 + int.from_bytes(response[:4], "big")
        peer.say(response[:size])
        self.settle()
        self.assertEqual(visitor.taken, response[9:size])
        self.assertIn(b"200 OK", visitor.taken)

        # The visitor leaves: W3P's server closes, its client closes back.
        self.advance(ANSWER_LINGER)
        visitor.end()
        self.settle()
        self.assertEqual(peer.frames(), [Frame(empty.stream, FrameType.CLOSE, b"")])
        self.assertEqual(rest[:9].replace(streamId, ours), response[size : size + 9])
        peer.say(response[size:])
        self.settle()
        self.assertEqual(peer.frames(), [])
        self.assertIsNone(peer.lost)

    def test_goneWithItsSession(self) -> None:
        """A plain client's tunnel ends with its connection."""
        peer = self.dial({"id": "x"})
        listener = self.listeners.only()
        visitor = listener.visit()
        peer.transport.loseConnection()
        self.settle()
        self.assertTrue(listener.closed)
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "session-lost")
        self.assertEqual(
            {event[0]: event[-1] for event in self.notes.events[-3:]},
            dict.fromkeys(
                ("visitorGone", "tunnelDestroyed", "clientGone"), "session-lost"
            ),
        )

    def test_refused(self) -> None:
        """Refused credentials close the connection without a word."""
        self.makeServer(lambda fields: False)
        peer = self.dial({"id": "x"})
        self.assertEqual(peer.data, b"")
        self.assertIsNotNone(peer.lost)
        self.assertEqual(self.notes.events, [("authenticationFailed", "auth-refused")])
        self.assertEqual(self.listeners.open_, {})

    def test_unknownFrame(self) -> None:
        """A frame that W3P does not have ends a plain session, with a reason."""
        peer = self.dial({"id": "x"}, Frame(1, 0x77, b""))
        self.assertIsNotNone(peer.lost)
        self.assertEqual(
            self.notes.named("clientGone"), [("anonymous", "protocol-error")]
        )

    def test_noTunnel(self) -> None:
        """When no port can be had, the client is turned away."""

        self.listeners.exhausted = True
        peer = self.dial({"id": "x"})
        self.assertIsNotNone(peer.lost)
        self.assertEqual(
            [refused[0] for refused in self.notes.named("peerRefused")],
            ["ports-exhausted"],
        )


class PlainClientTLSTests(PlainClientTests):
    """The same over TLS."""

    tls = True


class ExtendedClientTests(ServerTestCase):
    """Clients that speak the extension."""

    def test_welcome(self) -> None:
        """The answer has the version, the windows and a lease."""
        peer = self.extended()
        answer = peer.handshake["tristunnel"]
        self.assertEqual(answer["version"], 1)
        self.assertEqual(answer["tunnels"], [])
        self.assertEqual(answer["streamWindow"], 256 * 1024)
        self.assertEqual(sorted(answer["lease"]), ["fence", "id", "seconds", "secret"])
        self.assertEqual(self.notes.named("clientConnected"), [("anonymous", "framed")])

    def test_otherVersion(self) -> None:
        """A version that is not spoken here is refused with a code."""
        peer = self.extended(versions=[7])
        refused = peer.handshake["tristunnel"]["refused"]
        self.assertEqual(refused["code"], "protocol-error")
        self.assertIn("version 1", refused["message"])
        self.assertIsNotNone(peer.lost)

    def test_wrongWindows(self) -> None:
        """A window that is no size is refused."""
        for wrong in ("many", -1, 1 << 60, True, None, [1]):
            peer = self.extended(streamWindow=wrong)
            refused = peer.handshake["tristunnel"]["refused"]
            self.assertIn("streamWindow", refused["message"])

    def test_refused(self) -> None:
        """
        Refused credentials are an answer with a code and a message, and the
        connection ends.
        """
        self.makeServer(lambda fields: fields.get("id") == "other")
        peer = self.extended()
        refused = peer.handshake["tristunnel"]["refused"]
        self.assertEqual(refused["code"], "auth-refused")
        self.assertTrue(refused["message"])
        self.assertIsNotNone(peer.lost)
        self.assertEqual(
            self.notes.events[-1:], [("authenticationFailed", "auth-refused")]
        )

    def test_wholeCredentials(self) -> None:
        """A filter gets all that the client said, and not the protocol's own key."""
        seen: list[dict[str, object]] = []

        def remember(fields: Any) -> bool:
            seen.append(dict(fields))
            return True

        self.makeServer(remember)
        self.dial({**hello(), "deep": {"a": [1, None]}})
        self.assertEqual(seen, [{"id": "laptop", "deep": {"a": [1, None]}}])
        self.assertEqual(self.notes.named("clientConnected"), [("laptop", "framed")])

    def test_framesBeforeAnswer(self) -> None:
        """Frames that come before the filter has answered are not lost."""
        asked: Deferred[bool] = Deferred()
        self.makeServer(lambda fields: asked)
        peer = self.extended(call(1, "listTunnels"))
        self.assertEqual(peer.data, b"")
        asked.callback(True)
        self.settle()
        self.assertEqual(peer.handshake["tristunnel"]["version"], 1)
        self.assertEqual(self.answers(peer)[1]["result"], [])

    def test_goneBeforeAnswer(self) -> None:
        """A client that leaves before the filter has answered leaves nothing."""
        asked: Deferred[bool] = Deferred()
        self.makeServer(lambda fields: asked)
        peer = self.extended()
        peer.transport.loseConnection()
        self.settle()
        if not asked.called:
            asked.callback(True)
        self.settle()
        self.assertEqual(self.sessions.sessions, set())
        self.assertEqual(self.notes.named("clientConnected"), [])

    def test_filterNeverAnswers(self) -> None:
        """A filter that never answers does not keep a connection for ever."""
        self.makeServer(lambda fields: Deferred())
        peer = self.extended()
        self.advance(HANDSHAKE_TIMEOUT + 1)
        self.assertIsNotNone(peer.lost)

    def test_visitor(self) -> None:
        """
        A visitor is a stream that is opened with the tunnel and the visitor's
        address; half-closed in both directions it is over.
        """
        peer = self.extended()
        uri = self.openTunnel(peer)
        visitor = self.listeners.only().visit("192.0.2.9:777")
        visitor.say(b"ping")
        self.settle()
        opened, data = (f for f in peer.frames() if f.kind != FrameType.PING)
        self.assertEqual((opened.stream, opened.kind), (2, FrameType.OPEN))
        self.assertEqual(
            decodeObject(opened.payload[8:]),
            {"tunnel": uri, "visitor": "192.0.2.9:777"},
        )
        self.assertEqual(data, Frame(2, FrameType.DATA, b"ping"))
        visitor.end()
        self.settle()
        self.assertEqual(self.kinds(peer), [FrameType.EOF])
        peer.say(
            Frame(2, FrameType.OPENED, encodeCredit(WINDOW)),
            Frame(2, FrameType.DATA, b"pong"),
            Frame(2, FrameType.EOF, b""),
        )
        self.settle()
        self.assertEqual((visitor.taken, visitor.finished), (b"pong", True))
        self.assertIsNone(visitor.broken)
        self.assertEqual(self.notes.named("visitorGone"), [(4, 4, "")])

    def test_refusedStream(self) -> None:
        """A visitor whose service is not there is reset."""
        peer = self.extended()
        self.openTunnel(peer)
        visitor = self.listeners.only().visit()
        reason = encodeObject({"code": "service-refused", "message": "no"})
        peer.say(Frame(2, FrameType.REFUSED, reason))
        self.settle()
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "service-refused")
        self.assertEqual(self.notes.named("visitorGone"), [(0, 0, "service-refused")])

    def test_streamOfTheClient(self) -> None:
        """A client that opens a stream is told that there is nothing to reach."""
        peer = self.extended(Frame(1, FrameType.OPEN, encodeCredit(1) + b"{}"))
        frames = [f for f in peer.frames() if f.kind == FrameType.REFUSED]
        self.assertEqual(decodeObject(frames[0].payload)["code"], "not-permitted")
        self.assertIsNone(peer.lost)

    def test_unknownFrame(self) -> None:
        """A frame whose type means nothing is skipped and counted."""
        peer = self.extended(Frame(9, 0x77, b"?"), call(1, "listTunnels"))
        (session,) = self.sessions.sessions
        assert session.multiplexer is not None
        self.assertEqual(session.multiplexer.unknownFrames, 1)
        self.assertIn(1, self.answers(peer))

    def test_brokenProtocol(self) -> None:
        """A client that breaks the protocol is told how, and is gone."""
        peer = self.extended(Frame(3, FrameType.WINDOW, b"?"))
        (goaway,) = (f for f in peer.frames() if f.kind == FrameType.GOAWAY)
        self.assertEqual(decodeObject(goaway.payload)["code"], "protocol-error")
        self.assertIsNotNone(peer.lost)

    def test_calls(self) -> None:
        """The tunnel service can be called on the control channel."""
        peer = self.extended(host="tunnel.example")
        uri = self.openTunnel(peer, name="web")
        peer.say(call(2, "getTunnelAddress", uri=uri), call(3, "listTunnels"))
        self.settle()
        answers = self.answers(peer)
        self.assertEqual(answers[2]["result"], "tcp://tunnel.example:41001")
        (row,) = answers[3]["result"]
        self.assertEqual((row["uri"], row["name"]), (uri, "web"))
        peer.say(call(4, "closeTunnel", uri=uri), call(5, "closeTunnel", uri=uri))
        self.settle()
        answers = self.answers(peer)
        self.assertIsNone(answers[4]["result"])
        self.assertEqual(answers[5]["error"]["data"]["code"], "unknown-tunnel")
        self.assertEqual(self.listeners.open_, {})

    def test_wrongCalls(self) -> None:
        """A call that is wrong gets an error, and nothing else happens."""
        peer = self.extended(
            call(1, "openTunnel", port=-1),
            call(2, "openTunnel", port="many"),
            call(3, "openTunnel", colour="red"),
            call(4, "noSuchMethod"),
            call(5, "getTunnelAddress"),
            call(6, "getTunnelAddress", uri=7),
        )
        answers = self.answers(peer)
        self.assertEqual(sorted(answers), [1, 2, 3, 4, 5, 6])
        for answer in answers.values():
            self.assertIn("error", answer)
        self.assertEqual(self.listeners.open_, {})

    def test_portTaken(self) -> None:
        """A port that somebody has is refused with a code of its own."""
        self.listeners.taken.add(8080)
        peer = self.extended(call(1, "openTunnel", port=8080))
        self.assertEqual(self.answers(peer)[1]["error"]["data"]["code"], "port-taken")


class ExtendedClientTLSTests(ExtendedClientTests):
    """The same over TLS."""

    tls = True


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
            session.transport.producer.pauseProducing()
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
        producer = session.transport.producer
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
