"""Tests for L{tristunnel.service.knocks}: who is let in, and for how long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.service.rig import ALICE, BOB, Session
from tests.service.test_policies import HouseTestCase, SpeakingEnd
from tests.service.test_siblings import Member
from tests.support.waiting import Ports
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.errors import TunnelError
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.tunnel import Tunnel
from tristunnel.processes.channel import pair
from tristunnel.processes.link import Link
from tristunnel.service import knocked
from tristunnel.service.caller import Caller
from tristunnel.service.knocked import networkOf
from tristunnel.service.siblings import Siblings
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.util.hosts import addressOf


class NetworkTests(SynchronousTestCase):
    """L{networkOf}."""

    def test_network(self) -> None:
        for host, network in (
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::1:2:3:4", "2001:db8::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("", "None"),
            ("unix", "None"),
        ):
            self.assertEqual(str(networkOf(host)), network)

    @given(st.text() | st.ip_addresses().map(str))
    def test_anything(self, host: str) -> None:
        """What is no address is none, and each address is within its own network."""
        network, address = networkOf(host), addressOf(host)
        self.assertEqual(network is None, address is None)
        self.assertTrue(network is None or address in network)


class KnockTests(HouseTestCase):
    """A tunnel whose visitors knock."""

    def setUp(self) -> None:
        super().setUp()
        self.knocks = self.service.knocks
        self.service.clientPort = (9000, False)

    def knock(self, tunnel: Tunnel, host: str) -> float:
        identifier, known = tunnel.knockLink.split("/")[-2:]
        admitting = self.knocks.admit(identifier, known, host)
        return float(self.successResultOf(Deferred.fromCoroutine(admitting)))

    def refused(self, tunnel: Tunnel, host: str, **more: Any) -> str:
        identifier, known = tunnel.knockLink.split("/")[-2:]
        admitting = self.knocks.admit(identifier, more.get("secret", known), host)
        failure = self.failureResultOf(Deferred.fromCoroutine(admitting), TunnelError)
        error: TunnelError = failure.value
        return error.code.name

    def isIn(self, tunnel: Tunnel, address: str) -> bool:
        visitor, client = self.come(tunnel, address)
        wasRefused = visitor.refused
        if not wasRefused:
            visitor.leave(None)
            client.leave(None)
        return not wasRefused

    def test_inAndOut(self) -> None:
        """Whoever has knocked is in over either kind of address, nobody else is, and it
        ends with the time, for streams that are open too."""
        tunnel = self.tunnelWith(knock=600)
        for address, other in (
            ("192.0.2.7", "192.0.2.8"),
            ("2001:db8::7", "2001:db8:0:1::7"),
        ):
            at, elsewhere = f"[{address}]:1", f"[{other}]:1"
            self.assertFalse(self.isIn(tunnel, at))
            self.assertEqual(self.knock(tunnel, address), 600.0)
            self.assertTrue(self.isIn(tunnel, at))
            self.assertFalse(self.isIn(tunnel, elsewhere))
            visitor, _ = self.come(tunnel, at)
            self.clock.advance(599)
            self.assertEqual(visitor.refused, "")
            self.clock.advance(1)
            self.assertEqual(visitor.refused, "expired")
            self.assertFalse(self.isIn(tunnel, at))
        self.assertEqual(tunnel.refusals["not-permitted"], 6)

    def test_again(self) -> None:
        """To knock again is to have more time, also behind others."""
        tunnel = self.tunnelWith(knock=600)
        self.knock(tunnel, "192.0.2.7")
        self.knock(tunnel, "192.0.2.8")
        visitor, _ = self.come(tunnel, "192.0.2.7:1")
        self.clock.advance(400)
        self.knock(tunnel, "192.0.2.7")
        self.clock.advance(400)
        self.assertEqual(visitor.refused, "")
        self.assertFalse(self.isIn(tunnel, "192.0.2.8:1"))
        self.clock.advance(200)
        self.assertEqual(visitor.refused, "expired")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_policy(self) -> None:
        """Whom C{allow} names need not knock; whom C{deny} names cannot."""
        tunnel = self.tunnelWith(knock=600, allow="10.0.0.0/8", deny="192.0.2.0/24")
        self.assertTrue(self.isIn(tunnel, "10.1.2.3:1"))
        self.assertEqual(self.refused(tunnel, "192.0.2.7"), "not-permitted")
        self.assertEqual(self.refused(tunnel, "unix"), "not-permitted")
        self.knock(tunnel, "198.51.100.1")
        self.assertTrue(self.isIn(tunnel, "198.51.100.1:1"))
        here, _ = self.come(tunnel, "10.1.2.3:1")
        self.setPolicy(tunnel, endDenied=True)
        self.assertEqual(here.refused, "not-permitted")
        self.assertTrue(self.isIn(tunnel, "198.51.100.1:1"))

    def test_links(self) -> None:
        """A link is good with its own secret, at its own tunnel, while that is open."""
        tunnel, other = self.tunnelWith(knock=600), self.tunnelWith(knock=600)
        self.assertEqual(tunnel.knockLink[:25], "http://server:9000/knock/")
        secret = other.knockLink.rpartition("/")[2]
        for wrong in (secret, "", "0" * 32, "\udc80"):
            self.assertEqual(
                self.refused(tunnel, "192.0.2.7", secret=wrong), "unknown-tunnel"
            )
        get = self.knocks.getKnockLink
        self.assertEqual(
            self.successResultOf(get(self.caller, tunnel.uri)), tunnel.knockLink
        )
        self.failureResultOf(get(BOB, tunnel.uri), TunnelError)
        self.knock(tunnel, "192.0.2.7")
        self.successResultOf(self.service.closeTunnel(self.caller, tunnel.uri))
        self.assertEqual(self.refused(tunnel, "192.0.2.7"), "unknown-tunnel")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bound(self) -> None:
        """So many are in and no more, until somebody's time is over."""
        self.patch(knocked, "MOST", 2)
        tunnel = self.tunnelWith(knock=600)
        self.knock(tunnel, "192.0.2.1")
        self.clock.advance(1)
        self.knock(tunnel, "192.0.2.2")
        self.knock(tunnel, "192.0.2.1")
        self.assertEqual(self.refused(tunnel, "192.0.2.3"), "limit-reached")
        self.clock.advance(600)
        self.knock(tunnel, "192.0.2.3")

    def test_refused(self) -> None:
        """Where nobody can knock, no tunnel is opened that waits for it."""
        for options in (
            {"private": True, "name": "x"},
            {"share": "least-busy"},
            {"link": True},
            {"stay": 600},
        ):
            failure = self.failureResultOf(
                self.service.openTunnel(self.caller, {"knock": 600, **options}),
                TunnelError,
            )
            self.assertEqual(failure.value.code.name, "bad-option", options)


class MemberTests(TestCase):
    """Two processes of a server, of which one has the tunnel."""

    async def test_elsewhere(self) -> None:
        """Who comes to the page of the other one is let in where the tunnel is."""
        members: list[Any] = [Member(0), Member(1)]
        services: list[TunnelService] = []
        self.clocks: list[Clock] = []
        for member, end, other in zip(members, pair(), reversed(members), strict=True):
            link = Link(ourReactor(), end, member.answers.get, index=other.index)
            member.siblings[other.index] = link
            self.addCleanup(link.close)
            clock = Clock()
            self.clocks.append(clock)
            made = TunnelService(clock, MemoryBook(clock), {"tcp": Ports()})
            made.clientPort = (9000, True)
            made.siblings = Siblings(member)
            made.knocks.publish(made.siblings)
            services.append(made)
        one, other = services
        caller = Caller(ALICE.identity, "server", 9000, Session(), secure=True)
        tunnel = await one.open(caller, {"knock": 600})
        self.assertEqual(tunnel.knockLink[:26], "https://server:9000/knock/")
        identifier, secret = tunnel.knockLink.split("/")[-2:]
        linked = await other.knocks.find(identifier, secret)
        self.assertEqual((linked.address, linked.seconds), (tunnel.address, 600.0))
        self.assertEqual(await other.knocks.admit(identifier, secret, "192.0.2.7"), 600)
        self.assertEqual(one.policies.admit(tunnel, "192.0.2.7"), 600)
        # What was told before has come by the time of an answer.
        await other.knocks.find(identifier, secret)
        # Its client comes to the other one.
        there = await other.open(
            Caller(ALICE.identity, "server", 9000, Session()), {"knock": 600}
        )
        there.id = tunnel.id
        self.clocks[1].advance(200)
        there.gate = replace(tunnel.gate, knock=700)
        other.knocks.moved(there)
        there.visitorArrived(visitor := SpeakingEnd(), "192.0.2.7:1")
        self.assertEqual(visitor.refused, "not-permitted")
        there.gate = tunnel.gate
        other.knocks.moved(there)
        there.visitorArrived(visitor := SpeakingEnd(), "192.0.2.7:1")
        self.assertEqual(visitor.refused, "")
        self.clocks[1].advance(400)
        self.assertEqual(visitor.refused, "expired")
        with self.assertRaises(TunnelError) as caught:
            await other.knocks.admit(identifier, secret, "unix")
        self.assertEqual(caught.exception.code.name, "not-permitted")
        await one.closeTunnel(caller, tunnel.uri)
        with self.assertRaises(TunnelError) as caught:
            await other.knocks.find(identifier, secret)
        self.assertEqual(caught.exception.code.name, "unknown-tunnel")
