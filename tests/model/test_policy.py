"""Tests for L{tristunnel.model.policy}."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.service.rig import ALICE, ServiceTestCase, Session
from tests.support.notes import ServerNotes
from tests.support.waiting import WaitingEnd
from tristunnel.dataplane.descriptors import Reserve
from tristunnel.dataplane.throttle import Throttle
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End
from tristunnel.listeners.udp import UDPListener
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.model.policy import VisitorPolicy, parseNetworks
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.policies import VisitorPolicies
from tristunnel.service.visitor_filter import PolicyFilter, hostOfVisitor

_networks = st.lists(
    st.ip_addresses().map(str) | st.sampled_from(["10.0.0.0/8", "10.9.0.0/16", "::/0"]),
    max_size=3,
)
_limits = st.integers(0, 5)
_policies = st.builds(
    VisitorPolicy,
    allow=_networks.map(parseNetworks),
    deny=_networks.map(parseNetworks),
    visitorsPerAddress=_limits,
    maxVisitors=_limits,
    visitorRate=_limits,
)


class NetworkTests(SynchronousTestCase):
    """Networks as people write them."""

    def test_read(self) -> None:
        """Addresses and networks of both families; host bits do not matter. IPv4 within
        IPv6 is IPv4."""
        read = parseNetworks(
            ["10.1.2.3/8", "192.0.2.7", " 2001:db8::/32 ", "::ffff:10.0.0.0/104"]
        )
        self.assertEqual(
            [str(network) for network in read],
            ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "10.0.0.0/8"],
        )

    @given(st.text())
    def test_garbage(self, text: str) -> None:
        """Anything is a network or a bad option."""
        try:
            parseNetworks([text])
        except TunnelError as error:
            self.assertEqual(error.code.name, "bad-option")

    def test_tooMany(self) -> None:
        """A policy has a bounded number of networks."""
        with self.assertRaises(TunnelError):
            parseNetworks(["10.0.0.1"] * 1001)

    def test_hosts(self) -> None:
        """The host is what stands before the port."""
        self.assertEqual(hostOfVisitor("192.0.2.1:80"), "192.0.2.1")
        self.assertEqual(hostOfVisitor("[2001:db8::1]:80"), "2001:db8::1")
        self.assertEqual(hostOfVisitor("unix"), "unix")


class CombinedTests(SynchronousTestCase):
    """Two policies as one."""

    def test_numbers(self) -> None:
        """The stricter limit holds; 0 is none."""
        one = VisitorPolicy(visitorsPerAddress=3, maxVisitors=0, rate=100, idle=60.0)
        both = one.combined(
            VisitorPolicy(visitorsPerAddress=5, maxVisitors=7, rate=50, maxAge=9.0)
        )
        self.assertEqual(
            both,
            VisitorPolicy(
                visitorsPerAddress=3, maxVisitors=7, rate=50, idle=60.0, maxAge=9.0
            ),
        )
        self.assertTrue(both.endsStreams)
        self.assertFalse(VisitorPolicy(maxVisitors=5).endsStreams)

    def test_nobody(self) -> None:
        """Networks that have nothing in common are a mistake."""
        one = VisitorPolicy(allow=parseNetworks(["10.0.0.0/8"]))
        other = VisitorPolicy(allow=parseNetworks(["192.168.0.0/16"]))
        error = self.assertRaises(TunnelError, one.combined, other)
        self.assertEqual(error.code.name, "bad-option")

    @given(_policies, _policies, st.ip_addresses().map(str) | st.just("10.9.1.1"))
    def test_both(self, one: VisitorPolicy, other: VisitorPolicy, host: str) -> None:
        """Whom the combined policy lets in, both let in; and the other way round."""
        try:
            both = one.combined(other)
        except TunnelError:
            self.assertFalse(_lets(one, host) and _lets(other, host))
        else:
            self.assertEqual(_lets(both, host), _lets(one, host) and _lets(other, host))


def _stream(address: str) -> Stream:
    tunnel = Tunnel("id", ANONYMOUS_IDENTITY, None, ServerNotes(), lambda: 0.0)
    return Stream(tunnel, WaitingEnd(), address, 0.0)


def _lets(policy: VisitorPolicy, host: str) -> bool:
    visitors = PolicyFilter(policy, lambda: 0.0)
    try:
        visitors.enter(_stream(f"[{host}]:1" if ":" in host else f"{host}:1"))
    except TunnelError:
        return False
    return True


class PolicyFilterTests(SynchronousTestCase):
    """Who is let in."""

    def makeFilter(self, **policy: Any) -> PolicyFilter:
        self.clock = Clock()
        return PolicyFilter(VisitorPolicy(**policy), self.clock.seconds)

    def refused(self, visitors: PolicyFilter, address: str) -> str:
        error = self.assertRaises(TunnelError, visitors.enter, _stream(address))
        code: str = error.code.name
        return code

    def test_everybody(self) -> None:
        """Without a policy everybody comes in."""
        visitors = self.makeFilter()
        for port in range(1000):
            visitors.enter(_stream(f"192.0.2.1:{port}"))

    def test_limitedLater(self) -> None:
        """A limit that comes later counts those who are inside."""
        visitors = self.makeFilter()
        inside = [_stream(f"192.0.2.{host}:1") for host in (1, 2)]
        for each in inside:
            visitors.enter(each)
        visitors.apply(VisitorPolicy(maxVisitors=2, visitorsPerAddress=1), inside)
        self.assertEqual(self.refused(visitors, "192.0.2.3:1"), "limit-reached")
        visitors.leave(inside.pop())
        self.assertEqual(self.refused(visitors, "192.0.2.1:2"), "limit-reached")
        visitors.enter(_stream("192.0.2.3:1"))
        self.assertEqual(self.refused(visitors, "192.0.2.4:1"), "limit-reached")

    def test_networks(self) -> None:
        """Denied goes before allowed; others are kept out."""
        visitors = self.makeFilter(
            allow=parseNetworks(["10.0.0.0/8"]), deny=parseNetworks(["10.9.0.0/16"])
        )
        visitors.enter(_stream("10.1.1.1:5"))
        visitors.enter(_stream("[::ffff:10.1.1.1]:5"))
        for address in ("10.9.1.1:5", "192.0.2.1:5", "[2001:db8::1]:5", "unix"):
            self.assertEqual(self.refused(visitors, address), "not-permitted")
        self.assertEqual(self.refused(visitors, "[::ffff:10.9.1.1]:5"), "not-permitted")

    def test_concurrency(self) -> None:
        """Places are limited, for an address and in all, and free again after."""
        visitors = self.makeFilter(visitorsPerAddress=1, maxVisitors=2)
        first = _stream("192.0.2.1:1")
        visitors.enter(first)
        self.assertEqual(self.refused(visitors, "192.0.2.1:2"), "limit-reached")
        visitors.enter(_stream("192.0.2.2:1"))
        self.assertEqual(self.refused(visitors, "192.0.2.3:1"), "limit-reached")
        visitors.leave(first)
        visitors.enter(_stream("192.0.2.1:3"))

    def test_rate(self) -> None:
        """Visits of an address are limited per minute; others are not touched."""
        visitors = self.makeFilter(visitorRate=2)
        for _ in range(2):
            stream = _stream("192.0.2.1:1")
            visitors.enter(stream)
            visitors.leave(stream)
        self.assertEqual(self.refused(visitors, "192.0.2.1:1"), "limit-reached")
        visitors.enter(_stream("192.0.2.2:1"))
        self.clock.advance(30)
        visitors.enter(_stream("192.0.2.1:1"))
        self.assertEqual(self.refused(visitors, "192.0.2.1:1"), "limit-reached")


class FlowingEnd(WaitingEnd):
    """An end whose counts the test sets."""

    def join(self, peer: End, closed: Closed) -> None:
        self.peer, self._closed = peer, closed


class TunnelPolicyTests(ServiceTestCase):
    """Policies as a tunnel applies them, by the options of C{openTunnel}."""

    def setUp(self) -> None:
        super().setUp()
        self.session = Session()
        self.caller = Caller(
            ALICE.identity, "server", 9000, self.session, address="192.0.2.1"
        )

    def tunnelWith(self, **options: object) -> Tunnel:
        uri = self.open(self.caller, **options)
        tunnel: Tunnel = self.successResultOf(self.service.find(uri))
        return tunnel

    def come(self, tunnel: Tunnel, address: str = "192.0.2.7:5000") -> FlowingEnd:
        visitor = FlowingEnd()
        tunnel.visitorArrived(visitor, address)
        return visitor

    def serve(self) -> FlowingEnd:
        client = FlowingEnd()
        self.session.streams[-1].connect(client)
        return client

    def refusals(self) -> object:
        return self.list(self.caller)[0]["refusals"]

    def test_refused(self) -> None:
        """A visitor who may not come in is reset, counted by the reason and observed;
        nobody hears that it came."""
        tunnel = self.tunnelWith(deny="192.0.2.0/24", visitorRate=1)
        self.assertEqual(self.come(tunnel).refused, "not-permitted")
        self.assertEqual(self.come(tunnel, "198.51.100.1:1").refused, "")
        self.assertEqual(self.come(tunnel, "198.51.100.1:2").refused, "limit-reached")
        self.assertEqual(self.refusals(), {"not-permitted": 1, "limit-reached": 1})
        self.assertEqual(
            self.notes.named("visitorRefused"),
            [("192.0.2.7:5000", "not-permitted"), ("198.51.100.1:2", "limit-reached")],
        )
        self.assertEqual(len(self.notes.named("visitorConnected")), 1)
        self.assertEqual(self.notes.named("visitorGone"), [])
        self.assertEqual(tunnel.visitorCount, 1)

    def test_places(self) -> None:
        """A place is free again when its visitor has left, whoever turned it away."""
        tunnel = self.tunnelWith(maxVisitors=1)
        first = self.come(tunnel)
        self.assertEqual(self.come(tunnel).refused, "limit-reached")
        client = self.serve()
        first.leave(None)
        self.assertEqual(self.come(tunnel).refused, "limit-reached")
        client.leave(None)
        side, tunnel.clientSide = tunnel.clientSide, None
        self.assertEqual(self.come(tunnel).refused, "client-away")
        tunnel.clientSide = side
        self.assertEqual(self.come(tunnel).refused, "")

    def test_operator(self) -> None:
        """The server's own rules hold for all tunnels; a tunnel's can only be
        stricter."""
        self.service.policies.policy = VisitorPolicy(
            allow=parseNetworks(["10.0.0.0/8"]), maxVisitors=2
        )
        tunnel = self.tunnelWith(allow=["10.1.0.0/16"], maxVisitors=100)
        self.assertEqual(self.come(tunnel, "10.2.0.1:1").refused, "not-permitted")
        for port in range(2):
            self.assertEqual(self.come(tunnel, f"10.1.0.1:{port}").refused, "")
        self.assertEqual(self.come(tunnel, "10.1.0.1:9").refused, "limit-reached")
        self.assertNotOpened("bad-option", self.caller, allow=["192.168.0.0/16"])

    def test_badOptions(self) -> None:
        """A wrong value is refused, with the option's name or what is wrong."""
        for options, needle in (
            ({"allow": "everybody"}, "everybody"),
            ({"deny": [5]}, "deny"),
            ({"maxVisitors": -1}, "maxVisitors"),
            ({"visitorRate": 1.5}, "visitorRate"),
            ({"rate": -5}, "rate"),
            ({"idle": 0.01}, "idle"),
            ({"maxAge": float("nan")}, "maxAge"),
        ):
            message = self.assertNotOpened("bad-option", self.caller, **options)
            self.assertIn(needle, message)

    def test_idle(self) -> None:
        """A stream through which nothing passes is over after a while; one that carries
        bytes, either way, is not."""
        tunnel = self.tunnelWith(idle=80)
        silent = self.come(tunnel)
        self.serve()
        sender = self.come(tunnel)
        self.serve()
        reader = self.come(tunnel)
        answering = self.serve()
        for _ in range(30):
            self.clock.advance(10)
            sender.received += 1
            answering.received += 1
        self.assertEqual(silent.refused, "expired")
        self.assertEqual((sender.refused, reader.refused), ("", ""))
        self.clock.pump([10] * 10)
        self.assertEqual((sender.refused, reader.refused), ("expired", "expired"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_age(self) -> None:
        """No stream is older than it may be, however busy; one timer serves all."""
        tunnel = self.tunnelWith(maxAge=40)
        visitors = []
        for _ in range(100):
            visitors.append(self.come(tunnel))
            self.serve()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for _ in range(8):
            self.clock.advance(5)
            for visitor in visitors:
                visitor.received += 1
        self.assertEqual({visitor.refused for visitor in visitors}, {"expired"})
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(tunnel.streams, set())

    def test_rate(self) -> None:
        """A tunnel's rate is its own; with a token's beside it both hold."""
        tunnel = self.tunnelWith(rate=1000)
        assert tunnel.ownThrottle is not None
        self.assertEqual(tunnel.ownThrottle.rate, 1000)
        tunnel.throttle = Throttle(self.clock, 500)
        visitor = self.come(tunnel)
        client = self.serve()
        paused: list[str] = []
        self.patch(client, "pauseReading", lambda: paused.append("pause"))
        self.patch(client, "resumeReading", lambda: paused.append("resume"))
        assert client.peer is not None and visitor.peer is not None
        client.peer.write(bytes(64 * 1024 + 1000))
        self.assertEqual(paused, ["pause"])
        self.clock.advance(1.5)
        self.assertEqual(paused, ["pause"], "the token's rate is the slower one")
        self.clock.advance(0.5)
        self.assertEqual(paused, ["pause", "resume"])

    def test_resumed(self) -> None:
        """A client that comes back with other wishes has them fulfilled."""
        lease, _ = self.successResultOf(
            self.service.leases.grant(self.caller.identity, self.session)
        )
        self.caller = Caller(
            ALICE.identity, "server", 9000, self.session, lease, address="192.0.2.1"
        )
        tunnel = self.tunnelWith(name="app")
        again = self.tunnelWith(name="app", resume=tunnel.uri, deny="192.0.2.7")
        self.assertIs(again, tunnel)
        self.assertEqual(self.come(tunnel).refused, "not-permitted")

    def test_descriptors(self) -> None:
        """The last descriptors are not for visitors."""
        following = 10
        reserve = Reserve(lambda: 100, lambda: following)
        self.service.policies = VisitorPolicies(self.clock, reserve)
        tunnel = self.tunnelWith()
        self.assertEqual(self.come(tunnel).refused, "")
        following = 75
        self.assertEqual(self.come(tunnel).refused, "limit-reached")
        self.assertIn(
            "descriptors", self.assertRaises(TunnelError, reserve.checkVisitor).message
        )
        reserve.checkSession()
        following = 88
        self.assertRaises(TunnelError, reserve.checkSession)


class FairnessTests(SynchronousTestCase):
    """One rate, several streams."""

    def test_fair(self) -> None:
        """Streams that share a rate get equal parts of it, and together no more than
        there is."""
        clock = Clock()
        throttle = Throttle(clock, 1_000_000)
        streams = []
        for _ in range(5):
            source, sink = _Source(), _Source()
            one, other = throttle.between(source, sink)
            one.join(other, lambda reason: None)
            other.join(one, lambda reason: None)
            streams.append(source)
        for _ in range(1000):
            for source in streams:
                source.offer(16 * 1024)
            clock.advance(0.01)
        sent = [source.sent for source in streams]
        self.assertLess(max(sent), 1.1 * min(sent))
        self.assertLess(abs(sum(sent) / 10_000_000 - 1.0), 0.05)


class _Source(FlowingEnd):
    """An end that has always something to say."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self._paused = False

    def offer(self, amount: int) -> None:
        while not self._paused:
            assert self.peer is not None
            self.sent += amount
            self.peer.write(bytes(amount))

    def pauseReading(self) -> None:
        self._paused = True

    def resumeReading(self) -> None:
        self._paused = False


class DatagramTests(SynchronousTestCase):
    """Visitors over UDP, whose addresses anybody can make up."""

    def test_flood(self) -> None:
        """However many are turned away, they take no place of one that was let in."""
        clock = Clock()
        notes = ServerNotes()
        session = Session()
        tunnel = Tunnel(
            "id", ANONYMOUS_IDENTITY, session, notes, clock.seconds, protocol="udp"
        )
        listener = UDPListener(clock, tunnel.visitorArrived, most=10)
        tunnel.listener = listener
        VisitorPolicies(clock).setByOwner(
            tunnel, VisitorPolicy(deny=parseNetworks(["10.0.0.0/8"]))
        )
        listener.datagramArrived(b"hello", ("192.0.2.1", 5), None)
        (stream,) = session.streams
        for number in range(1000):
            listener.datagramArrived(b"x", (f"10.0.{number >> 8}.{number & 255}", 5), 0)
        self.assertEqual(len(notes.named("visitorRefused")), 1000)
        self.assertEqual(tunnel.refusals, {"not-permitted": 1000})
        self.assertIn(("192.0.2.1", 5), listener.flows)
        self.assertFalse(stream.over)
        self.assertEqual((len(listener.flows), listener.evicted), (10, 0))
        listener.close()
        self.assertEqual(clock.getDelayedCalls(), [])
