"""Tests for L{tristunnel.dialects.framed.standby}, and for the server's side of it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.network import (
    SERVER,
    MemoryServer,
    MemoryService,
    NetworkTestCase,
)
from tests.dialects.framed.server_rig import ServerTestCase, call, hello
from tests.support.book import LateBook
from tests.support.notes import ClientNotes
from tristunnel.connect.address import ServerAddress, Trust, parseConnect
from tristunnel.dataplane.endings import EndAcknowledgements
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.dialects.framed.standby import SILENCE, Retired, Standby
from tristunnel.errors import MOST_PLACES, TunnelError
from tristunnel.forwards.forward import Forward
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.observer import ClientObserver


class Maker:
    """What a session remembers of its maker."""

    confirmations: object = None
    observer: object = None


class Session:
    """A client's session."""

    extended = True

    def __init__(self, clock: Clock, places: Any = ()) -> None:
        # It is its own liveness, too.
        self.liveness = self
        self.heard = clock.seconds()
        self.lost: TunnelError | None = None
        self.leaving: TunnelError | None = None
        self.factory = Maker()
        self.places = places
        self.pings = self.visitors = 0
        self.isClosed = False
        self.refusal: TunnelError | None = None
        self.lease: Any = None

    def call(self, method: str) -> Deferred[Any]:
        assert method == "standbyAddresses"
        return succeed(self.places)

    def ping(self) -> None:
        self.pings += 1

    def fail(self, reason: TunnelError) -> None:
        self.lost = reason

    def close(self) -> None:
        self.isClosed = True

    def streams(self) -> int:
        return self.visitors

    async def takeOver(self, lease: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.lease = lease


class StandbyTests(SynchronousTestCase):
    """Sessions that wait for another one to be lost."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.connected: dict[str, Any] = {}
        self.refuses: set[str] = set()
        self.standby = Standby(self.clock, self.connect)
        self.addCleanup(self.standby.stop)

    def connect(self, place: str) -> Deferred[Any]:
        if place in self.refuses:
            return fail(TunnelError("session-lost"))
        self.connected[place] = session = Session(self.clock)
        return succeed(session)

    def begin(self, count: int = 1, places: Any = None) -> Any:
        self.standby.count = count
        listed = ["a:1", "b:1", "c:1"] if places is None else places
        main: Any = Session(self.clock, listed)
        self.standby.up(main)
        return main

    def advance(self, seconds: float, *alive: Session) -> None:
        """Let time pass, in which something comes from some sessions."""
        for _ in range(int(seconds * 2)):
            for each in alive:
                each.heard = self.clock.seconds()
            self.clock.advance(0.5)

    def test_filled(self) -> None:
        """There are as many as were asked for, and with those who can."""
        self.refuses.add("a:1")
        main = self.begin(2)
        self.advance(20)
        self.assertEqual(sorted(self.connected), ["b:1", "c:1"])
        self.assertGreater(main.pings, 15)

    def test_none(self) -> None:
        """Without being asked for, there is none; nor where there is no cluster."""
        self.begin(0)
        self.advance(5)
        self.begin(1, [])
        self.advance(50)
        self.assertEqual(self.connected, {})

    def test_bounded(self) -> None:
        """Whatever a server tells, only so many places are tried, and only texts."""
        many = [f"h{n}:1" for n in range(MOST_PLACES * 5)]
        tried: list[str] = []

        def connect(place: str) -> Deferred[Any]:
            tried.append(place)
            return fail(TunnelError("session-lost"))

        for places in ([None, 7, "x" * 1000, "", "a\nb", *many], {"a": 1}, 3, "a:1"):
            tried.clear()
            self.standby = Standby(self.clock, connect)
            self.begin(3, places)
            self.standby.stop()
            self.assertLessEqual(len(tried), MOST_PLACES)
            self.assertEqual(set(tried) - set(many), set())

    def test_silent(self) -> None:
        """
        The first session is given up when nothing comes from it for a while, unless
        nothing comes from the other one either.
        """
        main = self.begin()
        self.advance(10, main, self.connected["a:1"])
        self.assertIsNone(main.lost)
        self.advance(SILENCE + 2)
        self.assertIsNone(main.lost)
        self.advance(1.0, self.connected["a:1"])
        self.assertEqual(main.lost.code.name, "session-lost")

    def take(self) -> Any:
        self.standby.down()
        lease = {"id": "x", "secret": "y"}
        confirmations = EndAcknowledgements(self.clock)
        taking = self.standby.takeOver(lease, confirmations, ClientObserver())
        return self.successResultOf(Deferred.fromCoroutine(taking))

    def test_takeOver(self) -> None:
        """That one takes over which was heard last; if it cannot, another one does."""
        self.begin(2)
        self.advance(5)
        first, other = (self.connected[each] for each in sorted(self.connected))
        other.heard, other.refusal = first.heard + 1, TunnelError("limit-reached")
        self.assertTrue(self.standby.isReady)
        self.assertIs(self.take(), first)
        self.assertEqual(first.lease, {"id": "x", "secret": "y"})
        self.assertIsNotNone(first.factory.confirmations)
        self.assertTrue(other.isClosed)
        self.assertIsNone(self.take())

    def test_leaves(self) -> None:
        """One whose member is about to stop is replaced, and so is a lost one."""
        main = self.begin(1, ["a:1"])
        session = self.connected.pop("a:1")
        session.leaving = TunnelError("shutting-down")
        main.places = ["b:1"]
        self.advance(3)
        self.assertTrue(session.isClosed)
        self.connected.pop("b:1").lost = TunnelError("session-lost")
        self.advance(30)
        self.assertEqual(sorted(self.connected), ["b:1"])


class RetiredTests(SynchronousTestCase):
    """Sessions that the server has sent elsewhere."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.retired = Retired(self.clock)
        self.session: Any = Session(self.clock)
        self.session.visitors = 1
        added: Any = self.session
        self.retired.add(added, EndAcknowledgements(self.clock))

    def test_idle(self) -> None:
        """One ends when its last visitor has left, and not at once."""
        self.clock.pump([1.0] * 60)
        self.assertEqual((self.retired.streams(), self.session.isClosed), (1, False))
        self.session.visitors = 0
        self.clock.pump([1.0] * 2)
        self.assertTrue(self.session.isClosed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_leave(self) -> None:
        """A client that stops waits for its visitors, but not for ever."""
        leaving = Deferred.fromCoroutine(self.retired.leave(5.0))
        self.clock.pump([0.1] * 30)
        self.assertNoResult(leaving)
        self.clock.pump([0.1] * 30)
        self.successResultOf(leaving)
        self.assertTrue(self.session.isClosed)


class ServerTests(ServerTestCase):
    """Two members of one server, and sessions with both."""

    def setUp(self) -> None:
        super().setUp()
        self.shared = MemoryBook(self.clock)
        self.makeServer(book=self.shared.ofMember("a"))
        self.peer = self.dial(hello(), call(1, "openTunnel", name="shop"))
        lease: Any = self.peer.handshake["tristunnel"]["lease"]
        self.offer = {"id": lease["id"], "secret": lease["secret"]}
        self.here, self.first, self.ports = (
            self.service,
            self.sessions,
            self.listeners,
        )

    def other(self) -> Any:
        self.makeServer(book=self.shared.ofMember("b"))
        return self.dial(hello(standby=True))

    def takeOver(self, session: Any) -> dict[str, Any]:
        """Have it take over, and say what the answer is."""
        session.say(call(9, "takeOver", lease=self.offer))
        self.settle()
        return self.answers(session)[9]

    def test_standsBy(self) -> None:
        """A session that stands by has no lease until it takes over, once."""
        standby = self.other()
        answer = standby.handshake["tristunnel"]
        self.assertIs(answer["standby"], True)
        self.assertNotIn("lease", answer)
        self.assertNotIn("tunnels", answer)
        self.assertEqual(len(self.here.here), 1)
        result = self.takeOver(standby)["result"]
        (tunnel,) = self.service.here
        self.assertEqual(result["tunnels"], [tunnel.uri])
        self.assertEqual(len(self.here.here), 0)
        self.assertIsNotNone(self.peer.lost)
        error = self.takeOver(standby)["error"]
        self.assertEqual(error["data"]["code"], "not-permitted")

    def test_lostMeanwhile(self) -> None:
        """
        A session that is lost while a slow book is asked for the lease has none: it
        expires, with the tunnel.
        """
        book = LateBook(self.clock, self.shared, late=("claim",))
        self.makeServer(book=book)
        standby = self.dial(hello(standby=True))
        standby.say(call(9, "takeOver", lease=self.offer))
        self.settle()
        standby.transport.loseConnection()
        self.settle()
        self.assertEqual(len(self.shared._pages.leases), 1)
        book.late()
        book.answer()
        self.settle()
        self.assertEqual(self.service.leases.held, 0)
        self.clock.advance(self.service.leases.seconds + 1.0)
        self.assertEqual(self.shared._pages.leases, {})
        self.assertEqual(len(self.service.here), 0)

    def test_sentAway(self) -> None:
        """
        A session that was sent elsewhere goes on with the visitors that it has, also
        when another one has its lease; new clients are turned away.
        """
        visitor = self.ports.only().visit()
        reason = TunnelError("shutting-down")
        reason.elsewhere = ("b:1",)
        self.first.drain(reason)
        self.settle()
        refused: Any = self.dial(hello()).handshake["tristunnel"]["refused"]
        self.assertEqual(
            (refused["code"], refused["elsewhere"]), ("shutting-down", ["b:1"])
        )
        late = self.ports.only().visit()
        self.takeOver(self.other())
        self.assertEqual(len(self.here.here), 0)
        self.assertIsNone(self.peer.lost)
        for each in (visitor, late):
            self.assertIsNone(each.broken)
        self.assertEqual(self.first.streams(), 2)
        self.wires[0].cut()
        self.assertIsNotNone(visitor.broken)


class Cluster:
    """What a member knows of the other ones."""

    def __init__(self, *places: str) -> None:
        self.places = places

    def elsewhere(self) -> tuple[str, ...]:
        return self.places


class ClientTests(NetworkTestCase):
    """
    A client of a server with two members.

    @ivar members: What accepts clients at each of them, by its address.
    """

    def setUp(self) -> None:
        super().setUp()
        book = MemoryBook(self.clock)
        self.members: dict[str, TunnelServerFactory] = {}
        self.web = MemoryService()
        self.seen = ClientNotes()
        for place, other in (("a:1", "b:1"), ("b:1", "a:1")):
            self.makeServer(book=book.ofMember(place))
            cluster: Any = Cluster(other)
            self.service.cluster = cluster
            self.members[place] = self.sessions

    def address(self, place: str) -> ServerAddress:
        def connect(factory: IProtocolFactory) -> object:
            client: Any = factory.buildProtocol(SERVER)
            self.join(self.members[place], client)
            return client

        address = ServerAddress(place, "server.example", MemoryServer(connect))
        self.patch(
            ServerAddress, "at", lambda own, reactor, at: self.address(at or place)
        )
        return address

    def settle(self) -> None:
        for _ in range(3):
            super().settle()
            self.web.settle()

    def begin(self, standby: int) -> TunnelClientService:
        forward = Forward("web", 0, "web", "web", self.web)
        client = TunnelClientService(
            *(self.clock, self.address("a:1"), [forward], {"id": "x"}, self.seen),
            grace=0.0,
        )
        client.standby.count = standby
        client.startService()
        self.addCleanup(self.stop, client)
        self.settle()
        self.advance(2.0, 0.1)
        return client

    def stop(self, client: TunnelClientService) -> None:
        stopping = client.stopService()
        for _ in range(20):
            self.advance(0.2, 0.1)
        self.successResultOf(stopping)

    def tunnels(self, place: str) -> list[str]:
        return [each.uri for each in self.members[place].service.here]

    def test_lost(self) -> None:
        """When its connection breaks, another member has its tunnel at once."""
        self.begin(1)
        (uri,) = self.tunnels("a:1")
        self.assertEqual(len(self.members["b:1"].service.clients), 1)
        self.wires[0].cut()
        self.settle()
        self.clock.advance(0)
        self.settle()
        self.assertEqual(self.tunnels("b:1"), [uri])
        self.assertEqual(self.tunnels("a:1"), [])
        # Its user is told of that, and of what comes by this session.
        words = [event[0] for event in self.seen.events]
        self.assertEqual(words.count("acknowledged"), 2)
        (tunnel,) = self.members["b:1"].service.here
        visitor = tunnel.listener.visit()
        self.settle()
        self.assertIn("serviceConnected", [event[0] for event in self.seen.events])
        visitor.crash()

    def sent(self, standby: int, seconds: float, place: str = "b:1") -> None:
        """Send the client away, while it has a visitor."""
        client = self.begin(standby)
        (uri,) = self.tunnels("a:1")
        first = self.members["a:1"]
        listener: Any = next(iter(first.service.here)).listener
        visitor = listener.visit()
        self.settle()
        reason = TunnelError("shutting-down", retryAfter=1.0)
        reason.elsewhere = (place,)
        first.drain(reason)
        # Another process answers there, too, which has the port now.
        self.members[place or "a:1"] = self.members["b:1"]
        self.settle()
        self.advance(seconds, 0.1)
        self.assertEqual(list(first.service.here), [])
        self.assertEqual(self.tunnels("b:1"), [uri])
        visitor.say(b"still here")
        self.settle()
        (talk,) = self.web.visits
        self.assertEqual(talk.data, b"still here")
        self.assertIsNone(visitor.broken)
        self.assertEqual(len(first.service.clients), 1)
        visitor.end()
        talk.transport.loseConnection()
        self.settle()
        self.advance(20.0, 0.5)
        self.assertEqual(len(first.service.clients), 0)
        self.assertEqual(client.session and client.session.lost, None)

    def test_sent(self) -> None:
        """Sent elsewhere, a client takes its tunnel there, and its visitor stays."""
        self.sent(0, 3.0)

    def test_sentBack(self) -> None:
        """So does one that is to come again where it was, to another process."""
        self.sent(0, 3.0, "")

    def test_sentWithStandby(self) -> None:
        """The same at once, where it has a session already."""
        self.sent(1, 0.1)


class AddressTests(SynchronousTestCase):
    """The same server at another address."""

    def test_at(self) -> None:
        """There, too, the server has to show what it has to show by its name."""
        reactor = MemoryReactorClock()
        trust = Trust(pins=[b"x" * 32])
        for where in ("tls:t.example:443", "wss://t.example/tunnel"):
            server = parseConnect(reactor, where, trust)
            self.assertIs(server.at(reactor, ""), server)
            other = server.at(reactor, "10.0.0.2:9000")
            self.assertIs(other.verification, server.verification)
            self.assertIsNotNone(other.verification)
            self.assertEqual((other.host, other.port), ("t.example", 9000))
            connecting: Any = other.endpoint.connect(Factory.forProtocol(Protocol))
            self.assertEqual(reactor.tcpClients[-1][:2], ("10.0.0.2", 9000))
            connecting.addErrback(lambda failure: None).cancel()

    def test_wrong(self) -> None:
        """What is no address is refused in one line."""
        server = parseConnect(MemoryReactorClock(), "tcp:t.example:9000", Trust())
        for place in ("h", "h:0x", "h:99999", ":1", "a b:1"):
            with self.assertRaises(TunnelError) as caught:
                server.at(MemoryReactorClock(), place)
            self.assertNotIn("\n", caught.exception.message)
