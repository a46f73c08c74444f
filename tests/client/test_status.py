"""Tests for L{tristunnel.client.status}."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.client.status import SAMPLES, ProcessStatus, statusTicks
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.model.observer import Visit

NOON = 1_900_000_000.0


class End:
    def __init__(self, received: int = 0) -> None:
        self.received = received


class StatusTests(SynchronousTestCase):
    """What a client does, as it tells its observer."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.whole = ProcessStatus(
            self.clock.seconds, lambda: NOON + self.clock.seconds()
        )
        self.client = self.whole.follow("tcp:server.example:9000")

    def online(self) -> None:
        self.client.connected(IPv4Address("TCP", "192.0.2.1", 9000))
        self.client.acknowledged("framed")
        for name in ("a", "b"):
            self.ready(name)

    def ready(self, name: str) -> None:
        address = f"tcp://server.example:{ord(name)}"
        self.client.tunnelOpened(f"{name}=web", f"uri-{name}", address, "web")
        self.client.tunnelReady(address, "web")

    def visit(self, name: str = "", come: int = 0, go: int = 0) -> Visit:
        info = {"visitor": "203.0.113.7:5"}
        if name:
            info["tunnel"] = f"uri-{name}"
        return Visit("web", End(go), End(come), info, self.client)

    def leave(self, visit: Visit, reason: TunnelError | None = None) -> None:
        visit.ended(None)
        visit.ended(reason)

    def server(self) -> dict[str, Any]:
        servers: Any = self.whole.describe()["servers"]
        return dict(servers[0])

    def tunnel(self, index: int = 0) -> dict[str, Any]:
        return self.whole.tunnels()[index]

    def texts(self) -> list[str]:
        return [event.line() for event in self.whole.events.latest(100)]

    def test_life(self) -> None:
        """Connecting, online, waiting, connecting again, online again, and given up at
        last."""
        self.assertEqual(self.server()["state"], "connecting")
        self.online()
        self.clock.advance(5)
        self.assertEqual(
            (self.server()["state"], self.server()["stateSeconds"]), ("online", 5)
        )
        self.client.disconnected(TunnelError("session-lost", "cable cut"))
        self.client.reconnectQueued(3.0)
        self.clock.advance(1)
        found = self.server()
        self.assertEqual((found["state"], found["retryIn"]), ("waiting", 2.0))
        self.assertEqual(found["reason"], "cable cut [session-lost]")
        self.assertFalse(self.tunnel()["ready"])
        self.clock.advance(2)
        found = self.server()
        self.assertEqual((found["state"], found["retryIn"]), ("connecting", None))
        self.online()
        self.assertTrue(self.tunnel()["ready"])
        self.assertEqual(len(self.whole.tunnels()), 2)
        self.client.openingQueued(4.0)
        self.clock.advance(1)
        self.assertEqual(self.server()["retryIn"], 3.0)
        self.client.gaveUp(TunnelError("auth-refused", "who are you?"))
        found = self.server()
        self.assertEqual(found["state"], "stopped")
        self.assertEqual(found["reason"], "who are you? [auth-refused]")

    def test_stopping(self) -> None:
        """The end of the process shows as such, and the clients stay to be seen; why
        one gave up is not forgotten."""
        self.online()
        other = self.whole.follow("tcp:other:1")
        other.gaveUp(TunnelError("bad-pin", "wrong one"))
        self.whole.stopping()
        self.client.stopped()
        servers: Any = self.whole.describe()["servers"]
        self.assertEqual([each["state"] for each in servers], ["stopping", "stopped"])

    def test_countdown(self) -> None:
        """While visitors are waited for, it shows for how long that may be."""
        self.online()
        self.assertIsNone(self.server()["stopsIn"])
        self.whole.stopping(10.0)
        self.clock.advance(4)
        self.assertEqual(self.server()["stopsIn"], 6.0)
        self.clock.advance(40)
        self.assertEqual(self.server()["stopsIn"], 0.0)

    def test_refusedForward(self) -> None:
        """A forward that the server refuses is among the tunnels, with its name and the
        reason, until it opens; in every dialect."""
        reactor = MemoryReactorClock()
        specs = "db=localhost:5432", "80=localhost:3000", "0=localhost:3001"
        forwards = [parseForward(reactor, spec) for spec in specs]
        taken = TunnelError("name-taken", "another tunnel has it")
        for opens in (True, False):
            client = self.whole.follow("tcp:s:1", True, forwards)
            client.acknowledged("framed")
            for forward in forwards:
                client.tunnelFailed(forward.wanted, taken)
                client.tunnelFailed(forward.wanted, taken)
            found: Any = client.tunnels()
            self.assertEqual(
                [(each["name"], each["wanted"], each["target"]) for each in found],
                [
                    ("db", "db", "localhost:5432"),
                    ("", "port 80", "localhost:3000"),
                    ("", "any port", "localhost:3001"),
                ],
            )
            for each in found:
                self.assertIn("another tunnel has it", each["reason"])
                self.assertFalse(each["ready"])
            if opens:
                client.tunnelOpened(specs[0], "uri", "tcp://s:7", "localhost:5432")
            client.tunnelReady("tcp://s:7", "localhost:5432")
            found = client.tunnels()
            self.assertEqual(len(found), 3)
            self.assertEqual((found[0]["ready"], found[0]["reason"]), (True, ""))
            self.assertFalse(found[1]["ready"])

    def test_services(self) -> None:
        """It shows which services do not listen, and what they speak."""
        self.online()
        self.client.serviceMissing("web")
        self.assertEqual([self.tunnel(i)["listens"] for i in (0, 1)], [False, False])
        self.assertIn("nothing listens at web yet; start the service", self.texts())
        self.client.serviceFound("web")
        self.client.serviceSpeaks("web", "http")
        tunnel = self.tunnel()
        self.assertEqual((tunnel["listens"], tunnel["speaks"]), (True, "http"))

    def test_onDemand(self) -> None:
        """It shows what becomes of services that are started for visitors."""
        self.online()
        self.client.serviceOnDemand("web", "failed", "was not started: no disk")
        self.assertEqual(self.tunnel()["demand"], "was not started: no disk")
        self.assertIn("web was not started: no disk", self.texts())
        self.client.serviceOnDemand("web", "up", "has started")
        self.assertEqual(self.tunnel()["demand"], "")

    def test_roundTrip(self) -> None:
        """The round trip is known while the client is connected, once it was
        measured."""
        self.assertIsNone(self.server()["roundTrip"])
        self.online()
        self.assertIsNone(self.server()["roundTrip"])
        self.client.roundTripMeasured(0.0125)
        self.assertEqual(self.server()["roundTrip"], 0.0125)
        self.client.disconnected(TunnelError("session-lost"))
        self.assertIsNone(self.server()["roundTrip"])

    def test_visitors(self) -> None:
        """Visitors are counted where they came, also those who are gone, and in all."""
        self.online()
        first, second = self.visit("b", 10, 100), self.visit("b", 1, 2)
        self.visit("a")
        self.leave(first)
        self.assertEqual([self.tunnel(i)["visitors"] for i in (0, 1)], [1, 1])
        found = self.tunnel(1)
        self.assertEqual(found["visitorsTotal"], 2)
        self.assertEqual((found["bytesIn"], found["bytesOut"]), (11, 102))
        whole = self.whole.describe()
        self.assertEqual((whole["visitors"], whole["visitorsTotal"]), (2, 3))
        self.assertEqual((whole["bytesIn"], whole["bytesOut"]), (11, 102))
        self.leave(second)
        self.assertEqual(self.whole.describe()["visitors"], 1)

    def test_unknownTunnel(self) -> None:
        """Where a dialect does not say which tunnel a visitor came by, the service
        tells; one of no tunnel at all counts in all."""
        self.online()
        self.visit()
        self.assertEqual(self.tunnel(0)["visitors"], 1)
        Visit("elsewhere", End(), End(), {}, self.client)
        self.assertEqual(self.whole.describe()["visitors"], 2)

    def test_rates(self) -> None:
        """Rates are measured from second to second, and so many of them are kept."""
        self.online()
        ticks = statusTicks(self.clock, self.whole)
        ticks.startService()
        self.addCleanup(ticks.stopService)
        visitor, service = End(), End()
        Visit("web", service, visitor, {"tunnel": "uri-a"}, self.client)
        visitor.received, service.received = 500, 4000
        self.clock.advance(1)
        self.assertEqual(
            (self.tunnel()["rateIn"], self.tunnel()["rateOut"]), (500, 4000)
        )
        visitor.received += 250
        self.clock.pump([1.0])
        whole = self.whole.describe()
        self.assertEqual((whole["rateIn"], whole["rateOut"]), (250, 0))
        self.clock.pump([1.0] * (SAMPLES + 5))
        rates: Any = self.whole.describe()["rates"]
        self.assertEqual(rates, [[0, 0]] * SAMPLES)

    def test_refused(self) -> None:
        """A service that is not there shows, once, however often it is tried."""
        self.online()
        for _ in range(3):
            self.client.serviceFailed("web", TunnelError("service-refused", "nothing"))
        self.assertEqual(self.whole.describe()["refused"], 3)
        newest = self.whole.events.latest(1)[0].describe()
        self.assertEqual(
            (newest["text"], newest["count"], newest["level"]),
            ("a visitor was turned away: nothing [service-refused]", 3, "warn"),
        )

    def test_failedTunnel(self) -> None:
        """A tunnel that the server closes is not ready, with the reason."""
        self.online()
        self.client.tunnelClosed("uri-a")
        self.client.tunnelFailed("a=web", TunnelError("closed", "by an admin"))
        found = self.tunnel()
        self.assertFalse(found["ready"])
        self.assertEqual(found["reason"], "by an admin [closed]")
        self.ready("a")
        self.assertEqual((self.tunnel()["ready"], self.tunnel()["reason"]), (True, ""))

    def test_withdrawn(self) -> None:
        """A forward that is no longer offered is not shown; what its visitors moved
        still counts, also that of those who leave later."""
        self.online()
        stays = self.visit("a", 1, 1)
        self.leave(self.visit("a", 5, 5))
        self.client.forwardWithdrawn("a=web")
        self.assertEqual(len(self.whole.tunnels()), 1)
        self.leave(stays)
        whole = self.whole.describe()
        self.assertEqual(
            (whole["visitors"], whole["visitorsTotal"], whole["bytesIn"]), (0, 2, 6)
        )

    def test_former(self) -> None:
        """So it is with a client that ends while others go on."""
        self.online()
        stays = self.visit("a", 1, 1)
        self.whole.follow("tcp:other:1")
        self.client.stopped()
        servers: Any = self.whole.describe()["servers"]
        self.assertEqual([each["server"] for each in servers], ["tcp:other:1"])
        self.assertEqual(self.whole.describe()["visitors"], 1)
        self.leave(stays)
        whole = self.whole.describe()
        self.assertEqual((whole["visitors"], whole["bytesIn"]), (0, 1))

    def test_listVisitors(self) -> None:
        """Those are told of first who have moved the most."""
        self.online()
        self.visit("a", 1, 1)
        self.visit("b", 900, 100)
        self.clock.advance(2)
        found = self.whole.visitors(1)
        self.assertEqual(
            found,
            [
                {
                    "id": "1",
                    "from": "203.0.113.7:5",
                    "address": f"tcp://server.example:{ord('b')}",
                    "target": "web",
                    "seconds": 2,
                    "bytesIn": 900,
                    "bytesOut": 100,
                    "rateIn": 450,
                    "rateOut": 50,
                }
            ],
        )

    def test_events(self) -> None:
        """What happens is told, newest first."""
        self.client.acknowledged("framed")
        self.ready("a")
        self.clock.advance(1)
        visit = self.visit("a", 2500, 100)
        self.clock.advance(1.5)
        self.leave(visit, TunnelError("reset", "went away"))
        self.assertEqual(
            self.texts(),
            [
                "203.0.113.7:5 left after 1.5 s, 2.5 kB down, 100 B up: went away"
                " [reset]",
                "203.0.113.7:5 came to web",
                "visitors of tcp://server.example:97 reach web",
                "connected to tcp:server.example:9000",
            ],
        )

    def test_changed(self) -> None:
        """Whoever draws is told that there is something new."""
        calls: list[None] = []
        self.whole.changed = lambda: calls.append(None)
        self.online()
        before = len(calls)
        self.leave(self.visit())
        self.assertEqual(len(calls), before + 2)

    def test_hostileText(self) -> None:
        """What others write cannot drive a terminal."""
        self.client.acknowledged("framed")
        self.client.tunnelReady("tcp://\x1b[2Jevil:1", "web")
        Visit("web", End(), End(), {"visitor": "\x1b]0;x\x07\u202e"}, self.client)
        self.client.disconnected(TunnelError("session-lost", "\x9b31m" + "x" * 9000))
        said = str(self.whole.describe()) + str(self.whole.visitors())
        for letter in ("\x1b", "\x07", "\x9b", "\u202e"):
            self.assertNotIn(letter, said)
            self.assertNotIn(ascii(letter)[1:-1], said)
        self.assertLess(len(said), 5000)

    def test_localPortStays(self) -> None:
        """A port of this machine is of use again when the server is back."""
        self.client.acknowledged("framed")
        self.client.portReady("127.0.0.1:2222", "db")
        self.client.disconnected(TunnelError("session-lost"))
        self.assertFalse(self.tunnel()["ready"])
        self.client.acknowledged("framed")
        self.assertTrue(self.tunnel()["ready"])

    def test_localPort(self) -> None:
        """A port of this machine shows; where each visitor connects by itself, it is
        all there is to be online."""
        visiting = self.whole.follow("ws://relay.example", connects=False)
        visiting.portReady("127.0.0.1:2222", "relay")
        visiting.visitorRefused("relay", TunnelError("client-away"))
        servers: Any = self.whole.describe()["servers"]
        self.assertEqual(servers[1]["state"], "online")
        found = self.tunnel()
        self.assertEqual(
            (found["address"], found["ready"], found["refused"]),
            ("127.0.0.1:2222", True, 1),
        )
