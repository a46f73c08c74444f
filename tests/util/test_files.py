"""
How text files are written and who can read them, L{tristunnel.util.files}, at every
option that names one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.tls.authority import makeAuthority
from tristunnel.auth.clients_file import ClientsFile
from tristunnel.auth.token_store import TokenStore
from tristunnel.auth.tokens import TokenFile
from tristunnel.config.file import readConfig
from tristunnel.connect.credentials import givenCredentials, givenToken
from tristunnel.errors import TunnelError
from tristunnel.tls.pem import loadOwnCertificate
from tristunnel.util.files import withoutMark

TOKEN = '{"name": "a", "sha256": "' + "0" * 64 + '"}\n'


def pem() -> str:
    certificate, key = makeAuthority().issue(["localhost"])
    return (certificate + key).decode()


class WrittenTests(SynchronousTestCase):
    """Byte order marks, and encodings that are not ours."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.readers: list[tuple[Callable[[str], object], str]] = [
            (givenCredentials, '{"id": "laptop"}'),
            (givenToken, "secret\n"),
            (ClientsFile, "laptop:secret\n"),
            (TokenFile, TOKEN),
            (lambda path: TokenStore(path).read(), TOKEN),
            (readConfig, "port = []\n"),
            (loadOwnCertificate, pem()),
        ]

    def test_mark(self) -> None:
        """A mark in front of UTF-8 makes no difference."""
        for read, text in self.readers:
            self.path.write_text(text, "utf-8-sig")
            self.path.chmod(0o600)
            with capturedLogs() as logged:
                read(str(self.path))
            for event in logged:
                self.assertNotIn("left out", str(formatEvent(event)))

    def test_others(self) -> None:
        """Everything else is refused, with a cause and a cure."""
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"):
            for read, text in self.readers:
                self.path.write_text(text, encoding)
                error = self.assertRaises(TunnelError, read, str(self.path))
                self.assertIn("it is UTF-16, not UTF-8; save it as UTF-8", str(error))
                self.assertNotIn("secret", str(error))

    def test_followed(self) -> None:
        """A file that becomes such a one leaves its last good content in force."""
        self.path.write_text("laptop:secret\n")
        clients = ClientsFile(self.path)
        self.path.write_text("laptop:other\n", "utf-16")
        with capturedLogs() as logged:
            clients._file.follow()
        self.assertIn("it is UTF-16", str(formatEvent(logged[-1])))
        self.assertTrue(clients._clients.admits(b"laptop", b"secret"))

    @given(st.text(st.characters(exclude_characters="\x00\ufeff")))
    def test_anyText(self, text: str) -> None:
        """All text is understood, with and without the mark."""
        try:
            data = text.encode()
        except UnicodeEncodeError:
            return
        self.assertEqual(withoutMark(data), data)
        self.assertEqual(withoutMark(b"\xef\xbb\xbf" + data), data)


class ReadableTests(SynchronousTestCase):
    """Secrets that others on the machine can read."""

    def told(self, read: Callable[[str], object], text: str, mode: int) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_text(text)
        path.chmod(mode)
        with capturedLogs() as logged:
            read(str(path))
        lines = [str(formatEvent(event)) for event in logged]
        return "\n".join(line for line in lines if f"chmod 600 {path}" in line)

    def test_secrets(self) -> None:
        """Credentials, tokens, clients' secrets and private keys."""
        for read, text in (
            (givenCredentials, '{"id": "laptop"}'),
            (givenToken, "secret\n"),
            (ClientsFile, "laptop:secret\n"),
        ):
            for mode in (0o644, 0o640, 0o604):
                told = self.told(read, text, mode)
                self.assertRegex(told, "^.* has (a secret|secrets), which others")
            self.assertEqual(self.told(read, text, 0o600), "")
        self.assertIn("a private key", self.told(loadOwnCertificate, pem(), 0o644))
        # A key is often shared with a group.
        self.assertEqual(self.told(loadOwnCertificate, pem(), 0o640), "")

    def test_noSecrets(self) -> None:
        """A file without any may be read by everybody."""
        self.assertEqual(self.told(ClientsFile, "guest:*\n", 0o644), "")
        self.assertEqual(self.told(TokenFile, TOKEN, 0o644), "")
