"""What L{tristunnel.client.status} knows of a real client, with our own server."""

from __future__ import annotations

from typing import Any

from tests.dialects.base.client_rig import ClientServiceTestCase
from tests.dialects.framed.network import MemoryService
from tristunnel.client.status import ProcessStatus
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.forwards.forward import Forward


class SessionTests(ClientServiceTestCase):
    """A client tells its observer all that there is to be shown."""

    def setUp(self) -> None:
        super().setUp()
        self.status = ProcessStatus(self.clock.seconds)
        seen: Any = self.status.follow("tcp:server.example:9000")
        self.seen = seen

    def tunnels(self) -> list[tuple[object, ...]]:
        return [
            (each["forward"], each["address"], each["visitors"], each["visitorsTotal"])
            for each in self.status.tunnels()
        ]

    def test_visitors(self) -> None:
        """Each visitor counts for the tunnel it came by, though both lead to the same
        service, and is known by its address."""
        self.client(self.forward(41001), self.forward(41002))
        for port in (41001, 41002, 41002):
            self.listeners.open_[port].visit(f"192.0.2.7:{port}").say(b"question")
        self.settle()
        self.web.visits[2].transport.write(b"answer")
        self.settle()
        self.assertEqual(
            self.tunnels(),
            [
                ("41001=web", "tcp://server.example:41001", 1, 1),
                ("41002=web", "tcp://server.example:41002", 2, 2),
            ],
        )
        found = self.status.visitors(1)[0]
        self.assertEqual(
            (found["from"], found["bytesIn"], found["bytesOut"]),
            ("192.0.2.7:41002", 8, 6),
        )

    def test_gone(self) -> None:
        """Its bytes count, also when it has left."""
        self.client()
        visitor = self.listeners.only().visit()
        visitor.say(b"question")
        self.settle()
        visitor.end()
        self.settle()
        self.web.visits[0].transport.loseConnection()
        self.settle()
        whole = self.status.describe()
        self.assertEqual(
            (whole["visitors"], whole["visitorsTotal"], whole["bytesIn"]), (0, 1, 8)
        )

    def test_refused(self) -> None:
        """So does one whose service is not there."""
        self.web.refusing = True
        self.client()
        self.listeners.only().visit()
        self.settle()
        self.assertEqual(self.status.tunnels()[0]["refused"], 1)

    def test_roundTrip(self) -> None:
        """The round trip is known once the server has answered a ping."""
        self.client()
        measured: list[float] = []
        self.patch(self.seen, "roundTripMeasured", measured.append)
        self.advance(60)
        self.assertGreater(len(measured), 1)

    def test_comesBack(self) -> None:
        """A tunnel that is had again is the same entry."""
        client = self.client(self.forward(41001))
        assert client.session is not None
        client.session.close()
        self.settle()
        servers: Any = self.status.describe()["servers"]
        self.assertEqual(servers[0]["state"], "waiting")
        self.assertFalse(self.status.tunnels()[0]["ready"])
        self.advance(4)
        servers = self.status.describe()["servers"]
        self.assertEqual(servers[0]["state"], "online")
        self.assertEqual(len(self.tunnels()), 1)
        self.assertTrue(self.status.tunnels()[0]["ready"])

    def test_changed(self) -> None:
        """A forward that leads elsewhere keeps its address; one that is gone is not
        shown."""
        client: TunnelClientService = self.client(
            self.forward(41001), self.forward(41002)
        )
        other = Forward("41001=other", 41001, "", "other", MemoryService())
        changing = client.changeForwards([other])
        self.settle()
        self.successResultOf(changing)
        self.assertEqual(
            self.tunnels(), [("41001=other", "tcp://server.example:41001", 0, 0)]
        )

    def test_stopped(self) -> None:
        """A client that is stopped while others go on is shown no longer."""
        self.stop(self.client())
        self.assertEqual(self.status.describe()["servers"], [])
        self.assertEqual(self.tunnels(), [])
