"""What is read of options and files, and how refusals are said."""

from __future__ import annotations

import sys

from acme import errors, messages
from requests import ConnectionError as NoConnection
from requests import Timeout
from requests.exceptions import SSLError

from tests.tls.files import FileTestCase
from tristunnel.acme.dns import CommandRecords, UpdatedRecords
from tristunnel.acme.problems import AuthorityProblem, problemOf
from tristunnel.acme.store import Renewal, Store


class DNSTests(FileTestCase):
    def test_keys(self) -> None:
        """A key is read as tsig-keygen writes it, and anything else is refused."""
        good = self.write("k", b'key "a" { algorithm hmac-sha512; secret "YWJj"; };')
        for server in ("127.0.0.1", "[::1]", "ns.example:5353", "[::1]:53"):
            UpdatedRecords(server, str(good))
        for text in (b"", b"\xff\xfe", b'key "a" { secret "YWJj"; };', b"key a {};"):
            bad = self.write("bad", text)
            with self.refused("--acme-dns-key", "tsig-keygen" if b"k" in text else ""):
                UpdatedRecords("127.0.0.1", str(bad))
        with self.refused("--acme-dns-server"):
            UpdatedRecords("127.0.0.1:dns", str(good))
        with self.refused("no-file"):
            UpdatedRecords("127.0.0.1", str(self.directory / "no-file"))

    def test_commands(self) -> None:
        """A command that is none, and one that fails, are told of in one line."""
        for command in ("", "'", "no-such-program x"):
            with self.refused("--acme-dns-hook"):
                CommandRecords(command)
        script = self.write("fail.py", b"import sys; sys.exit('no\\nsuch zone')")
        records = CommandRecords(f"{sys.executable} {script}")
        with self.assertRaises(AuthorityProblem) as caught:
            records.add("_acme-challenge.a.example", "x")
        self.assertIn("status 1", caught.exception.message)
        self.assertIn("such zone", caught.exception.message)
        self.assertNotIn("\n", caught.exception.message)


def said(kind: str, detail: str) -> messages.Error:
    made: messages.Error = messages.Error.from_json({"type": kind, "detail": detail})
    return made


class ProblemTests(FileTestCase):
    def test_words(self) -> None:
        """Each refusal has its cause and, where there is one, its cure."""
        urn = "urn:ietf:params:acme:error:"
        for failure, words in (
            (said(urn + "rateLimited", "many\n"), "use fewer"),
            (said(urn + "caa", "no"), "CAA record"),
            (said("about:blank", "odd"), "odd"),
            (SSLError("x"), "--acme-ca"),
            (Timeout("x"), "no answer in time"),
            (NoConnection("x"), "cannot be reached"),
            (errors.ClientError("x" * 900), "not ACME"),
            (KeyError("newOrder"), "not ACME"),
        ):
            problem = problemOf(failure, 60.0, "https://a.example/dir")
            self.assertIn(words, problem.message)
            self.assertNotIn("\n", problem.message)
            self.assertLess(len(problem.message), 600)


class StoreTests(FileTestCase):
    def test_damaged(self) -> None:
        """A file that is damaged counts as none."""
        store = Store(self.directory)
        for text in (b"", b"[]", b'{"first": "x"}', b"\xff", b'{"first": 1}'):
            self.write("renewal/a.example.json", text)
            self.assertEqual(store.renewal("a.example"), Renewal())
        self.assertEqual(list(store.firsts("example")), [0.0])
        known = Renewal(1.0, 2, 3.0, 4.0, "why", 5.0)
        store.remember("a.example", known)
        self.assertEqual(store.renewal("a.example"), known)
