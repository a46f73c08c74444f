"""The file of tokens as a way to log in, and what a token permits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString, makeChecker
from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import tristunnel
from tests.auth.test_clients_file import loggedLines
from tristunnel.auth.credentials import TunnelCredentials
from tristunnel.auth.token_store import TokenStore
from tristunnel.auth.tokens import TokenCheckerFactory, TokenFile
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Grant, Permissions, RefusedWithReason


class FileTests(SynchronousTestCase):
    """L{TokenFile} and its file."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.store = TokenStore(self.path)
        self.token = self.store.create("laptop", Permissions())
        self.turn = 0

    def append(self, text: str) -> None:
        with self.path.open("a") as stream:
            stream.write(text)
        self.turn += 1
        os.utime(self.path, (self.turn, self.turn))

    def admits(self, checker: TokenFile, token: str) -> bool:
        answer = checker.requestAvatarId(TunnelCredentials({"token": token}))
        results: list[Any] = []
        answer.addBoth(results.append)
        return isinstance(results[0], bytes)

    def test_brokenLine(self) -> None:
        """A broken line leaves the others in force, and the log has its number and not
        its text."""
        checker = TokenFile(self.path, Clock())
        with loggedLines("TokenFile") as lines:
            self.append('\n# a comment\n{"name": "secretive"\n')
            late = self.store.create("late", Permissions())
            self.assertTrue(self.admits(checker, self.token))
            self.assertTrue(self.admits(checker, late))
        self.assertEqual(
            lines,
            [
                f"Token file {str(self.path.absolute())!r}, line 4: it is not a JSON"
                " object; the line is ignored"
            ],
        )

    def test_writableByOthers(self) -> None:
        """A file that others may change is warned of."""
        self.path.chmod(0o666)
        with loggedLines("TokenFile") as lines:
            TokenFile(self.path, Clock())
        self.assertEqual(len(lines), 1)
        self.assertIn("chmod 600", lines[0])

    def test_missing(self) -> None:
        """Without a file there is one line that says how to make one."""
        for path in (f"{self.path}.none", "/", "nul\0"):
            error = self.assertRaises(TunnelError, TokenFile, path)
            self.assertIn("tristunnel token create", error.message)
            self.assertNotIn("\n", error.message)

    def test_factory(self) -> None:
        """C{--auth tokens:PATH} makes the checker, and C{--auth tokens} that of the
        state directory."""
        factory = TokenCheckerFactory()
        verifyObject(ICheckerFactory, factory)
        verifyObject(IPlugin, factory)
        self.assertIsInstance(factory.generateChecker(str(self.path)), TokenFile)
        self.assertRaises(
            InvalidAuthArgumentString, factory.generateChecker, f"{self.path}.none"
        )
        directory = Path(self.mktemp())
        self.patch(os, "environ", {"STATE_DIRECTORY": str(directory.absolute())})
        self.assertRaises(InvalidAuthArgumentString, factory.generateChecker, "")
        TokenStore(directory / "tokens").create("x", Permissions())
        self.assertIsInstance(factory.generateChecker(""), TokenFile)

    def test_plugin(self) -> None:
        """The plugin is found by its name."""
        self.assertIsInstance(makeChecker(f"tokens:{self.path}"), TokenFile)

    def test_importsNoReactor(self) -> None:
        """Neither the module nor a checker chooses a reactor."""
        script = (
            "import sys; from tristunnel.auth.tokens import TokenFile;"
            f"TokenFile({str(self.path.absolute())!r});"
            "sys.exit('twisted.internet.reactor' in sys.modules)"
        )
        root = Path(tristunnel.__file__).parent.parent
        subprocess.run([sys.executable, "-c", script], check=True, cwd=root, timeout=60)


class GrantTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.time = 0.0
        self.told: list[str] = []
        self.grant = self.make()

    def make(self, expires: float | None = 10.0, **options: Any) -> Grant:
        permissions = Permissions(expires=expires)
        return Grant(permissions, now=lambda: self.time, **options)

    def watch(self, name: str, grant: Grant | None = None) -> Any:
        def ended(reason: TunnelError) -> None:
            self.told.append(f"{name}: {reason.code.name}")

        (grant or self.grant).watch(ended)
        return ended

    def test_lastFirst(self) -> None:
        """Who came last is told first, and only once."""
        self.watch("session")
        self.watch("tunnel")
        gone = self.watch("gone")
        self.grant.unwatch(gone)
        self.grant.unwatch(gone)
        self.time = 10.0
        self.grant.expire()
        self.grant.end(TunnelError("token-revoked"))
        self.assertEqual(self.told, ["tunnel: token-expired", "session: token-expired"])
        self.assertFalse(self.grant.inUse)

    def test_check(self) -> None:
        """A check looks at the rights and at the time."""
        self.grant.check("open")
        error = self.assertRaises(TunnelError, self.grant.check, "admin")
        self.assertEqual(error.code.name, "not-permitted")
        self.assertEqual(self.grant.timeLeft, 10.0)
        self.time = 10.0
        error = self.assertRaises(TunnelError, self.grant.check)
        self.assertEqual(error.code.name, "token-expired")
        self.assertEqual(self.grant.timeLeft, 0.0)

    def test_parents(self) -> None:
        """A grant ends with any of its parents, and waits for them only while somebody
        waits for it."""
        other = self.make(expires=None)
        child = self.make(expires=None, parents=[self.grant, other])
        self.assertEqual(child.timeLeft, 10.0)
        ended = self.watch("child", child)
        self.assertTrue(other.inUse)
        child.unwatch(ended)
        self.assertFalse(other.inUse or self.grant.inUse)
        self.watch("child", child)
        other.end(TunnelError("token-revoked"))
        self.assertEqual(self.told, ["child: token-revoked"])
        self.assertFalse(self.grant.inUse)
        self.assertRaises(TunnelError, child.check)

    def test_parentOver(self) -> None:
        """A parent that is over is noticed at use, without anybody waiting."""
        child = self.make(expires=None, parents=[self.grant])
        self.time = 11.0
        error = self.assertRaises(TunnelError, child.check)
        self.assertEqual(error.code.name, "token-expired")

    def test_reasons(self) -> None:
        """L{RefusedWithReason} has one line."""
        refused = RefusedWithReason(TunnelError("token-expired"))
        self.assertEqual(str(refused), "The token has expired.")
