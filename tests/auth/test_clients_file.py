"""Tests for L{tristunnel.auth.clients_file}."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

import tristunnel
from tristunnel.auth.clients_file import ClientsFile, ClientsFileCheckerFactory
from tristunnel.auth.credentials import TunnelCredentials
from tristunnel.auth.files import MAX_FILE_SIZE
from tristunnel.errors import TunnelError


@contextmanager
def loggedLines(name: str = "ClientsFile") -> Iterator[list[str]]:
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        ours = event.get("log_namespace", "").endswith(name)
        if ours and event["log_level"] is not LogLevel.info:
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)


class ClientsFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_text("a:one\n")
        self.turn = 0

    def rewrite(self, content: str) -> None:
        self.path.write_text(content)
        self.turn += 1
        os.utime(self.path, (self.turn, self.turn))

    def admits(self, checker: ClientsFile, **fields: object) -> bool:
        answer = checker.requestAvatarId(TunnelCredentials(fields))
        results: list[Any] = []
        answer.addBoth(results.append)
        if isinstance(results[0], bytes):
            self.assertIn(results[0].decode(), (str(fields.get("id")), "a"))
            return True
        results[0].trap(UnauthorizedLogin)
        return False

    def test_interfaces(self) -> None:
        """It is a checker, and shows its path alone."""
        checker = ClientsFile(self.path)
        verifyObject(ICredentialsChecker, checker)
        self.assertEqual(repr(checker), f"<ClientsFile '{self.path.absolute()}'>")

    def test_secret(self) -> None:
        """The id and its secret are admitted under any of the secret's keys."""
        checker = ClientsFile(self.path)
        for key in ("secret", "password", "token"):
            self.assertTrue(self.admits(checker, **{"id": "a", key: "one"}))
        self.assertFalse(self.admits(checker, id="a", secret="two"))
        self.assertFalse(self.admits(checker, id="a"))
        self.assertFalse(self.admits(checker, id="b", secret="one"))
        self.assertFalse(self.admits(checker, secret="one"))
        self.assertFalse(self.admits(checker))

    def test_oddFields(self) -> None:
        """Values of any JSON type are refused, not an error."""
        checker = ClientsFile(self.path)
        long = "a" * 100_000
        odds: list[object] = [None, True, 7, 1.5, [], {}, ["a"], "\ud800", long]
        for odd in odds:
            self.assertFalse(self.admits(checker, id=odd, secret="one"))
            self.assertFalse(self.admits(checker, id="a", secret=odd))
            self.assertFalse(self.admits(checker, token=odd))

    def test_bearerToken(self) -> None:
        """A token alone may be C{ID:SECRET}; with other fields it is a secret."""
        checker = ClientsFile(self.path)
        self.assertTrue(self.admits(checker, token="a:one"))
        self.assertTrue(self.admits(checker, token="a:one", tristunnel={}))
        self.assertFalse(self.admits(checker, token="a:two"))
        self.assertFalse(self.admits(checker, token="a"))
        self.assertFalse(self.admits(checker, token=":one"))
        self.assertFalse(self.admits(checker, token="one"))
        self.assertFalse(self.admits(checker, token="a:one", id="b"))
        self.rewrite("a:o:n:e\n")
        self.assertTrue(self.admits(checker, token="a:o:n:e"))

    def test_followsChanges(self) -> None:
        """A changed file is in force at the next login."""
        checker = ClientsFile(self.path)
        self.rewrite("b:two\n")
        self.assertFalse(self.admits(checker, id="a", secret="one"))
        self.assertTrue(self.admits(checker, id="b", secret="two"))

    def test_followsReplacement(self) -> None:
        """A file of the same size and time that was renamed into place is read."""
        checker = ClientsFile(self.path)
        other = Path(self.mktemp())
        other.write_text("a:two\n")
        times = self.path.stat()
        os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
        other.replace(self.path)
        self.assertTrue(self.admits(checker, id="a", secret="two"))

    def test_readsOnce(self) -> None:
        """A file that did not change is not read again."""
        checker = ClientsFile(self.path)

        def explode() -> None:
            raise AssertionError("read again")

        self.patch(checker, "_load", explode)
        self.assertTrue(self.admits(checker, id="a", secret="one"))

    def test_relativePath(self) -> None:
        """A relative path keeps its meaning when the process goes elsewhere."""
        self.addCleanup(os.chdir, os.getcwd())
        checker = ClientsFile(os.path.relpath(self.path))
        os.chdir("/")
        with loggedLines() as lines:
            self.assertTrue(self.admits(checker, id="a", secret="one"))
        self.assertEqual(lines, [])

    def test_brokenLines(self) -> None:
        """Broken lines are logged once per change, by number and without their text;
        the good lines are in force."""
        self.path.write_text("a:one\n:s3cr3t\n")
        with loggedLines() as lines:
            checker = ClientsFile(self.path)
            self.assertTrue(self.admits(checker, id="a", secret="one"))
            self.assertTrue(self.admits(checker, id="a", secret="one"))
            self.assertEqual(len(lines), 1)
            self.rewrite("a:one\n\n:s3cr3t\n")
            self.assertTrue(self.admits(checker, id="a", secret="one"))
            self.assertTrue(self.admits(checker, id="a", secret="one"))
        self.assertEqual(len(lines), 2)
        self.assertIn("line 2: the id is empty", lines[0])
        self.assertIn("line 3: the id is empty", lines[1])
        self.assertNotIn("s3cr3t", "".join(lines))

    def test_manyBrokenLines(self) -> None:
        """A file of garbage makes few log lines."""
        self.path.write_text(":\n" * 100)
        with loggedLines() as lines:
            ClientsFile(self.path)
        self.assertEqual(len(lines), 21)
        self.assertIn("80 more lines are invalid", lines[-1])

    def test_anybody(self) -> None:
        """How many ids anybody may claim is logged, and what has no colon lets nobody
        in and is in no log line."""
        self.path.write_text("a:*\nlaptop w0rd\nw0rd\n")
        with loggedLines() as lines:
            checker = ClientsFile(self.path)
        self.assertTrue(self.admits(checker, id="a"))
        for name in ("laptop", "laptop w0rd", "w0rd"):
            self.assertFalse(self.admits(checker, id=name))
        self.assertIn("admits 1 id; 1 without a secret", lines[0])
        self.assertIn("line 2: there is no colon after the id", lines[1])
        self.assertEqual(len(lines), 3)
        self.assertNotIn("w0rd", "".join(lines))

    def test_vanishes(self) -> None:
        """A file that vanishes leaves its content in force, is logged once per
        disappearance, and is read when it is back."""
        checker = ClientsFile(self.path)
        with loggedLines() as lines:
            self.path.unlink()
            for _ in range(3):
                self.assertTrue(self.admits(checker, id="a", secret="one"))
            self.assertEqual(len(lines), 1)
            self.assertIn("No such file", lines[0])
            self.rewrite("b:two\n")
            self.assertFalse(self.admits(checker, id="a", secret="one"))
            self.assertTrue(self.admits(checker, id="b", secret="two"))
            self.path.unlink()
            self.assertTrue(self.admits(checker, id="b", secret="two"))
        self.assertEqual(len(lines), 2)

    def test_becomesUnusable(self) -> None:
        """A file that grows too large, or becomes something else, leaves its last
        content in force."""
        checker = ClientsFile(self.path)
        with loggedLines() as lines:
            os.truncate(self.path, MAX_FILE_SIZE + 1)
            self.assertTrue(self.admits(checker, id="a", secret="one"))
            self.path.unlink()
            self.path.mkdir()
            self.assertTrue(self.admits(checker, id="a", secret="one"))
            self.path.rmdir()
            os.mkfifo(self.path)
            self.assertTrue(self.admits(checker, id="a", secret="one"))
        self.assertEqual(len(lines), 3)
        self.assertIn("larger than 16 MiB", lines[0])
        self.assertIn("directory", lines[1])
        self.assertIn("not a regular file", lines[2])

    def test_noLeak(self) -> None:
        """Failing to read again and again leaves no descriptors open."""

        def nextDescriptor() -> int:
            descriptor = os.open(os.devnull, os.O_RDONLY)
            os.close(descriptor)
            return descriptor

        checker = ClientsFile(self.path)
        for replace in (os.mkdir, os.mkfifo):
            self.path.unlink()
            replace(self.path)
            before = nextDescriptor()
            for _ in range(3):
                self.assertTrue(self.admits(checker, id="a", secret="one"))
            self.assertEqual(nextDescriptor(), before)
            self.path.rename(self.mktemp())
            self.path.touch()

    def test_unreadableAtStart(self) -> None:
        """A file that cannot be read at the start is C{bad-option}, in one line with
        the path."""
        large = self.mktemp()
        Path(large).touch()
        os.truncate(large, MAX_FILE_SIZE + 1)
        directory = self.mktemp()
        os.mkdir(directory)
        fifo = self.mktemp()
        os.mkfifo(fifo)
        for path, reason in (
            (self.mktemp(), "No such file or directory"),
            (large, "larger than 16 MiB"),
            (directory, "directory|regular"),
            (fifo, "not a regular file"),
            ("nul\0", "null"),
        ):
            error = self.assertRaises(TunnelError, ClientsFile, path)
            self.assertEqual(error.code.name, "bad-option")
            self.assertRegex(error.message, reason)
            self.assertIn("ID:SECRET", error.message)
            self.assertNotIn("\n", error.message)


class ClientsFileCheckerFactoryTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        """It is a plugin that makes checkers."""
        factory = ClientsFileCheckerFactory()
        verifyObject(ICheckerFactory, factory)
        verifyObject(IPlugin, factory)
        self.assertEqual(factory.authType, "clients")
        self.assertEqual(
            tuple(factory.credentialInterfaces), ClientsFile.credentialInterfaces
        )
        self.assertIn("ID:SECRET", factory.authHelp)

    def test_generateChecker(self) -> None:
        """The argument is the path."""
        path = Path(self.mktemp())
        path.write_text("a:one\n")
        checker = ClientsFileCheckerFactory().generateChecker(str(path))
        credentials = TunnelCredentials({"id": "a", "secret": "one"})
        self.assertEqual(
            self.successResultOf(checker.requestAvatarId(credentials)), b"a"
        )

    def test_badArgument(self) -> None:
        """A missing argument or file is an error of one line."""
        factory = ClientsFileCheckerFactory()
        for argument in ("", "  ", self.mktemp()):
            error = self.assertRaises(
                InvalidAuthArgumentString, factory.generateChecker, argument
            )
            self.assertNotIn("\n", str(error))
            self.assertNotIn("[bad-option]", str(error))

    def test_cheapImport(self) -> None:
        """Importing the plugin's module loads neither a reactor nor OpenSSL."""
        script = (
            "import sys, tristunnel.auth.clients_file;"
            "print([m for m in ('twisted.internet.reactor', 'OpenSSL',"
            " 'twisted.internet.ssl', 'twisted.web', 'cryptography')"
            " if m in sys.modules])"
        )
        root = str(Path(tristunnel.__file__).absolute().parent.parent)
        path = os.pathsep.join([root, *(p for p in sys.path if p)])
        output = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            check=True,
        ).stdout
        self.assertEqual(output.strip(), b"[]")
