"""
zlayer's dialect at the server, in memory.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.zlayer.rig import CLIENT_ID, FakeConnection
from tests.support.notes import ServerNotes
from tests.support.waiting import Ports, WaitingEnd
from tristunnel.dialects.base.server import Arrival
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.dialects.zlayer.data import (
    PATIENCE,
    PORTS,
    WAITING,
    ZLayerSessions,
    connectionOf,
)
from tristunnel.dialects.zlayer.life import HEARTBEAT, PROBE, SILENCE
from tristunnel.dialects.zlayer.messages import reasonIn
from tristunnel.dialects.zlayer.server import ZLayerServerSession
from tristunnel.errors import TunnelError
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.permissions import Grant, Identity, Permissions
from tristunnel.model.ports import PortRange
from tristunnel.service.caller import Caller
from tristunnel.service.preauth import PENALTY, PENALTY_FREE, PreauthLimiter
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.wire.zlayer import (
    Auth,
    AuthFail,
    AuthOk,
    Connect,
    ConnectAck,
    Disconnect,
    Heartbeat,
    HeartbeatAck,
    Message,
    Register,
    RegisterFail,
    RegisterOk,
    decodeMessage,
    encodeMessage,
)


class MemoryCase(SynchronousTestCase):
    """A server in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.notes = ServerNotes()
        self.ports = Ports()
        self.service = TunnelService(
            self.clock, MemoryBook(self.clock), {"tcp": self.ports}, self.notes
        )
        self.factory = TunnelServerFactory(self.clock, self.service)
        self.factory.shared(ZLayerSessions).ports = None

    def connect(
        self, identity: Identity | None = None
    ) -> tuple[ZLayerServerSession, FakeConnection]:
        caller = Caller(identity or Identity("anonymous", True), "server", 9000)
        session = ZLayerServerSession(
            self.factory, Arrival(caller, identity is not None), lambda: 12.5
        )
        connection = FakeConnection()
        session.opened(connection)
        return session, connection

    def say(self, session: ZLayerServerSession, message: Message) -> None:
        session.bytesReceived(encodeMessage(message))

    def login(
        self, token: str = "t", identity: Identity | None = None
    ) -> tuple[ZLayerServerSession, FakeConnection]:
        session, connection = self.connect(identity)
        self.say(session, Auth(token, CLIENT_ID))
        ok, beat = connection.messages()
        self.assertIsInstance(ok, AuthOk)
        self.assertEqual(beat, Heartbeat(12500))
        return session, connection

    def lose(self, session: ZLayerServerSession) -> None:
        session.connectionLost(None, Failure(TunnelError("reset")))


class LifeTests(MemoryCase):
    """Signs of life."""

    def test_heartbeats(self) -> None:
        """Heartbeats go out as often as zlayer's server sends them."""
        session, connection = self.login()
        for _ in range(5):
            self.clock.advance(HEARTBEAT)
            self.assertEqual(connection.messages(), [Heartbeat(12500)])
            self.say(session, HeartbeatAck(12500))
        self.assertIsNone(session.lost)

    def test_silence(self) -> None:
        """A silent client is dropped, its ports with it."""
        session, connection = self.login()
        self.say(session, Register("web", 0, 80, 0))
        self.clock.advance(SILENCE - 1)
        self.assertIsNone(session.lost)
        connection.messages()
        self.clock.advance(1)
        (last,) = connection.messages()
        self.assertEqual(
            last, Disconnect("the client sent nothing for 40 s [session-lost]")
        )
        self.assertIsNotNone(connection.failed)
        self.assertEqual(self.ports.open_, {})
        self.lose(session)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(
            self.notes.named("clientGone"), [("anonymous", "session-lost")]
        )

    def test_probe(self) -> None:
        """Who has a token that comes again must show that it lives, and is dropped if
        it does not."""
        first, connection = self.login()
        self.clock.advance(1)
        _, second = self.connect()
        session, second = self.connect()
        self.say(session, Auth("t", CLIENT_ID))
        self.assertEqual(second.messages(), [AuthFail("Token already in use")])
        self.assertEqual(connection.messages(), [Heartbeat(12500)])
        self.say(first, HeartbeatAck(12500))
        self.clock.advance(PROBE)
        self.assertIsNone(first.lost)
        session, second = self.connect()
        self.clock.advance(1)
        self.say(session, Auth("t", CLIENT_ID))
        self.clock.advance(PROBE)
        assert first.lost is not None
        self.assertEqual(first.lost.code.name, "displaced")
        self.login()

    def test_clientsHeartbeat(self) -> None:
        """A client's own heartbeat is answered."""
        session, connection = self.login()
        self.say(session, Heartbeat(7))
        self.assertEqual(connection.messages(), [HeartbeatAck(7)])


class LoginTests(MemoryCase):
    """Tokens that are not good."""

    def test_failed(self) -> None:
        """A wrong token counts as a failed login, a used one does not."""
        limiter = PreauthLimiter(self.clock.seconds, total=1)
        address = IPv4Address("TCP", "192.0.2.1", 1)
        pending = limiter.enter(address)

        async def refuse(*args: object) -> Identity:
            raise TunnelError("auth-refused")

        def connect() -> tuple[ZLayerServerSession, FakeConnection]:
            session = ZLayerServerSession(
                self.factory,
                Arrival(Caller(Identity("anonymous", True), "server"), False, pending),
            )
            session.opened(FakeConnection())
            return session, session.connection

        self.login()
        session, connection = connect()
        self.say(session, Auth("t", CLIENT_ID))
        self.assertEqual(limiter._until, {})
        self.patch(self.factory.authenticator, "authenticate", refuse)
        for _ in range(int(PENALTY_FREE / PENALTY) + 1):
            limiter.check(address)
            session, connection = connect()
            self.say(session, Auth("t", CLIENT_ID))
        self.assertRaises(TunnelError, limiter.check, address)
        (fail,) = connection.messages()
        assert isinstance(fail, AuthFail)
        self.assertIn("[auth-refused]", fail.reason)

    def test_early(self) -> None:
        """What is said before the token was checked waits for that."""
        answer: Deferred[Identity] = Deferred()
        patched = self.patch(
            self.factory.authenticator, "authenticate", lambda *args: answer
        )
        session, connection = self.connect()
        self.say(session, Auth("t", CLIENT_ID))
        self.assertTrue(connection.paused)
        self.say(session, Register("web", 0, 80, 0))
        self.assertEqual(connection.messages(), [])
        answer.callback(Identity("laptop"))
        kinds = [type(message) for message in connection.messages()]
        self.assertEqual(kinds, [AuthOk, Heartbeat, RegisterOk])
        self.assertFalse(connection.paused)
        patched.restore()

    def test_leavesEarly(self) -> None:
        """A client that leaves meanwhile leaves nothing behind."""
        answer: Deferred[Identity] = Deferred()
        self.patch(self.factory.authenticator, "authenticate", lambda *args: answer)
        session, _ = self.connect()
        self.say(session, Auth("t", CLIENT_ID))
        self.lose(session)
        self.assertEqual(len(self.service.clients), 0)
        self.assertEqual(self.factory.shared(ZLayerSessions).inUse, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])


class VisitorTests(MemoryCase):
    """Visitors who wait for their data connections."""

    def setUp(self) -> None:
        super().setUp()
        self.session, self.connection = self.login()
        self.say(self.session, Register("web", 0, 80, 0))
        (ok,) = self.connection.messages()
        assert isinstance(ok, RegisterOk)
        self.serviceId = ok.serviceId
        (self.port,) = self.ports.open_.values()

    def come(self) -> tuple[WaitingEnd, UUID]:
        end = self.port.come()
        (connect,) = self.connection.messages()
        assert isinstance(connect, Connect)
        self.assertEqual(connect.serviceId, self.serviceId)
        self.assertEqual(connect.visitor, "192.0.2.7:50000")
        return end, connect.connectionId

    def test_late(self) -> None:
        """A visitor waits for so long, also if the client said that it comes."""
        end, connection = self.come()
        self.say(self.session, ConnectAck(connection))
        self.clock.advance(PATIENCE - 0.1)
        self.assertEqual(end.refused, "")
        self.clock.advance(0.1)
        self.assertEqual(end.refused, "service-timeout")
        self.assertRaises(
            TunnelError, self.factory.shared(ZLayerSessions).receive, str(connection)
        )

    def test_sessionOver(self) -> None:
        """With the session, the waiting is over."""
        end, _ = self.come()
        self.lose(self.session)
        self.assertNotEqual(end.refused, "")
        self.assertEqual(len(self.factory.shared(ZLayerSessions)), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_race(self) -> None:
        """Of two connections with one id the first that is open gets the visitor."""
        _, connection = self.come()
        first: Any = self.factory.shared(ZLayerSessions).receive(str(connection))
        second: Any = self.factory.shared(ZLayerSessions).receive(str(connection))
        one, other = FakeConnection(), FakeConnection()
        first.opened(one)
        second.opened(other)
        self.assertIsNone(one.failed)
        assert other.failed is not None
        self.assertEqual(other.failed.code.name, "unknown-tunnel")

    def test_congested(self) -> None:
        """A client that does not take what it is sent gets no more visitors."""
        self.session.pauseProducing()
        end = self.port.come()
        self.assertEqual(end.refused, "limit-reached")
        self.session.resumeProducing()
        self.come()

    def test_crowd(self) -> None:
        """So many visitors may wait, and more when those have left."""
        ends = [self.come()[0] for _ in range(WAITING)]
        self.assertEqual(self.port.come().refused, "limit-reached")
        ends[0].leave(None)
        self.come()
        self.assertEqual(self.port.come().refused, "limit-reached")

    def test_leaving(self) -> None:
        """A server that is about to stop takes no more visitors."""
        self.session.leave(TunnelError("shutting-down"))
        self.assertEqual(self.port.come().refused, "shutting-down")
        self.say(self.session, Register("more", 0, 80, 0))
        (fail,) = self.connection.messages()
        assert isinstance(fail, RegisterFail)
        self.assertIn("[shutting-down]", fail.reason)

    def test_ids(self) -> None:
        """Connections' ids are random."""
        ids = {self.come()[1] for _ in range(100)}
        self.assertEqual(len(ids), 100)
        self.assertEqual({identifier.version for identifier in ids}, {4})


class PermissionTests(MemoryCase):
    """What a token permits."""

    def grant(self, **permissions: Any) -> tuple[Grant, Identity]:
        grant = Grant(Permissions(**permissions), now=lambda: 0.0)
        return grant, Identity("laptop", grant=grant)

    def refusal(self, session: Any, connection: FakeConnection, port: int) -> str:
        self.say(session, Register("web", 0, 80, port))
        (fail,) = connection.messages()
        assert isinstance(fail, RegisterFail), fail
        return fail.reason

    def test_ports(self) -> None:
        """A token's own ports count, and not zlayer's."""
        self.factory.shared(ZLayerSessions).ports = PORTS
        _, identity = self.grant(ports=PortRange(((8012, 8013),)))
        session, connection = self.login(identity=identity)
        self.say(session, Register("web", 0, 80, 0))
        self.assertIsInstance(connection.messages()[0], RegisterOk)
        self.assertTrue({8012, 8013}.intersection(self.ports.open_))
        self.assertIn("[port-not-permitted]", self.refusal(session, connection, 8010))

    def test_maxTunnels(self) -> None:
        """A token is for so many services."""
        _, identity = self.grant(maxTunnels=1)
        session, connection = self.login(identity=identity)
        self.say(session, Register("web", 0, 80, 0))
        connection.messages()
        self.assertIn("[limit-reached]", self.refusal(session, connection, 0))

    def test_revoked(self) -> None:
        """A session ends with its token, and the client reads why."""
        grant, identity = self.grant()
        session, connection = self.login(identity=identity)
        self.say(session, Register("web", 0, 80, 0))
        connection.messages()
        grant.end(TunnelError("token-revoked"))
        (last,) = connection.messages()
        assert isinstance(last, Disconnect)
        self.assertIn("[token-revoked]", last.reason)
        self.assertEqual(self.ports.open_, {})
        self.lose(session)
        self.assertFalse(grant.inUse)

    def test_endsInRegister(self) -> None:
        """A token that turns out to be over while a service is registered ends the
        session in order."""
        grant, identity = self.grant(expires=1.0)
        session, connection = self.login(identity=identity)
        grant.change(Permissions(expires=-1.0))
        self.say(session, Register("web", 0, 80, 0))
        self.assertTrue(
            any(
                isinstance(message, Disconnect | RegisterFail)
                and "[token-expired]" in message.reason
                for message in connection.messages()
            )
        )
        self.assertEqual(self.ports.open_, {})


class MessageTests(MemoryCase):
    """What arrives."""

    def test_addresses(self) -> None:
        """The answer to Auth is as long as in zlayer's table."""
        session, connection = self.connect()
        session.bytesReceived(bytes.fromhex("01 00000013 0001 74") + CLIENT_ID.bytes)
        ok = connection.written[0]
        self.assertEqual(ok[:5], bytes.fromhex("02 00000010"))
        self.assertEqual(len(ok), 21)
        self.assertEqual(
            connection.written[1], bytes.fromhex("30 00000008 00000000000030d4")
        )

    @settings(max_examples=200)
    @given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
    def test_garbage(self, messages: list[bytes], loggedIn: bool) -> None:
        """Whatever arrives, the session goes on or ends with a reason."""
        session, connection = self.connect()
        if loggedIn:
            self.say(session, Auth("t", CLIENT_ID))
        for data in messages:
            session.bytesReceived(data)
        self.lose(session)
        for data in connection.written:
            decodeMessage(data)
        self.assertEqual(len(self.factory.sessions), 0)
        self.assertEqual(len(self.service.clients), 0)
        self.assertEqual(self.factory.shared(ZLayerSessions).inUse, {})

    def test_names(self) -> None:
        """A name that cannot be one here is left to its client."""
        session, connection = self.login()
        self.say(session, Register("my service", 0, 80, 0))
        self.assertIsInstance(connection.messages()[0], RegisterOk)
        (tunnel,) = list(self.service.here)
        self.assertEqual(tunnel.name, "")

    def test_order(self) -> None:
        """Answers come in the order of requests."""
        session, connection = self.login()
        for port in (8010, 8010, 8011, 9999):
            self.say(session, Register("web", 0, 80, port))
        kinds = [type(message) for message in connection.messages()]
        self.assertEqual(kinds, [RegisterOk, RegisterFail, RegisterOk, RegisterFail])


class ReasonTests(SynchronousTestCase):
    """What a peer says of its reasons."""

    def test_ours(self) -> None:
        """Our own reasons have their codes again."""
        told = TunnelError("service-refused", "nothing listens")
        again = reasonIn(str(told), "internal", "the client says: ")
        self.assertEqual((again.code, again.message), (told.code, told.message))

    def test_others(self) -> None:
        """Others' words are marked as theirs, and are one line."""
        again = reasonIn("what [a] mess\n[no-code]", "reset", "the client says: ")
        self.assertEqual(again.code.name, "reset")
        self.assertEqual(again.message, "the client says: what [a] mess [no-code]")
        self.assertEqual(reasonIn("", "reset").message, TunnelError("reset").message)


class PathTests(SynchronousTestCase):
    """Data connections' paths."""

    def test_connectionOf(self) -> None:
        """They are those below a C{data} directory."""
        name = str(uuid4())
        for path in (f"/tunnel/v1/data/{name}", f"v1/data/{name}/", f"data/{name}"):
            self.assertEqual(connectionOf(path), name)
        for path in ("", "/", "/tunnel/v1", "/data", "/x/data/a/b"):
            self.assertIsNone(connectionOf(path))
