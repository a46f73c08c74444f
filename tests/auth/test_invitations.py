"""Tests of invitations in a token file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from threading import Thread

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.auth.credentials import TunnelCredentials
from tristunnel.auth.token_store import (
    INVITATION_TIME,
    JOIN_AGAIN,
    MOST_INVITATIONS,
    TokenStore,
)
from tristunnel.auth.tokens import TokenFile
from tristunnel.auth.tokens_format import digestOf, stateOf
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Permissions
from tristunnel.model.ports import parsePorts

NONCE = "n" * 22
OTHER = "o" * 22


class InvitationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.time = 1_900_000_000.0
        self.path = Path(self.mktemp()) / "tokens"
        self.store = TokenStore(self.path, lambda: self.time)
        self.store.make()

    def refused(self, code: str, nonce: str = NONCE) -> str:
        return self.assertRaises(TunnelError, self.store.join, code, nonce).code.name

    def test_joined(self) -> None:
        """An invitation becomes a token with its name and permissions; neither the
        code, the nonce nor the token is in the file."""
        permissions = Permissions(ports=parsePorts("8000-8010"))
        code = self.store.invite("laptop", permissions)
        self.assertEqual(
            stateOf(self.store.read().byName["laptop"], self.time), "invited for 1d"
        )
        made, token = self.store.join(code, NONCE)
        self.assertEqual((made.name, made.permissions), ("laptop", permissions))
        found = self.store.read()
        self.assertEqual(found.problems, [])
        self.assertEqual(found.find(token.encode()), made)
        text = self.path.read_text()
        for secret in (code, NONCE, token):
            self.assertNotIn(secret, text)
        self.assertIn(hashlib.sha256(token.encode()).hexdigest(), text)
        self.assertEqual(stateOf(made, self.time), "valid")

    def test_noToken(self) -> None:
        """The code of an invitation is no token, and neither is its digest."""
        code = self.store.invite("laptop", Permissions())
        for word in (code, digestOf(code).hex(), ""):
            self.assertIsNone(self.store.read().find(word.encode()))

    def test_lostAnswer(self) -> None:
        """The same client gets the same token again for a minute, also from a server
        that was started anew; nobody else does, and not for longer."""
        code = self.store.invite("laptop", Permissions())
        token = self.store.join(code, NONCE)[1]
        self.time += JOIN_AGAIN
        self.store = TokenStore(self.path, lambda: self.time)
        self.assertEqual(self.store.join(code, NONCE)[1], token)
        self.assertEqual(self.refused(code, OTHER), "invitation-used")
        self.time += 1
        self.assertEqual(self.refused(code), "invitation-used")

    def test_refused(self) -> None:
        """What happened to it is told to who has the right code alone."""
        code = self.store.invite("laptop", Permissions(), 60)
        self.assertEqual(self.refused("0" * 16), "invitation-unknown")
        self.time += 60
        self.assertEqual(self.refused(code), "invitation-expired")
        code = self.store.invite("laptop", Permissions())
        self.store.revoke("laptop")
        self.assertEqual(self.refused(code), "token-revoked")
        self.store.create("laptop", Permissions())
        self.assertEqual(self.refused(code), "invitation-unknown")

    def test_revokedToken(self) -> None:
        """A token that was revoked does not come back by asking again."""
        code = self.store.invite("laptop", Permissions())
        self.store.join(code, NONCE)
        self.store.revoke("laptop")
        self.assertEqual(self.refused(code), "token-revoked")

    def test_names(self) -> None:
        """A name that is given is refused; what is over makes room, and who names none
        gets the next one that is free."""
        self.store.create("laptop", Permissions())
        for make in (self.store.invite, self.store.create):
            self.store.invite("tablet", Permissions(), replaces=True)
            for name in ("laptop", "tablet"):
                error = self.assertRaises(TunnelError, make, name, Permissions())
                self.assertEqual(error.code.name, "name-taken")
        error = self.assertRaises(
            TunnelError, self.store.invite, "laptop", Permissions(), replaces=True
        )
        self.assertEqual(error.code.name, "name-taken")
        for _ in range(3):
            self.store.invite("", Permissions(), 60)
        self.assertEqual(
            list(self.store.read().byName),
            ["laptop", "tablet", "client", "client-2", "client-3"],
        )
        self.time += 61
        self.store.invite("", Permissions(), 60)
        self.store.create("client-2", Permissions())
        self.assertTrue(self.store.read().byName["client"].isOpen(self.time))

    def test_bounded(self) -> None:
        """So many may wait; those that were used do not count, and those that are over
        for a month are gone."""
        joined = self.store.invite("joined", Permissions())
        self.store.join(joined, NONCE)
        for _ in range(MOST_INVITATIONS):
            self.store.invite("", Permissions())
        error = self.assertRaises(TunnelError, self.store.invite, "more", Permissions())
        self.assertEqual(error.code.name, "limit-reached")
        self.time += INVITATION_TIME + 31 * 86400
        self.store.invite("more", Permissions())
        self.assertEqual(list(self.store.read().byName), ["joined", "more"])

    def test_seconds(self) -> None:
        """It is good for a while, not for ever."""
        for seconds in (0, -1, 31 * 86400.0, float("nan"), float("inf")):
            error = self.assertRaises(
                TunnelError, self.store.invite, "x", Permissions(), seconds
            )
            self.assertEqual(error.code.name, "bad-option")

    def test_once(self) -> None:
        """Of many who join at once, exactly one has it."""
        code = self.store.invite("laptop", Permissions())
        had: list[str] = []

        def join(number: int) -> None:
            try:
                had.append(TokenStore(self.path).join(code, f"{number:022}")[1])
            except TunnelError as error:
                had.append(error.code.name)

        self.time = 0.0
        text = self.path.read_text().replace("2030-", "2130-")
        self.path.write_text(text)
        threads = [Thread(target=join, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(had.count("invitation-used"), 7)
        self.assertEqual(len(self.store.read().byDigest), 1)

    def test_server(self) -> None:
        """A server that runs knows an invitation that was made since, and the token at
        once; a wrong code costs no look into the file."""
        checker = TokenFile(self.path, Clock(), lambda: self.time)
        code = self.store.invite("laptop", Permissions())
        self.patch(TokenFile, "store", None)
        self.assertRaises(TunnelError, checker.join, "0" * 16, NONCE)
        self.flushLoggedErrors()
        self.patch(TokenFile, "store", self.store)
        token = checker.join(code, NONCE)[1]
        logged = checker.requestAvatarId(TunnelCredentials({"token": token}, None))
        self.assertEqual(self.successResultOf(logged), b"laptop")

    def test_unwritable(self) -> None:
        """A file that cannot be written leaves the invitation as it was."""
        code = self.store.invite("laptop", Permissions())
        before = self.path.read_bytes()

        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "replace", full)
        self.assertEqual(self.refused(code), "bad-option")
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(list(self.path.parent.iterdir()), [self.path])
