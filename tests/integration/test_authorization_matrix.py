"""
Every request of every dialect, tried by those who may not make it.

The victim is C{alice}: she has a private service, a public tunnel with a
visitor, a session with a lease, and access granted to somebody. The callers
are nobody (no credentials, or wrong ones), C{bob} (another owner), somebody
whose token permits nothing, who holds a capability, and whose token is revoked
or expired. Whatever they ask for, what is alice's stays as it is, and they
learn nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from twisted.internet.defer import succeed

from tests.dialects.framed.network import RawPeer
from tests.dialects.framed.server_rig import OFFER
from tests.service.test_access import AccessTestCase
from tests.support.waiting import WaitingEnd
from tests.websocket.frames import frame, readFrames, upgrade
from tristunnel.dialects.framed.dialect import FramedPortProtocol
from tristunnel.errors import TunnelError
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import HTTPPortProtocol, rootOf, rpcPages
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.model.permissions import ANONYMOUS_IDENTITY, Identity
from tristunnel.model.policy import VisitorPolicy
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.websocket_pages import webSocketPages
from tristunnel.service.caller import Caller
from tristunnel.service.methods import methodsOf
from tristunnel.wire.framed import Frame, FrameType, encodeHandshake
from tristunnel.wire.zlayer import Auth, Register, encodeMessage

Outcome = Callable[["MatrixTestCase", Any], None]

_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")


def refused(*codes: str) -> Outcome:
    """The answer must be an error with one of these codes."""

    def check(test: MatrixTestCase, outcome: Any) -> None:
        test.assertIn(outcome, codes)

    return check


def silent(test: MatrixTestCase, outcome: Any) -> None:
    """The answer may be an error, or a list in which nothing is alice's."""
    text = json.dumps(outcome)
    for secret in ("alice", "db", test.public.rpartition("/")[2], test.accessId):
        test.assertNotIn(secret, text)


def allowed(test: MatrixTestCase, outcome: Any) -> None:
    """They may do that: it is theirs, or everybody's."""
    test.assertNotIsInstance(outcome, dict)


class MatrixTestCase(AccessTestCase):
    """A server where alice has one of everything."""

    def setUp(self) -> None:
        super().setUp()
        self.makeToken("mallory", may=frozenset())
        self.makeToken("revoked")
        self.makeToken("expired", expires=self.now() + 10)
        self.public = self.ask(self.alice, "openTunnel", port=0)
        self.uris = [t["uri"] for t in self.rpc("alice", "listTunnels")]
        self.tunnel = self.successResultOf(self.service.find(self.public))
        self.visitor = WaitingEnd()
        self.tunnel.visitorArrived(self.visitor, "192.0.2.200:1")
        self.settle()
        self.capability = self.grant(600)
        self.accessId = self.capability.rpartition("/")[2].partition("#")[0]
        (visit,) = self.tunnel.streams
        (session,) = self.service.clients
        self.sessionId, self.visitId = session.id, visit.id
        # Who they are from before their time was over.
        self.people: dict[str, Identity] = {
            name: self.identity(name)
            for name in ("bob", "mallory", "revoked", "expired")
        }
        self.people["nobody"] = ANONYMOUS_IDENTITY
        self.people["capability"] = self.successResultOf(self._claim())
        self.clock.advance(11)
        self.revoke("revoked")
        self.settle()

    def _claim(self) -> Any:
        from twisted.internet.defer import Deferred

        secret = self.capability.partition("#")[2]
        return Deferred.fromCoroutine(
            self.service.access.claim(
                {"id": self.accessId, "secret": secret}, None, self._noLogin
            )
        )

    async def _noLogin(self) -> Identity:
        raise TunnelError("auth-refused")

    def unharmed(self) -> None:
        """Assert that all that is alice's is as it was."""
        self.assertEqual(
            [t["uri"] for t in self.rpc("alice", "listTunnels")], self.uris
        )
        self.assertEqual(self.visitor.refused, "")
        self.assertEqual(self.tunnel.policy, VisitorPolicy())
        self.assertIsNone(self.alice.lost)
        self.assertEqual(len(self.rpc("alice", "listAccess")), 1)
        self.assertIn(self.sessionId, [client.id for client in self.service.clients])

    def callAs(self, identity: Identity, method: str, params: dict[str, Any]) -> Any:
        """Call a method as somebody; the result, or the code of the error."""
        caller = Caller(identity, "server", 9000, address="192.0.2.66")
        dispatcher = Dispatcher(methodsOf(self.service).get)
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer: Any = dispatcher.dispatchObject(caller, request)
        return self.outcomeOf(self.successResultOf(answer))


class MethodTests(MatrixTestCase):
    """The remote methods."""

    def matrix(self) -> dict[str, tuple[dict[str, Any], dict[str, Outcome]]]:
        """
        What to call each method with, and what is to come of it: by whoever
        calls, C{""} for everybody else.
        """
        gone = refused("unknown-tunnel")
        noSession = refused("unknown-session")
        late = {
            "revoked": refused("token-revoked"),
            "expired": refused("token-expired"),
        }
        operators = {"": refused("not-permitted"), **late}
        return {
            "openTunnel": (
                {"name": "db", "via": "w3p", "resume": self.public},
                {
                    "": refused("name-taken"),
                    "mallory": refused("not-permitted"),
                    "capability": refused("not-permitted"),
                    **late,
                },
            ),
            # The address is public, to whoever knows the URI.
            "getTunnelAddress": ({"uri": self.uris[0]}, {"": allowed}),
            "closeTunnel": ({"uri": self.public}, {"": gone}),
            "listTunnels": ({}, {"": silent}),
            "setPolicy": (
                {"uri": self.public, "policy": {"deny": "::/0"}, "endDenied": True},
                {"": gone, **late},
            ),
            "reportHealth": ({"uri": self.public, "well": False}, {"": gone, **late}),
            "listNodeTunnels": ({}, {"": silent}),
            "reload": ({}, {"": refused("not-permitted")}),
            "listSessions": ({}, {"": silent, "capability": allowed}),
            "closeSession": ({"id": self.sessionId}, {"": noSession}),
            "kick": ({"visitor": self.visitId}, {"": noSession}),
            "grantAccess": (
                {"service": "db", "ttl": 60},
                {"": gone, "revoked": refused("token-revoked"), **late},
            ),
            "listAccess": ({}, {"": silent}),
            "revokeAccess": ({"id": self.accessId}, {"": noSession}),
            "createInvitation": ({}, operators),
            "listInvitations": ({}, operators),
            "revokeInvitation": ({"name": "alice"}, operators),
            "createToken": ({"name": "mine"}, operators),
            "listTokens": ({}, operators),
            "revokeToken": ({"name": "alice"}, operators),
            "addManaged": ({"client": "alice", "to": "localhost:1"}, operators),
            "removeManaged": ({"id": "x"}, operators),
            "listManaged": ({}, operators),
            "getKnockLink": ({"uri": self.public}, {"": gone}),
            "listMembers": ({}, {"": refused("not-permitted")}),
            "drainMember": ({"member": "x"}, {"": refused("not-permitted")}),
            "undrainMember": ({"member": "x"}, {"": refused("not-permitted")}),
            "standbyAddresses": ({}, {"": silent}),
            "managedForwards": ({}, {"": refused("not-permitted")}),
        }

    def test_complete(self) -> None:
        """No method is left out."""
        self.assertEqual(sorted(self.matrix()), sorted(methodsOf(self.service)))

    def test_everyMethod(self) -> None:
        """Nobody who may not does anything to what is alice's."""
        for method, (params, outcomes) in self.matrix().items():
            for name, identity in self.people.items():
                outcome = self.callAs(identity, method, params)
                try:
                    outcomes.get(name, outcomes[""])(self, outcome)
                    self.unharmed()
                except self.failureException as failure:
                    raise self.failureException(
                        f"{method} as {name}: {outcome!r}: {failure}"
                    ) from None

    def test_rawAddress(self) -> None:
        """
        The URI of a raw tunnel is a number: its address is for its owner and an
        admin.
        """
        uri = self.rpc("alice", "openTunnel", via="tcp")
        for name, identity in self.people.items():
            outcome = self.callAs(identity, "getTunnelAddress", {"uri": uri})
            self.assertEqual(outcome, "unknown-tunnel", name)
        for name in ("alice", "admin"):
            self.assertTrue(self.rpc(name, "getTunnelAddress", uri=uri))
        self.rpc("alice", "closeTunnel", uri=uri)

    def test_other(self) -> None:
        """
        Nor by the other things that a method takes: a tunnel and a visitor
        are sessions, too.
        """
        for name, identity in self.people.items():
            for ident in (self.tunnel.id, self.visitId, "", "c000000000000", "a.1"):
                for method, key in (("closeSession", "id"), ("kick", "visitor")):
                    outcome = self.callAs(identity, method, {key: ident})
                    self.assertEqual(outcome, "unknown-session", (name, ident))
        self.unharmed()

    def test_owner(self) -> None:
        """
        Alice herself may do all of it, so that the refusals above have no
        other reason; an admin may, too.
        """
        for name in ("alice", "admin"):
            self.assertEqual(len(self.rpc(name, "listTunnels")), len(self.uris))
        for name in ("alice", "admin"):
            policy = {"maxVisitors": 5}
            answer = self.rpc(name, "setPolicy", uri=self.public, policy=policy)
            self.assertEqual(answer, policy)
        self.service.reload = lambda: succeed({"changed": [], "needsRestart": []})
        answer = self.rpc("admin", "reload")
        self.assertEqual(answer, {"changed": [], "needsRestart": []})
        self.assertIsNone(self.rpc("admin", "kick", visitor=self.visitId))
        self.assertIsNone(self.rpc("alice", "revokeAccess", id=self.accessId))
        self.assertIsNone(self.rpc("alice", "closeTunnel", uri=self.public))
        self.assertIsNone(self.rpc("admin", "closeSession", id=self.sessionId))


class DialectTests(MatrixTestCase):
    """The requests of the dialects, as bytes at the port."""

    def setUp(self) -> None:
        super().setUp()
        callers = HTTPCallers(self.authenticator)
        pages = {
            **rpcPages(self.service, callers),
            **webSocketPages(self.sessions, callers, ["/tunnel"]),
        }
        site = LimitedSite(rootOf(pages), reactor=self.clock, admit=callers.admit)
        self.protocols: list[Any] = [
            FramedPortProtocol(self.sessions),
            HTTPPortProtocol(site),
        ]
        self.peers: list[RawPeer] = []
        self.addCleanup(self.leave)

    def leave(self) -> None:
        for peer in self.peers:
            if peer.lost is None:
                peer.transport.abortConnection()
        self.settle()
        self.clock.advance(60)

    def come(self, *messages: Any) -> RawPeer:
        """Say something at the port, which has forgotten failed logins."""
        peer = RawPeer()
        self.peers.append(peer)
        self.join(ProtocolDetectorFactory(self.clock, self.protocols, self.notes), peer)
        peer.say(*messages)
        self.settle()
        return peer

    def credentials(self) -> dict[str, dict[str, str]]:
        return {
            "nobody": {},
            "wrong": {"token": "tun_" + "x" * 43},
            "named": {"id": "alice"},
            "revoked": {"token": self.tokens["revoked"]},
            "expired": {"token": self.tokens["expired"]},
        }

    def late(self, name: str) -> tuple[str, ...]:
        return ("auth-refused", f"token-{name}")

    def test_framed(self) -> None:
        """
        The framed protocol lets nobody in, whatever else is in the first
        message; plain clients are just cut off.
        """
        offers: list[dict[str, object]] = [
            {},
            {"lease": {"id": "x", "secret": "y"}},
            {"tunnel": {"id": self.tunnel.id, "secret": "guess"}},
            {"access": {"id": self.accessId, "secret": "guess"}},
            {"access": {"id": self.accessId, "secret": ""}},
            {"tunnel": {"id": self.tunnel.id, "secret": ""}},
        ]
        for name, fields in self.credentials().items():
            for offer in offers:
                peer = self.come({**fields, "tristunnel": {**OFFER, **offer}})
                code = peer.handshake["tristunnel"]["refused"]["code"]
                self.assertIn(code, (*self.late(name), "unknown-tunnel"), offer)
                self.assertIsNotNone(peer.lost)
            peer = self.come(fields)
            self.assertEqual(peer.data, b"", name)
            self.assertIsNotNone(peer.lost)
        for ticket in ("", "guess", 5, None, ["x"]):
            peer = self.come({"tristunnel": {"ticket": ticket}})
            self.assertIsNotNone(peer.lost)
        self.unharmed()

    def test_framedOther(self) -> None:
        """
        Another owner's session reaches nothing of alice's: no service, no
        lease, no tunnel to go on with.
        """
        (lease,) = [each for each in self.service.leases._leases.values()]
        bob = self.come(
            {
                "token": self.tokens["bob"],
                "tristunnel": {**OFFER, "lease": {"id": lease.id, "secret": "guess"}},
            }
        )
        answer = bob.handshake["tristunnel"]
        self.assertNotEqual(answer["lease"]["id"], lease.id)
        self.assertEqual(answer["tunnels"], [])
        self.assertEqual(self.reach(bob), "unknown-tunnel")
        uri = self.ask(bob, "openTunnel", resume=self.public, private=True, name="b")
        self.assertNotIn(uri, self.uris)
        for kind in FrameType:
            if kind not in (FrameType.CONTROL, FrameType.OPEN, FrameType.GOAWAY):
                bob.say(Frame(2, kind, b"\0" * 8))
        self.settle()
        self.unharmed()

    def test_webSockets(self) -> None:
        """
        Nor do the dialects over WebSockets: the upgrade is refused where it
        has credentials, and else the first message.
        """
        hello = encodeHandshake({"tristunnel": OFFER})
        requests = [
            frame(2, hello),
            frame(1, b'{"type":"listen","port":31000}'),
            frame(2, encodeMessage(Auth("tun_guess", _ID))),
            frame(2, encodeMessage(Register("ssh", 0, 22, 0))),
        ]
        for name, fields in self.credentials().items():
            headers = {}
            if "token" in fields:
                headers = {"Authorization": f"Bearer {fields['token']}"}
            for request in requests:
                before = len(list(self.service.here))
                peer = self.come(upgrade("/tunnel", **headers) + request)
                head = peer.data.partition(b"\r\n")[0]
                if headers:
                    self.assertIn(head[9:12], (b"401", b"403"), name)
                else:
                    self.assertIn(b" 101 ", head, name)
                    self.assertNotIn(b"listen_ok", peer.data)
                    for each in readFrames(bytes(peer.data).partition(b"\r\n\r\n")[2]):
                        self.assertNotIn(b'"version"', each.payload)
                tunnels = list(self.service.here)
                self.assertEqual(len(tunnels), before)
        self.assertEqual(len(list(self.service.clients)), 1)
        self.unharmed()

    def test_rooms(self) -> None:
        """A room's host must log in, and nobody takes another client's room."""
        alice = {"Authorization": f"Bearer {self.tokens['alice']}"}
        self.assertIn(b" 101 ", self.come(upgrade("/host/room", **alice)).data)
        for name, fields in {
            **self.credentials(),
            "bob": {"token": self.tokens["bob"]},
            "mallory": {"token": self.tokens["mallory"]},
        }.items():
            headers = {}
            if "token" in fields:
                headers = {"Authorization": f"Bearer {fields['token']}"}
            head = self.come(upgrade("/host/room", **headers)).data.partition(b"\r\n")[
                0
            ]
            self.assertNotIn(b" 101 ", head, name)
        for path in (
            "/host/" + "x" * 22,
            "/client/" + "y" * 22,
            "/tunnel/data/" + str(_ID),
        ):
            self.assertNotIn(b" 101 ", self.come(upgrade(path)).data, path)

    def test_http(self) -> None:
        """Calls by HTTP need a login; who has none learns no more than that."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "listTunnels"})
        xml = (
            "<?xml version='1.0'?><methodCall><methodName>listTunnels</methodName>"
            "<params/></methodCall>"
        )
        for path, kind, text in (
            ("/rpc", "application/json", body),
            ("/RPC2", "text/xml", xml),
        ):
            for name, fields in self.credentials().items():
                login = ""
                if "token" in fields:
                    login = f"Authorization: Bearer {fields['token']}\r\n"
                request = (
                    f"POST {path} HTTP/1.1\r\nHost: server\r\nContent-Type: {kind}\r\n"
                    f"{login}Content-Length: {len(text)}\r\n\r\n{text}"
                )
                answer = self.come(request.encode()).data
                self.assertIn(answer[9:12], (b"401", b"403"), (path, name))
                self.assertNotIn(b"alice", answer)
        self.unharmed()
