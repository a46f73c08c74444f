"""The server's options about names."""

from __future__ import annotations

from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli.server_tap import Options
from tristunnel.names.pages import STATUSES

_HTTP = ("--http", "tcp:8080", "--port", "tcp:9000")


class NameOptionsTests(SynchronousTestCase):
    """What a server is told about names."""

    def parse(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions(["--state-dir", self.mktemp(), *arguments])
        return options

    def test_names(self) -> None:
        """Domains and reserved names are written in one way."""
        options = self.parse(
            *(*_HTTP, "--domain", "T.Example.", "--domain", "*.BÜCHER.example"),
            *("--reserved-name", "WWW"),
        )
        self.assertEqual(options.domains, ["t.example", "xn--bcher-kva.example"])
        self.assertLessEqual({"www", "wpad"}, options.reservedNames)

    def test_pages(self) -> None:
        """Pages are read when the server starts, and are not endless."""
        place = Path(self.mktemp())
        place.mkdir()
        (place / "404.html").write_bytes(b"<p>ours")
        options = self.parse(*_HTTP, "--error-pages", str(place))
        self.assertEqual(options.pages.own, {404: b"<p>ours"})
        self.assertIn(503, STATUSES)
        (place / "502.html").write_bytes(bytes(300_000))
        with self.assertRaises(UsageError) as caught:
            self.parse(*_HTTP, "--error-pages", str(place))
        self.assertIn("256 KiB", str(caught.exception))

    def test_refused(self) -> None:
        """What is no name, or is about none, is refused with the cure."""
        for arguments, word in (
            (("--domain", "t.example"), "--http"),
            (("--access-log", "log"), "--http"),
            (("--error-pages", "pages"), "pages"),
            ((*_HTTP, "--domain", "a_b"), "--domain"),
            ((*_HTTP, "--domain", "1.2.3.4"), "--domain"),
            ((*_HTTP, "--reserved-name", "a b"), "--reserved-name"),
            ((*_HTTP, "--access-log-format", "xml"), "access-log-format"),
            (("--http", "tcp:x"), "--http"),
        ):
            with self.assertRaises(UsageError, msg=str(arguments)) as caught:
                self.parse(*arguments)
            self.assertIn(word, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))
