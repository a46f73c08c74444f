"""
Tests for L{tristunnel.service.capability}, with whole clients and a server in memory.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher

from tests.dialects.framed.network import MemoryService, RawPeer, ServiceNetworkTestCase
from tests.support.notes import ClientNotes
from tristunnel.client.log import LoggingClientObserver
from tristunnel.connect.address import ServerAddress
from tristunnel.dialects.base.refusals import STEADY
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward
from tristunnel.model.permissions import Identity
from tristunnel.server.log import LoggingServerObserver
from tristunnel.service.caller import Caller
from tristunnel.service.capability import UNCLAIMED
from tristunnel.tls.client_context import ServerVerification

PLANE = Caller(Identity("control-plane"), "server.example", 9000)


class CapabilityTests(ServiceNetworkTestCase):
    """A control plane opens tunnels on a server that asks everybody who they are, and
    clients without credentials fill them."""

    def setUp(self) -> None:
        super().setUp()
        self.makeServer(lambda fields: False)
        self.service.clientPort = (9000, self.tls)
        self.web = MemoryService(b"hello")
        self.gaveUp: list[TunnelError] = []

    def open(self, **options: object) -> str:
        call = self.service.openTunnel(PLANE, {"via": "w3p", **options})
        return self.successResultOf(call)

    @staticmethod
    def claimOf(uri: str) -> dict[str, object]:
        public, _, secret = uri.partition("#")
        return {"id": public.rpartition("/")[2], "secret": secret}

    def client(
        self,
        uri: str,
        observer: Any = None,
        retry: float = 3.0,
        isVerified: bool = False,
    ) -> TunnelClientService:
        client = TunnelClientService(
            self.clock,
            ServerAddress(
                "tcp:server.example:9000",
                "server.example",
                self.endpoint(),
                capability=self.claimOf(uri),
                verification=ServerVerification("s") if isVerified else None,
            ),
            [Forward("0=web", 0, "", "web", self.web)],
            observer=observer or self.seen,
            gaveUp=self.gaveUp.append,
            delay=lambda failures, hint: 60.0 if failures == STEADY else retry,
        )
        client.startService()
        self.settle()
        return client

    def peer(self, uri: str, **claim: object) -> RawPeer:
        offer = {"versions": [1], "streamWindow": 1 << 18, "sessionWindow": 1 << 20}
        asked = {**self.claimOf(uri), **claim}
        return self.dial({"tristunnel": {**offer, "tunnel": asked}})

    def assertTurnedAway(self, peer: RawPeer) -> None:
        self.assertEqual(
            peer.handshake["tristunnel"]["refused"]["code"], "auth-refused"
        )
        self.assertIsNotNone(peer.lost)

    def test_served(self) -> None:
        """The URI is all that a client needs; visitors reach its service."""
        uri = self.open()
        listener = self.listeners.only()
        early = listener.visit()
        self.assertEqual(early.broken and early.broken.code.name, "client-away")
        self.client(uri)
        self.assertEqual(
            self.seen.named("tunnelReady"),
            [(f"tcp://server.example:{listener.address[2]}", "web")],
        )
        visitor = listener.visit()
        self.settle()
        self.assertEqual(visitor.taken, b"hello")
        visitor.say(b"request")
        self.settle()
        self.assertEqual(self.web.visits[0].data, b"request")

    def test_wrongSecret(self) -> None:
        """A client with a wrong secret is refused, gives up and does not try again."""
        self.client(self.open()[:-1] + "!")
        self.assertEqual(self.seen.events[-1], ("gaveUp", "auth-refused"))
        self.assertEqual(len(self.gaveUp), 1)
        self.advance(200, 20)
        self.assertEqual(len(self.seen.named("connected")), 1)

    def test_wrongClaims(self) -> None:
        """Neither does anything else open a tunnel: another's secret, a tunnel without
        a secret, no text at all."""
        uri, other = self.open(), self.open()
        session = Caller(Identity("laptop"), "server.example", 9000, clientSide=_NOBODY)
        plain = self.successResultOf(self.service.openTunnel(session, {}))
        for claim in (
            {"secret": self.claimOf(other)["secret"]},
            {"secret": ""},
            {"secret": None},
            {"secret": "\ud800"},
            {"secret": [1]},
            {"id": "0" * 16},
            {"id": None},
            {"id": {"x": 1}},
            {"id": plain.rpartition("/")[2]},
            {"id": plain.rpartition("/")[2], "secret": ""},
        ):
            self.assertTurnedAway(self.peer(uri, **claim))
        self.assertNotIn("refused", self.peer(uri).handshake["tristunnel"])

    def test_displaced(self) -> None:
        """A second client with the same URI takes the first one's place; the first one
        does not fight for it."""
        uri = self.open()
        first, second = ClientNotes(), ClientNotes()
        self.client(uri, first, isVerified=True)
        self.client(uri, second)
        self.assertEqual(first.events[-1], ("gaveUp", "displaced"))
        self.advance(200, 20)
        self.assertEqual(len(first.named("connected")), 1)
        self.assertEqual(second.named("gaveUp"), [])
        visitor = self.listeners.only().visit()
        self.settle()
        self.assertEqual(visitor.taken, b"hello")

    def test_displacedUnverified(self) -> None:
        """Over plain TCP anybody on the way can say so: the first client says what it
        heard, and comes again, but seldom."""
        uri = self.open()
        first = ClientNotes()
        self.client(uri, first)
        second = self.client(uri)
        code, message = first.named("disconnected")[-1]
        self.assertEqual(code, "displaced")
        self.assertRegex(
            message, "another client now serves this tunnel.*longest interval"
        )
        self.advance(50, 10)
        self.assertEqual(len(first.named("connected")), 1)
        second.stopService()
        self.settle()
        self.advance(20, 10)
        self.assertEqual(len(first.named("connected")), 2)
        self.assertEqual(self.gaveUp, [])

    def test_comesBack(self) -> None:
        """A client whose connection breaks comes back to its tunnel."""
        self.client(self.open())
        self.wires[-1].cut()
        lonely = self.listeners.only().visit()
        self.assertEqual(lonely.broken and lonely.broken.code.name, "client-away")
        self.advance(4)
        visitor = self.listeners.only().visit()
        self.settle()
        self.assertEqual(visitor.taken, b"hello")

    def test_closed(self) -> None:
        """When the tunnel is closed, its client learns that. It gives up where nobody
        else can have said so."""
        uri = self.open()
        client = self.client(uri)
        if self.tls:
            creator = ServerVerification("server.example")
            client._server = replace(client._server, verification=creator)
        self.successResultOf(self.service.closeTunnel(PLANE, uri))
        self.settle()
        self.assertEqual(self.seen.named("tunnelFailed")[0][1], "closed")
        self.advance(10)
        self.assertEqual(
            [reason.code.name for reason in self.gaveUp],
            ["auth-refused"] if self.tls else [],
        )
        self.assertEqual(self.seen.named("disconnected")[-1][0], "auth-refused")

    def test_visitors(self) -> None:
        """It can be for a number of visitors."""
        self.client(self.open(visitors=2))
        listener = self.listeners.only()
        visitors = [listener.visit() for _ in range(3)]
        self.settle()
        self.assertEqual([v.taken for v in visitors], [b"hello", b"hello", b""])
        self.assertFalse(listener.closed)
        for visitor, service in zip(visitors, self.web.visits, strict=False):
            visitor.end()
            service.transport.loseConnection()
        self.settle()
        self.assertTrue(listener.closed)

    def test_limits(self) -> None:
        """It is good for its own tunnel: another cannot be opened, asked for, closed or
        seen through it."""
        uri, other = self.open(), self.open()
        client = self.client(uri)
        session = client.session
        assert session is not None
        for code, call in (
            ("not-permitted", session.call("openTunnel")),
            ("not-permitted", session.call("openTunnel", via="w3p")),
            ("unknown-tunnel", session.call("getTunnelAddress", uri=other)),
            ("unknown-tunnel", session.call("closeTunnel", uri=other)),
        ):
            self.settle()
            error = self.failureResultOf(call, TunnelError).value
            self.assertEqual(error.code.name, code)
        listing: Deferred[object] = session.call("listTunnels")
        self.settle()
        self.assertEqual(self.successResultOf(listing), [])

    def test_unclaimed(self) -> None:
        """Nobody's client for a long time ends it; a client keeps it."""
        kept, lost = self.open(), self.open()
        self.client(kept)
        self.advance(UNCLAIMED, 20)
        self.assertEqual(
            [event[1] for event in self.notes.named("tunnelDestroyed")], ["expired"]
        )
        self.assertTurnedAway(self.peer(lost))
        self.assertEqual(len(self.listeners.open_), 1)

    def test_ttl(self) -> None:
        """The time that the control plane gave it holds instead."""
        self.open(ttl=3 * UNCLAIMED)
        self.clock.advance(2 * UNCLAIMED)
        self.assertEqual(len(self.listeners.open_), 1)
        self.clock.advance(UNCLAIMED)
        self.assertEqual(self.listeners.open_, {})

    def test_secretStaysSecret(self) -> None:
        """In nobody's log is the secret, nor does the server send it."""
        events: list[Any] = []
        note = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        self.service.observer = LoggingServerObserver(self.clock.seconds)
        uri = self.open(name="shop")
        secret = str(self.claimOf(uri)["secret"])
        self.client(uri, LoggingClientObserver())
        self.peer(uri, secret="wrong")
        peer = self.peer(uri)
        self.listeners.only().visit()
        self.settle()
        self.successResultOf(self.service.closeTunnel(PLANE, uri))
        self.settle()
        lines = [formatEvent(event) for event in events]
        self.assertTrue(
            any("shop" in line or "server.example" in line for line in lines)
        )
        self.assertFalse([line for line in lines if secret in line])
        self.assertFalse([e for e in events if secret in repr(e)])
        self.assertNotIn(secret.encode(), repr(peer.frames()).encode())


class CapabilityTLSTests(CapabilityTests):
    """The same over TLS."""

    tls = True


class _Nobody:
    """A session that serves nobody."""

    def serve(self, stream: Any) -> None:
        pass

    def tunnelClosed(self, tunnel: Any, reason: TunnelError) -> None:
        pass


_NOBODY = _Nobody()
