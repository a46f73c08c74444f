"""Tests for L{tristunnel.cluster.relay} and L{tristunnel.cluster.entries}."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
)
from twisted.internet.protocol import DatagramProtocol, Factory

from tests.cluster.test_redis_book import RedisTestCase
from tests.support.ends import SilentEnd
from tests.support.loopback import Talk, comeWhenOpen
from tests.support.polling import until
from tests.support.processes import freePort
from tristunnel.cluster import entries
from tristunnel.cluster.entries import Entries
from tristunnel.cluster.redis_book import RedisBook
from tristunnel.cluster.relay import RelayFactory, RelayWays, askForTunnel
from tristunnel.dataplane.datagrams import FlowEnd
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed
from tristunnel.listeners.names import NameListeners
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.listeners.udp import UDPListeners
from tristunnel.model.permissions import Identity
from tristunnel.model.ports import UNPRIVILEGED
from tristunnel.model.record import Place
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.names.public import PublicNames
from tristunnel.service.caller import Caller
from tristunnel.service.tunnel_service import TunnelService

SECRET = b"a secret of the cluster"

reactor = ourReactor()


def wayTo(address: object) -> TCP4ClientEndpoint:
    """The way to a member, of what it tells the others."""
    host, _, port = str(address).partition(" ")
    return TCP4ClientEndpoint(reactor, host, int(port))


class Member:
    """
    A server of a cluster, without sessions.

    @ivar host: Its address.
    @ivar tunnels: Its tunnels.
    @ivar entries: The ports of others' tunnels.
    """

    def __init__(self, case: RelayTestCase, number: int, book: RedisBook) -> None:
        self.host = f"127.0.0.{number}"
        self.book = book
        listeners: dict[str, Any] = {
            "tcp": TCPListeners(reactor, self.host),
            "udp": UDPListeners(reactor, self.host, UNPRIVILEGED, 60.0),
        }
        listeners["http"] = NameListeners("http", PublicNames())
        self.tunnels = TunnelService(reactor, book, listeners, hostname="here")
        self.tunnels.hosts.change(["t.example"], "here")
        self.entries = Entries(
            reactor,
            book,
            self.tunnels.listeners,
            self.tunnels.here,
            RelayWays(reactor, book.about, SECRET, wayTo),
            self.tunnels.hosts,
            hold=2.0,
        )
        book.watch(self.entries.changed)
        self.tunnels.kept = self.entries


class Beside:
    """
    What of the other members' siblings a tunnel is shown to.

    @param entries: Those of the other member.
    """

    def __init__(self, *entries: Entries) -> None:
        self._entries = entries

    async def heed(self, name: str, tunnel: str, patience: float) -> None:
        """Show a tunnel there, twice at once."""
        await gatherResults(
            [each.show(None, tunnel) for each in self._entries for _ in range(2)]
        )


class RelayTestCase(RedisTestCase):
    """Two servers, at two addresses of this machine."""

    async def begin(self) -> None:
        await super().begin()
        self.members = [
            Member(self, number, book)
            for number, book in enumerate((self.one, self.other), 1)
        ]
        for member in self.members:
            await self.listen(member)

    async def listen(self, member: Member) -> None:
        factory = RelayFactory(reactor, SECRET, member.tunnels.here.served)
        endpoint = TCP4ServerEndpoint(reactor, 0, interface=member.host)
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        address = f"{member.host} {port.getHost().port}"
        for each in self.members:
            each.book._known[member.book.member] = {"address": address}
        self.addCleanup(self.over, member)

    async def over(self, member: Member) -> None:
        await member.entries.stop()
        await member.tunnels.discard(member.tunnels.tunnels, TunnelError("closed"))

    async def connect(self, host: str, port: int) -> Talk:
        """Connect to a port, which somebody is about to open."""
        talk = await comeWhenOpen(reactor, port, host)
        self.addCleanup(talk.abort)
        return talk

    async def opened(self, member: Member, **options: Any) -> tuple[str, int, int]:
        """Open a raw tunnel; its URI, its client's port, and its visitors'."""
        caller = Caller(Identity("ann"), "here", 9000, address=member.host)
        asked = {"via": "tcp", "visitors": 9, **options}
        uri = await member.tunnels.openTunnel(caller, asked)
        address = await member.tunnels.getTunnelAddress(caller, uri)
        return uri, int(uri.rpartition(":")[2]), int(address.rpartition(":")[2])


class RelayTests(RelayTestCase):
    """Visitors who come in at another machine."""

    async def test_bytes(self) -> None:
        """
        Bytes pass both ways, with half-closes; the owner knows where the visitor comes
        from, and that it left.
        """
        here, there = self.members
        _, clients, visitors = await self.opened(here)
        client = await self.connect(here.host, clients)
        visitor = await self.connect(there.host, visitors)
        visitor.say(b"x" * 300_000)
        await until(lambda: len(client.data) == 300_000)
        (tunnel,) = here.tunnels.tunnels
        (stream,) = tunnel.streams
        mine = visitor.transport.getHost()
        self.assertEqual(stream.visitorAddress, f"{mine.host}:{mine.port}")
        client.say(b"answer")
        client.finish()
        await visitor.ended()
        self.assertEqual(visitor.data, b"answer")
        visitor.finish()
        await client.ended()
        await until(lambda: not tunnel.streams)
        self.assertEqual(there.entries.streams(), 0)

    async def test_closed(self) -> None:
        """With the tunnel, its ports are gone at all machines."""
        here, there = self.members
        uri, _, visitors = await self.opened(here)
        await self.connect(there.host, visitors)
        caller = Caller(Identity("ann"), "here", 9000)
        await here.tunnels.closeTunnel(caller, uri)
        await until(lambda: not there.entries._tunnels)

    async def test_found(self) -> None:
        """A member that comes later, or has missed something, finds what there is."""
        here, there = self.members
        self.patch(entries, "RETOLD", 0.1)
        there.book._changes._watchers.clear()
        _, _, visitors = await self.opened(here)
        await there.book.watch(there.entries.changed)
        there.book._resync()
        await self.connect(there.host, visitors)
        # A resynchronization finds out, too, that it is over.
        there.book._changes._watchers.clear()
        await here.tunnels.discard(here.tunnels.tunnels, TunnelError("closed"))
        await there.book.watch(there.entries.changed)
        there.book._resync()
        await until(lambda: not there.entries._tunnels)

    async def test_shown(self) -> None:
        """
        What has just been opened is open here as soon as that is asked for, whenever
        the book tells of it.
        """
        here, there = self.members
        there.book._changes._watchers.clear()
        here.tunnels.siblings = cast("Any", Beside(there.entries))
        for options in ({}, {"listener": "http", "name": "shop"}):
            caller = Caller(Identity("ann"), "here", 9000, address=here.host)
            asked = {"via": "tcp", "visitors": 9, **options}
            uri = await here.tunnels.openTunnel(caller, asked)
            record = await there.book.find(uri)
            self.assertIn(record.id, there.entries._tunnels)
        record = replace(record, address="")
        self.assertFalse(here.entries.isShown(record))

    async def test_taken(self) -> None:
        """A port that a machine has for somebody else is not its visitors' way in."""
        here, there = self.members
        taken = TCP4ServerEndpoint(reactor, freePort(), interface=there.host)
        port = await taken.listen(Factory.forProtocol(Talk))
        self.addCleanup(port.stopListening)
        self.patch(there.entries, "_stopped", False)
        await self.opened(here, port=port.getHost().port)
        await until(lambda: there.entries.unbound)

    async def test_exclusive(self) -> None:
        """A port, and a name, is one tunnel's at all machines."""
        here, there = self.members
        _, _, visitors = await self.opened(here, name="shop")
        for options, code in (
            ({"port": visitors}, "port-taken"),
            ({"name": "shop"}, "name-taken"),
        ):
            opening = Deferred.fromCoroutine(self.opened(there, **options))
            error: Any = await self.assertFailure(opening, TunnelError)
            self.assertEqual(error.code.name, code)

    async def test_held(self) -> None:
        """A visitor waits a while for a server that does not answer."""
        here, there = self.members
        _, clients, visitors = await self.opened(here)
        known = there.book._known.pop("one")
        there.book._known["one"] = {"address": "127.0.0.1 1"}
        visitor = await self.connect(there.host, visitors)
        visitor.say(b"hello")
        (_, side) = next(iter(there.entries._tunnels.values()))
        await until(lambda: side._waiting)
        there.book._known["one"] = known
        client = await self.connect(here.host, clients)
        await until(lambda: client.data == b"hello")

    async def test_away(self) -> None:
        """
        A visitor waits for a client that has just left, wherever it comes in; but not
        for one that has been away for long.
        """
        here, there = self.members
        _, clients, visitors = await self.opened(here)
        (tunnel,) = here.tunnels.tunnels
        side, tunnel.clientSide = tunnel.clientSide, None
        tunnel.meanwhile = waiting = here.entries.meanwhile(tunnel)
        assert waiting is not None
        for member in self.members:
            visitor = await self.connect(member.host, visitors)
            visitor.say(member.host.encode())
        (_, entry) = next(iter(there.entries._tunnels.values()))
        await until(lambda: waiting._waiting and entry._waiting)
        tunnel.clientSide = side
        talks = [await self.connect(here.host, clients) for _ in self.members]
        hosts = {member.host.encode() for member in self.members}
        await until(lambda: {bytes(talk.data) for talk in talks} == hosts)
        tunnel.clientSide = None
        waiting._until = reactor.seconds()
        late = await self.connect(here.host, visitors)
        await late.gone()

    async def test_onItsWay(self) -> None:
        """
        A port stays open where its tunnel is about to come to, and whose visitors are
        led to where it was go on to the new place, whoever hears of it first.
        """
        here, there = self.members
        uri, _, visitors = await self.opened(here)
        visitor = await self.connect(there.host, visitors)
        record = await there.book.find(uri)
        (_, side) = there.entries._tunnels[record.id]
        await until(lambda: side._making)
        moved = replace(record, place=Place(there.book.member, 9))
        finding = self.patch(there.book, "find", lambda tunnel: succeed(moved))
        await there.entries.lookAgain(side)
        self.assertFalse(side._making)
        await there.entries._follow(moved)
        self.assertIn(record.id, there.entries._tunnels)
        self.assertTrue(side._waiting)
        side.record = record
        await until(lambda: side._making)
        await there.entries.recall(record.id)
        self.assertEqual(side.record.place.member, there.book.member)
        self.assertNotIn(record.id, there.entries._tunnels)
        self.assertTrue(side._waiting)
        finding.restore()
        visitor.abort()
        await until(lambda: not side._waiting)


class Echo(FlowEnd):
    """Answers each datagram with itself."""

    def send(self, datagram: bytes) -> None:
        self.passOn(datagram)

    def flowOver(self, reason: TunnelError | None) -> None:
        pass


class Recorded(SilentEnd):
    """
    Keeps what it is given.

    @ivar peer: The other end, once there is one.
    """

    peer: Any = None

    def __init__(self) -> None:
        self.taken = b""

    def join(self, peer: Any, closed: Closed) -> None:
        self.peer = peer

    def write(self, data: bytes) -> None:
        self.taken += data


class Datagrams(DatagramProtocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.got.append(datagram)


class Serving:
    """A session, to a member, that serves its visitors with what it is given."""

    carriesDatagrams = True

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def serve(self, stream: Stream) -> None:
        stream.connect(self._make())

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """It is over."""


class KindsTests(RelayTestCase):
    """What else than bytes at ports goes from one machine to the other."""

    async def offer(self, make: Callable[[], Any], **options: Any) -> None:
        """Have a session at the first member open a tunnel."""
        caller = Caller(Identity("ann"), "here", 9000, clientSide=Serving(make))
        await self.members[0].tunnels.openTunnel(caller, options)

    async def test_datagrams(self) -> None:
        """Each datagram comes and goes as one, empty ones and long ones, too."""
        here, there = self.members
        await self.offer(Echo, listener="udp")
        (tunnel,) = here.tunnels.tunnels
        port = int(tunnel.address.rpartition(":")[2])
        await until(lambda: there.entries._tunnels)
        talk = Datagrams()
        mine = reactor.listenUDP(0, talk, "127.0.0.1", 10_000)
        self.addCleanup(mine.stopListening)
        said = [b"hello", b"", b"x" * 9000]
        for datagram in said:
            mine.write(datagram, (there.host, port))
        await until(lambda: talk.got == said)
        (stream,) = tunnel.streams
        self.assertEqual(stream.visitorAddress, f"127.0.0.1:{mine.getHost().port}")
        await here.tunnels.discard([tunnel], TunnelError("closed"))
        await until(lambda: not there.entries.streams())

    async def test_hosts(self) -> None:
        """
        A host is one owner's with all of its paths, also at a machine that has not
        heard of it yet.
        """
        here, there = self.members
        for member in self.members:
            member.tunnels.siblings = cast("Any", Beside())
        there.book._changes._watchers.clear()
        for name, member, path, isTaken in (
            ("ann", here, "", False),
            ("bob", there, "/bob", True),
            ("ann", there, "/ann", False),
            ("bob", here, "/bob", True),
        ):
            caller = Caller(Identity(name), "here", 9000, clientSide=Serving(Recorded))
            asked = {"listener": "http", "name": "blog", "path": path}
            opening = member.tunnels.openTunnel(caller, asked)
            if isTaken:
                error: Any = await self.assertFailure(opening, TunnelError)
                self.assertEqual(error.code.name, "name-taken")
            else:
                await opening
        (tunnel,) = there.tunnels.tunnels
        self.assertEqual(tunnel.address, "http://blog.t.example/ann")

    async def test_named(self) -> None:
        """A service without a port is visited by clients of either machine."""
        ends: list[Recorded] = []

        def make() -> Recorded:
            ends.append(Recorded())
            return ends[-1]

        await self.offer(make, name="shop", private=True)
        visitor = Caller(Identity("ann"), "here", 9000)
        stranger = Caller(Identity("bob"), "here", 9000)
        for member in self.members:
            await self.assertFailure(
                Deferred.fromCoroutine(member.tunnels.findNamed(stranger, "shop")),
                TunnelError,
            )
            found = await member.tunnels.findNamed(visitor, "shop")
            end = Recorded()
            found.visitorArrived(end, "192.0.2.1:5")
            await until(lambda end=end: end.peer is not None)
            end.peer.write(b"hello")
            await until(lambda: ends[-1].taken == b"hello")
            ends[-1].peer.write(b"answer")
            await until(lambda end=end: end.taken == b"answer")
            end.peer.finish()
            ends[-1].peer.finish()


class StrangerTests(RelayTestCase):
    """Who knows no secret, and what is no member."""

    async def refusal(self, secret: bytes, tunnel: str) -> str:
        endpoint = wayTo(self.one._known["one"]["address"])
        asking = Deferred.fromCoroutine(
            askForTunnel(reactor, endpoint, secret, tunnel, "192.0.2.1:5")
        )
        error: Any = await self.assertFailure(asking, TunnelError)
        return str(error)

    async def test_refused(self) -> None:
        """Without the secret nothing is answered; with it, why not."""
        await self.opened(self.members[0])
        (tunnel,) = self.members[0].tunnels.tunnels
        self.assertIn("has left", await self.refusal(b"another secret", tunnel.id))
        self.assertIn("client", await self.refusal(SECRET, "unknown"))
        self.assertEqual(tunnel.streams, set())

    async def test_nonsense(self) -> None:
        """What is no request ends the connection, however long it is."""
        address = str(self.one._known["one"]["address"]).split(" ")
        for words in (
            b"\n",
            b"[]\n",
            b"{\n",
            b'{"tunnel": 1}\n',
            b'{"tunnel": "\\ud800"}\n',
            b'{"link": "one"}\n',
            b'{"link": ["\\ud800"], "proof": "\\ud800"}\n',
            b"\xff\n",
            bytes(9000),
        ):
            talk = await self.connect(address[0], int(address[1]))
            talk.say(words)
            await talk.gone()
            self.assertIn(b"tristunnel-cluster 1 ", talk.data)

    async def test_otherVersion(self) -> None:
        """Members of unlike versions say so."""
        for greeting, why in (
            (b"tristunnel-cluster 9 abc\n", "same version"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "not a member"),
        ):

            class Old(Talk):
                def connectionMade(self, greeting: bytes = greeting) -> None:
                    super().connectionMade()
                    self.say(greeting)

            endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
            port = await endpoint.listen(Factory.forProtocol(Old))
            self.addCleanup(port.stopListening)
            self.one._known["one"] = {"address": f"127.0.0.1 {port.getHost().port}"}
            self.assertIn(why, await self.refusal(SECRET, "x"))
