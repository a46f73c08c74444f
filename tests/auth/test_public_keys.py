"""
Public keys: as people write them, in C{authorized_keys} files, and in tokens.
"""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.strcred import InvalidAuthArgumentString
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.auth.public_keys import (
    AuthorizedKeys,
    KeysCheckerFactory,
    formatKey,
    parseKey,
    parseLine,
)
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.auth.tokens import TokenFile, TokenStore
from tristunnel.auth.tokens_format import formatToken, parseToken
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity, Permissions


def written(key: object) -> str:
    """A public key as ssh-keygen writes it."""
    public = key.public_key()  # type: ignore[attr-defined]
    text: bytes = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return text.decode()


class FormatTests(SynchronousTestCase):
    """How keys are written."""

    def test_key(self) -> None:
        """A key is written again as it was, without its comment."""
        private = Ed25519PrivateKey.generate()
        text = written(private)
        self.assertEqual(text, formatKey(parseKey(f"{text} me@laptop\n")))
        raw = private.public_key().public_bytes_raw()
        bare = "vt-pub-" + b64encode(raw).decode().rstrip("=")
        self.assertEqual(parseKey(text), parseKey(bare))

    def test_bad(self) -> None:
        """What is weak, private or no key at all is refused."""
        weak = written(rsa.generate_private_key(65537, 1024))
        old = written(dsa.generate_private_key(1024))
        for text in ("", "ssh-ed25519", "ssh-ed25519 AAAA", "vt-pub-AA", weak, old):
            with self.assertRaises(TunnelError):
                parseKey(text)

    def test_options(self) -> None:
        """C{permitlisten} limits ports, and what is not known makes a key useless."""
        key = written(Ed25519PrivateKey.generate())
        for options, ports in (
            ('permitlisten="8080"', "8080"),
            (
                'permitlisten="localhost:8080",permitlisten="*:9000",restrict',
                "8080,9000",
            ),
            ('no-pty,permitlisten="*"', "None"),
            ("restrict,port-forwarding", "None"),
        ):
            self.assertEqual(
                ports, str(parseLine(f"{options} {key} me").permissions.ports)
            )
        for options in ('from="10.0.0.0/8"', 'command="x y"', "x", 'permitlisten="x"'):
            with self.assertRaises(TunnelError):
                parseLine(f"{options} {key}")

    @settings(max_examples=50, deadline=None)
    @given(st.text(max_size=60))
    def test_anything(self, text: str) -> None:
        """Whatever a line says, it is a key or is refused."""
        try:
            parseLine(text)
        except TunnelError as refusal:
            self.assertEqual("bad-option", refusal.code.name)


class LoginTests(SynchronousTestCase):
    """Who comes in by a key."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.key = written(Ed25519PrivateKey.generate())
        self.blob = parseKey(self.key)

    def login(self, authenticator: Authenticator, user: str, key: bytes) -> Identity:
        """Log in by a key that was proved."""
        asked: Deferred[Identity] = authenticator.authenticate(
            {"id": user}, None, "", key
        )
        return self.successResultOf(asked)

    def refused(self, authenticator: Authenticator, user: str, key: bytes) -> None:
        """Not."""
        asked = authenticator.authenticate({"id": user}, None, "", key)
        self.assertEqual(
            "auth-refused", self.failureResultOf(asked, TunnelError).value.code.name
        )

    def test_files(self) -> None:
        """A file for each id says which keys are its, until they are gone."""
        (self.directory / "laptop").write_text(
            f'# mine\nfrom="x" {self.key}\npermitlisten="8080" {self.key} me\n'
        )
        authenticator = Authenticator(portalFor([AuthorizedKeys(self.directory)]))
        self.assertTrue(authenticator.takesKeys)
        self.assertTrue(authenticator.knowsKey("laptop", self.blob))
        for user in ("other", "../laptop", ".", "", "laptop\0"):
            self.assertFalse(authenticator.knowsKey(user, self.blob))
            self.refused(authenticator, user, self.blob)
        identity = self.login(authenticator, "laptop", self.blob)
        assert identity.grant is not None
        self.assertEqual("laptop", identity.name)
        identity.grant.permissions.checkPort(8080)
        with self.assertRaises(TunnelError):
            identity.grant.permissions.checkPort(8081)
        identity.grant.check()
        (self.directory / "laptop").write_text("")
        with self.assertRaises(TunnelError):
            identity.grant.check()
        self.refused(authenticator, "laptop", b"")
        self.assertEqual([], authenticator.keysOf())

    def test_directory(self) -> None:
        """The directory must be one."""
        for text in ("", str(self.directory / "none")):
            with self.assertRaises(InvalidAuthArgumentString):
                KeysCheckerFactory().generateChecker(text)

    def test_token(self) -> None:
        """A key in a token is as good as the token, and is revoked with it."""
        path = self.directory / "tokens"
        store = TokenStore(path)
        secret = store.create("laptop", Permissions(), (self.blob,))
        checker = TokenFile(path, Clock())
        authenticator = Authenticator(portalFor([checker]))
        self.assertTrue(authenticator.takesKeys)
        self.assertEqual([self.blob], authenticator.keysOf("laptop"))
        self.assertEqual([], authenticator.keysOf("other"))
        self.assertEqual("laptop", self.login(authenticator, "me", self.blob).name)
        # Nobody proves to have a key by saying so.
        said = authenticator.authenticate({"id": "me", "key": self.key})
        self.failureResultOf(said, TunnelError)
        with_ = authenticator.authenticate({"token": secret})
        self.assertEqual("laptop", self.successResultOf(with_).name)
        checker.revoke("laptop")
        self.assertFalse(authenticator.knowsKey("me", self.blob))
        late = authenticator.authenticate({"id": "me"}, None, "", self.blob)
        self.failureResultOf(late, TunnelError)

    def test_line(self) -> None:
        """A token's line has its keys as OpenSSH writes them."""
        store = TokenStore(self.directory / "tokens")
        store.create("laptop", Permissions(), (self.blob,))
        (token,) = store.read().byName.values()
        line = formatToken(token)
        self.assertEqual([self.key], json.loads(line)["keys"])
        self.assertEqual(token.keys, parseToken(line).keys)
        with self.assertRaises(ValueError):
            parseToken(json.dumps({**json.loads(line), "keys": ["x"]}))
