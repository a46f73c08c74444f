"""Tests for L{tristunnel.service.claims}: whose a port or a name is."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.token_server import TokenServerTestCase
from tests.dialects.framed.network import MemoryListeners, RawPeer
from tests.dialects.framed.server_rig import ServerTestCase, call
from tests.dialects.vtunnel.test_vtunnel import FakeConnection as TextConnection
from tests.dialects.zlayer.rig import CLIENT_ID
from tests.dialects.zlayer.rig import FakeConnection as BinaryConnection
from tristunnel.dataplane.probe import PROBE, Probe
from tristunnel.dialects.base.server import Arrival
from tristunnel.dialects.vtunnel.server import VTunnelServerSession
from tristunnel.dialects.zlayer.data import ZLayerSessions
from tristunnel.dialects.zlayer.server import ZLayerServerSession
from tristunnel.errors import TunnelError
from tristunnel.service import claims
from tristunnel.service.caller import Caller
from tristunnel.wire.framed import Frame, FrameType, decodeObject
from tristunnel.wire.zlayer import Auth, Register, encodeMessage

PLACES: tuple[dict[str, object], ...] = (
    {"port": 8080},
    {"port": 8080, "listener": "udp"},
    {"name": "db", "private": True},
    {"name": "db", "port": 8080},
)


class ClaimsMixin(ServerTestCase):
    """Asks for places."""

    def setUp(self) -> None:
        super().setUp()
        self.service.listeners["udp"] = self.datagrams = MemoryListeners("udp")

    def asks(self, peer: RawPeer, place: dict[str, object]) -> dict[str, Any]:
        peer.frames()
        peer.say(call(5, "openTunnel", **place))
        self.settle()
        return self.answers(peer).get(5, {})

    def cut(self, peer: RawPeer) -> None:
        peer.transport.loseConnection()
        self.settle()

    def told(self, peer: RawPeer) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = [
            decodeObject(frame.payload)
            for frame in peer.frames()
            if frame.kind == FrameType.CONTROL
        ]
        return [m["params"] for m in messages if m.get("method") == "available"]


class OwnerTests(ClaimsMixin, TokenServerTestCase):
    """Owners who have logged in."""

    def setUp(self) -> None:
        super().setUp()
        self.makeToken("alice")
        self.makeToken("bob")

    def come(self, name: str = "alice", **offer: object) -> RawPeer:
        return self.client(name, datagrams=65507, **offer)

    def lease(self, peer: RawPeer) -> dict[str, object]:
        lease = peer.handshake["tristunnel"]["lease"]
        return {"id": lease["id"], "secret": lease["secret"]}

    def test_away(self) -> None:
        """An owner without its lease has its place at once when no client of its is
        there; the other one, when it comes back, is told who has it."""
        for place in PLACES:
            first = self.come()
            old = self.asks(first, place)["result"]
            self.cut(first)
            second = self.come()
            uri = self.asks(second, place)["result"]
            self.assertNotEqual(uri, old)
            back = self.come(lease=self.lease(first))
            self.assertEqual(back.handshake["tristunnel"]["tunnels"], [])
            self.assertEqual(self.ask(second, "closeTunnel", uri=uri), None)
            for peer in (second, back):
                self.cut(peer)

    def test_silent(self) -> None:
        """Nor does a session keep it that is there no more, which is found out."""
        for place in PLACES:
            stale, fresh = self.come(), self.come()
            self.assertIn("result", self.asks(stale, place))
            self.assertEqual(self.asks(fresh, place), {})
            self.clock.advance(PROBE)
            self.settle()
            self.assertIn("result", self.answers(fresh)[5])
            (goaway,) = [f for f in stale.frames() if f.kind == FrameType.GOAWAY]
            self.assertEqual(decodeObject(goaway.payload)["code"], "displaced")
            self.assertIsNotNone(stale.lost)
            self.ask(fresh, "closeTunnel", uri=self.ask(fresh, "listTunnels")[0]["uri"])
            self.cut(fresh)

    def test_live(self) -> None:
        """A client that answers keeps what it has, however often another one with the
        same token asks; the refusal says where it is."""
        holder, other = self.come(), self.come()
        self.asks(holder, PLACES[0])
        for _ in range(3):
            holder.frames()
            self.assertEqual(self.asks(other, PLACES[0]), {})
            (ping,) = [f for f in holder.frames() if f.kind == FrameType.PING]
            holder.say(Frame(0, FrameType.PONG, ping.payload))
            self.settle()
            error = self.answers(other)[5]["error"]
            self.assertEqual(error["data"], {"code": "port-taken"})
            self.assertIn("alice at 203.0.113.5:40000 has port 8080", error["message"])
            self.clock.advance(1)

    def test_twice(self) -> None:
        """A client that asks for the same twice is not in its own way."""
        peer = self.come()
        self.asks(peer, PLACES[0])
        message = self.asks(peer, PLACES[0])["error"]["message"]
        self.assertIn("this client already has port 8080", message)

    def test_limit(self) -> None:
        """A token for one tunnel is not used up by the tunnel that is to give way."""
        self.makeToken("one", maxTunnels=1)
        first = self.come("one")
        self.asks(first, PLACES[0])
        self.cut(first)
        second = self.come("one")
        other = self.asks(second, {"port": 8081})["error"]
        self.assertEqual(other["data"]["code"], "limit-reached")
        self.assertIn("result", self.asks(second, PLACES[0]))

    def test_anyPort(self) -> None:
        """Whoever takes any port takes nobody's."""
        first = self.come()
        self.asks(first, PLACES[0])
        self.cut(first)
        wishes: list[dict[str, object]] = [
            {},
            {"prefer": 8080},
            {"name": "x", "private": True},
        ]
        for wanted in wishes:
            self.assertIn("result", self.asks(self.come(), wanted))
        self.assertEqual(self.notes.named("tunnelDestroyed"), [])

    def test_byURI(self) -> None:
        """A tunnel that waits for whoever has its URI is not displaced; the refusal
        names it."""
        uri = self.rpc("alice", "openTunnel", via="w3p", port=8080)
        error = self.asks(self.come(), PLACES[0])["error"]
        self.assertIn(uri.partition("#")[0], error["message"])
        self.assertNotIn(uri.partition("#")[2], error["message"])
        self.rpc("alice", "closeTunnel", uri=uri)

    def test_others(self) -> None:
        """Somebody else waits for the lease, or for the client, is told which, and is
        told at once when the place is free."""
        for place in PLACES:
            holder, waiting = self.come(), self.come("bob")
            self.asks(holder, place)
            error = self.asks(waiting, place)["error"]
            self.assertIn("belongs to another client", error["message"])
            self.assertNotIn("alice", error["message"])
            self.assertNotIn("retryAfter", error["data"])
            self.cut(holder)
            self.clock.advance(20)
            error = self.asks(waiting, place)["error"]
            self.assertIn("is kept for the client that had it", error["message"])
            self.assertEqual(error["data"]["retryAfter"], 100.0)
            waiting.frames()
            for _ in range(20):
                waiting.say(Frame(0, FrameType.PING, bytes(8)))
                self.clock.advance(5)
                self.settle()
            (told,) = self.told(waiting)
            self.assertEqual(
                told, {"port": place.get("port", 0), "name": place.get("name", "")}
            )
            self.assertIn("result", self.asks(waiting, place))
            self.cut(waiting)
            self.clock.advance(121)

    def test_waiting(self) -> None:
        """So many are told and no more, and who has left is forgotten."""
        holder = self.come()
        self.asks(holder, PLACES[0])
        gone = self.come("bob")
        self.asks(gone, PLACES[0])
        self.cut(gone)
        with patch.object(claims, "MOST_WAITING", 2):
            peers = [self.come("bob") for _ in range(4)]
            for peer in peers:
                self.asks(peer, PLACES[0])
            self.ask(
                holder, "closeTunnel", uri=self.ask(holder, "listTunnels")[0]["uri"]
            )
            self.settle()
        self.assertIn(sum(len(self.told(peer)) for peer in peers), (1, 2))

    def session(self, dialect: str) -> tuple[Any, Probe]:
        caller = Caller(self.identity("alice"), "server", 9000)
        probe = Probe(self.clock, lambda: None)
        session: Any
        if dialect == "vtunnel":
            session = VTunnelServerSession(self.sessions, Arrival(caller, True))
            connection: Any = TextConnection()
            session.opened(connection)
            session.textReceived(b'{"type":"listen","port":8080}')
        else:
            self.sessions.shared(ZLayerSessions).ports = None
            session = ZLayerServerSession(self.sessions, Arrival(caller, True))
            connection = BinaryConnection()
            session.opened(connection)
            session.bytesReceived(encodeMessage(Auth("t", CLIENT_ID)))
            session.bytesReceived(encodeMessage(Register("", 0, 80, 8080)))
        connection.probe = probe
        self.assertIn(8080, self.listeners.open_)
        return session, probe

    def test_dialects(self) -> None:
        """The same holds for sessions of other dialects: one that answers keeps the
        port, one that does not is ended; and they get it likewise."""
        for dialect in ("vtunnel", "zlayer"):
            session, probe = self.session(dialect)
            fresh = self.come()
            self.assertEqual(self.asks(fresh, PLACES[0]), {})
            probe.heard()
            self.settle()
            self.assertIn("error", self.answers(fresh)[5])
            self.assertEqual(self.asks(fresh, PLACES[0]), {})
            self.clock.advance(PROBE)
            self.settle()
            self.assertIn("result", self.answers(fresh)[5])
            self.assertEqual(session.lost.code.name, "displaced")
            self.cut(fresh)
            session, _ = self.session(dialect)
            session.fail(TunnelError("closed"))
            self.assertEqual(self.listeners.open_, {})


class AnonymousTests(ClaimsMixin):
    """Where nobody logs in, everybody has the same name."""

    def test_lease(self) -> None:
        """The lease's secret decides: nobody is displaced, and who waits is told for
        how long."""
        for place in PLACES:
            holder = self.extended(datagrams=65507)
            self.asks(holder, place)
            other = self.extended(datagrams=65507)
            error = self.asks(other, place)["error"]
            self.assertIn("belongs to another client", error["message"])
            self.cut(holder)
            error = self.asks(other, place)["error"]
            self.assertEqual(error["data"]["retryAfter"], 120.0)
            self.assertIn("for 120 s more", error["message"])
            self.clock.advance(121)
            self.cut(other)

    def test_elsewhere(self) -> None:
        """A port that another program has is just in use."""
        self.listeners.taken.add(8080)
        error = self.asks(self.extended(), PLACES[0])["error"]
        self.assertEqual(error["data"], {"code": "port-taken"})


class FinishTests(ClaimsMixin):
    """C{closeTunnel} with C{finish}."""

    def test_finish(self) -> None:
        """The place is free at once, for whoever waits too; visitors stay until they
        leave."""
        holder, waiting = self.extended(), self.extended()
        place: dict[str, object] = {"port": 8080, "name": "db"}
        uri = self.asks(holder, place)["result"]
        visitor = self.listeners.only().visit()
        self.settle()
        (opened,) = [f for f in holder.frames() if f.kind == FrameType.OPEN]
        holder.say(Frame(opened.stream, FrameType.OPENED, bytes(8)))
        self.asks(waiting, place)
        holder.say(call(6, "closeTunnel", uri=uri, finish=True))
        self.settle()
        self.assertEqual(self.answers(holder)[6]["result"], None)
        self.assertEqual(len(self.told(waiting)), 1)
        self.assertIn("result", self.asks(waiting, place))
        self.assertIsNone(visitor.broken)
        holder.say(Frame(opened.stream, FrameType.DATA, b"the end"))
        holder.say(Frame(opened.stream, FrameType.CLOSE, b""))
        visitor.end()
        self.settle()
        self.assertEqual(visitor.taken, b"the end")
        self.assertEqual(len(self.notes.named("tunnelDestroyed")), 1)

    def test_nobody(self) -> None:
        """Without visitors it is over at once; and what is no truth is refused."""
        peer = self.extended()
        uri = self.asks(peer, PLACES[0])["result"]
        peer.say(call(6, "closeTunnel", uri=uri, finish="yes"))
        peer.say(call(7, "closeTunnel", uri=uri, finish=True))
        self.settle()
        answers = self.answers(peer)
        self.assertEqual(answers[6]["error"]["data"]["code"], "bad-option")
        self.assertEqual(self.listeners.open_, {})


class ProbeTests(SynchronousTestCase):
    def test_answers(self) -> None:
        """Several who ask at once ask once; anything that comes is an answer."""
        asked: list[None] = []
        clock = Clock()
        probe = Probe(clock, lambda: asked.append(None))
        both = [probe(), probe()]
        self.assertEqual(len(asked), 1)
        probe.heard()
        probe.heard()
        self.assertEqual([self.successResultOf(each) for each in both], [True, True])
        late = probe()
        clock.advance(PROBE)
        self.assertFalse(self.successResultOf(late))
        last = probe()
        probe.close()
        self.assertFalse(self.successResultOf(last))
        self.assertFalse(self.successResultOf(probe()))
        self.assertEqual(clock.getDelayedCalls(), [])
