"""Tests for L{tristunnel.service.access}: access to named services, for a while."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.auth.token_server import TokenServerTestCase
from tests.dialects.framed.network import CLIENT, RawPeer
from tests.dialects.framed.server_rig import OFFER
from tests.support.notes import ClientNotes
from tristunnel.connect.address import ServerAddress
from tristunnel.dialects.base.refusals import STEADY
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.extra_connections import MOST_EXTRA_CONNECTIONS
from tristunnel.errors import TunnelError
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.permissions import Grant, Identity, Permissions
from tristunnel.model.record import Change
from tristunnel.service.access import (
    PER_OWNER,
    Access,
    AccessGrants,
    isCapability,
    mayReach,
)
from tristunnel.tls.client_context import ServerVerification
from tristunnel.wire.framed import (
    Frame,
    FrameType,
    decodeObject,
    encodeCredit,
    encodeObject,
)


class AccessTestCase(TokenServerTestCase):
    """A server where C{alice} offers the private service C{db}."""

    def setUp(self) -> None:
        super().setUp()
        self.makeToken("alice")
        self.makeToken("bob")
        self.alice = self.client("alice")
        self.ask(self.alice, "openTunnel", name="db", private=True)

    def grant(self, ttl: float = 60, **options: object) -> str:
        uri = self.rpc("alice", "grantAccess", service="db", ttl=ttl, **options)
        self.assertRegex(uri, r"^w3p://server:9000/access/[0-9a-f]{16}#[\w-]{32}$")
        return str(uri)

    def use(self, uri: str, token: str = "") -> RawPeer:
        identifier, _, secret = uri.rpartition("/")[2].partition("#")
        offer = {**OFFER, "access": {"id": identifier, "secret": secret}}
        hello: dict[str, object] = {"tristunnel": offer}
        if token:
            hello["token"] = self.tokens[token]
        return self.dial(hello)

    def reach(self, peer: RawPeer, service: str = "db", number: int = 1) -> str:
        peer.frames()
        info = encodeCredit(1 << 16) + encodeObject({"service": service})
        peer.say(Frame(number, FrameType.OPEN, info))
        self.settle()
        for frame in peer.frames():
            if frame.stream == number and frame.kind == FrameType.OPENED:
                return "opened"
            if frame.stream == number and frame.kind in (
                FrameType.REFUSED,
                FrameType.ERROR,
            ):
                return str(decodeObject(frame.payload)["code"])
        return "nothing"

    def goodbye(self, peer: RawPeer) -> str:
        self.assertIsNotNone(peer.lost)
        for frame in peer.frames():
            if frame.kind == FrameType.GOAWAY:
                return str(decodeObject(frame.payload)["code"])
        return "nothing"


class CapabilityTests(AccessTestCase):
    """The URI, and what it is good for."""

    def test_used(self) -> None:
        """It reaches the service, as often as one likes, without a login."""
        uri = self.grant()
        for _ in range(2):
            peer = self.use(uri)
            self.assertIsNone(peer.lost)
            self.assertEqual(self.reach(peer), "opened")
            self.assertEqual(self.reach(peer, number=3), "opened")
        visitors = [
            entry
            for entry in self.rpc("alice", "listSessions")
            if entry["kind"] == "visitor"
        ]
        self.assertEqual(len(visitors), 4)

    def test_nothingElse(self) -> None:
        """It opens no tunnels, reaches no other service, sees and ends nothing, and
        grants nothing."""
        self.ask(self.alice, "openTunnel", name="ssh", private=True)
        self.ask(self.alice, "openTunnel", name="web")
        peer = self.use(self.grant())
        self.assertEqual(self.ask(peer, "openTunnel"), "not-permitted")
        for service in ("ssh", "web", "nothing", ""):
            self.assertEqual(self.reach(peer, service), "unknown-tunnel")
        self.assertEqual(self.ask(peer, "listTunnels"), [])
        kinds = [entry["kind"] for entry in self.ask(peer, "listSessions")]
        self.assertEqual(kinds, ["client"])
        self.assertEqual(self.ask(peer, "grantAccess", service="db"), "unknown-tunnel")

    def test_endsMidStream(self) -> None:
        """When the time is over, streams break and the session ends; afterwards the URI
        is worth nothing."""
        uri = self.grant(40)
        peer = self.use(uri)
        self.assertEqual(self.reach(peer), "opened")
        (stream,) = [
            frame.stream
            for frame in self.alice.frames()
            if frame.kind == FrameType.OPEN
        ]
        self.alice.say(Frame(stream, FrameType.OPENED, encodeCredit(1 << 16)))
        peer.say(Frame(1, FrameType.DATA, b"hello"))
        self.settle()
        self.clock.pump([10.0] * 3 + [9.9])
        self.settle()
        self.assertIsNone(peer.lost)
        self.clock.advance(0.2)
        self.settle()
        self.assertEqual(self.goodbye(peer), "expired")
        broken = [f for f in self.alice.frames() if f.kind == FrameType.ERROR]
        self.assertEqual([frame.stream for frame in broken], [stream])
        self.assertEqual(decodeObject(broken[0].payload)["code"], "expired")
        self.assertIsNone(self.alice.lost)
        self.assertEqual(self.refusal(self.use(uri)), "auth-refused")

    def test_twice(self) -> None:
        """One for a single use is refused the second time, also while the first session
        is still there."""
        uri = self.grant(uses=1)
        first = self.use(uri)
        self.assertEqual(self.refusal(self.use(uri)), "auth-refused")
        self.assertEqual(self.reach(first), "opened")

    def test_fromElsewhere(self) -> None:
        """One for an address or a network is good from there and nowhere else, and a
        use from elsewhere uses nothing up."""
        uri = self.grant(address="192.0.2.0/24", uses=1)
        self.assertEqual(self.refusal(self.use(uri)), "auth-refused")
        (access,) = self.rpc("alice", "listAccess")
        self.assertEqual((access["address"], access["usesLeft"]), ("192.0.2.0/24", 1))
        for here in ("203.0.113.5", "::ffff:203.0.113.5", "::ffff:203.0.113.0/120"):
            self.assertIsNone(self.use(self.grant(address=here)).lost)

    def test_token(self) -> None:
        """One for a token is good with that token only, and no longer than it."""
        uri = self.grant(token="bob")
        self.assertEqual(self.refusal(self.use(uri)), "auth-refused")
        self.assertEqual(self.refusal(self.use(uri, "alice")), "auth-refused")
        peer = self.use(uri, "bob")
        self.assertEqual(self.reach(peer), "opened")
        self.revoke("bob")
        self.clock.advance(1)
        self.settle()
        self.assertEqual(self.goodbye(peer), "token-revoked")
        self.assertEqual(self.refusal(self.use(uri, "bob")), "token-revoked")

    def test_ownersTokenRevoked(self) -> None:
        """What an owner granted ends with the owner's token."""
        uri = self.grant()
        peer = self.use(uri)
        self.revoke("alice")
        self.clock.advance(1)
        self.settle()
        self.assertEqual(self.goodbye(peer), "token-revoked")
        self.assertEqual(self.refusal(self.use(uri)), "auth-refused")
        self.assertEqual(len(self.service.access), 0)

    def test_wrong(self) -> None:
        """Wrong secrets and values of any type are refused alike."""
        uri = self.grant()
        identifier = uri.rpartition("/")[2].partition("#")[0]
        secret = uri.rpartition("#")[2]
        for claim in (
            {},
            {"id": identifier},
            {"id": identifier, "secret": secret[:-1]},
            {"id": identifier, "secret": "\ud800"},
            {"id": "x", "secret": secret},
            {"id": 5, "secret": []},
        ):
            peer = self.dial({"tristunnel": {**OFFER, "access": claim}})
            self.assertEqual(self.refusal(peer), "auth-refused")

    def test_revoked(self) -> None:
        """The owner takes it back; others cannot."""
        uri = self.grant()
        peer = self.use(uri)
        (access,) = self.rpc("alice", "listAccess")
        self.assertEqual(self.rpc("bob", "listAccess"), [])
        self.assertEqual(len(self.rpc("admin", "listAccess")), 1)
        self.assertEqual(
            self.rpc("bob", "revokeAccess", id=access["id"]), "unknown-session"
        )
        self.assertIsNone(self.rpc("alice", "revokeAccess", id=access["id"]))
        self.settle()
        self.assertEqual(self.goodbye(peer), "expired")
        self.assertEqual(self.rpc("alice", "listAccess"), [])
        self.assertEqual(self.refusal(self.use(uri)), "auth-refused")

    def test_listed(self) -> None:
        """The owner of the service sees the sessions on it, with the time that is left,
        and ends them."""
        peer = self.use(self.grant(60))
        self.clock.advance(10)
        (client,) = [
            entry
            for entry in self.rpc("alice", "listSessions")
            if entry["kind"] == "client" and entry["owner"] != "alice"
        ]
        self.assertEqual(client["timeLeft"], 50.0)
        self.assertEqual(
            self.rpc("bob", "closeSession", id=client["id"]), "unknown-session"
        )
        self.assertIsNone(self.rpc("alice", "closeSession", id=client["id"]))
        self.settle()
        self.assertEqual(self.goodbye(peer), "closed")


class GrantingTests(AccessTestCase):
    """C{grantAccess}."""

    def test_ownersOnly(self) -> None:
        """Others cannot grant it, an admin can, and then it is for that service."""
        for service in ("db", "nothing"):
            self.assertEqual(
                self.rpc("bob", "grantAccess", service=service), "unknown-tunnel"
            )
        uri = self.rpc("admin", "grantAccess", service="db")
        self.assertEqual(self.reach(self.use(uri)), "opened")

    def test_otherOwner(self) -> None:
        """A service of the same name that is somebody else's is not what was
        granted."""
        peer = self.use(self.grant())
        self.ask(
            self.alice, "closeTunnel", uri=self.rpc("alice", "listTunnels")[0]["uri"]
        )
        self.ask(self.client("bob"), "openTunnel", name="db", private=True)
        self.assertEqual(self.reach(peer), "unknown-tunnel")

    def test_comesBack(self) -> None:
        """The owner may offer the service anew meanwhile."""
        peer = self.use(self.grant())
        uri = self.rpc("alice", "listTunnels")[0]["uri"]
        self.ask(self.alice, "closeTunnel", uri=uri)
        self.assertEqual(self.reach(peer), "unknown-tunnel")
        self.ask(self.alice, "openTunnel", name="db", private=True)
        self.assertEqual(self.reach(peer, number=3), "opened")

    def test_badOptions(self) -> None:
        """Wrong values are refused."""
        options: list[dict[str, Any]] = [
            {"ttl": 0},
            {"ttl": -5},
            {"ttl": 1e11},
            {"ttl": 10**400},
            {"ttl": "1h"},
            {"ttl": True},
            {"address": "server"},
            {"address": 5},
            {"uses": -1},
            {"uses": 1.5},
            {"token": None},
        ]
        for each in options:
            self.assertEqual(
                self.rpc("alice", "grantAccess", service="db", **each), "bad-option"
            )
        self.assertEqual(self.rpc("alice", "grantAccess", service=5), "bad-option")
        self.service.clientPort = (0, False)
        self.assertEqual(self.rpc("alice", "grantAccess", service="db"), "bad-option")

    def test_secure(self) -> None:
        """The URI says whether the port speaks TLS."""
        self.service.clientPort = (9000, True)
        uri = self.rpc("alice", "grantAccess", service="db")
        self.assertTrue(uri.startswith("w3ps://server:9000/access/"))


class TokenAccessTests(AccessTestCase):
    """Named services, reached with a token."""

    def test_own(self) -> None:
        """One's own services are reached from another session of the same token; those
        of others are not."""
        self.assertEqual(self.reach(self.client("alice")), "opened")
        self.assertEqual(self.reach(self.client("bob")), "unknown-tunnel")
        self.assertEqual(self.reach(self.client("admin")), "opened")

    def test_right(self) -> None:
        """With the right, others' services of the given names are reached, until the
        file says something else."""
        self.makeToken("all", may=frozenset({"access"}))
        self.makeToken("some", may=frozenset({"access"}), services=("d*",))
        self.makeToken("none", may=frozenset({"access"}), services=("ssh",))
        self.assertEqual(self.reach(self.client("all")), "opened")
        some = self.client("some")
        self.assertEqual(self.reach(some), "opened")
        self.assertEqual(self.reach(self.client("none")), "unknown-tunnel")
        self.rewrite('"d*"', '"e*"')
        self.assertEqual(self.reach(some, number=3), "unknown-tunnel")

    def test_endsWithToken(self) -> None:
        """Streams of a token end with it at the other end, too."""
        self.makeToken("all", may=frozenset({"access"}))
        peer = self.client("all")
        self.assertEqual(self.reach(peer), "opened")
        self.alice.frames()
        self.revoke("all")
        self.clock.advance(1)
        self.settle()
        self.assertEqual(self.goodbye(peer), "token-revoked")
        self.assertIn(FrameType.ERROR, [frame.kind for frame in self.alice.frames()])


class ExtraConnectionMixin(AccessTestCase):
    """Has streams opened on an extra connection of each session instead."""

    def setUp(self) -> None:
        super().setUp()
        self.extra: dict[RawPeer, RawPeer] = {}

    def connectExtra(self, peer: RawPeer) -> RawPeer:
        (ticket,) = self.ask(peer, "laneTickets", count=1)
        return self.dial({"tristunnel": {**OFFER, "ticket": ticket}})

    def reach(self, peer: RawPeer, service: str = "db", number: int = 1) -> str:
        if peer not in self.extra:
            self.extra[peer] = self.connectExtra(peer)
        return super().reach(self.extra[peer], service, number)

    def goodbye(self, peer: RawPeer) -> str:
        code = super().goodbye(peer)
        if peer in self.extra:
            self.assertEqual(super().goodbye(self.extra[peer]), code)
        return code


class ExtraConnectionCapabilityTests(ExtraConnectionMixin, CapabilityTests):
    """An extra connection is good for what its session is, and for no more."""


class ExtraConnectionTokenTests(ExtraConnectionMixin, TokenAccessTests):
    """The same for tokens."""

    def test_closed(self) -> None:
        """Whoever ends a session ends its extra connections, and voids its tickets."""
        self.makeToken("all", may=frozenset({"access"}))
        peer = self.client("all")
        self.assertEqual(self.reach(peer), "opened")
        (ticket,) = self.ask(peer, "laneTickets", count=1)
        (session,) = [
            e for e in self.rpc("admin", "listSessions") if e["owner"] == "all"
        ]
        self.rpc("admin", "closeSession", id=session["id"])
        self.settle()
        self.assertEqual(self.goodbye(peer), "closed")
        self.assertEqual(len(self.service.tickets), 0)
        late = self.dial({"tristunnel": {**OFFER, "ticket": ticket}})
        self.assertEqual(self.refusal(late), "expired")

    def test_kicked(self) -> None:
        """A visitor is sent away from an extra connection as from a session."""
        self.makeToken("all", may=frozenset({"access"}))
        peer = self.client("all")
        self.assertEqual(self.reach(peer), "opened")
        (visitor,) = [
            e for e in self.rpc("alice", "listSessions") if e["kind"] == "visitor"
        ]
        self.rpc("alice", "kick", visitor=visitor["id"])
        self.settle()
        (broken,) = [f for f in self.extra[peer].frames() if f.kind == FrameType.ERROR]
        self.assertEqual(decodeObject(broken.payload)["code"], "closed")

    def test_tunnelsURI(self) -> None:
        """Nor does an extra connection do more for whoever has a tunnel's URI only."""
        self.ask(self.alice, "openTunnel", name="web")
        uri = self.ask(self.alice, "openTunnel", via="w3p", private=True)
        identifier, _, secret = uri.rpartition("/")[2].partition("#")
        claim = {"id": identifier, "secret": secret}
        holder = self.dial({"tristunnel": {**OFFER, "tunnel": claim}})
        self.assertEqual(self.reach(holder, "web"), "unknown-tunnel")
        self.ask(self.alice, "closeTunnel", uri=uri)

    def test_clientOfOver(self) -> None:
        """A client whose access is over ends if its server has said so, by verified
        TLS. Anybody on the way can say it else: it comes again, but seldom."""
        for isVerified in (True, False):
            uri = self.grant(ttl=30)
            identifier, _, secret = uri.rpartition("/")[2].partition("#")
            notes, gaveUp = ClientNotes(), list[TunnelError]()
            client = TunnelClientService(
                self.clock,
                ServerAddress(
                    "tcp:server:9000",
                    "server",
                    self.endpoint(),
                    access={"id": identifier, "secret": secret},
                    verification=ServerVerification("server") if isVerified else None,
                ),
                [],
                observer=notes,
                gaveUp=gaveUp.append,
                delay=lambda failures, hint: 3600.0 + failures,
            )
            client.startService()
            self.settle()
            self.advance(31)
            code, message = notes.named("disconnected")[-1]
            self.assertEqual(code, "expired")
            self.assertEqual("longest interval" in message, not isVerified)
            waits = [] if isVerified else [(3600.0 + STEADY,)]
            self.assertEqual(notes.named("reconnectQueued"), waits)
            self.assertEqual(len(gaveUp), int(isVerified))
            client.stopService()
            self.settle()

    def test_fromElsewhere(self) -> None:
        """A ticket takes nobody in from where its session may not come from."""
        uri = self.grant(address=CLIENT.host)
        peer = self.use(uri)
        (ticket,) = self.ask(peer, "laneTickets", count=1)
        elsewhere = IPv4Address("TCP", "192.0.2.9", 4000)
        with patch("tests.dialects.framed.network.CLIENT", elsewhere):
            extra = self.dial({"tristunnel": {**OFFER, "ticket": ticket}})
        self.assertEqual(self.refusal(extra), "expired")
        self.assertEqual(self.reach(peer), "opened")

    def test_bounded(self) -> None:
        """However often a client asks, it has so many tickets out and no more."""
        for _ in range(20):
            tickets = self.ask(self.alice, "laneTickets", count=MOST_EXTRA_CONNECTIONS)
            self.assertEqual(len(self.service.tickets), MOST_EXTRA_CONNECTIONS)
        for ticket in tickets:
            extra = self.dial({"tristunnel": {**OFFER, "ticket": ticket}})
            self.assertIsNone(extra.lost)
        self.assertEqual(self.ask(self.alice, "laneTickets", count=1), [])


class AccessGrantsTests(SynchronousTestCase):
    """L{AccessGrants} by itself."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.book = MemoryBook(self.clock)
        self.book.now = self.clock.seconds
        self.access = self.grants(self.book)
        self.owner = Identity("alice")

    def grants(self, book: MemoryBook) -> AccessGrants:
        made = AccessGrants(self.clock, book)

        def changed(change: Change) -> None:
            if change.kind == "access":
                made.changed(change.id)

        book.watch(changed)
        return made

    def issue(self, *asked: Any, **more: Any) -> tuple[Access, str]:
        return self.successResultOf(self.access.issue(*asked, **more))

    def claim(self, secret: str, identifier: str, peer: Any) -> str:
        async def nobody() -> Identity:
            raise TunnelError("auth-refused")

        claim = {"id": identifier, "secret": secret}
        result = Deferred.fromCoroutine(self.access.claim(claim, peer, nobody))
        result.addCallbacks(
            lambda identity: identity.name, lambda failure: failure.value.code.name
        )
        return str(self.successResultOf(result))

    def test_addresses(self) -> None:
        """IPv4 in IPv6 is IPv4; what has no address is from nowhere."""
        access, secret = self.issue(self.owner, "db", 60, "192.0.2.7")
        good = f"access-{access.id}"
        for peer, name in (
            (IPv4Address("TCP", "192.0.2.7", 1), good),
            (IPv6Address("TCP", "::ffff:192.0.2.7", 1), good),
            (IPv4Address("TCP", "192.0.2.8", 1), "auth-refused"),
            (IPv6Address("TCP", "fe80::1%eth0", 1), "auth-refused"),
            (UNIXAddress("/run/x"), "auth-refused"),
            (None, "auth-refused"),
        ):
            self.assertEqual(self.claim(secret, access.id, peer), name)

    def test_over(self) -> None:
        """Nothing is left of what is over."""
        access, secret = self.issue(self.owner, "db", 60)
        self.assertEqual(self.access.timeLeft(access), 60.0)
        self.clock.advance(60)
        self.assertEqual(len(self.access), 0)
        self.assertIsNone(self.access.timeLeft(access))
        self.issue(self.owner, "db", 60)
        self.access.close()
        self.assertEqual(len(self.access), 0)
        self.successResultOf(self.book.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNotIn(secret, repr(access))

    def test_perOwner(self) -> None:
        """One owner cannot use up what there is for all; what is over does not count,
        however it came to an end."""
        for countedAs in ("", "address 192.0.2.1"):
            for number in range(PER_OWNER):
                access, _ = self.issue(
                    self.owner, "db", 60 + number % 2, countedAs=countedAs
                )
            again = self.access.issue(self.owner, "db", 60, countedAs=countedAs)
            refusal = self.failureResultOf(again, TunnelError).value
            self.assertEqual(refusal.code.name, "limit-reached")
            self.access.revoke(access)
            self.issue(self.owner, "db", 61, countedAs=countedAs)
        self.issue(Identity("bob"), "db", 60)
        self.clock.advance(60)
        for _ in range(PER_OWNER // 2):
            self.issue(self.owner, "db", 60)
        self.failureResultOf(self.access.issue(self.owner, "db", 60), TunnelError)

    def test_elsewhere(self) -> None:
        """
        Access that one process granted is good at all of them, is used up at all of
        them together, and ends everywhere when it is taken back anywhere, also by the
        end of what let its owner grant it.
        """
        there = self.grants(self.book.ofMember("there"))
        here = self.access
        peer = IPv4Address("TCP", "192.0.2.7", 1)
        once, secret = self.issue(self.owner, "db", 60, uses=2)
        for self.access in (there, here):
            self.assertEqual(self.claim(secret, once.id, peer), f"access-{once.id}")
        for self.access in (there, here):
            self.assertEqual(self.claim(secret, once.id, peer), "auth-refused")
            (known,) = self.access.of(self.owner)
            self.assertEqual(known.usesLeft, 0)
        grant = Grant(Permissions())
        for end in (
            lambda: there.revoke(there.of(Identity("bob"))[0]),
            lambda: here.revoke(here.of(Identity("bob"))[0]),
            lambda: grant.end(TunnelError("token-revoked")),
        ):
            self.access = here
            owner = Identity("bob", grant=grant)
            access, secret = self.issue(owner, "db", 60)
            for self.access in (there, here):
                name = self.claim(secret, access.id, peer)
                self.assertEqual(name, f"access-{access.id}")
            end()
            for self.access in (there, here):
                self.assertEqual(self.claim(secret, access.id, peer), "auth-refused")
                self.assertEqual(len(self.access), 1)
        self.clock.advance(60)
        self.assertEqual((len(here), len(there)), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """What one process granted outlives it."""
        there = self.grants(self.book.ofMember("there"))
        self.issue(self.owner, "db", 60)
        self.access.close()
        self.assertEqual((len(self.access), len(there)), (0, 1))

    def test_mayReach(self) -> None:
        """The owner may; who has a grant may; a capability is told from a token."""
        self.assertTrue(mayReach(self.owner, "db", Identity("alice")))
        self.assertFalse(mayReach(Identity("bob"), "db", self.owner))
        reader = Grant(Permissions(may=frozenset({"access"})))
        bob = Identity("bob", grant=reader)
        self.assertTrue(mayReach(bob, "db", self.owner))
        self.assertFalse(isCapability(bob))
        one = Grant(Permissions(may=frozenset({"access"}), servicesOf="carol"))
        dave = Identity("dave", grant=one)
        self.assertFalse(mayReach(dave, "db", self.owner))
        self.assertTrue(isCapability(dave))
