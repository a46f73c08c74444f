"""Tests for L{tristunnel.service.tunnel_service}."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast
from unittest.mock import patch
from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from tests.service.rig import ALICE, BOB, ServiceTestCase
from tristunnel.errors import TunnelError
from tristunnel.model.kept_ports import PortsKept
from tristunnel.model.permissions import ANONYMOUS_IDENTITY, Identity
from tristunnel.model.quota import TunnelQuota
from tristunnel.model.record import TunnelRecord
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller, ITunnelService
from tristunnel.service.entries import BookEntries
from tristunnel.service.here import Here
from tristunnel.service.siblings import Siblings


class OpenTests(ServiceTestCase):
    """Opening and closing tunnels."""

    def test_interface(self) -> None:
        """It is an L{ITunnelService}."""
        verifyObject(ITunnelService, self.service)

    def test_default(self) -> None:
        """A tunnel has a URI for the client and an address for visitors, both by the
        name that the caller used."""
        uri = self.open()
        self.assertEqual(uri, "tcp://server:8010")
        self.assertEqual(self.address(uri), "tcp://server:8011")
        self.close(uri)
        self.assertNothingLeft()

    def test_hostname(self) -> None:
        """A name that was configured goes before the one that the caller used; an IPv6
        address has brackets."""
        literal = Caller(Identity("alice"), "2001:db8::1")
        self.assertEqual(self.open(literal), "tcp://[2001:db8::1]:8010")
        self.assertEqual(
            self.address("tcp://[2001:db8::1]:8010"), "tcp://[2001:db8::1]:8011"
        )
        self.makeService(hostname="tunnel.example")
        self.assertEqual(self.open(literal), "tcp://tunnel.example:8012")

    def test_port(self) -> None:
        """The visitors' port can be chosen."""
        uri = self.open(port=8012)
        self.assertEqual(self.address(uri), "tcp://server:8012")
        self.assertNotOpened("port-taken", port=8012)
        self.assertNotOpened("port-not-permitted", port=80)
        self.assertNotOpened("bad-option", port=-1)
        self.assertNotOpened("bad-option", port="8013")

    def test_name(self) -> None:
        """A name is given once."""
        uri = self.open(name="shop")
        self.assertEqual(self.list()[0]["name"], "shop")
        message = self.assertNotOpened("name-taken", BOB, name="shop")
        self.assertIn("'shop'", message)
        self.close(uri)
        self.open(BOB, name="shop")

    def test_via(self) -> None:
        """The client's end comes over TCP, TLS or W3P."""
        self.assertEqual(self.open(via="tls"), "tls://server:8020")
        self.assertEqual(self.open(via="tcp"), "tcp://server:8011")
        uri = self.open(via="w3p")
        self.assertRegex(uri, r"\Aw3p://server:9000/[0-9a-f]{16}#[A-Za-z0-9_-]{32}\Z")
        for each in self.list():
            self.close(str(each["uri"]))
        self.assertNothingLeft()

    def test_unknownVia(self) -> None:
        """An unknown way is refused with those that are known, in a short line."""
        message = self.assertNotOpened("bad-option", via="carrier pigeon" * 10000)
        self.assertIn("tcp, tls, w3p", message)
        self.assertTrue(len(message) < 200)
        self.assertNotOpened("bad-option", via="session")

    def test_listener(self) -> None:
        """Visitors come over TCP or TLS, whatever the client's end does."""
        self.assertEqual(self.address(self.open(listener="tls")), "tls://server:8020")
        self.assertEqual(
            self.address(self.open(via="tls", listener="tcp")), "tcp://server:8011"
        )
        message = self.assertNotOpened("bad-option", listener="x" * 100000)
        self.assertIn("choose from tcp, tls", message)
        self.assertTrue(len(message) < 200)

    def test_defaultListener(self) -> None:
        """The first kind of listener is the default."""
        self.makeService(listeners={"tls": self.overTLS, "tcp": self.visitors})
        uri = self.open()
        self.assertEqual(
            (uri, self.address(uri)), ("tcp://server:8010", "tls://server:8020")
        )

    def test_noCertificate(self) -> None:
        """Without a certificate there is no TLS on either side; the line says what to
        do."""
        self.makeService(listeners={"tcp": self.visitors})
        self.assertIn("--certificate", self.assertNotOpened("bad-option", via="tls"))
        self.assertNotOpened("bad-option", listener="tls")

    def test_noClientPort(self) -> None:
        """A capability needs a port that clients can reach."""
        self.service.clientPort = (0, False)
        self.assertIn("--port", self.assertNotOpened("bad-option", via="w3p"))

    def test_overTLS(self) -> None:
        """The URI tells that the clients' port speaks TLS."""
        self.service.clientPort = (9000, True)
        self.assertTrue(self.open(via="w3p").startswith("w3ps://server:9000/"))

    def test_exhausted(self) -> None:
        """When ports run out, half a tunnel is not left."""
        first, _ = self.open(), self.open()
        self.assertNotOpened("ports-exhausted")
        self.assertNotOpened("ports-exhausted", via="w3p")
        self.close(first)
        self.open(via="w3p")
        self.assertNotOpened("ports-exhausted")

    def test_unknownOption(self) -> None:
        """An unknown option is named, but not at any length."""
        options: dict[str, Any] = {"speed" * 100000: 1}
        message = self.assertNotOpened("bad-option", **options)
        self.assertIn("'speedspeed", message)
        self.assertTrue(len(message) < 300)

    def test_ttl(self) -> None:
        """A tunnel ends when its time is over, with the streams that live then."""
        uri = self.open(ttl=60)
        client = self.visitors.at(uri).come()
        visitor = self.visitors.at(self.address(uri)).come()
        self.assertIs(client.peer, visitor)
        self.clock.advance(59.9)
        self.assertEqual(visitor.refused, "")
        self.clock.advance(0.1)
        self.assertEqual((client.refused, visitor.refused), ("expired", "expired"))
        self.assertRefused("unknown-tunnel", self.service.getTunnelAddress(ALICE, uri))
        self.assertEqual(self.notes.named("tunnelDestroyed")[0][1], "expired")
        self.assertNothingLeft()

    def test_absurdTTL(self) -> None:
        """A number that is no time is refused, however many digits it has."""
        for ttl in (-1, 10**400, -(10**400), 1e300, float("nan"), float("inf")):
            self.assertNotOpened("bad-option", ttl=ttl)

    def test_closeEverything(self) -> None:
        """When the server stops, nothing is left."""
        self.open()
        self.open(via="w3p", ttl=5)
        self.successResultOf(
            Deferred.fromCoroutine(self.service.close(TunnelError("shutting-down")))
        )
        self.assertNothingLeft()

    def test_leaving(self) -> None:
        """A server that is about to stop opens no tunnels, but tells of those that
        there are, and how many visitors they have."""
        uri = self.open(visitors=2)
        port = self.visitors.at(self.address(uri))
        self.visitors.at(uri).come()
        port.come()
        waiting = port.come()
        self.service.leave(TunnelError("shutting-down", retryAfter=1))
        self.assertNotOpened("shutting-down")
        self.assertEqual(self.service.streams(), 1)
        self.assertEqual(waiting.refused, "")
        self.close(uri)
        self.assertEqual(self.service.streams(), 0)

    def test_leavingKnown(self) -> None:
        """It has left when visitors of its names are led elsewhere, and then all others
        know it, so that no visitor is on the way here any more."""
        led: Deferred[None] = Deferred()
        known: Deferred[None] = Deferred()
        told: list[object] = []

        class Kept(PortsKept):
            def leaves(self, record: TunnelRecord) -> Deferred[None]:
                return led

        class Others:
            name = "0"

            def heed(self, *what: object, patience: float) -> Deferred[None]:
                told.extend(what)
                return known

        self.open()
        (tunnel,) = self.service.here
        held = self.service.here.get(tunnel.id)
        assert held is not None
        held.record = replace(held.record, lease="a lease")
        self.service.kept, self.service.siblings = Kept(), cast(Siblings, Others())
        left = self.service.leave(TunnelError("shutting-down"))
        self.assertNoResult(left)
        self.assertEqual(told, [])
        led.callback(None)
        self.assertEqual(told, ["leaving", "0"])
        self.assertNoResult(left)
        known.callback(None)
        self.successResultOf(left)


class OwnerTests(ServiceTestCase):
    """What may be done to a tunnel depends on who opened it."""

    def test_somebodyElses(self) -> None:
        """Somebody else's tunnel cannot be closed and is not listed; the refusal is the
        same as for one that does not exist."""
        uri = self.open(ALICE)
        theirs = self.service.closeTunnel(BOB, uri)
        nobodys = self.service.closeTunnel(BOB, "tcp://server:9")
        self.assertEqual(
            self.assertRefused("unknown-tunnel", theirs),
            self.assertRefused("unknown-tunnel", nobodys),
        )
        self.assertEqual(self.list(BOB), [])
        self.assertEqual(len(self.list(ALICE)), 1)

    def test_address(self) -> None:
        """The address is told to whoever knows the URI, if that cannot be guessed."""
        uri = self.open(ALICE, via="w3p")
        self.assertEqual(self.address(uri, BOB), "tcp://server:8010")
        for uri in ("tcp://server:9", "tcp://server:8011", "", "\ud800"):
            self.assertRefused(
                "unknown-tunnel", self.service.getTunnelAddress(ALICE, uri)
            )

    def test_lookup(self) -> None:
        """Where the URI is no more than a port, only its owner hears the address, by
        whatever it is asked for, and whom the owner has named. To others there is no
        such tunnel."""
        carol = Caller(Identity("carol"), "server")
        for via in ("tcp", "tls"):
            for lookup, allowed in (
                ([], ()),
                ("bob", (BOB,)),
                (["carol", "bob"], (BOB, carol)),
                (["*"], (BOB, carol)),
                (["BOB", "bo", "b*", ""], ()),
            ):
                uri = self.open(ALICE, via=via, lookup=lookup)
                (tunnel,) = list(self.service.here)
                for name in (uri, tunnel.id, f"{uri}#x"):
                    self.assertTrue(self.address(name))
                    for caller in (BOB, carol):
                        if caller in allowed:
                            self.assertTrue(self.address(name, caller))
                            continue
                        told = self.service.getTunnelAddress(caller, name)
                        nobodys = self.service.getTunnelAddress(caller, "tcp://x:9")
                        self.assertEqual(
                            self.assertRefused("unknown-tunnel", told),
                            self.assertRefused("unknown-tunnel", nobodys),
                        )
                self.assertEqual(self.list(BOB), [])
                self.close(uri)

    def test_anonymous(self) -> None:
        """Where nobody is asked, everybody is the same; but a client with that name is
        somebody else."""
        nobody = Caller(ANONYMOUS_IDENTITY, "server", address="192.0.2.3")
        other = Caller(ANONYMOUS_IDENTITY, "server", address="192.0.2.4")
        named = Caller(Identity("anonymous"), "server")
        uri = self.open(nobody)
        self.assertEqual(self.list(named), [])
        self.assertRefused("unknown-tunnel", self.service.closeTunnel(named, uri))
        self.close(uri, other)
        self.assertNothingLeft()
        uri = self.open(named)
        self.assertRefused("unknown-tunnel", self.service.closeTunnel(nobody, uri))

    def test_list(self) -> None:
        """The list counts visitors and bytes, and shows no secret."""
        uri = self.open(via="w3p", name="shop")
        (entry,) = self.list()
        self.assertEqual(
            entry,
            {
                **entry,
                "uri": uri.partition("#")[0],
                "address": "tcp://server:8010",
                "name": "shop",
                "owner": "alice",
                "connected": False,
                "visitors": 0,
                "visitorsTotal": 0,
                "bytesIn": 0,
                "bytesOut": 0,
            },
        )
        self.assertNotIn(uri.partition("#")[2], repr(entry))

    def test_limitedTo(self) -> None:
        """Who came with a tunnel's URI only may ask for that tunnel's address, and do
        nothing else."""
        uri, other = self.open(via="w3p"), self.open(via="w3p")
        tunnel = self.successResultOf(self.service.find(uri))
        holder = Caller(Identity(f"tunnel-{tunnel.id}"), "server", limitedTo=tunnel)
        self.assertEqual(self.address(uri, holder), "tcp://server:8010")
        self.assertRefused(
            "unknown-tunnel", self.service.getTunnelAddress(holder, other)
        )
        self.assertNotOpened("not-permitted", holder)
        self.assertNotOpened("not-permitted", holder, via="w3p")
        self.assertEqual(self.list(holder), [])
        self.assertRefused("unknown-tunnel", self.service.closeTunnel(holder, uri))


class QuotaTests(ServiceTestCase):
    """How many tunnels a caller may have."""

    def test_perCaller(self) -> None:
        """One caller's tunnels are bounded, whatever happens to them."""
        self.makeService(quota=TunnelQuota(1))
        uri = self.open(ALICE)
        self.assertNotOpened("limit-reached", ALICE)
        self.open(BOB)
        self.close(uri)
        self.assertNotOpened("bad-option", ALICE, via="nonsense")
        self.assertNotOpened("port-not-permitted", ALICE, port=1)
        uri = self.open(ALICE, ttl=1)
        self.clock.advance(1)
        self.open(ALICE)

    def test_anonymous(self) -> None:
        """Those of whom nothing is known are told apart by their addresses."""
        self.makeService(quota=TunnelQuota(1))
        here = Caller(ANONYMOUS_IDENTITY, "server", address="192.0.2.3")
        there = Caller(ANONYMOUS_IDENTITY, "server", address="192.0.2.4")
        self.open(here)
        self.assertNotOpened("limit-reached", here)
        self.open(there)

    def test_total(self) -> None:
        """So are all tunnels together."""
        self.makeService(quota=TunnelQuota(0, 1))
        self.open(ALICE)
        self.assertNotOpened("limit-reached", BOB)


class LeftAloneTests(ServiceTestCase):
    """Callers that leave in the middle of a call."""

    def test_whileOpening(self) -> None:
        """A tunnel that nobody waits for any more is not opened."""
        self.book.late("change")
        opening = self.service.openTunnel(ALICE, {})
        self.book.answer()
        self.assertEqual(sorted(self.visitors.open_), [8010])
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertNothingLeft()

    def test_whileClosing(self) -> None:
        """A tunnel that began to close is closed to the end."""
        uri = self.open()
        slow = self.visitors.slow = []
        closing = self.service.closeTunnel(ALICE, uri)
        self.assertNoResult(closing)
        closing.cancel()
        self.failureResultOf(closing, CancelledError)
        self.assertNothingLeft()
        for each in slow:
            each.callback(None)
        self.assertEqual(len(slow), 2)
        self.assertEqual(self.notes.named("tunnelDestroyed")[0][1], "closed")

    def test_finishedMeanwhile(self) -> None:
        """The last visitor of a tunnel that is to finish may leave while its port is
        being closed, which is done once."""
        uri = self.open(ALICE, visitors=5)
        client = self.visitors.at(uri).come()
        visitor = self.visitors.at(self.address(uri)).come()
        port = self.visitors.at(self.address(uri))
        slow = self.visitors.slow = []
        closing = self.service.closeTunnel(ALICE, uri, True)
        with patch.object(port, "close", self.fail):
            for end in (client, visitor):
                end.leave(None)
            for each in slow:
                each.callback(None)
            self.successResultOf(closing)
        self.assertEqual(len(slow), 2)
        self.assertNothingLeft()

    def test_closedTwice(self) -> None:
        """Two who close the same tunnel do not get into each other's way."""
        uri = self.open()
        self.visitors.slow = []
        first = self.service.closeTunnel(ALICE, uri)
        self.assertRefused("unknown-tunnel", self.service.closeTunnel(ALICE, uri))
        for each in self.visitors.slow:
            each.callback(None)
        self.successResultOf(first)


class NameTests(ServiceTestCase):
    """URIs and addresses are made of what the server knows."""

    @given(
        st.one_of(
            st.text(max_size=80),
            st.from_regex(r"[a-z.]{1,9}(:[0-9]{1,5})?[/#?@%\\][a-f0-9]{0,16}[#?]?"),
            st.ip_addresses().map(str),
        )
    )
    def test_host(self, host: str) -> None:
        """Whatever a caller calls the server, its tunnel's URI is one place, and
        another tunnel's is another."""
        self.makeService()
        victim = self.open(Caller(Identity("bob"), "server"), via="w3p", private=True)
        where = Caller(Identity("alice"), host)
        uri = self.open(where, via="w3p", private=True)
        parts = urlsplit(uri)
        tunnel = self.successResultOf(self.service.find(uri))
        self.assertEqual((parts.path, parts.query), (f"/{tunnel.id}", ""))
        self.assertEqual((parts.port, parts.username), (9000, None))
        self.assertRegex(parts.netloc, r"\A(\[[0-9a-f:.]+\]|[a-z0-9._-]+):9000\Z")
        self.assertEqual(parts.hostname, where.host)
        other = self.successResultOf(self.service.find(victim))
        self.assertEqual(other.owner.name, "bob")

    def test_secondEntry(self) -> None:
        """A tunnel under another one's URI, id or name is refused, and takes nothing of
        it along when it goes."""
        uri = self.open(name="shop")
        first = self.successResultOf(self.service.find(uri))
        for change in ({"uri": uri}, {"id": first.id}, {"name": "shop"}):
            second = Tunnel(
                **{
                    "id": "other",
                    "owner": Identity("bob"),
                    "clientSide": None,
                    "observer": self.notes,
                    "seconds": self.clock.seconds,
                    "uri": "tcp://server:1",
                    "name": "other",
                    **change,
                }
            )
            here = Here()
            there = BookEntries(
                self.clock, self.book.ofMember("there"), here, TunnelQuota()
            )

            async def enter(tunnel: Tunnel, entries: BookEntries = there) -> None:
                await entries.announce(await entries.open(tunnel))

            self.failureResultOf(enter(second), TunnelError)
            self.successResultOf(there.forget(second.id))
            for place in (uri, first.id):
                self.assertIs(self.successResultOf(self.service.find(place)), first)
            named = self.successResultOf(self.service.findNamed(ALICE, "shop"))
            self.assertIs(named, first)
