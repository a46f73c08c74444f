"""
Tests for how a client greets a server that may be W3P's,
L{tristunnel.connect.greeting}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.base.client_rig import ClientServiceTestCase
from tests.dialects.framed.network import SERVER, MemoryServer
from tristunnel.check.client import ClientCheck
from tristunnel.connect.address import ServerAddress
from tristunnel.connect.greeting import ALWAYS, AUTO, NEVER, Greeting
from tristunnel.connect.route import ConnectOptions
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.errors import TunnelError
from tristunnel.model.policy import VisitorPolicy
from tristunnel.wire.framed import HandshakeDecoder, encodeHandshake

Filter = Callable[[dict[str, object]], bool]


class W3P(Protocol):
    """A W3P server's connection, which refuses by closing."""

    transport: Any

    def __init__(self, admits: Filter, seen: list[dict[str, object]]) -> None:
        self._admits = admits
        self._seen = seen
        self._handshake = HandshakeDecoder()

    def dataReceived(self, data: bytes) -> None:
        whole = self._handshake.feed(data)
        if whole is not None:
            self._seen.append(whole[0])
            if self._admits(whole[0]):
                self.transport.write(encodeHandshake({"port": 41234}))
            else:
                self.transport.loseConnection()


class GreetingTests(SynchronousTestCase):
    """L{Greeting} alone."""

    def test_kinds(self) -> None:
        """Only one kind ever changes."""
        for kind, extended, changes in (
            (AUTO, True, True),
            (ALWAYS, True, False),
            (NEVER, False, False),
        ):
            greeting = Greeting(kind)
            self.assertEqual(greeting.extended, extended)
            self.assertEqual(greeting.unanswered(), changes)
            self.assertEqual(greeting.extended, extended and not changes)

    def test_once(self) -> None:
        """What made no difference is not tried again."""
        greeting = Greeting()
        self.assertTrue(greeting.unanswered())
        for _ in range(3):
            self.assertFalse(greeting.unanswered())
            self.assertTrue(greeting.extended)

    def test_stays(self) -> None:
        """What was answered goes on."""
        greeting = Greeting()
        greeting.unanswered()
        greeting.answered(extended=False)
        for _ in range(3):
            self.assertFalse(greeting.unanswered())
            self.assertFalse(greeting.extended)

    def test_ours(self) -> None:
        """A server that has answered with the extension is greeted with it for ever;
        one that has passed it over may think better of that."""
        for extended in (True, False):
            greeting = Greeting()
            greeting.answered(extended)
            self.assertEqual(greeting.unanswered(), not extended)

    def test_servers(self) -> None:
        """W3P has neither WebSockets nor tunnels with URIs."""
        server = ServerAddress("tcp:h:1", "h", MemoryServer(lambda factory: None))
        self.assertTrue(server.greeting().unanswered())
        for other in (
            ServerAddress("ws://h/tunnel", "h", server.endpoint),
            ServerAddress("tcp:h:1", "h", server.endpoint, capability={"id": "x"}),
            ServerAddress("tcp:h:1", "h", server.endpoint, access={"id": "x"}),
        ):
            self.assertFalse(other.greeting().unanswered())


class W3PTests(ClientServiceTestCase):
    """A client at W3P servers."""

    CREDENTIALS: ClassVar[dict[str, object]] = {"id": "laptop"}

    def setUp(self) -> None:
        """Have a server that compares all of the credentials."""
        super().setUp()
        self.handshakes: list[dict[str, object]] = []
        self.admits: Filter = lambda message: message == self.CREDENTIALS

        def connect(factory: Any) -> object:
            client = factory.buildProtocol(SERVER)
            self.join(
                W3P(lambda message: self.admits(message), self.handshakes), client
            )
            return client

        self.way = MemoryServer(connect)

    def start(self, *forwards: Any, **options: Any) -> Any:
        return self.client(*forwards, credentials=self.CREDENTIALS, **options)

    def keyed(self) -> list[bool]:
        return ["tristunnel" in message for message in self.handshakes]

    def test_strict(self) -> None:
        """A strict filter lets the client in at the second attempt, and from then on at
        the first."""
        self.start()
        self.advance(3)
        self.assertEqual(self.keyed(), [True, False])
        self.assertEqual(
            self.seen.named("tunnelReady"), [("tcp://server.example:41234", "web")]
        )
        self.wires[-1].pump.server.transport.loseConnection()
        self.settle()
        self.advance(3)
        self.assertEqual(self.keyed(), [True, False, False])

    def test_refused(self) -> None:
        """Where the credentials are wrong, one attempt goes without the key."""
        self.admits = lambda message: False
        self.start()
        self.advance(15)
        self.assertEqual(self.keyed(), [True, False, True, True, True, True])

    def test_lease(self) -> None:
        """A client that has a server's lease knows that it is ours."""
        lease = ClientLease()
        lease.id, lease.secret = "lease", "secret"
        self.start(lease=lease)
        self.advance(7)
        self.assertEqual(self.keyed(), [True, True, True])

    def test_notReached(self) -> None:
        """A server that is away, or closes before it was greeted, has refused
        nothing."""
        self.way.away = True
        self.start()
        self.advance(3)
        self.way.away = False
        self.admits = lambda message: True
        self.advance(4)
        self.assertEqual(self.keyed(), [True])

    def test_notHad(self) -> None:
        """What a W3P server did not do is said; what it would do to the wrong people is
        not done."""
        self.admits = lambda message: True
        rules = VisitorPolicy(maxVisitors=1)
        db = self.forward(name="db")
        for forward, failed, ready in (
            (self.forward(), [], True),
            (self.forward(41234), [], True),
            (self.forward(8080), ["port 8080"], True),
            (self.forward(name="web"), ["web"], True),
            (replace(db, private=True), ["db"], False),
            (replace(self.forward(), policy=rules), ["any port"], False),
        ):
            self.seen.events.clear()
            client = self.start(forward)
            self.assertEqual(
                self.seen.named("tunnelFailed"),
                [(wanted, "not-permitted") for wanted in failed],
            )
            self.assertEqual(bool(self.seen.named("tunnelReady")), ready)
            if ready:
                self.assertIs(client.offered.serviceFor("")[1], self.web)
            else:
                self.assertRaises(TunnelError, client.offered.serviceFor, "")
            self.stop(client)

    def test_check(self) -> None:
        """C{--check} finds out, too."""
        server = ServerAddress("tcp:server.example:9000", "server.example", self.way)
        check = ClientCheck(self.clock, server, credentials=self.CREDENTIALS)
        found = self.judge(check)
        self.assertEqual(found.verdict, "WARN")
        self.assertIn("--extension never", found.message)
        route = ConnectOptions(greeting=NEVER)
        server = ServerAddress(
            "tcp:server.example:9000", "server.example", self.way, route=route
        )
        check = ClientCheck(self.clock, server, credentials=self.CREDENTIALS)
        found = self.judge(check)
        self.assertEqual(found.verdict, "OK")

    def judge(self, check: ClientCheck) -> Any:
        judging = Deferred.fromCoroutine(check.look("credential"))
        self.settle()
        return self.successResultOf(judging)[0]
