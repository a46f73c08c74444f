"""
Tests for L{tristunnel.service.listing}: C{listSessions},
C{closeSession} and C{kick}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.token_server import NOW, TokenServerTestCase
from tests.dialects.framed.network import RawPeer
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.server.log import LoggingServerObserver
from tristunnel.service.counters import RateMeter
from tristunnel.wire.framed import Frame, FrameType, encodeCredit


class ListingTestCase(TokenServerTestCase):
    """A server with the clients C{alice} and C{bob}, one tunnel each."""

    def setUp(self) -> None:
        super().setUp()
        self.service.now = self.now
        self.peers: dict[str, RawPeer] = {}
        for name, port in (("alice", 41500), ("bob", 41600)):
            self.makeToken(name, expires=NOW + 1000)
            self.peers[name] = self.client(name)
            self.ask(self.peers[name], "openTunnel", port=port, name=f"of-{name}")

    def visit(self, port: int = 41500) -> Any:
        visitor = self.listeners.open_[port].visit()
        self.settle()
        return visitor

    def list(self, name: str, kind: str = "") -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.rpc(name, "listSessions")
        return [entry for entry in entries if kind in ("", entry["kind"])]


class ListTests(ListingTestCase):
    """C{listSessions}."""

    def test_entries(self) -> None:
        """There is an entry for each client, tunnel and visitor: since when, from
        where, how many bytes each way, how fast and for how long."""
        self.clock.advance(20)
        visitor = self.visit()
        visitor.say(b"hello")
        self.settle()
        (opened,) = [
            frame.stream
            for frame in self.peers["alice"].frames()
            if frame.kind == FrameType.OPEN
        ]
        self.peers["alice"].say(
            Frame(opened, FrameType.OPENED, encodeCredit(1 << 20)),
            Frame(opened, FrameType.DATA, b"good bye"),
        )
        self.settle()
        self.clock.advance(2)
        client, tunnel, stream = self.list("alice")
        common = {"owner": "alice", "bytesIn": 5, "bytesOut": 8}
        self.assertEqual(client["tunnels"], [tunnel["tunnel"]])
        self.assertEqual(
            {key: client[key] for key in client if key not in ("id", "tunnels")},
            {
                **common,
                "kind": "client",
                "from": "203.0.113.5:40000",
                "client": {"name": "", "host": "", "program": ""},
                "dialect": "framed",
                "opened": NOW,
                "seconds": 22.0,
                "rateIn": 0,
                "rateOut": 0,
                "timeLeft": 978.0,
            },
        )
        self.assertEqual(
            {key: tunnel[key] for key in tunnel if key not in ("id", "tunnel")},
            {
                **common,
                "kind": "tunnel",
                "from": "203.0.113.5:40000",
                "address": "tcp://198.51.100.1:41500",
                "page": "",
                "name": "of-alice",
                "target": "",
                "visitors": 1,
                "visitorsTotal": 1,
                "opened": NOW,
                "seconds": 22.0,
                "rateIn": 0,
                "rateOut": 0,
                "timeLeft": 978.0,
            },
        )
        self.assertEqual(
            stream,
            {
                **common,
                "id": f"{tunnel['id']}.1",
                "kind": "visitor",
                "from": "192.0.2.7:50000",
                "tunnel": tunnel["tunnel"],
                "name": "of-alice",
                "target": "",
                "opened": NOW + 20,
                "seconds": 2.0,
                "rateIn": 2,
                "rateOut": 4,
                "timeLeft": 978.0,
            },
        )

    def test_rates(self) -> None:
        """Rates are those since the question before."""
        visitor = self.visit()
        visitor.say(bytes(1000))
        self.clock.advance(10)
        self.assertEqual(self.list("alice", "visitor")[0]["rateIn"], 100)
        visitor.say(bytes(1000))
        self.clock.advance(0.5)
        self.assertEqual(self.list("alice", "visitor")[0]["rateIn"], 100)
        self.clock.advance(1.5)
        self.assertEqual(self.list("alice", "visitor")[0]["rateIn"], 500)
        self.assertEqual(self.list("alice", "tunnel")[0]["rateIn"], 500)
        self.assertEqual(self.list("alice", "client")[0]["rateIn"], 500)
        self.clock.advance(10)
        self.assertEqual(self.list("alice", "visitor")[0]["rateIn"], 0)

    def test_owners(self) -> None:
        """Everybody sees what is theirs; an admin sees all."""
        self.visit(41500)
        self.visit(41600)
        for name in ("alice", "bob"):
            self.assertEqual({entry["owner"] for entry in self.list(name)}, {name})
            self.assertEqual(len(self.list(name)), 3)
            on = self.ask(self.peers[name], "listSessions")
            self.assertEqual(len(on), 3)
        self.assertEqual(len(self.list("admin")), 6)
        self.assertEqual(len(self.rpc("admin", "listTunnels")), 2)

    def test_timeLeft(self) -> None:
        """A tunnel lasts as long as its own time and its owner's."""
        self.rpc("alice", "openTunnel", via="w3p", ttl=60)
        self.clock.advance(10)
        lefts = sorted(entry["timeLeft"] for entry in self.list("alice", "tunnel"))
        self.assertEqual(lefts, [50.0, 990.0])

    def test_withoutSession(self) -> None:
        """A tunnel whose client is away, or has none, is there as well."""
        self.peers["alice"].transport.loseConnection()
        self.settle()
        (tunnel,) = self.list("alice")
        self.assertEqual((tunnel["kind"], tunnel["from"]), ("tunnel", ""))

    def test_logged(self) -> None:
        """At the end of each visitor and tunnel there is a line in the log."""
        self.service.observer = LoggingServerObserver(self.clock.seconds)
        for tunnel in self.service.here:
            tunnel.observer = self.service.observer
        lines: list[str] = []

        class Log:
            def info(self, template: str, **values: Any) -> None:
                lines.append(template.format(**values))

        self.patch(LoggingServerObserver, "_log", Log())
        visitor = self.visit()
        visitor.say(b"hello")
        self.clock.advance(2)
        visitor.crash()
        self.rpc("alice", "closeSession", id=self.list("alice", "tunnel")[0]["id"])
        self.assertIn(
            "Visitor 192.0.2.7:50000 of tcp://198.51.100.1:41500 left after 2.000 s,"
            " 5 bytes in, 0 bytes out: The other end reset the connection. [reset]",
            lines,
        )
        self.assertIn(" of alice is closed after 2.000 s, 1 visitors, 5 ", lines[-1])


class EndTests(ListingTestCase):
    """C{closeSession} and C{kick}."""

    def one(self, name: str, kind: str) -> str:
        (entry,) = self.list(name, kind)
        identifier: str = entry["id"]
        return identifier

    def test_kick(self) -> None:
        """The owner and an admin send visitors away; others know of none."""
        first, second = self.visit(), self.visit()
        ids = sorted(entry["id"] for entry in self.list("alice", "visitor"))
        for refused in (
            self.rpc("bob", "kick", visitor=ids[0]),
            self.ask(self.peers["bob"], "kick", visitor=ids[0]),
            self.rpc("bob", "closeSession", id=ids[0]),
        ):
            self.assertEqual(refused, "unknown-session")
        self.assertIsNone(self.ask(self.peers["alice"], "kick", visitor=ids[0]))
        assert first.broken is not None
        self.assertEqual(first.broken.code.name, "closed")
        self.assertIsNone(second.broken)
        self.assertEqual(self.rpc("alice", "kick", visitor=ids[0]), "unknown-session")
        self.assertIsNone(self.rpc("admin", "closeSession", id=ids[1]))
        self.assertIsNotNone(second.broken)

    def test_closeClient(self) -> None:
        """A client's session ends; its tunnels wait for it."""
        identifier = self.one("alice", "client")
        self.assertEqual(
            self.rpc("bob", "closeSession", id=identifier), "unknown-session"
        )
        self.assertIsNone(self.rpc("alice", "closeSession", id=identifier))
        self.settle()
        self.assertIsNotNone(self.peers["alice"].lost)
        self.assertEqual([e["kind"] for e in self.list("alice")], ["tunnel"])
        self.assertEqual(self.notes.named("clientGone"), [("alice", "closed")])

    def test_closeTunnel(self) -> None:
        """A tunnel ends with its visitors; its client stays."""
        visitor = self.visit()
        identifier = self.one("alice", "tunnel")
        self.assertEqual(
            self.rpc("bob", "closeSession", id=identifier), "unknown-session"
        )
        self.assertIsNone(self.rpc("alice", "closeSession", id=identifier))
        self.assertIsNotNone(visitor.broken)
        self.assertEqual([e["kind"] for e in self.list("alice")], ["client"])

    def test_unknown(self) -> None:
        """What does not exist, or is no id, is refused."""
        for identifier in ("", "x", "x.1", ".", "c123"):
            for method, name in (("closeSession", "id"), ("kick", "visitor")):
                self.assertEqual(
                    self.rpc("admin", method, **{name: identifier}), "unknown-session"
                )
        self.assertEqual(self.rpc("admin", "kick", visitor=5), "bad-option")
        self.assertEqual(self.rpc("admin", "closeSession", id=None), "bad-option")

    def test_closeTunnelOfOthers(self) -> None:
        """An admin closes tunnels by their URIs, too."""
        (entry,) = self.list("alice", "tunnel")
        uri = entry["tunnel"]
        self.assertEqual(self.rpc("bob", "closeTunnel", uri=uri), "unknown-tunnel")
        self.assertIsNone(self.rpc("admin", "closeTunnel", uri=uri))
        self.assertNotIn(41500, self.listeners.open_)


class RateMeterTests(SynchronousTestCase):
    def test_forgets(self) -> None:
        """Nothing is kept of what no longer exists."""
        clock = Clock()
        meter = RateMeter(clock.seconds)
        clock.advance(5)

        class Subject:
            pass

        subject = Subject()
        self.assertEqual(meter.measure(subject, 0.0, 10, 20), (2.0, 4.0))
        self.assertEqual(len(meter._samples), 1)
        del subject
        self.assertEqual(len(meter._samples), 0)

    def test_tooEarly(self) -> None:
        """In the first second nothing is known yet."""
        clock = Clock()
        meter = RateMeter(clock.seconds)
        self.assertEqual(meter.measure(ANONYMOUS_IDENTITY, 0.0, 10, 20), (0.0, 0.0))
