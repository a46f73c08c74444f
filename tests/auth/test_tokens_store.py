"""Tests for L{TokenStore}."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import tristunnel
from tristunnel.auth.token_store import TokenStore
from tristunnel.auth.tokens_format import PREFIX, digestOf
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Permissions

_WRITER = """
import sys
from tristunnel.model.permissions import Permissions
from tristunnel.auth.tokens import TokenStore

path, name, count = sys.argv[1:]
store = TokenStore(path)
for number in range(int(count)):
    store.create(f"{name}-{number}", Permissions())
    if number % 2:
        store.revoke(f"{name}-{number}")
"""


class TokenStoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "state" / "tokens"
        self.store = TokenStore(self.path, lambda: 1_900_000_000.0)

    def mode(self) -> int:
        return stat.S_IMODE(self.path.stat().st_mode)

    def test_created(self) -> None:
        """The file is made for its owner alone, has the hash and not the token, and is
        all that is left behind."""
        token = self.store.create("laptop", Permissions(maxTunnels=5))
        self.assertTrue(token.startswith(PREFIX))
        text = self.path.read_text()
        self.assertNotIn(token, text)
        self.assertIn(digestOf(token).hex(), text)
        self.assertEqual(self.mode(), 0o600)
        self.assertEqual(stat.S_IMODE(self.path.parent.stat().st_mode), 0o700)
        self.assertEqual(list(self.path.parent.iterdir()), [self.path])
        found = self.store.read().byName["laptop"]
        self.assertEqual(found.permissions, Permissions(maxTunnels=5))
        self.assertEqual(found.created, 1_900_000_000.0)

    def test_revoked(self) -> None:
        """A revoked token stays in the file as such, until its name is given again."""
        self.store.create("laptop", Permissions())
        self.store.create("other", Permissions())
        first = self.store.revoke("laptop")
        self.assertEqual(first.revoked, 1_900_000_000.0)
        self.assertEqual(self.store.revoke("laptop"), first)
        token = self.store.create("laptop", Permissions())
        found = self.store.read()
        self.assertEqual(sorted(found.byName), ["laptop", "other"])
        self.assertIsNone(found.byName["laptop"].revoked)
        self.assertEqual(found.byName["laptop"].digest, digestOf(token))

    def test_refused(self) -> None:
        """A name that is taken, wrong or unknown changes nothing."""
        self.store.create("laptop", Permissions())
        before = self.path.read_bytes()
        for code, name in (("name-taken", "laptop"), ("bad-option", "a b")):
            error = self.assertRaises(
                TunnelError, self.store.create, name, Permissions()
            )
            self.assertEqual(error.code.name, code)
        self.assertRaises(TunnelError, self.store.revoke, "nobody")
        self.assertEqual(self.path.read_bytes(), before)

    def test_othersLines(self) -> None:
        """Comments and broken lines stay as they are."""
        self.path.parent.mkdir(parents=True)
        kept = b"# my tokens\n\noops \xff\n"
        self.path.write_bytes(kept)
        self.store.create("laptop", Permissions())
        self.store.revoke("laptop")
        data = self.path.read_bytes()
        self.assertTrue(data.startswith(kept))
        self.assertEqual(data.count(b"\n"), 4)
        self.assertTrue(data.endswith(b"}\n"))

    def test_mode(self) -> None:
        """A file that others could change no longer can be; a group that may read it
        still may."""
        self.store.create("one", Permissions())
        self.path.chmod(0o666)
        self.store.create("two", Permissions())
        self.assertEqual(self.mode(), 0o640)

    def test_owner(self) -> None:
        """What root changes still belongs to whom it belonged."""
        if os.geteuid() != 0:
            raise SkipTest("only root can give files away")
        self.store.create("one", Permissions())
        os.chown(self.path, 12345, 23456)
        self.store.create("two", Permissions())
        status = self.path.stat()
        self.assertEqual((status.st_uid, status.st_gid), (12345, 23456))

    def test_link(self) -> None:
        """A link stays one."""
        self.store.create("one", Permissions())
        link = self.path.parent / "link"
        link.symlink_to(self.path.name)
        TokenStore(link).create("two", Permissions())
        self.assertTrue(link.is_symlink())
        self.assertEqual(len(self.store.read().byName), 2)

    def test_unwritable(self) -> None:
        """What cannot be written or read is said in one line."""
        file = Path(self.mktemp())
        file.write_text("")
        for path in (file / "tokens", "/proc/tokens", Path(self.mktemp()) / "a\0b"):
            try:
                store = TokenStore(path)
                error = self.assertRaises(
                    TunnelError, store.create, "laptop", Permissions()
                )
            except ValueError:
                continue
            self.assertEqual(error.code.name, "bad-option")
            self.assertNotIn("\n", error.message)
        missing = TokenStore(self.path)
        self.assertRaises(TunnelError, missing.read)
        self.assertRaises(TunnelError, missing.revoke, "laptop")

    def test_failedWrite(self) -> None:
        """A write that fails leaves the old file and nothing else."""
        self.store.create("one", Permissions())
        before = self.path.read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", full)
        error = self.assertRaises(TunnelError, self.store.create, "two", Permissions())
        self.assertIn("No space left", error.message)
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(list(self.path.parent.iterdir()), [self.path])

    def test_concurrent(self) -> None:
        """Several programs that change the file at once lose nothing, and whoever reads
        it meanwhile never sees a broken line."""
        root = Path(tristunnel.__file__).parent.parent
        self.path.parent.mkdir(parents=True)
        path = str(self.path.absolute())
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITER, path, name, "20"], cwd=root
            )
            for name in ("a", "b", "c")
        ]
        while any(writer.poll() is None for writer in writers):
            if self.path.exists():
                self.assertEqual(self.store.read().problems, [])
        self.assertEqual([writer.returncode for writer in writers], [0, 0, 0])
        found = self.store.read()
        self.assertEqual(len(found.byName), 60)
        self.assertEqual(found.problems, [])
        revoked = [token for token in found.byName.values() if token.revoked]
        self.assertEqual(len(revoked), 30)
