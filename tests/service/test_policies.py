"""
Tests for L{tristunnel.service.policies} and C{setPolicy}: what holds for a tunnel's
visitors, and how it changes while they are there.
"""

from __future__ import annotations

from typing import Any

from tests.auth.token_server import TokenServerTestCase
from tests.service.rig import ALICE, BOB, ServiceTestCase, Session
from tests.support.waiting import WaitingEnd
from tristunnel.interfaces import Closed
from tristunnel.model.permissions import Grant, Identity, Permissions
from tristunnel.model.policy import VisitorPolicy, parseNetworks
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller

BURST = 64 * 1024


class SpeakingEnd(WaitingEnd):
    """
    An end that says what the test wants, as long as it is not paused.

    @ivar paused: Whether it is.
    @ivar taken: How many bytes it was given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.paused = False
        self.taken = 0

    def join(self, peer: Any, closed: Closed) -> None:
        self.peer, self._closed = peer, closed

    def passTo(self, peer: Any) -> tuple[Any, bool]:
        before, self.peer = self.peer, peer
        return before, self.paused

    def offer(self, amount: int) -> int:
        if self.paused or self.peer is None:
            return 0
        self.received += amount
        self.peer.write(bytes(amount))
        return amount

    def write(self, data: bytes) -> None:
        self.taken += len(data)

    def pauseReading(self) -> None:
        self.paused = True

    def resumeReading(self) -> None:
        self.paused = False


class HouseTestCase(ServiceTestCase):
    """A tunnel whose policy changes."""

    def setUp(self) -> None:
        super().setUp()
        self.session = Session()
        self.caller = self.callerOf(ALICE.identity)
        admin = Grant(Permissions(may=frozenset({"admin"})))
        self.operator = Caller(Identity("root", grant=admin), "server", 9000)

    def callerOf(self, identity: Identity) -> Caller:
        return Caller(identity, "server", 9000, self.session, address="192.0.2.1")

    def tunnelWith(self, **options: object) -> Tunnel:
        uri = self.open(self.caller, **options)
        tunnel: Tunnel = self.successResultOf(self.service.find(uri))
        return tunnel

    def come(
        self, tunnel: Tunnel, address: str = "192.0.2.7:5000"
    ) -> tuple[SpeakingEnd, SpeakingEnd]:
        visitor, client = SpeakingEnd(), SpeakingEnd()
        tunnel.visitorArrived(visitor, address)
        if not visitor.refused:
            self.session.streams[-1].connect(client)
        return visitor, client

    def setPolicy(
        self, tunnel: Tunnel, caller: Caller | None = None, **policy: object
    ) -> dict[str, object]:
        endDenied = bool(policy.pop("endDenied", False))
        return self.successResultOf(
            self.service.setPolicy(caller or self.caller, tunnel.uri, policy, endDenied)
        )


class SetPolicyTests(HouseTestCase):
    """C{setPolicy}."""

    def test_newVisitors(self) -> None:
        """Those who come are judged by what was said last; those who are here stay."""
        tunnel = self.tunnelWith(deny="10.0.0.0/8")
        visitor, _ = self.come(tunnel)
        answer = self.setPolicy(tunnel, deny=["192.0.2.0/24"], maxVisitors=5)
        self.assertEqual(answer, {"deny": ["192.0.2.0/24"], "maxVisitors": 5})
        self.assertEqual(self.list(self.caller)[0]["policy"], answer)
        self.assertEqual(self.come(tunnel)[0].refused, "not-permitted")
        self.assertEqual(self.come(tunnel, "10.0.0.1:1")[0].refused, "")
        self.assertEqual(visitor.refused, "")
        self.assertEqual(self.setPolicy(tunnel), {})
        self.assertEqual(self.come(tunnel)[0].refused, "")

    def test_places(self) -> None:
        """Those who are here take places of a limit that comes later."""
        tunnel = self.tunnelWith()
        visitor, client = self.come(tunnel)
        self.come(tunnel)
        self.setPolicy(tunnel, visitorsPerAddress=2)
        self.assertEqual(self.come(tunnel)[0].refused, "limit-reached")
        visitor.leave(None)
        client.leave(None)
        self.assertEqual(self.come(tunnel)[0].refused, "")

    def test_endDenied(self) -> None:
        """Those who could not come in any more are ended if that is wanted, and the
        others go on."""
        tunnel = self.tunnelWith()
        here, _ = self.come(tunnel)
        there, client = self.come(tunnel, "[2001:db8::1]:7")
        self.setPolicy(tunnel, allow="2001:db8::/32", endDenied=True)
        self.assertEqual((here.refused, there.refused), ("not-permitted", ""))
        self.assertEqual(client.refused, "")
        self.assertEqual(len(tunnel.streams), 1)

    def test_refused(self) -> None:
        """What is wrong changes nothing, and says what is wrong."""
        tunnel = self.tunnelWith(maxVisitors=3)
        self.service.policies.change(VisitorPolicy(allow=parseNetworks(["10.0.0.0/8"])))
        for policy, needle in (
            (
                {"port": 5},
                "unknown option of a policy, 'port'; choose from allow, deny",
            ),
            ({"deny": "everybody"}, "everybody"),
            ({"rate": "fast"}, "rate"),
            ({"idle": 0.5}, "idle"),
            ({"allow": ["192.0.2.1"]}, "10.0.0.0/8"),
        ):
            call = self.service.setPolicy(self.caller, tunnel.uri, policy)
            self.assertIn(needle, self.assertRefused("bad-option", call))
        self.assertEqual(tunnel.policy.maxVisitors, 3)

    def test_owners(self) -> None:
        """Others may not, nor who has the tunnel's URI alone."""
        tunnel = self.tunnelWith()
        limited = Caller(ALICE.identity, "server", 9000, limitedTo=tunnel)
        for caller in (BOB, limited):
            call = self.service.setPolicy(caller, tunnel.uri, {"maxVisitors": 1})
            self.assertRefused("unknown-tunnel", call)
        call = self.service.setPolicy(self.caller, "w3p://server:1/x", {})
        self.assertRefused("unknown-tunnel", call)
        self.assertEqual(tunnel.policy, VisitorPolicy())

    def test_operator(self) -> None:
        """What an operator asks holds beside what the owner does, and the owner cannot
        take it back; nor can the operator ask less than the owner."""
        tunnel = self.tunnelWith(maxVisitors=9)
        answer = self.setPolicy(tunnel, self.operator, maxVisitors=5, deny="10.0.0.1")
        self.assertEqual(answer, {"deny": ["10.0.0.1/32"], "maxVisitors": 5})
        self.assertEqual(self.setPolicy(tunnel, maxVisitors=2)["maxVisitors"], 2)
        self.assertEqual(self.setPolicy(tunnel), answer)
        self.assertEqual(self.setPolicy(tunnel, self.operator), {})

    def test_server(self) -> None:
        """When the server asks something else, that holds for all tunnels; one that
        lets in nobody who may still come lets in nobody."""
        one = self.tunnelWith(allow="192.0.2.0/24")
        other = self.tunnelWith(rate=5000)
        visitor, _ = self.come(one)
        self.service.policies.change(
            VisitorPolicy(allow=parseNetworks(["10.0.0.0/8"]), rate=3000)
        )
        self.assertEqual(self.come(one)[0].refused, "not-permitted")
        self.assertEqual(self.come(one, "10.0.0.1:1")[0].refused, "not-permitted")
        self.assertEqual(self.come(other, "10.0.0.1:1")[0].refused, "")
        self.assertEqual(other.policy.rate, 3000)
        self.assertEqual(visitor.refused, "")
        self.service.policies.change(VisitorPolicy())
        self.assertEqual(self.come(one)[0].refused, "")
        self.assertEqual(other.policy.rate, 5000)

    def test_closed(self) -> None:
        """Nothing is left of a tunnel that is over."""
        tunnel = self.tunnelWith(idle=5)
        self.come(tunnel)
        self.close(tunnel.uri, self.caller)
        self.service.policies.change(VisitorPolicy(maxVisitors=1))
        self.assertEqual(tunnel.policy.maxVisitors, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RunningTests(HouseTestCase):
    """Streams that run while their limits change."""

    def test_age(self) -> None:
        """A stream is as old as it is, whenever the limit came."""
        tunnel = self.tunnelWith()
        old, _ = self.come(tunnel)
        self.clock.advance(60)
        young, _ = self.come(tunnel)
        self.setPolicy(tunnel, maxAge=80)
        self.clock.pump([5] * 7)
        self.assertEqual((old.refused, young.refused), ("expired", ""))
        self.setPolicy(tunnel)
        self.clock.pump([10] * 10)
        self.assertEqual(young.refused, "")

    def test_idle(self) -> None:
        """Silence counts from when the limit came, and a shorter limit is looked at
        sooner."""
        tunnel = self.tunnelWith()
        visitor, client = self.come(tunnel)
        client.received = 1000
        self.setPolicy(tunnel, idle=800)
        self.clock.advance(10)
        self.setPolicy(tunnel, idle=16)
        self.clock.pump([2] * 2)
        self.assertEqual(visitor.refused, "")
        self.clock.pump([2] * 6)
        self.assertEqual(visitor.refused, "expired")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def passed(self, end: SpeakingEnd, seconds: int) -> int:
        said = 0
        for _ in range(seconds * 100):
            while amount := end.offer(8192):
                said += amount
                if said > 100_000_000:
                    return said
            self.clock.advance(0.01)
        return said // seconds

    def test_rate(self) -> None:
        """A stream that runs without a limit gets one, another one, and none again; the
        other direction does not wait for it."""
        tunnel = self.tunnelWith()
        visitor, client = self.come(tunnel)
        self.assertGreater(self.passed(visitor, 1), 10_000_000)
        self.setPolicy(tunnel, rate=100_000)
        self.assertTrue(95_000 < self.passed(visitor, 100) < 105_000)
        self.assertFalse(client.paused)
        self.setPolicy(tunnel, rate=1000)
        self.passed(visitor, 100)
        self.assertTrue(visitor.paused)
        # What was overdrawn at the slow rate does not hold the fast one up.
        self.setPolicy(tunnel, rate=1_000_000)
        self.assertFalse(visitor.paused)
        self.assertTrue(950_000 < self.passed(visitor, 20) < 1_050_000)
        self.setPolicy(tunnel)
        self.assertFalse(visitor.paused)
        self.assertGreater(self.passed(visitor, 1), 10_000_000)
        self.assertEqual(client.taken, visitor.received)
        visitor.leave(None)
        client.leave(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pausedMeanwhile(self) -> None:
        """A source that its peer has paused stays paused, and goes on when the peer
        says so."""
        tunnel = self.tunnelWith()
        visitor, client = self.come(tunnel)
        visitor.pauseReading()
        self.setPolicy(tunnel, rate=1000)
        self.clock.advance(100)
        self.assertTrue(visitor.paused)
        assert client.peer is not None
        client.peer.resumeReading()
        self.assertFalse(visitor.paused)

    def test_overWhileWaiting(self) -> None:
        """A stream that ends while it waits leaves no timer behind."""
        tunnel = self.tunnelWith()
        visitor, client = self.come(tunnel)
        self.setPolicy(tunnel, rate=1000)
        visitor.offer(10 * BURST)
        self.assertTrue(visitor.paused)
        visitor.leave(None)
        client.leave(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_both(self) -> None:
        """A token's limit that comes to a stream which has its tunnel's already: the
        slower one counts, and both may go again."""
        grant = Grant(Permissions())
        self.caller = self.callerOf(Identity("alice", grant=grant))
        tunnel = self.tunnelWith(rate=100_000)
        visitor, client = self.come(tunnel)
        visitor.offer(2 * BURST)
        self.assertTrue(visitor.paused)
        grant.change(Permissions(rate=20_000))
        self.clock.advance(1)
        self.assertTrue(19_000 < self.passed(visitor, 100) < 22_000)
        grant.change(Permissions())
        self.clock.advance(10)
        self.assertTrue(95_000 < self.passed(visitor, 100) < 105_000)
        self.setPolicy(tunnel)
        self.assertGreater(self.passed(visitor, 1), 10_000_000)
        self.assertEqual(client.taken, visitor.received)


class TokenPolicyTests(TokenServerTestCase):
    """What a token asks of visitors."""

    def policyOf(self) -> dict[str, object]:
        policy: dict[str, object] = self.rpc("laptop", "listTunnels")[0]["policy"]
        return policy

    def test_strictest(self) -> None:
        """Of what the server, the token and the client ask, the strictest holds."""
        self.service.policies.policy = VisitorPolicy(maxVisitors=10, idle=60.0)
        self.makeToken(
            "laptop",
            policy=VisitorPolicy(
                deny=parseNetworks(["10.0.0.0/8"]),
                maxVisitors=5,
                visitorRate=7,
                idle=90.0,
            ),
        )
        peer = self.client("laptop")
        self.ask(peer, "openTunnel", maxVisitors=8, rate=5, visitorRate=3)
        self.assertEqual(
            self.policyOf(),
            {
                "deny": ["10.0.0.0/8"],
                "maxVisitors": 5,
                "visitorRate": 3,
                "rate": 5,
                "idle": 60.0,
            },
        )

    def test_changed(self) -> None:
        """What the file says of visitors now is what counts, for open tunnels and for
        those who are here."""
        self.makeToken("laptop", policy=VisitorPolicy(maxVisitors=1))
        peer = self.client("laptop")
        self.ask(peer, "openTunnel")
        port = self.listeners.only()
        visitor = port.visit()
        late = port.visit()
        assert late.broken is not None
        self.assertEqual(late.broken.code.name, "limit-reached")
        self.rewrite('"visitorsPerTunnel": 1', '"visitorsPerTunnel": 2, "maxAge": 5')
        self.clock.advance(1)
        self.assertEqual(self.policyOf(), {"maxVisitors": 2, "maxAge": 5.0})
        self.assertIsNone(port.visit().broken)
        self.assertIsNone(visitor.broken)
        self.clock.pump([1] * 6)
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "expired")

    def test_nobodyLeft(self) -> None:
        """Networks of the token that the server does not let in: nobody comes in, and
        that is no error of whoever opens a tunnel."""
        self.service.policies.policy = VisitorPolicy(
            allow=parseNetworks(["10.0.0.0/8"])
        )
        allow = parseNetworks(["192.0.2.0/24"])
        self.makeToken("laptop", policy=VisitorPolicy(allow=allow))
        peer = self.client("laptop")
        self.assertIn("w3p:", self.ask(peer, "openTunnel"))
        late = self.listeners.only().visit()
        assert late.broken is not None
        self.assertEqual(late.broken.code.name, "not-permitted")

    def test_rateIsShared(self) -> None:
        """A token's rate is one for all of its tunnels, of all of its sessions; another
        token has its own."""
        self.makeToken("laptop", rate=100_000)
        self.makeToken("other", rate=100_000)
        for name in ("laptop", "laptop", "other"):
            self.plain(name)
        first, second, foreign = self.listeners.open_.values()
        one, two, three = first.visit(), second.visit(), foreign.visit()
        one.say(bytes(BURST))
        self.assertFalse(one.paused)
        two.say(bytes(BURST))
        self.assertTrue(two.paused, "the other tunnel has used the rate up")
        three.say(bytes(BURST))
        self.assertFalse(three.paused)
        self.clock.advance(BURST / 100_000 + 0.1)
        self.assertFalse(two.paused)

    def test_rateOfRunning(self) -> None:
        """A token that gets a rate slows down the streams that run."""
        self.makeToken("laptop", maxTunnels=5)
        self.plain("laptop")
        visitor = self.listeners.only().visit()
        visitor.say(bytes(1000))
        self.rewrite('"maxTunnels": 5', '"rate": 1000')
        self.clock.advance(1)
        visitor.say(bytes(BURST + 1000))
        self.assertTrue(visitor.paused)
        self.rewrite('"rate": 1000', '"maxTunnels": 5')
        self.clock.advance(1)
        self.assertFalse(visitor.paused)
