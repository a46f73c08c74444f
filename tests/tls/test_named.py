"""Certificates by name, out of a directory."""

from __future__ import annotations

import shutil

from cryptography.x509 import Certificate
from twisted.internet.task import Clock

from tests.tls.authority import certificateOf, makeAuthority
from tests.tls.files import FileTestCase
from tristunnel.tls.named import NamedCertificates


class NamedTests(FileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = makeAuthority()
        self.clock = Clock()
        self.named = NamedCertificates(self.directory, seconds=self.clock.seconds)

    def put(self, certificate: str, key: str, *names: str) -> Certificate:
        pem, private = self.authority.issue(names)
        if key:
            self.write(certificate, pem)
            self.write(key, private)
        else:
            self.write(certificate, pem, private)
        return certificateOf(pem)

    def shown(self, name: str) -> Certificate | None:
        found = self.named.find(name)
        return None if found is None else found.certificate

    def test_layouts(self) -> None:
        """Every way to name files leads from a name to its certificate."""
        a = self.put("a.example/fullchain.pem", "a.example/privkey.pem", "a.example")
        b = self.put("b.example.pem", "", "b.example")
        c = self.put("c.example.crt", "c.example.key", "c.example")
        d = self.put("d.example.pem", "d.example.key", "d.example")
        e = self.put("*.e.example.pem", "", "*.e.example")
        f = self.put("f.example.pem", "", "f.example", "*.f.example")
        for name, expected in (
            *(("a.example", a), ("b.example", b), ("c.example", c), ("d.example", d)),
            *(("x.e.example", e), ("f.example", f), ("x.f.example", f)),
            *(("A.example.", a), ("x.a.example", None), ("e.example", None)),
            *(("x.y.f.example", None), ("nobody.example", None), ("", None)),
            *(("../a.example", None), ("192.0.2.1", None), ("*.e.example", e)),
        ):
            self.assertEqual(self.shown(name), expected, name)
        self.assertEqual(
            list(self.named.names()),
            [
                *("*.e.example", "a.example", "b.example", "c.example", "d.example"),
                "f.example",
            ],
        )

    def test_renewed(self) -> None:
        """A certificate is replaced on the disk, and its successor is shown."""
        self.put("a.example.pem", "", "a.example")
        before = self.named.contextFor("a.example")
        after = self.put("a.example.pem", "", "a.example")
        self.clock.advance(2)
        self.assertIsNot(self.named.contextFor("a.example"), before)
        self.assertEqual(self.shown("a.example"), after)

    def test_broken(self) -> None:
        """A file that cannot be used is told of once, until it is another one."""
        self.write("a.example.pem", b"nothing")
        with self.problems() as lines:
            for _ in range(3):
                self.assertIsNone(self.named.contextFor("a.example"))
        self.assertEqual(len(lines), 1)
        made = self.put("a.example.pem", "", "a.example")
        self.assertEqual(self.shown("a.example"), made)

    def test_other(self) -> None:
        """A certificate is not shown for a name that only its file has, as is told."""
        self.put("a.example.pem", "", "b.example")
        with self.problems() as lines:
            self.assertIsNone(self.shown("a.example"))
        self.assertIn("is for b.example: name it for that", lines[0])
        self.assertIsNone(self.shown("b.example"))

    def test_unused(self) -> None:
        """What nobody will find is told of, each with the cure."""
        self.put("good.example.pem", "", "good.example")
        self.put("box.pem", "", "box")
        self.put("server.pem", "", "b.example")
        self.put("Big.Example.crt", "Big.Example.key", "big.example")
        self.write("old.example/cert.pem", b"")
        self.write("alone.example.key", b"")
        self.write("README", b"")
        (self.directory / "loop.example.pem").symlink_to("loop.example.pem")
        said = list(self.named.unused())
        names = (
            *("Big.Example.crt", "alone.example.key", "loop.example.pem"),
            *("old.example", "server.pem"),
        )
        for line, name in zip(said, names, strict=True):
            self.assertTrue(line.startswith(f"{self.directory / name} is never used: "))
        for line, words in zip(
            said,
            (
                *("blog.example.com.crt", "alone.example.crt", "leads nowhere"),
                *("fullchain.pem", "b.example"),
            ),
            strict=True,
        ):
            self.assertIn(words, line)

    def test_nothing(self) -> None:
        """A directory that cannot be read is refused at the start, with its option."""
        self.named.check("--certificates")
        shutil.rmtree(self.directory)
        with self.refused("--certificates"):
            self.named.check("--certificates")
        self.assertEqual(list(self.named.names()), [])
