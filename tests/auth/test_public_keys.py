"""
Public keys: as people write them, in C{authorized_keys} files, and in tokens.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from io import StringIO
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.strcred import InvalidAuthArgumentString
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.auth.public_keys import (
    LOOK_INTERVAL,
    MAX_FILE,
    AuthorizedKeys,
    KeysCheckerFactory,
    formatKey,
    parseKey,
    parseLine,
)
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.auth.token_store import TokenStore
from tristunnel.auth.tokens import TokenFile
from tristunnel.auth.tokens_format import formatToken, parseToken
from tristunnel.cli.main import main
from tristunnel.dialects.conch.hostkey import FILE_NAME, HostKey, parseFingerprint
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity, Permissions


def written(key: Any) -> str:
    public = key.public_key()
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
        old = "ssh-dss AAAAB3NzaC1kc3M="
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
        asked: Deferred[Identity] = authenticator.authenticate(
            {"id": user}, None, "", key
        )
        return self.successResultOf(asked)

    def refused(self, authenticator: Authenticator, user: str, key: bytes) -> None:
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

    def test_inUse(self) -> None:
        """
        A file that changes while somebody is there counts at once, except while it is
        written, or cannot be read.
        """
        path, clock = self.directory / "laptop", Clock()
        path.write_text(self.key)
        authenticator = Authenticator(portalFor([AuthorizedKeys(path.parent, clock)]))
        grant = self.login(authenticator, "laptop", self.blob).grant
        assert grant is not None
        ends: list[TunnelError] = []
        grant.watch(ends.append)
        path.write_text(f'permitlisten="8080" {self.key}')
        clock.advance(LOOK_INTERVAL)
        with self.assertRaises(TunnelError):
            grant.permissions.checkPort(8081)
        path.write_text("")
        clock.advance(LOOK_INTERVAL)
        path.write_text(self.key)
        clock.advance(LOOK_INTERVAL)
        path.write_bytes(b"\xff\xfe\0")
        clock.pump([LOOK_INTERVAL] * 3)
        grant.check()
        path.unlink()
        clock.pump([LOOK_INTERVAL] * 2)
        self.assertEqual(["token-revoked"], [each.code.name for each in ends])
        self.assertEqual([], clock.getDelayedCalls())

    def test_unread(self) -> None:
        """Why a file is of no use is told, however often somebody asks."""
        path = self.directory / "laptop"
        keys = AuthorizedKeys(self.directory)
        for content, why in (
            (b"\xff\xfe\0", "nobody can log in by them"),
            (f'from="x" {self.key}'.encode(), "line 1 is left out"),
            (b"#" * MAX_FILE + b"\n" + self.key.encode(), "only its first 256 KiB"),
        ):
            path.write_bytes(content)
            with capturedLogs() as logged:
                for _ in range(30):
                    self.assertFalse(keys.knowsKey("laptop", self.blob))
            lines = [formatEvent(each) for each in logged]
            self.assertIn(why, lines[0])
            self.assertLess(len(lines), 30)

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


class CommandTests(SynchronousTestCase):
    """C{tristunnel token create --key}."""

    def test_create(self) -> None:
        """
        The key of a file is in the token; the server's own key is shown beside it.
        """
        directory = Path(self.mktemp()).absolute()
        HostKey.inDirectory(directory)
        key = written(Ed25519PrivateKey.generate())
        (directory / "id.pub").write_text(f"{key} me@laptop\n")
        command = ["token", "create", "--name", "laptop", "--key"]
        out = StringIO()
        self.patch(sys, "stdout", out)
        main([*command, str(directory / "id.pub"), "--file", str(directory / "tokens")])
        (token,) = TokenStore(directory / "tokens").read().byName.values()
        self.assertEqual((parseKey(key),), token.keys)
        self.assertIn(HostKey.inDirectory(directory).fingerprint, out.getvalue())
        self.assertEqual(0o600, (directory / FILE_NAME).stat().st_mode & 0o777)


class HostKeyTests(SynchronousTestCase):
    """The server's own key."""

    def test_kept(self) -> None:
        """It is made once, and none but an ed25519 key will do."""
        directory = Path(self.mktemp())
        made = HostKey.inDirectory(directory)
        self.assertEqual(made.blob, HostKey.inDirectory(directory).blob)
        self.assertRegex(made.fingerprint, "^SHA256:[A-Za-z0-9+/]{43}$")
        for text in (f"SHA256:{'A' * 43}", "A" * 43 + "="):
            self.assertEqual(f"SHA256:{'A' * 43}", parseFingerprint(text))
        self.assertEqual("", parseFingerprint(""))
        with self.assertRaises(TunnelError):
            parseFingerprint("MD5:00:11")
        (directory / FILE_NAME).write_text("no key")
        with self.assertRaises(TunnelError):
            HostKey.inDirectory(directory)
        with self.assertRaises(TunnelError):
            HostKey.inDirectory(directory / FILE_NAME)
