"""Tests for the lines of L{tristunnel.auth.clients_file}."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.auth.clients_file import ClientList
from tristunnel.auth.files import Problem

HASH = hashlib.sha256(b"hashed").hexdigest()

words = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":#"),
    min_size=1,
    max_size=20,
)


class ParseClientsTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """Comments and blank lines say nothing, and white space around the parts does
        not count."""
        clients = ClientList.parse(
            f"# comment\n\n  a : one \r\n #x:y\nb:t:w#o\nc:sha256:{HASH}\n"
            f"d: sha256:{HASH.upper()}\n e : * \nf\u00e9:\u00e9".encode()
        )
        self.assertEqual(clients.problems, [])
        self.assertEqual(
            set(clients.digests), {b"a", b"b", b"c", b"d", b"e", "f\u00e9".encode()}
        )
        self.assertTrue(clients.admits(b"a", b"one"))
        self.assertTrue(clients.admits(b"b", b"t:w#o"))
        self.assertTrue(clients.admits(b"c", b"hashed"))
        self.assertTrue(clients.admits(b"d", b"hashed"))
        self.assertTrue(clients.admits("f\u00e9".encode(), "\u00e9".encode()))
        self.assertTrue(clients.admits(b"e", b""))

    def test_refusals(self) -> None:
        """Wrong, absent and somebody else's secrets are refused, and so are unknown ids
        and the hash itself."""
        empty = hashlib.sha256(b"").hexdigest()
        clients = ClientList.parse(
            f"a:one\nb:two\nc:sha256:{HASH}\nd:sha256:{empty}\n".encode()
        )
        for name, secret in (
            (b"a", b"two"),
            (b"a", b""),
            (b"", b""),
            (b"", b"one"),
            (b"z", b"one"),
            (b"z", b""),
            (b"c", HASH.encode()),
            (b"c", b"sha256:" + HASH.encode()),
            (b"d", b""),
            (b"# comment", b""),
        ):
            self.assertFalse(clients.admits(name, secret), (name, secret))

    def test_anybody(self) -> None:
        """An id that is marked so admits whoever claims it, with any secret."""
        clients = ClientList.parse(b"a:*\nb:**\nc:sha256:*\n")
        self.assertTrue(clients.admits(b"a", b""))
        self.assertTrue(clients.admits(b"a", b"x"))
        self.assertFalse(clients.admits(b"b", b""))
        self.assertTrue(clients.admits(b"b", b"**"))
        self.assertFalse(clients.admits(b"c", b""))

    @given(words, st.sampled_from([*" \t=,;|/*", "", " *", "\t*"]), words)
    def test_noColon(self, name: str, between: str, secret: str) -> None:
        """Without a colon nobody is admitted, whatever is in its place, and the line is
        reported without its text."""
        for line in (name, f"{name}{between}{secret}"):
            clients = ClientList.parse(f"{line}\nother:one\n".encode())
            self.assertEqual(set(clients.digests), {b"other"})
            (problem,) = clients.problems
            self.assertEqual(problem.line, 1)
            self.assertEqual(
                problem.reason,
                "there is no colon after the id; write ID:SECRET, or ID:* for an id"
                " that anybody may claim",
            )
            for claimed in (name, line, ""):
                self.assertFalse(clients.admits(claimed.encode(), b""))

    def test_problems(self) -> None:
        """Broken lines are reported by number, without their text, and the good lines
        stay."""
        clients = ClientList.parse(
            b":s\n\na:\nb:sha256:12\n\xff:s\nc\x07:s\nd:s\nd:t\n%s:s\n" % (b"x" * 257)
        )
        self.assertEqual(set(clients.digests), {b"d"})
        self.assertTrue(clients.admits(b"d", b"s"))
        self.assertFalse(clients.admits(b"d", b"t"))
        self.assertEqual(
            clients.problems,
            [
                Problem(1, "the id is empty"),
                Problem(3, "there is no secret after the colon"),
                Problem(4, "sha256: is not followed by 64 hexadecimal digits"),
                Problem(5, "the id is not UTF-8"),
                Problem(6, "the id has characters that cannot be printed"),
                Problem(8, "the id is already on an earlier line, which counts"),
                Problem(9, "the id is longer than 256 characters"),
            ],
        )

    def test_manyProblems(self) -> None:
        """Only so many problems are kept, and all are counted."""
        clients = ClientList.parse(b":\n" * 1000)
        self.assertEqual(len(clients.problems), 20)
        self.assertEqual(clients.problemCount, 1000)

    def test_repr(self) -> None:
        """The digests are not shown."""
        self.assertNotIn("digests", repr(ClientList.parse(b"a:one\n")))

    @given(st.text() | st.binary())
    def test_anything(self, content: str | bytes) -> None:
        """Any content is read without an exception, and nobody who says nothing is let
        in by it."""
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogatepass")
        clients = ClientList.parse(content)
        self.assertFalse(clients.admits(b"", b""))

    @given(
        st.dictionaries(
            words, words.filter(lambda w: w != "*" and not w.startswith("sha256"))
        ),
        st.lists(st.sampled_from([":", "#", " ", ":x:", "\x00", "x:", "x:sha256:"])),
        st.booleans(),
    )
    def test_goodLinesStay(
        self, secrets: dict[str, str], junk: list[str], hashed: bool
    ) -> None:
        """Good lines among broken ones admit exactly their secrets."""
        secrets.pop("x", None)
        lines = list(junk)
        for name, secret in secrets.items():
            stored = secret
            if hashed:
                stored = "sha256:" + hashlib.sha256(secret.encode()).hexdigest()
            lines += [f"{name}:{stored}", *junk]
        clients = ClientList.parse("\n".join(lines).encode())
        self.assertEqual(set(clients.digests), {name.encode() for name in secrets})
        for name, secret in secrets.items():
            self.assertTrue(clients.admits(name.encode(), secret.encode()))
            self.assertFalse(clients.admits(name.encode(), secret.encode() + b"."))
