"""Forwards that ask for names."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli.client_tap import Options
from tristunnel.client.options import checkForwards, forwardOf
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.framed.wanted import wantedFor
from tristunnel.errors import TunnelError
from tristunnel.forwards.changes import matched
from tristunnel.forwards.forward import Forward, parseForward


class NameForwardTests(SynchronousTestCase):
    """C{http/NAME/PATH=TARGET}."""

    def parse(self, spec: str) -> Forward:
        return parseForward(MemoryReactorClock(), spec)

    def test_forms(self) -> None:
        """A name, a path and a target, in full and in short."""
        for spec, name, path, target, full in (
            ("http/blog=a:3000", "blog", "", "a:3000", ""),
            ("http/=3000", "", "", "localhost:3000", "http/=localhost:3000"),
            ("http/Blog/api/=:3", "blog", "/api", "localhost:3", ""),
            ("http/www.a.org/x/y=a:1,proxy=v2", "www.a.org", "/x/y", "a:1", ""),
            ("http/b=http://a:1", "b", "", "a:1", "http/b=http://a:1"),
            ("http/b=https://a:1", "b", "", "tls:a:1", "http/b=tls:a:1"),
            ("http/b=https://[::1]", "b", "", "tls:::1:443", "http/b=tls:::1:443"),
        ):
            made = self.parse(spec)
            self.assertEqual((made.listener, made.port), ("http", 0), spec)
            self.assertEqual((made.name, made.path, made.target), (name, path, target))
            if full:
                self.assertEqual(made.spec, full)
            again = self.parse(made.spec)
            self.assertEqual((again.place, again.spec), (made.place, made.spec))
        self.assertEqual(self.parse("tls/db=a:1").listener, "tls-name")
        for spec in ("http/a_b=3000", "http/a/../b=3000", "http/blog=", "http/b:1=2"):
            with self.assertRaises(TunnelError, msg=spec) as caught:
                self.parse(spec)
            self.assertNotIn("\n", caught.exception.message)
        for spec, cure in (("https/blog=3000", "http/blog"), ("web/a=1", "minecraft")):
            with self.assertRaises(TunnelError, msg=spec) as caught:
                self.parse(spec)
            self.assertIn(cure, caught.exception.message)

    def test_options(self) -> None:
        """What is said of heads, as often as one likes, and read again as written."""
        made = self.parse(
            r"http/b=a:1,host=x.lan,request=X-A: b\, c,request=-Cookie"
            ",response=-Server,raw"
        )
        options = made.options
        self.assertEqual(options.request, ("X-A: b, c", "-Cookie"))
        self.assertEqual(
            options.asked,
            {
                "hostHeader": "x.lan",
                "requestHeaders": ["X-A: b, c", "-Cookie"],
                "responseHeaders": ["-Server"],
                "raw": True,
            },
        )
        self.assertEqual(self.parse(f"http/b=a:1{options.text}").options, options)
        for wrong in (",request", ",raw=1", ",host", ",host=a,host=b"):
            with self.assertRaises(TunnelError, msg=wrong):
                self.parse(f"http/b=a:1{wrong}")

    def test_ownHost(self) -> None:
        """The server is told what the service may call itself, behind TLS, too."""
        for spec, own in (
            ("http/b=a:1", "a:1"),
            ("http/b=https://a:1", "a:1"),
            ("http/b=tls:[::1]:1", "[::1]:1"),
            ("http/b=unix:/a", None),
            ("tls/b=a:1", None),
            ("8080=a:1", None),
        ):
            wanted = wantedFor(self.parse(spec), ClientLease(), {})
            self.assertEqual(wanted.get("ownHost"), own, spec)
        web = replace(self.parse("a:1"), listener="web")
        self.assertEqual(wantedFor(web, ClientLease(), {})["ownHost"], "a:1")

    def test_twice(self) -> None:
        """A host is asked for once with each path."""
        several = [self.parse(f"http/blog{path}=3000") for path in ("", "/a", "/b")]
        checkForwards(several)
        with self.assertRaises(TunnelError):
            checkForwards([*several, self.parse("http/blog/a=3001")])

    def test_changed(self) -> None:
        """A name with another target is the same forward."""
        before = [self.parse("http/blog=1"), self.parse("http/blog/a=2")]
        after = [self.parse("http/blog/a=3"), self.parse("http/blog=4")]
        self.assertEqual([old for old, _ in matched(before, after)], before[::-1])

    def test_table(self) -> None:
        """The same in a configuration file."""
        options = Options()
        made = forwardOf(
            MemoryReactorClock(), {"to": "localhost:3000", "http": "blog/api"}, options
        )
        self.assertEqual((made.place, made.path), (("http", 0, "blog/api"), "/api"))
