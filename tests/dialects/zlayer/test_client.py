"""
zlayer's dialect at the client, in memory.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.zlayer.rig import FakeConnection
from tests.support.notes import ClientNotes
from tristunnel.cli.client_tap import Options
from tristunnel.dialects.base.client_session import ASK_AGAIN
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.zlayer.client import (
    AUTH_TIME,
    SWEEP,
    ZLayerClientSession,
    registerOf,
)
from tristunnel.dialects.zlayer.client_service import backoff, tokenOf
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.wire.zlayer import (
    Auth,
    AuthFail,
    AuthOk,
    Connect,
    ConnectAck,
    ConnectFail,
    Disconnect,
    Heartbeat,
    Message,
    Register,
    RegisterFail,
    RegisterOk,
    decodeMessage,
    encodeMessage,
)


class ClientCase(SynchronousTestCase):
    """A session in memory."""

    forwards: tuple[str, ...] = ("ssh=127.0.0.1:22", "2222=127.0.0.1:80")

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.seen = ClientNotes()
        self.opened: list[tuple[UUID, Any, Deferred[object]]] = []
        self.session = ZLayerClientSession(
            self.clock,
            [parseForward(self.clock, spec) for spec in self.forwards],
            "t",
            self.openData,
            self.seen,
            "server",
        )
        self.connection = FakeConnection()
        self.session.opened(self.connection)

    def openData(self, connection: UUID, receiver: Any) -> Deferred[object]:
        opening: Deferred[object] = Deferred()
        self.opened.append((connection, receiver, opening))
        return opening

    def hear(self, *messages: Message) -> None:
        for message in messages:
            self.session.bytesReceived(encodeMessage(message))

    def enter(self) -> None:
        self.connection.messages()
        self.hear(AuthOk(uuid4()))

    def whyOver(self) -> TunnelError:
        return self.successResultOf(self.session.whenOver())


class HandshakeTests(ClientCase):
    """Coming in."""

    def test_auth(self) -> None:
        """The token comes first, and services when it was accepted, in order."""
        (auth,) = self.connection.messages()
        assert isinstance(auth, Auth)
        self.assertEqual(auth.token, "t")
        self.hear(AuthOk(uuid4()))
        self.assertEqual(
            self.connection.messages(),
            [Register("ssh", 0, 22, 0), Register("tcp-2222", 0, 80, 2222)],
        )
        self.assertEqual(self.seen.named("acknowledged"), [("zlayer",)])

    def test_refused(self) -> None:
        """A refusal of the token is the end."""
        self.hear(AuthFail("Authentication error: no"))
        self.assertTrue(self.session.refused)
        self.assertEqual(self.whyOver().code.name, "auth-refused")
        self.assertTrue(self.whyOver().code.permanent)

    def test_inUse(self) -> None:
        """A token that is in use may be free soon."""
        self.hear(AuthFail("Token already in use"))
        self.assertFalse(self.whyOver().code.permanent)

    def test_ourRefusal(self) -> None:
        """Our own server's reasons have their codes again."""
        self.hear(AuthFail("1000 clients are connected [limit-reached]"))
        self.assertEqual(self.whyOver().code.name, "limit-reached")

    def test_noAnswer(self) -> None:
        """A server that says nothing is no zlayer server."""
        self.clock.advance(AUTH_TIME)
        self.assertEqual(self.whyOver().code.name, "handshake-timeout")

    def test_somethingElse(self) -> None:
        """Nor is one that says something else."""
        self.hear(Heartbeat(1))
        self.assertEqual(self.whyOver().code.name, "protocol-error")

    def test_lost(self) -> None:
        """The end of the connection is the session's, and no timer is left."""
        self.enter()
        self.session.connectionLost(None, Failure(TunnelError("reset")))
        self.assertEqual(self.whyOver().code.name, "session-lost")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SessionTests(ClientCase):
    """A session that was let in."""

    def setUp(self) -> None:
        super().setUp()
        self.enter()
        self.connection.messages()
        self.ids = [uuid4(), uuid4()]

    def register(self) -> None:
        self.hear(*map(RegisterOk, self.ids))

    def test_registered(self) -> None:
        """A service whose port we chose has an address."""
        self.register()
        self.assertEqual(
            self.seen.named("tunnelReady"),
            [
                ("ssh (the server chose its port)", "127.0.0.1:22"),
                ("tcp://server:2222", "127.0.0.1:80"),
            ],
        )

    def test_notRegistered(self) -> None:
        """A refused service is asked for again, unless that is of no use."""
        self.hear(
            RegisterFail("Registry error: port 22 is not available"),
            RegisterFail("outside [port-not-permitted]"),
        )
        self.assertEqual(len(self.seen.named("tunnelFailed")), 2)
        self.clock.advance(ASK_AGAIN)
        self.assertEqual(self.connection.messages(), [Register("ssh", 0, 22, 0)])
        self.hear(RegisterOk(self.ids[0]))
        self.clock.advance(ASK_AGAIN)
        self.assertEqual(self.connection.messages(), [])

    def test_heartbeat(self) -> None:
        """A heartbeat is answered with its own time."""
        self.hear(Heartbeat(0x0102030405060708))
        self.assertEqual(
            self.connection.written, [bytes.fromhex("31 00000008 0102030405060708")]
        )

    def test_disconnect(self) -> None:
        """The server ends the session with a reason."""
        self.hear(Disconnect("idle timeout"))
        self.assertEqual(self.whyOver().message, "the server says: idle timeout")
        self.assertFalse(self.session.refused)

    def test_strayAnswer(self) -> None:
        """An answer to nothing breaks the protocol."""
        self.register()
        self.hear(RegisterOk(uuid4()))
        self.assertEqual(self.whyOver().code.name, "protocol-error")

    def test_unknownService(self) -> None:
        """A visitor of no service of ours is turned away."""
        visitor = uuid4()
        self.hear(Connect(uuid4(), visitor, "192.0.2.1:1"))
        self.assertEqual(
            self.connection.messages(),
            [ConnectFail(visitor, "there is no such service")],
        )

    def test_goingAway(self) -> None:
        """So is one who comes when we are about to stop."""
        self.register()
        self.session.goAway(TunnelError("shutting-down"))
        visitor = uuid4()
        self.hear(Connect(self.ids[0], visitor, "192.0.2.1:1"))
        self.assertEqual(
            self.connection.messages(), [ConnectFail(visitor, "the client stops")]
        )

    def test_visitor(self) -> None:
        """The service is reached first, then the server hears of it, and the data
        connection is opened."""
        self.register()
        visitor = uuid4()
        self.hear(Connect(self.ids[0], visitor, "192.0.2.1:1"))
        self.assertEqual(self.connection.messages(), [])
        host, port, factory = self.clock.tcpClients[0][:3]
        self.assertEqual((host, port), ("127.0.0.1", 22))
        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        self.assertEqual(self.connection.messages(), [ConnectAck(visitor)])
        self.assertEqual(self.opened[0][0], visitor)
        self.assertEqual(self.session.streams(), 1)

    def test_crowd(self) -> None:
        """So many visitors may be there."""
        self.session._limits = Limits(streams=2)
        self.register()
        for _ in range(3):
            self.hear(Connect(self.ids[0], uuid4(), "192.0.2.1:1"))
        (fail,) = self.connection.messages()
        assert isinstance(fail, ConnectFail)
        self.assertIn("[limit-reached]", fail.reason)
        factory = self.clock.tcpClients[0][2]
        connector: Any = self.clock.connectors[0]
        factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        self.connection.messages()
        self.hear(Connect(self.ids[0], uuid4(), "192.0.2.1:1"))
        self.assertEqual(self.connection.messages(), [])

    def test_forgotten(self) -> None:
        """Nothing is kept of visitors who have left, however many they were."""
        self.register()
        for number in range(500):
            self.hear(Connect(self.ids[0], uuid4(), "192.0.2.1:1"))
            factory = self.clock.tcpClients[number][2]
            connector: Any = self.clock.connectors[number]
            factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        self.assertLessEqual(len(self.session._announced), SWEEP)

    def test_noService(self) -> None:
        """A service that is not reached is told of."""
        self.register()
        visitor = uuid4()
        self.hear(Connect(self.ids[0], visitor, "192.0.2.1:1"))
        factory = self.clock.tcpClients[0][2]
        connector: Any = self.clock.connectors[0]
        factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        (fail,) = self.connection.messages()
        assert isinstance(fail, ConnectFail)
        self.assertEqual(fail.connectionId, visitor)
        self.assertIn("[service-refused]", fail.reason)
        self.assertEqual(self.opened, [])

    def test_dataFails(self) -> None:
        """A data connection that is not opened ends the one to the service."""
        self.test_visitor()
        self.opened[0][2].errback(Failure(TunnelError("session-lost", "404")))
        self.assertEqual(self.session.streams(), 0)
        self.assertEqual(len(self.seen.named("serviceGone")), 1)

    def test_text(self) -> None:
        """Text is not spoken."""
        self.session.textReceived(b"hello")
        self.assertEqual(self.whyOver().code.name, "protocol-error")

    def test_close(self) -> None:
        """A close waits for nobody."""
        self.test_visitor()
        self.opened[0][2].addErrback(lambda failure: None)
        self.session.close()
        self.assertTrue(self.connection.closed)


class GarbageTests(SynchronousTestCase):
    """Whatever a server says."""

    @settings(max_examples=200)
    @given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
    def test_garbage(self, messages: list[bytes], loggedIn: bool) -> None:
        """The session goes on or ends with a reason."""
        session = ZLayerClientSession(Clock(), [], "t", lambda c, r: Deferred())
        connection = FakeConnection()
        session.opened(connection)
        if loggedIn:
            session.bytesReceived(encodeMessage(AuthOk(uuid4())))
        for data in messages:
            session.bytesReceived(data)
        session.connectionLost(None, Failure(TunnelError("reset")))
        for data in connection.written:
            decodeMessage(data)
        self.assertIsNotNone(session.lost)


class OptionTests(SynchronousTestCase):
    """The command line."""

    def parse(self, *arguments: str, token: str = "t") -> Options:
        options = Options()
        with patch.dict("os.environ", {"TRISTUNNEL_TOKEN": token}):
            options.parseOptions(
                ["--dialect", "zlayer", "--connect", "ws://h/tunnel/v1", *arguments]
            )
        return options

    def test_forwards(self) -> None:
        """Services have names, ports or both protocols."""
        options = self.parse(
            "--forward", "ssh=localhost:22", "--forward", "udp/53=localhost:5353"
        )
        self.assertEqual(
            [registerOf(forward) for forward in options.forwards],
            [Register("ssh", 0, 22, 0), Register("udp-53", 1, 5353, 53)],
        )

    def test_token(self) -> None:
        """Without a token there is no session."""
        error = self.assertRaises(UsageError, self.parse, token="")
        self.assertIn("TRISTUNNEL_TOKEN", str(error))

    def test_tokenOf(self) -> None:
        """A name and a secret make one token."""
        self.assertEqual(tokenOf({"id": "laptop", "secret": "s"}), "laptop:s")
        self.assertEqual(tokenOf({"token": "t", "id": "x"}), "t")
        self.assertRaises(TunnelError, tokenOf, {"id": "laptop"})
        self.assertRaises(TunnelError, tokenOf, {"token": "t" * 5000})

    def test_backoff(self) -> None:
        """The client comes back after 5 s, doubling to 60 s."""
        for failures, bound in enumerate((5, 10, 20, 40, 60, 60, 60)):
            self.assertTrue(bound <= backoff(failures) <= bound * 1.1)
        self.assertTrue(100 <= backoff(0, 100.0) <= 110)
