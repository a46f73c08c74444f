"""Tests for L{tristunnel.cluster.links} and L{tristunnel.cluster.members}."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tristunnel.cluster.links import MemberLinks, MessageProtocol
from tristunnel.cluster.members import Members
from tristunnel.cluster.redis_book import Times
from tristunnel.cluster.relay import RelayFactory
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.processes.channel import LONGEST, Message
from tristunnel.service.caller import Caller
from tristunnel.service.here import Here
from tristunnel.service.siblings import Siblings

SECRET = b"a secret of the cluster"
CALLER = Caller(Identity("ann"), "here", 9000)

reactor = ourReactor()


def wayTo(address: str) -> TCP4ClientEndpoint:
    """The way to a member, of what it tells the others."""
    return TCP4ClientEndpoint(reactor, "127.0.0.1", int(address))


class MemberLinksTests(TestCase):
    """Members that ask each other."""

    async def member(self, name: str, secret: bytes = SECRET) -> Any:
        links: Any = MemberLinks(reactor, name, secret, wayTo)
        factory = RelayFactory(reactor, secret, Here().served)
        factory.linked = links.linked
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port: Any = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        self.addCleanup(links.close)
        links.place = str(port.getHost().port)
        return links

    async def test_asked(self) -> None:
        """
        A question is answered, and asked again over another connection when the first
        one was lost; what is told comes, too.
        """
        one, other = await self.member("one"), await self.member("other")
        asking, answering = Siblings(one), Siblings(other)
        told: Deferred[int] = Deferred()
        answering.publish("long", lambda caller, n: "x" * n)
        answering.publish("news", told.callback)
        one.known({"other": other.place})
        for _ in range(2):
            found = await asking.gather("long", CALLER, 300_000)
            ((name, text),) = found.answers
            self.assertEqual((name, len(text)), ("other", 300_000))
            one.siblings["other"].close()
        asking.tell("news", 7)
        self.assertEqual(await told, 7)
        self.assertEqual(await asking.ask("other", "long", None, 2), "xx")
        error: Any = await self.assertFailure(
            Deferred.fromCoroutine(asking.ask("other", "nothing", None)), TunnelError
        )
        self.assertIn("does not know of nothing", str(error))
        self.assertEqual((one.key, one.key == SECRET.decode()), (other.key, False))

    async def test_missing(self) -> None:
        """Who is not there, or knows another secret, is missing in the answer."""
        one, other = await self.member("one"), await self.member("other", b"x" * 16)
        asking = Siblings(one)
        one.known({"other": other.place, "gone": "1"})
        found = await asking.gather("long", CALLER, 1)
        self.assertEqual((found.answers, set(found.missing)), ([], {"other", "gone"}))
        self.assertIn("cannot be reached", found.missing["gone"])
        one.known({})
        self.assertEqual(asking.names, set())

    async def test_unlike(self) -> None:
        """Who speaks another version is missing, with the reason."""
        one = await self.member("one")
        old = Factory.forProtocol(Old)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(old)
        self.addCleanup(port.stopListening)
        one.known({"old": str(port.getHost().port)})
        found = await Siblings(one).gather("long", CALLER, 1)
        self.assertIn("speaks version 9, and this one 1", found.missing["old"])
        self.assertNotIn("\n", found.missing["old"])


class Old(Protocol):
    """A member of another version."""

    def connectionMade(self) -> None:
        self.transport.write(b"tristunnel-cluster 9 abc\n")


class MessageProtocolTests(SynchronousTestCase):
    """Messages on a stream."""

    def setUp(self) -> None:
        self.received: list[Message] = []
        self.losses = 0
        self.protocol = MessageProtocol(self.received.append, self.lost)
        self.transport = StringTransport()

    def lost(self) -> None:
        self.losses += 1

    def test_bounded(self) -> None:
        """To a member that does not read, only so much is kept."""
        self.protocol.send({"early": 1})
        self.protocol.makeConnection(self.transport)
        self.protocol.resumeProducing()
        self.protocol.pauseProducing()
        written = len(self.transport.value())
        with self.assertRaises(TunnelError) as caught:
            for _ in range(5):
                self.protocol.send({"x": "y" * (LONGEST // 2)})
        self.assertEqual(caught.exception.code.name, "limit-reached")
        self.assertEqual(len(self.transport.value()), written)
        self.protocol.close()
        self.protocol.close()
        self.assertEqual(self.losses, 1)
        with self.assertRaises(TunnelError):
            self.protocol.send({})

    @settings(max_examples=40)
    @given(st.binary(max_size=64), st.booleans())
    def test_strange(self, data: bytes, isWhole: bool) -> None:
        """Whatever comes is a message, or the end."""
        self.setUp()
        self.protocol.makeConnection(self.transport)
        if isWhole:
            data = len(data).to_bytes(4) + data
        self.protocol.dataReceived(data)
        self.assertLessEqual(len(self.received) + self.losses, 2)


class Book:
    """What L{Members} asks of a book."""

    member = "me"
    times = Times()

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}
        self.others: dict[str, Any] = {}
        self.isAway = False

    def tellOf(self, about: dict[str, Any]) -> None:
        self.about = dict(about)

    def members(self) -> Deferred[Any]:
        if self.isAway:
            raise TunnelError("cluster-away")
        return succeed({**self.others, "me": self.about})


class MembersTests(SynchronousTestCase):
    """Who is there, and what becomes of clients."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.book = Book()
        links = MemberLinks(self.clock, "me", SECRET, lambda address: self.nobody())
        about = {"address": "tcp:10.0.0.1:9001"}
        self.members = Members(self.clock, cast("Any", self.book), links, about)
        self.members.start()
        self.members.reachedAt("10.0.0.1:9000")
        self.addCleanup(self.members.stop)

    def nobody(self) -> Any:
        raise TunnelError("session-lost")

    def join(self, name: str, **about: object) -> None:
        number = len(self.book.others) + 2
        self.book.others[name] = {
            "address": f"tcp:10.0.0.{number}:9001",
            "clients": f"10.0.0.{number}:9000",
            **about,
        }
        self.clock.advance(self.book.times.beat)

    def test_elsewhere(self) -> None:
        """Clients may go to those that take some."""
        self.assertEqual(self.members.elsewhere(), ())
        self.join("one")
        self.join("drained", draining=True)
        self.join("left", left=True)
        self.join("unreachable", clients="")
        self.join("old", clients=7)
        self.assertEqual(self.members.elsewhere(), ("10.0.0.2:9000",))
        self.book.isAway = True
        self.clock.advance(60)
        self.assertEqual(self.members.elsewhere(), ("10.0.0.2:9000",))
        self.assertEqual(self.members.describeHere()["engine"], "away")

    def test_unlike(self) -> None:
        """Of a member that speaks another version, each says so once, and why."""
        with capturedLogs() as captured:
            self.join("one", version=1)
            self.join("new", version=9)
            self.clock.advance(60)
        (line,) = [formatEvent(each) for each in captured if "why" in each]
        self.assertIn("No link with member new at tcp:10.0.0.3:9001: ", line)
        self.assertIn("speaks version 9, and this one 1", line)
        found = self.successResultOf(self.members.describe(CALLER))
        self.assertEqual(
            {each["member"]: each["state"] for each in found},
            {"me": "serving", "one": "silent", "new": "unlike"},
        )

    def drain(self, member: str, on: bool = True) -> dict[str, Any]:
        (found,) = self.successResultOf(self.members.drain(CALLER, member, on))
        return dict(found)

    def test_drain(self) -> None:
        """By each of its names, this member is drained, and says so to the others."""
        self.join("one")
        told: list[bool] = []
        self.members.drained = told.append
        numbers = {"clients": 1, "streams": 0}
        self.members.numbers = lambda: numbers
        for name in ("me", "self", "10.0.0.1", "10.0.0.1:9000", "tcp:10.0.0.1:9001"):
            self.assertEqual(self.drain(name)["state"], "draining")
            self.assertTrue(self.book.about["draining"])
            self.assertEqual(self.drain(name, False)["state"], "serving")
        self.assertEqual(told, [True, False] * 5)
        self.drain("self")
        numbers["clients"] = 0
        self.assertEqual(self.members.describeHere()["state"], "drained")

    def test_unknown(self) -> None:
        """Nobody is drained by a name that is nobody's."""
        self.join("one")
        error = self.failureResultOf(self.members.drain(CALLER, "two", True))
        self.assertIn("no member is called 'two'", error.value.message)
        self.assertIn("me, one", error.value.message)

    def test_processes(self) -> None:
        """
        All processes of a machine are drained by its address, and none of them is
        where the clients of another one go.
        """
        self.join("me-1-x", address="tcp:10.0.0.1:9002")
        self.assertEqual(self.members.elsewhere(), ())
        asked: list[object] = []

        async def ask(*words: object) -> object:
            asked.append(words)
            return {}

        self.patch(self.members.siblings, "ask", ask)
        found = self.successResultOf(self.members.drain(CALLER, "10.0.0.1", True))
        self.assertEqual((len(found), asked), (2, [("me-1-x", "drain", None, True)]))

    def test_silent(self) -> None:
        """Of a member that does not answer, there is what others know of it."""
        self.join("one", release="1.0")
        found = self.successResultOf(self.members.describe(CALLER))
        self.assertEqual([each["state"] for each in found], ["serving", "silent"])
        self.assertEqual(
            (found[1]["member"], found[1]["version"], found[1]["clientAddress"]),
            ("one", "1.0", "10.0.0.2:9000"),
        )
