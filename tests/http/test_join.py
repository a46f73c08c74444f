"""Tests of L{tristunnel.http.join}: what peers may send, and what they are told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.jsonrpc.loopback import parsed
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.auth.token_store import TokenStore
from tristunnel.auth.tokens import TokenFile
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.forwarded import Forwarded
from tristunnel.http.join import JoinPage
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import rootOf
from tristunnel.model.permissions import Permissions
from tristunnel.model.ports import parsePorts
from tristunnel.service.invitations import Invitations
from tristunnel.service.preauth import PreauthLimiter

NONCE = "n" * 22


class JoinTests(SynchronousTestCase):
    """A server with a file of tokens, behind a proxy that speaks TLS."""

    def setUp(self) -> None:
        self.clock = Clock()
        path = Path(self.mktemp()) / "tokens"
        self.time = 1_900_000_000.0
        self.store = TokenStore(path, self.now)
        self.store.make()
        files = [TokenFile(path, self.clock, self.now)]
        self.service: Any = Mock()
        self.service.invitations = Invitations(files, self.now)
        forwarded = Forwarded(["10.0.0.1"])
        self.limiter = PreauthLimiter(self.clock.seconds)
        callers = HTTPCallers(Authenticator(portalFor(files)), forwarded, self.limiter)
        self.site = LimitedSite(
            rootOf({b"join": JoinPage(self.service, callers, forwarded)}),
            reactor=self.clock,
            admit=callers.admit,
        )

    def now(self) -> float:
        return self.time + self.clock.seconds()

    def ask(
        self,
        code: str,
        nonce: str = NONCE,
        method: str = "POST",
        scheme: str = "Invitation",
        proto: str = "https",
        body: str = "",
        source: str = "192.0.2.7",
    ) -> tuple[int, dict[str, str], Any]:
        channel: Any = self.site.buildProtocol(None)
        transport = StringTransport(peerAddress=IPv4Address("TCP", "10.0.0.1", 1))
        channel.makeConnection(transport)
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        channel.dataReceived(
            f"{method} /join HTTP/1.1\r\nHost: server\r\n"
            f"X-Forwarded-For: {source}\r\nX-Forwarded-Proto: {proto}\r\n"
            f"Authorization: {scheme} {code}\r\nIdempotency-Key: {nonce}\r\n"
            f"{length}\r\n{body}".encode("utf-8", "surrogateescape")
        )
        status, headers, answer = parsed(transport.value())
        channel.connectionLost()
        self.clock.advance(0)
        isJSON = headers.get("content-type") == "application/json"
        return status, headers, json.loads(answer) if isJSON else answer

    def refusals(self) -> list[str]:
        told = self.service.observer.authenticationFailed.call_args_list
        return [call.args[1].code.name for call in told]

    def test_joined(self) -> None:
        """The answer has a token that is good at once; the code may be typed as people
        do, and the scheme in any case."""
        permissions = Permissions(ports=parsePorts("8000-8010"))
        code = self.store.invite("laptop", permissions)
        shown = f"{code[:4]}-{code[4:8]}-{code[8:].upper()}"
        status, headers, answer = self.ask(shown, scheme="invitation")
        self.assertEqual(status, 200)
        self.assertEqual(headers["cache-control"], "no-store")
        self.assertEqual((answer["name"], answer["ports"]), ("laptop", "8000-8010"))
        self.assertIsNotNone(self.store.read().find(answer["token"].encode()))
        # The answer was lost: the same again.
        self.assertEqual(self.ask(code)[2], answer)
        self.assertEqual(self.refusals(), [])

    def test_refused(self) -> None:
        """Each refusal has its code, is counted, and counts as a failed login."""
        used = self.store.invite("used", Permissions())
        self.ask(used)
        late = self.store.invite("late", Permissions(), 60)
        revoked = self.store.invite("revoked", Permissions())
        self.store.revoke("revoked")
        self.time += 61
        for last, (code, nonce, status, name) in enumerate(
            (
                (used, "o" * 22, 403, "invitation-used"),
                (late, NONCE, 403, "invitation-expired"),
                (revoked, NONCE, 403, "token-revoked"),
                ("0" * 16, NONCE, 401, "invitation-unknown"),
                ("", NONCE, 401, "invitation-unknown"),
                ("x" * 5000, NONCE, 401, "invitation-unknown"),
                (used, "", 401, "invitation-unknown"),
                (used, "short", 401, "invitation-unknown"),
                (used, "n" * 65, 401, "invitation-unknown"),
                (used, "n" * 21 + "é", 401, "invitation-unknown"),
                (used, "n" * 21 + "\udca0", 401, "invitation-unknown"),
                ("\udca0" * 16, NONCE, 401, "invitation-unknown"),
            )
        ):
            source = f"192.0.2.{last}"
            answer = self.ask(code, nonce, source=source)
            self.assertEqual((answer[0], answer[2]["code"]), (status, name))
            self.assertNotIn(used, json.dumps(answer[2]))
            self.assertEqual(self.refusals(), [name])
            for _ in range(4):
                self.ask("0" * 16, source=source)
            # It has used up one of the mistakes that an address may make.
            self.assertEqual(self.refusals()[-1], "limit-reached")
            self.service.observer.authenticationFailed.reset_mock()

    def test_guessing(self) -> None:
        """Who guesses has to wait, also with the right code, and is told how long."""
        code = self.store.invite("laptop", Permissions())
        for _ in range(4):
            self.ask("0" * 16)
        status, headers, answer = self.ask(code)
        self.assertEqual((status, answer["code"]), (429, "limit-reached"))
        self.clock.advance(int(headers["retry-after"]) + 1)
        self.assertEqual(self.ask(code)[0], 200)

    def test_plain(self) -> None:
        """Without TLS nothing is given away, and the invitation stays good."""
        code = self.store.invite("laptop", Permissions())
        status, _, answer = self.ask(code, proto="http")
        self.assertEqual((status, answer["code"]), (403, "not-permitted"))
        self.assertEqual(self.ask(code)[0], 200)

    def test_others(self) -> None:
        """Other methods are refused; a body is not read, from nobody."""
        code = self.store.invite("laptop", Permissions())
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            self.assertEqual(self.ask(code, method=method)[0], 405)
        self.assertEqual(self.ask(code, body="x" * 100)[0], 401)
        self.assertEqual(self.ask(code)[0], 200)

    def test_broken(self) -> None:
        """A file that cannot be written is the operator's to know about, not the
        client's."""
        code = self.store.invite("laptop", Permissions())

        def broken(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "replace", broken)
        status, _, answer = self.ask(code)
        self.assertEqual((status, answer["code"]), (500, "internal"))
        self.assertNotIn("tokens", answer["message"])
