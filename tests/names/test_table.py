"""Routes of names."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.model.options import TunnelOptions
from tristunnel.names.public import PublicNames
from tristunnel.names.table import NameTable, Route
from tristunnel.names.words import pronounceable


def route(host: str, path: str = "", kind: str = "http") -> Route:
    return Route(kind, host, path, TunnelOptions(), lambda end, address: None)


class NameTableTests(SynchronousTestCase):
    """Which route a request takes."""

    def setUp(self) -> None:
        self.table = NameTable()

    def enter(self, host: str, path: str = "", kind: str = "http") -> Route:
        made = route(host, path, kind)
        self.table.enter(made)
        return made

    def test_longestPath(self) -> None:
        """The longest path that covers what is asked for wins."""
        whole, api = self.enter("a.example"), self.enter("a.example", "/api")
        deeper = self.enter("a.example", "/api/v1")
        for path, expected in (
            ("/", whole),
            ("/apix", whole),
            ("/API", whole),
            ("/api", api),
            ("/api?x=/api/v1", api),
            ("/api/", api),
            ("/api/v10", api),
            ("/api/v1", deeper),
            ("/api/v1/x?y", deeper),
            ("*", whole),
        ):
            self.assertIs(self.table.find("http", "a.example", path), expected, path)
        self.table.remove(whole)
        self.assertIsNone(self.table.find("http", "a.example", "/"))

    def test_unclear(self) -> None:
        """What a service may take for a path that leads elsewhere is known."""
        for host, path in (("a.example", ""), ("a.example", "/api"), ("b.example", "")):
            self.enter(host, path)
        only = self.enter("c.example", "/api")
        for path, isUnclear in (
            *(("/", False), ("/api/x?../../%61", False), ("/.well-known/x", False)),
            *(("/x/../y;z//%20", False), ("/api//x/./y%2Fz;a", False), ("*", False)),
            *(("/api/../x", True), ("/api/..", True), ("/api/%2e%2E/x", True)),
            *(("/api/..%2fx", True), ("/api/..;/x", True), ("/api/..\\x", True)),
            *(("/%61pi", True), ("//api", True), ("/./api", True), ("/x/../api", True)),
            *(("/x//../api", True), ("/;a/api", True), ("/x%5c..%5capi/y", True)),
        ):
            found = self.table.find("http", "a.example", path)
            assert found is not None
            self.assertEqual(self.table.isUnclear(found, path), isUnclear, path)
            found = self.table.find("http", "b.example", path)
            assert found is not None
            self.assertFalse(self.table.isUnclear(found, path), path)
        self.assertTrue(self.table.isUnclear(only, "/api/../admin"))
        self.table.remove(only)
        self.assertFalse(self.table.isUnclear(only, "/api/../admin"))

    def test_kinds(self) -> None:
        """A name is one thing over HTTP, and another in TLS."""
        made = self.enter("a.example", kind="tls-name")
        self.assertIsNone(self.table.find("http", "a.example"))
        self.assertIs(self.table.find("tls-name", "a.example"), made)
        self.assertEqual(self.table.hosts("tls-name"), ["a.example"])

    def test_wildcards(self) -> None:
        """A host's own route comes before that of a wildcard, a longer one first."""
        wide, near = self.enter("*.example"), self.enter("*.b.example")
        own = self.enter("c.b.example")
        self.assertIs(self.table.find("http", "c.b.example"), own)
        self.assertIs(self.table.find("http", "d.b.example"), near)
        self.assertIs(self.table.find("http", "x.y.b.example"), near)
        self.assertIs(self.table.find("http", "b.example"), wide)
        self.assertIsNone(self.table.find("http", "example"))
        for each in (wide, near, own, own):
            self.table.remove(each)
        self.assertIsNone(self.table.find("http", "d.b.example"))
        self.assertEqual(list(self.table), [])

    def test_bounds(self) -> None:
        """A newer route takes an older one's place; a host has so many paths."""
        before, first = self.enter("a.example"), self.enter("a.example")
        self.assertIs(self.table.find("http", "a.example"), first)
        self.assertFalse(self.table.remove(before))
        for number in range(NameTable.MOST_PATHS - 1):
            self.enter("a.example", f"/{number}")
        with self.assertRaises(TunnelError) as caught:
            self.enter("a.example", "/more")
        self.assertEqual(caught.exception.code.name, "limit-reached")
        self.assertEqual(len(self.table), NameTable.MOST_PATHS)
        self.table.remove(first)
        self.enter("a.example")

    def test_many(self) -> None:
        """Among ten thousand names each is found."""
        names = [f"{number}.t.example" for number in range(10_000)]
        made = [self.enter(name) for name in names]
        for name, each in zip(names, made, strict=True):
            self.assertIs(self.table.find("http", name), each)


class PublicNamesTests(SynchronousTestCase):
    """Addresses of names."""

    def test_schemes(self) -> None:
        """TLS is in an address if browsers will believe it, or nothing else listens."""
        names = PublicNames()
        names.opened("https", 8443)
        self.assertEqual(names.schemeFor("a.example"), "https")
        names.opened("http", 80)
        self.assertEqual(names.schemeFor("a.example"), "http")
        names.isCovered = lambda host: host == "a.example"
        self.assertEqual(names.schemeFor("a.example"), "https")
        self.assertEqual(names.schemeFor("b.example"), "http")
        self.assertEqual(names.address("https", "a.b", "/x"), "https://a.b:8443/x")
        self.assertEqual(names.address("http", "a.b"), "http://a.b")
        self.assertEqual(names.address("tls", "a.b"), "tls://a.b:443")

    def test_words(self) -> None:
        """Names are made of two words, and numbers are added when these run out."""
        self.assertRegex(pronounceable(), r"\A[a-z]+-[a-z]+\Z")
        self.assertRegex(pronounceable(5), r"\A[a-z]+-[a-z]+-[0-9]+\Z")
