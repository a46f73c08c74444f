"""Hosts and paths that tunnels may have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.model.names import hostWanted, parseNames, pathWanted, patternsFor


class HostTests(SynchronousTestCase):
    """What a name may look like."""

    def test_written(self) -> None:
        """Names are written in one way."""
        for text, expected in (
            ("blog", "blog"),
            ("Blog.Example.", "blog.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ):
            self.assertEqual(hostWanted(text), expected)
        self.assertEqual(hostWanted("*.A.example", True), "*.a.example")

    def test_refused(self) -> None:
        """What is no name of a certificate is none of a tunnel."""
        for text in (
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a_b",
            "a b",
            "a\n",
            "a/b",
            "a:80",
            "a@b",
            "a%00",
            "*",
            "*.example",
            "a.*.example",
            "127.0.0.1",
            "1.2.3",
            "0x7f.1",
            "[::1]",
            "::1",
            "a" * 64,
            ".".join(["a" * 60] * 5),
            "\ud800",
        ):
            with self.assertRaises(TunnelError, msg=repr(text)) as caught:
                hostWanted(text)
            self.assertEqual(caught.exception.code.name, "bad-option")

    @given(st.text(max_size=300))
    def test_any(self, text: str) -> None:
        """Any text is refused in one line, or written in one way."""
        try:
            host = hostWanted(text, True)
        except TunnelError as error:
            self.assertLess(len(error.message), 300)
        else:
            self.assertEqual(hostWanted(host, True), host)
            self.assertRegex(host, r"\A(\*\.)?[a-z0-9.-]{1,253}\Z")

    def test_paths(self) -> None:
        """A path has a slash in front and none behind, and one meaning."""
        for text, expected in (("", ""), ("/", ""), ("api/", "/api"), ("/a/b", "/a/b")):
            self.assertEqual(pathWanted(text), expected)
        for text in ("/a b", "/a//b", "/a/../b", "/./a", "/%61", "/a?b", "/é", "/#"):
            with self.assertRaises(TunnelError, msg=text):
                pathWanted(text)
        with self.assertRaises(TunnelError):
            pathWanted("/" + "a" * 255)


class HostNamesTests(SynchronousTestCase):
    """Sets of names."""

    def test_covers(self) -> None:
        """Wildcards cover what is below; names without a dot lie below a domain."""
        names = parseNames(["blog", " www.Example.org", "*.shop.example"])
        for host, expected in (
            ("blog.t.example", True),
            ("x.blog.t.example", False),
            ("blog.other.example", False),
            ("www.example.org", True),
            ("a.www.example.org", False),
            ("shop.example", False),
            ("a.shop.example", True),
            ("a.b.shop.example", True),
            ("*.shop.example", True),
            ("*.example", False),
        ):
            covered = names.covers(host, ["t.example"])
            self.assertEqual(covered, expected, host)
        self.assertTrue(parseNames(["*"]).covers("a.t.example", ["t.example"]))
        self.assertFalse(parseNames(["*"]).covers("a.b.t.example", ["t.example"]))
        self.assertEqual(str(names), "blog,www.example.org,*.shop.example")
        self.assertIn("*.t.example", patternsFor("a.t.example"))

    def test_tooMany(self) -> None:
        """A list is not endless."""
        with self.assertRaises(TunnelError):
            parseNames(f"a{number}" for number in range(1001))
