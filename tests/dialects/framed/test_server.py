"""
A client's session at the server, L{tristunnel.dialects.framed.server_connection}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.dialects.framed.server_rig import OFFER, WINDOW, ServerTestCase, call, hello
from tests.vectors import readVectors
from tristunnel.dataplane.join import ANSWER_LINGER
from tristunnel.dialects.framed.session import HANDSHAKE_TIMEOUT
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.wire.framed import (
    Frame,
    FrameType,
    decodeObject,
    encodeCredit,
    encodeObject,
)


async def broken(*arguments: object) -> object:
    """Do what somebody asks, and fail."""
    raise ZeroDivisionError


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

    def test_openingBreaks(self) -> None:
        """An error that nobody expects turns it away at once, too, and is logged."""
        self.patch(self.listeners, "open", broken)
        peer = self.dial({"id": "x"})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNotNone(peer.lost)
        self.assertEqual(
            [refused[0] for refused in self.notes.named("peerRefused")], ["internal"]
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

    def test_visitBreaks(self) -> None:
        """
        An error that nobody expects in a visit is logged, and the client is told; the
        session goes on.
        """
        self.patch(self.service, "findNamed", broken)
        peer = self.extended()
        peer.frames()
        info = encodeObject({"service": "web"})
        peer.say(Frame(1, FrameType.OPEN, encodeCredit(WINDOW) + info))
        self.settle()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        (refused,) = peer.frames()
        self.assertEqual((refused.stream, refused.kind), (1, FrameType.REFUSED))
        self.assertEqual(decodeObject(refused.payload)["code"], "internal")
        self.assertIsNone(peer.lost)

    def test_noService(self) -> None:
        """A stream whose object names no service is refused; the session goes on."""
        peer = self.extended()
        peer.frames()
        for stream, named in ((1, {}), (3, {"service": None}), (5, {"service": 5})):
            info = encodeObject(named)
            peer.say(Frame(stream, FrameType.OPEN, encodeCredit(WINDOW) + info))
            self.settle()
            (refused,) = peer.frames()
            self.assertEqual(
                (refused.stream, refused.kind), (stream, FrameType.REFUSED)
            )
            said = decodeObject(refused.payload)
            self.assertEqual(said["code"], "not-permitted")
            self.assertIn("does not name a service", said["message"])
        self.assertIsNone(peer.lost)

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
