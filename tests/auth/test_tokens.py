"""
Tests for L{tristunnel.auth.tokens}, L{tristunnel.model.permissions} and
L{tristunnel.service.rights}: what tokens permit, at every door.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.python.usage import UsageError
from zope.interface.verify import verifyObject

from tests.auth.token_server import NOW, TokenServerTestCase
from tests.dialects.framed.server_rig import call
from tristunnel.auth.credentials import TunnelCredentials
from tristunnel.cli.server_tap import Options
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import GrantedName
from tristunnel.model.ports import parsePorts
from tristunnel.model.record import TunnelLimits, TunnelRecord
from tristunnel.service.caller import Caller
from tristunnel.wire.framed import FrameType, decodeObject


class LoginTests(TokenServerTestCase):
    """Who is let in."""

    def test_interfaces(self) -> None:
        """It is a checker, and shows its path alone."""
        verifyObject(ICredentialsChecker, self.checker)
        self.assertEqual(repr(self.checker), f"<TokenFile '{self.path.absolute()}'>")

    def login(self, **fields: object) -> Any:
        results: list[Any] = []
        answer = self.checker.requestAvatarId(TunnelCredentials(fields))
        answer.addBoth(results.append)
        return getattr(results[0], "value", results[0])

    def test_token(self) -> None:
        """The token says who it is, wherever it is; an id beside it says nothing."""
        token = self.tokens["admin"]
        for fields in (
            {"token": token},
            {"token": token, "id": "somebody"},
            {"id": "somebody", "secret": token},
            {"password": token},
        ):
            avatar = self.login(**fields)
            self.assertEqual(avatar, b"admin")
            self.assertIsInstance(avatar, GrantedName)

    def test_wrong(self) -> None:
        """Anything else is refused, whatever its JSON type."""
        odd: list[object] = ["", "x", None, 5, True, [], {}, "\ud800", "x" * 10**6]
        odd += [self.tokens["admin"] + " ", self.tokens["admin"][:-1]]
        for token in odd:
            self.assertIsInstance(self.login(token=token), UnauthorizedLogin)
        self.assertIsInstance(self.login(), UnauthorizedLogin)

    def test_doors(self) -> None:
        """A token is good in a plain and an extended handshake and for RPC, and
        everywhere it is the same client."""
        self.makeToken("laptop")
        self.plain("laptop")
        self.client("laptop")
        self.assertEqual(
            self.notes.named("clientConnected"),
            [("laptop", "framed-plain"), ("laptop", "framed")],
        )
        self.assertEqual(len(self.rpc("laptop", "listTunnels")), 1)

    def test_expired(self) -> None:
        """An expired token is refused with its own code, by an extended handshake and
        by RPC; a plain client's connection is closed."""
        self.makeToken("old", expires=NOW - 1)
        self.assertEqual(self.refusal(self.client("old")), "token-expired")
        peer = self.plain("old")
        self.assertEqual(peer.data, b"")
        self.assertIsNotNone(peer.lost)
        self.assertEqual(
            self.notes.named("authenticationFailed"), [("token-expired",)] * 2
        )
        failing = self.authenticator.authenticateBearer(self.tokens["old"])
        error = self.failureResultOf(failing, TunnelError).value
        self.assertEqual(error.code.name, "token-expired")
        self.assertTrue(error.code.permanent)

    def test_revoked(self) -> None:
        """So is a revoked one; one that was never there is not told apart from any
        other wrong one."""
        self.makeToken("old")
        self.revoke("old")
        self.assertEqual(self.refusal(self.client("old")), "token-revoked")
        self.tokens["never"] = "tst_never"
        self.assertEqual(self.refusal(self.client("never")), "auth-refused")

    def test_clientLimit(self) -> None:
        """No more clients than the server takes are let in, and those that are not are
        told when to come back."""
        self.makeToken("laptop")
        self.service.clients.limit = 2
        self.client("admin")
        first = self.plain("laptop")
        late = self.client("admin")
        self.assertEqual(self.refusal(late), "limit-reached")
        self.assertGreater(late.handshake["tristunnel"]["refused"]["retryAfter"], 0)
        self.assertIsNotNone(self.plain("laptop").lost)
        first.transport.loseConnection()
        self.settle()
        self.assertIsNone(self.client("admin").lost)


class LimitTests(TokenServerTestCase):
    """Each limit of a token, reached."""

    def assertRefused(self, code: str, name: str, /, **options: object) -> None:
        peer = self.client(name)
        self.assertEqual(self.ask(peer, "openTunnel", **options), code)
        self.assertEqual(self.rpc(name, "openTunnel", **options), code)
        peer.transport.loseConnection()
        self.settle()

    def test_ports(self) -> None:
        """A port beside the token's is refused; any port is one of them, the preferred
        one if it can be had."""
        self.makeToken("laptop", ports=parsePorts("41500-41501"))
        self.assertRefused("port-not-permitted", "laptop", port=41502)
        peer = self.client("laptop")
        self.ask(peer, "openTunnel", prefer=41501)
        self.assertEqual(list(self.listeners.open_), [41501])
        self.ask(peer, "openTunnel", prefer=41501)
        self.assertEqual(sorted(self.listeners.open_), [41500, 41501])
        self.assertEqual(self.ask(peer, "openTunnel"), "ports-exhausted")
        self.assertEqual(self.ask(peer, "openTunnel", port=41500), "port-taken")

    def test_portsOfTheServer(self) -> None:
        """A token gives no ports that the server does not."""
        self.makeToken("laptop", ports=parsePorts("80"))
        self.listeners.forbidden = {80}
        self.assertRefused("port-not-permitted", "laptop")
        self.assertRefused("port-not-permitted", "laptop", port=80)

    def test_plainPort(self) -> None:
        """A plain client gets a port of its token, or none and a closed connection."""
        self.makeToken("laptop", ports=parsePorts("41500"))
        self.assertEqual(self.plain("laptop").handshake, {"port": 41500})
        peer = self.plain("laptop")
        self.assertEqual(peer.data, b"")
        self.assertIsNotNone(peer.lost)
        self.assertEqual(
            [code for code, *_ in self.notes.named("peerRefused")], ["ports-exhausted"]
        )

    def test_protocols(self) -> None:
        """A listener of another protocol is refused; TLS is TCP; a private tunnel has
        none."""
        self.makeToken("dns", protocols=frozenset({"udp"}))
        self.makeToken("web", protocols=frozenset({"tcp"}))
        self.service.listeners["tls"] = self.listeners
        self.assertRefused("not-permitted", "dns")
        self.assertRefused("not-permitted", "dns", listener="tls")
        peer = self.client("web")
        self.assertIn("w3p:", self.ask(peer, "openTunnel", listener="tls"))
        peer = self.client("dns")
        uri = self.ask(peer, "openTunnel", name="db", private=True)
        self.assertIn("w3p:", uri)

    def test_maxTunnels(self) -> None:
        """Tunnels are counted over all sessions and doors."""
        self.makeToken("laptop", maxTunnels=2)
        first, second = self.client("laptop"), self.client("laptop")
        uri = self.ask(first, "openTunnel")
        self.ask(second, "openTunnel")
        self.assertRefused("limit-reached", "laptop")
        self.assertIsNotNone(self.plain("laptop").lost)
        self.ask(first, "closeTunnel", uri=uri)
        self.assertIn("w3p:", self.ask(second, "openTunnel"))

    def test_maxServices(self) -> None:
        """A session has so many tunnels and no more, with or without a token."""
        self.service.rights.services = 3
        peer = self.client("admin")
        self.makeToken("laptop")
        peer = self.client("laptop")
        for _ in range(3):
            self.assertIn("w3p:", self.ask(peer, "openTunnel"))
        self.assertEqual(self.ask(peer, "openTunnel"), "limit-reached")
        self.assertIn("w3p:", self.ask(self.client("laptop"), "openTunnel"))

    def test_defaults(self) -> None:
        """Unless it is told otherwise, a server takes a thousand clients, with fifty
        tunnels each."""
        self.assertEqual(self.service.clients.limit, 1000)
        self.assertEqual(self.service.rights.services, 50)
        options = Options()
        options.parseOptions(["--max-clients", "5", "--max-services", "0"])
        self.assertEqual((options["max-clients"], options["max-services"]), (5, 0))
        for option in ("--max-clients", "--max-services"):
            error = self.assertRaises(
                UsageError, Options().parseOptions, [option, "-1"]
            )
            self.assertIn(option, str(error))

    def test_rooms(self) -> None:
        """A room for raw WebSockets is a tunnel as well."""
        self.makeToken("web", protocols=frozenset({"ws"}))
        self.makeToken("dns", protocols=frozenset({"udp"}))
        rights = self.service.rights
        rights.checkChannel(self.identity("web"))
        self.assertRaises(TunnelError, rights.checkChannel, self.identity("dns"))
        self.assertRaises(TunnelError, rights.checkChannel, self.identity("admin"))

    def test_maxVisitors(self) -> None:
        """Visitors are counted over all of a token's tunnels; those beyond are turned
        away until one leaves."""
        self.makeToken("laptop", maxVisitors=2)
        peer = self.client("laptop")
        self.ask(peer, "openTunnel")
        self.ask(peer, "openTunnel")
        one, two = self.listeners.open_.values()
        first = one.visit()
        two.visit()
        late = one.visit()
        assert late.broken is not None
        self.assertEqual(late.broken.code.name, "limit-reached")
        first.crash()
        self.settle()
        self.assertIsNone(two.visit().broken)

    def test_may(self) -> None:
        """A token that may not open opens nothing."""
        self.makeToken("reader", may=frozenset({"access"}))
        self.assertRefused("not-permitted", "reader")
        self.assertIsNotNone(self.plain("reader").lost)

    def test_rate(self) -> None:
        """What visitors send beyond the rate waits."""
        self.makeToken("laptop", rate=1000)
        self.plain("laptop")
        visitor = self.listeners.only().visit()
        visitor.say(bytes(64 * 1024 + 2000))
        self.assertTrue(visitor.paused)
        self.clock.advance(1.9)
        self.assertTrue(visitor.paused)
        self.clock.advance(0.2)
        self.assertFalse(visitor.paused)

    def test_changed(self) -> None:
        """What the file says now is what counts, for open tunnels as well."""
        self.makeToken("laptop", ports=parsePorts("41500-41509"), maxTunnels=1)
        peer = self.client("laptop")
        self.ask(peer, "openTunnel", port=41505)
        port = self.listeners.only()
        self.assertIsNone(port.visit().broken)
        self.rewrite('"maxTunnels": 1', '"maxTunnels": 9')
        self.assertIn("w3p:", self.ask(peer, "openTunnel"))
        self.rewrite("41500-41509", "41500-41504")
        self.clock.advance(1)
        late = port.visit()
        assert late.broken is not None
        self.assertEqual(late.broken.code.name, "port-not-permitted")
        self.assertEqual(self.ask(peer, "openTunnel", port=41506), "port-not-permitted")
        self.rewrite('"may": ["open"]', '"may": []')
        self.assertEqual(self.ask(peer, "openTunnel"), "not-permitted")
        late = port.visit()
        assert late.broken is not None
        self.assertEqual(late.broken.code.name, "not-permitted")


class EndTests(TokenServerTestCase):
    """The end of a token, while much depends on it."""

    def goodbye(self, peer: Any) -> str:
        self.assertIsNotNone(peer.lost)
        reasons = [
            decodeObject(frame.payload)["code"]
            for frame in peer.frames()
            if frame.kind == FrameType.GOAWAY
        ]
        self.assertEqual(len(reasons), 1)
        return str(reasons[0])

    def test_revokedWhileStreamsFlow(self) -> None:
        """Revocation ends a hundred streams, their tunnel and their session within a
        second, and nobody else's."""
        self.makeToken("laptop")
        self.makeToken("other")
        other = self.client("other")
        self.ask(other, "openTunnel", port=41600)
        peer = self.client("laptop")
        self.ask(peer, "openTunnel", port=41500)
        port = self.listeners.open_[41500]
        visitors = [port.visit(f"192.0.2.7:{n}") for n in range(100)]
        untouched = self.listeners.open_[41600].visit()
        for visitor in visitors:
            visitor.say(b"hello")
        self.settle()
        self.revoke("laptop")
        self.clock.advance(1)
        self.settle()
        codes = {visitor.broken and visitor.broken.code.name for visitor in visitors}
        self.assertEqual(codes, {"token-revoked"})
        self.assertTrue(port.closed)
        self.assertEqual(self.goodbye(peer), "token-revoked")
        self.assertIsNone(untouched.broken)
        self.assertIsNone(other.lost)
        self.assertEqual(self.notes.named("clientGone"), [("laptop", "token-revoked")])

    def test_revokedPlain(self) -> None:
        """A plain client's connection is closed, and the log has the reason."""
        self.makeToken("laptop")
        peer = self.plain("laptop")
        visitor = self.listeners.only().visit()
        self.revoke("laptop")
        self.clock.advance(1)
        self.settle()
        self.assertIsNotNone(peer.lost)
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "token-revoked")
        self.assertEqual(self.notes.named("clientGone"), [("laptop", "token-revoked")])

    def test_revokedAtUse(self) -> None:
        """A call finds out at once that the token was revoked."""
        self.makeToken("laptop")
        peer = self.client("laptop")
        self.revoke("laptop")
        peer.say(call(7, "openTunnel"))
        self.settle()
        self.assertEqual(self.goodbye(peer), "token-revoked")
        self.assertEqual(self.listeners.open_, {})

    def test_tunnelsWithoutSession(self) -> None:
        """What a token opened by RPC ends with it as well."""
        self.makeToken("laptop")
        self.rpc("laptop", "openTunnel", via="w3p", name="shop")
        self.rpc("laptop", "openTunnel", via="tcp")
        self.revoke("laptop")
        self.clock.advance(1)
        self.assertEqual(self.listeners.open_, {})
        self.assertEqual(self.rpc("admin", "listTunnels"), [])

    def test_revokedWhileOpening(self) -> None:
        """A tunnel that was still being made when its token was revoked is not there
        afterwards."""
        self.makeToken("laptop")
        adding: list[Deferred[None]] = []
        add = self.service.book.open

        def slowly(record: TunnelRecord, limits: TunnelLimits) -> Deferred[None]:
            adding.append(Deferred())
            return adding[-1].addCallback(lambda result: add(record, limits))

        self.patch(self.service.book, "open", slowly)
        caller = Caller(self.identity("laptop"), "server", 9000)
        self.service.openTunnel(caller, {"via": "w3p"})
        self.revoke("laptop")
        self.checker.follow()
        adding[0].callback(None)
        self.assertEqual(self.listeners.open_, {})
        self.assertEqual(self.rpc("admin", "listTunnels"), [])

    def test_leaseDoesNotSurvive(self) -> None:
        """A new token of the same name finds nothing of the revoked one's tunnels in
        its lease."""
        self.makeToken("laptop")
        peer = self.client("laptop")
        lease = peer.handshake["tristunnel"]["lease"]
        self.ask(peer, "openTunnel")
        self.revoke("laptop")
        self.clock.advance(1)
        self.settle()
        self.makeToken("laptop")
        again = self.client("laptop", lease=lease)
        self.assertEqual(again.handshake["tristunnel"]["tunnels"], [])

    def test_awayWhenRevoked(self) -> None:
        """The same, if the client was away when its token was revoked."""
        self.makeToken("laptop")
        peer = self.client("laptop")
        lease = peer.handshake["tristunnel"]["lease"]
        self.ask(peer, "openTunnel")
        peer.transport.loseConnection()
        self.settle()
        self.revoke("laptop")
        self.clock.advance(1)
        self.assertEqual(self.listeners.open_, {})
        self.makeToken("laptop")
        again = self.client("laptop", lease=lease)
        self.assertEqual(again.handshake["tristunnel"]["tunnels"], [])

    def test_expires(self) -> None:
        """A token ends what lives on it when its time is over, and not earlier."""
        self.makeToken("laptop", expires=NOW + 10)
        peer = self.client("laptop")
        self.ask(peer, "openTunnel")
        visitor = self.listeners.only().visit()
        self.clock.pump([0.7] * 14)
        self.assertIsNone(visitor.broken)
        self.clock.advance(0.25)
        self.settle()
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "token-expired")
        self.assertEqual(self.goodbye(peer), "token-expired")

    def test_prolonged(self) -> None:
        """A later end in the file is a later end."""
        self.makeToken("laptop", expires=NOW + 10)
        peer = self.client("laptop")
        line = self.path.read_text().splitlines()[-1]
        self.rewrite(
            line, line.replace('"expires": "2030-03-17T17:46:50Z"', '"rate": 9')
        )
        self.clock.pump([1.0] * 20)
        self.assertIsNone(peer.lost)

    def test_lineGone(self) -> None:
        """A token whose line is gone or broken is over once the file has settled; an
        editor that empties the file first does no harm."""
        self.makeToken("laptop")
        peer = self.client("laptop")
        text = self.path.read_text()
        self.path.write_text("")
        self.touch()
        self.clock.advance(1)
        self.path.write_text(text)
        self.touch()
        self.clock.pump([1.0] * 5)
        self.assertIsNone(peer.lost)
        self.rewrite('"name": "laptop"', '"nam": "laptop"')
        self.clock.pump([1.0] * 3)
        self.settle()
        self.assertEqual(self.goodbye(peer), "token-revoked")
        self.flushLoggedErrors()

    def test_lineGoneAndClockSetBack(self) -> None:
        """It is over as soon if the time of day is set back by a day meanwhile."""
        self.makeToken("laptop")
        peer = self.client("laptop")
        self.rewrite('"name": "laptop"', '"nam": "laptop"')
        self.checker.follow()
        self.patch(self.checker, "_now", lambda: self.now() - 86400)
        self.clock.pump([1.0] * 3)
        self.settle()
        self.assertEqual(self.goodbye(peer), "token-revoked")
        self.flushLoggedErrors()
