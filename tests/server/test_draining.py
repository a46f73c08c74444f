"""Tests for L{tristunnel.server.draining}."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.web.test.requesthelper import DummyRequest

from tests.dialects.framed.server_rig import ServerTestCase, call, hello
from tristunnel.errors import TunnelError
from tristunnel.http.tree import Health
from tristunnel.model.memory_book import MemoryBook
from tristunnel.server.draining import MOVING, PATIENCE, Draining


class DrainingTests(ServerTestCase):
    """A server whose clients are sent elsewhere."""

    def setUp(self) -> None:
        super().setUp()
        self.makeServer(book=MemoryBook(self.clock).ofMember("a"))
        self.places: tuple[str, ...] = ("10.0.0.2:9000",)
        self.draining = Draining(
            self.clock, self.sessions, self.service, lambda: self.places
        )
        self.addCleanup(self.draining.turn, False)

    def test_turn(self) -> None:
        """
        Nobody is let in, and nothing new is opened, until that is over; what is open
        goes on.
        """
        peer = self.dial(hello(), call(1, "openTunnel"))
        self.assertEqual(
            self.draining.numbers(), {"clients": 1, "tunnels": 1, "streams": 0}
        )
        self.draining.turn(True)
        self.settle()
        refused: Any = self.dial(hello()).handshake["tristunnel"]["refused"]
        self.assertEqual(refused["elsewhere"], ["10.0.0.2:9000"])
        peer.say(call(2, "openTunnel"))
        self.settle()
        code = self.answers(peer)[2]["error"]["data"]["code"]
        self.assertEqual(code, "shutting-down")
        visitor = self.listeners.only().visit()
        self.assertIsNone(visitor.broken)
        self.draining.turn(False)
        self.assertIn("lease", self.dial(hello()).handshake["tristunnel"])

    def test_stays(self) -> None:
        """
        Whoever does not go is disconnected when it has no visitor: also who speaks
        plain W3P.
        """
        idle = self.dial({"id": "old"})
        busy = self.dial(hello(), call(1, "openTunnel"))
        visitor = self.listeners.open_[41002].visit()
        self.draining.turn(True)
        self.advance(PATIENCE - 2)
        self.assertIsNone(idle.lost)
        self.advance(4)
        self.assertIsNotNone(idle.lost)
        self.assertIsNone(busy.lost)
        visitor.crash()
        self.settle()
        self.advance(2)
        self.assertIsNotNone(busy.lost)

    def moved(self) -> list[float]:
        """Begin to stop, and find out when clients are elsewhere."""
        times: list[float] = []
        for _ in range(2):
            waiting = self.draining.moved()

            def moved(result: None) -> None:
                times.append(self.clock.seconds())

            waiting.addCallback(moved)
        return times

    def test_moved(self) -> None:
        """A stop waits until the last client has gone, or for some seconds."""
        peer = self.dial(hello(), call(1, "openTunnel"))
        times = self.moved()
        self.advance(2.0, 0.1)
        self.assertEqual(times, [])
        peer.transport.loseConnection()
        self.settle()
        self.advance(0.2, 0.1)
        self.assertEqual(len(times), 2)
        self.assertEqual(len(self.moved()), 2)

    def test_notMoved(self) -> None:
        """It does not wait for ever, nor for somebody in a hurry."""
        self.dial(hello(), call(1, "openTunnel"))
        times = self.moved()
        self.advance(MOVING - 0.5, 0.1)
        self.assertEqual(times, [])
        self.advance(0.7, 0.1)
        self.assertEqual(len(times), 2)

    def test_notAnyMore(self) -> None:
        """Nor if the others turn out to stop, too."""
        self.dial(hello(), call(1, "openTunnel"))
        times = self.moved()
        self.advance(0.5, 0.1)
        self.assertEqual(times, [])
        self.places = ()
        self.advance(0.2, 0.1)
        self.assertEqual(len(times), 2)

    def test_hurry(self) -> None:
        """A second signal ends that."""
        self.dial(hello(), call(1, "openTunnel"))
        times = self.moved()
        self.draining.hurry()
        self.advance(0.2, 0.1)
        self.assertEqual(len(times), 2)

    def test_nowhere(self) -> None:
        """Without another member, nobody is sent away and nothing is waited for."""
        self.places = ()
        peer = self.dial(hello(), call(1, "openTunnel"))
        self.assertEqual(len(self.moved()), 2)
        self.assertFalse(self.draining.isOn)
        self.assertIsNone(peer.lost)


class HealthTests(ServerTestCase):
    """What a balancer is told."""

    def test_draining(self) -> None:
        """It is 503 while the member is drained."""
        for isDraining, code in ((False, None), (True, 503)):
            request: Any = DummyRequest([b""])
            body = Health(partial(bool, isDraining)).render_GET(request)
            self.assertEqual(request.responseCode, code)
            self.assertEqual(body, b"draining\n" if isDraining else b"ok\n")


class ElsewhereTests(ServerTestCase):
    """Where a refusal says to go."""

    def test_bounded(self) -> None:
        """Whatever the other side says, it is a few short texts."""
        for said in (None, "a:1", 7, {"a": 1}, [None, 3, "x" * 1000, "a\nb"]):
            error = TunnelError.fromDict({"elsewhere": said}, "internal")
            self.assertEqual(error.elsewhere, ())
        many = ["", *(f"h{n}:1" for n in range(1000))]
        error = TunnelError.fromDict({"elsewhere": many}, "internal")
        self.assertEqual(list(error.elsewhere), many[:16])
        self.assertEqual(error.asDict()["elsewhere"], many[:16])
        self.assertNotIn("elsewhere", TunnelError("internal").asDict())
