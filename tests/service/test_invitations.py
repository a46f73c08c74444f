"""Tests of L{tristunnel.service.invitations}, as operators call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.python.failure import Failure

from tests.auth.token_server import NOW, TokenServerTestCase
from tristunnel.auth.tokens_format import Token
from tristunnel.errors import TunnelError
from tristunnel.service.invitations import Invitations, ServerPlace, globalAddress
from tristunnel.tls.certificates import fingerprintOfFile, selfSigned
from tristunnel.wire.invitation import PIN_BYTES, Invitation

NONCE = "n" * 22


class InvitationsTests(TokenServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(self.mktemp())
        self.certificate = selfSigned(self.directory, ["localhost"])
        self.invitations = Invitations([self.checker], self.now)
        self.service.invitations = self.invitations
        self.place("")

    def place(self, host: str) -> None:
        self.invitations.place = ServerPlace(host, 9001, str(self.certificate))

    def test_invited(self) -> None:
        """An admin invites, with the name by which it reached the server, if that has
        none of its own; what comes of it is what was asked for."""
        for host, said in (("", "server"), ("t.example.com", "t.example.com")):
            self.place(host)
            made = self.rpc(
                "admin",
                "createInvitation",
                name=f"laptop-{said}",
                lifetime="2h",
                ports="8000-8010",
                maxTunnels=3,
                expires="30d",
            )
            invitation = Invitation.parse(made.pop("invitation"))
            self.assertEqual((invitation.host, invitation.port), (said, 9001))
            pin = fingerprintOfFile(self.certificate)
            self.assertEqual(invitation.pin.hex(), pin[: 2 * PIN_BYTES])
            self.assertEqual(made["state"], "invited for 2h")
            self.assertEqual((made["ports"], made["maxTunnels"]), ("8000-8010", 3))
            self.assertIn(made, self.rpc("admin", "listInvitations"))
            name, token = self.taken(invitation.code)
            self.assertEqual(name.name, f"laptop-{said}")
            self.assertEqual(name.permissions.expires, NOW + 30 * 86400)
            self.tokens["laptop"] = token
            self.assertEqual(self.rpc("laptop", "listTunnels"), [])
            self.assertEqual(self.rpc("admin", "listInvitations"), [])

    def test_tokens(self) -> None:
        """Tokens are made, listed without what they are, and revoked."""
        made = self.rpc("admin", "createToken", name="phone", may=["access"])
        self.tokens["phone"] = made["token"]
        self.assertEqual(self.rpc("phone", "listTunnels"), [])
        listed = self.rpc("admin", "listTokens")
        self.assertEqual([each["name"] for each in listed], ["admin", "phone"])
        self.assertEqual(listed[1]["may"], ["access"])
        text = json.dumps(listed)
        for secret in (made["token"], "sha256", "salt"):
            self.assertNotIn(secret, text)
        self.assertIsNone(self.rpc("admin", "revokeToken", name="phone"))
        self.assertRaises(TunnelError, self.identityOf, "phone")
        self.assertEqual(self.rpc("admin", "listTokens")[1]["state"], "revoked")

    def taken(self, code: str) -> tuple[Token, str]:
        answers: list[Any] = []
        self.invitations.join(code, NONCE).addBoth(answers.append)
        (answer,) = answers
        if isinstance(answer, Failure):
            answer.raiseException()
        joined: tuple[Token, str] = answer
        return joined

    def identityOf(self, name: str) -> None:
        login = self.authenticator.authenticateBearer(self.tokens[name])
        raise self.failureResultOf(login).value

    def test_revoked(self) -> None:
        """An invitation that was revoked is good for nothing."""
        made = self.rpc("admin", "createInvitation")
        self.assertIsNone(self.rpc("admin", "revokeInvitation", name=made["name"]))
        code = Invitation.parse(made["invitation"]).code
        error = self.assertRaises(TunnelError, self.taken, code)
        self.assertEqual(error.code.name, "token-revoked")

    def test_wrong(self) -> None:
        """What cannot be made is refused, and nothing is left of it."""
        before = self.path.read_bytes()
        for method, params in (
            ("createToken", {"name": "a b"}),
            ("createToken", {"name": "admin"}),
            ("createToken", {"name": "x", "maxTunnel": 1}),
            ("createToken", {"name": "x", "expires": "2001-01-01"}),
            ("createToken", {"name": "x", "sha256": "00" * 32}),
            ("createInvitation", {"name": 5}),
            ("createInvitation", {"lifetime": True}),
            ("createInvitation", {"lifetime": "1y"}),
            ("createInvitation", {"until": "2040-01-01"}),
            ("revokeToken", {"name": "nobody"}),
        ):
            code = self.rpc("admin", method, **params)
            self.assertIn(code, ("bad-option", "name-taken"), (method, params))
        self.invitations.place = ServerPlace("x", 9001, "")
        self.assertEqual(self.rpc("admin", "createInvitation"), "bad-option")
        self.assertEqual(self.path.read_bytes(), before)

    def test_first(self) -> None:
        """The first client is invited while there is no token; a newer invitation
        makes an older one void."""
        self.assertIsNone(self.invitations.first())
        self.revoke("admin")
        first, second = self.invitations.first(), self.invitations.first()
        assert first is not None and second is not None
        error = self.assertRaises(TunnelError, self.taken, first.code)
        self.assertEqual(error.code.name, "invitation-unknown")
        self.assertEqual(self.taken(second.code)[0].name, "client")
        self.assertEqual(str(second).partition("#")[0], "YOUR-SERVER:9001")
        self.assertIsNone(self.invitations.first())

    def test_kept(self) -> None:
        """Where a server is, is kept for the command line; what is broken is said."""
        place = ServerPlace("t.example.com", 9000, "cert.pem", "tokens")
        place.write(self.directory)
        self.assertEqual(ServerPlace.read(self.directory), place)
        path = self.directory / "server.json"
        for text in ("", "[]", "{}", '{"host": 1', "\xff"):
            path.write_bytes(text.encode("latin-1"))
            error = self.assertRaises(TunnelError, ServerPlace.read, self.directory)
            self.assertIn("restart the server", error.message)

    def test_address(self) -> None:
        """An address is one that everybody can reach, or none."""
        address = globalAddress()
        self.assertFalse(address.startswith(("10.", "127.", "192.168.", "fe80")))

    def test_noFile(self) -> None:
        """A server without a file of tokens says how to have one."""
        self.service.invitations = Invitations([])
        self.assertEqual(self.rpc("admin", "createToken", name="x"), "bad-option")
        self.assertEqual(self.rpc("admin", "listTokens"), [])
