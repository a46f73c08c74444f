"""Tests for L{tristunnel.tls.directory}."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.x509 import Certificate
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock
from twisted.protocols._sni import PEMObjects
from twisted.python.filepath import FilePath
from zope.interface.verify import verifyObject

from tests.tls.authority import certificateOf, makeAuthority
from tests.tls.files import FileTestCase, replace
from tests.tls.handshake import Meeting
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.directory import CertificateDirectory


class CertificateDirectoryTests(FileTestCase):
    """Tests for L{CertificateDirectory}."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = makeAuthority()
        self.clock = Clock()
        self.trusted = self.authority.write(self.directory / "ca.crt")
        self.live = self.directory / "live"

    def issue(self, name: str, *names: str) -> Certificate:
        pem, key = self.authority.issue(names)
        self.write(f"live/{name}", key, pem)
        return certificateOf(pem)

    def certbot(self, name: str, *names: str) -> Certificate:
        """Issue a certificate and lay it out as certbot does: links to numbered files,
        and the chain in files of its own."""
        intermediate = self.authority.intermediate()
        full, key = intermediate.issue(names)
        leaf = full.removesuffix(intermediate.chain)
        number = len(list(self.directory.glob(f"archive/{name}/cert*"))) + 1
        for stem, data in (
            ("cert", leaf),
            ("chain", intermediate.chain),
            ("fullchain", full),
            ("privkey", key),
        ):
            target = self.write(f"archive/{name}/{stem}{number}.pem", data)
            link = self.live / name / f"{stem}.pem"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        self.write(f"live/{name}/README", b"words")
        return certificateOf(leaf)

    def serve(self, clientCA: Path | None = None) -> CertificateDirectory:
        return CertificateDirectory(self.live, clientCA, seconds=self.clock.seconds)

    def shown(self, server: CertificateDirectory, name: str) -> Certificate | None:
        return Meeting(server, ServerVerification(name, insecure=True)).seen

    def test_interface(self) -> None:
        """It is what Twisted's TLS wants for a server."""
        self.issue("a.pem", "a.example")
        verifyObject(IOpenSSLServerConnectionCreator, self.serve())

    def test_byName(self) -> None:
        """Clients get the certificate for the name that they ask for, also by a
        wildcard, which covers one label; all others get the default."""
        a = self.issue("a.pem", "a.example", "www.a.example")
        b = self.issue("b.pem", "b.example", "*.b.example")
        server = self.serve()
        for name, certificate in (
            ("a.example", a),
            ("WWW.a.example", a),
            ("b.example", b),
            ("x.b.example", b),
            ("x.y.b.example", a),
            ("unknown.example", a),
            ("localhost", a),
            ("127.0.0.1", a),
        ):
            self.assertEqual(self.shown(server, name), certificate, name)
        self.assertEqual(
            server.names, ("*.b.example", "a.example", "b.example", "www.a.example")
        )

    def test_verified(self) -> None:
        """With certbot's layout the chain is sent, so that clients that trust only the
        root accept each name."""
        self.certbot("a.example", "a.example")
        self.certbot("b.example", "b.example")
        server = self.serve()
        for name in ("a.example", "b.example"):
            client = ServerVerification(name, trustRoots=self.trusted)
            meeting = Meeting(server, client)
            self.assertEqual(meeting.client.data, b"welcome")
            self.assertEqual(meeting.chainLength, 2)

    def test_separateFiles(self) -> None:
        """Key, certificate and chain may be in files of any name."""
        intermediate = self.authority.intermediate()
        full, key = intermediate.issue(["a.example"])
        self.write("live/tls.key", key)
        self.write("live/tls.crt", full.removesuffix(intermediate.chain))
        self.write("live/z/ca.pem", self.authority.pem, intermediate.chain)
        meeting = Meeting(
            self.serve(), ServerVerification("a.example", trustRoots=self.trusted)
        )
        self.assertEqual(meeting.chainLength, 2)

    def test_renewedAuthority(self) -> None:
        """Of two authorities with the same name, the one that really signed is sent."""
        for file in ("a.pem", "z.pem"):
            self.write(f"live/{file}", self.authority.intermediate().chain)
        intermediate = self.authority.intermediate()
        full, key = intermediate.issue(["a.example"])
        self.write("live/m.pem", key, full.removesuffix(intermediate.chain))
        self.write("live/n.pem", intermediate.chain)
        client = ServerVerification("a.example", trustRoots=self.trusted)
        self.assertEqual(Meeting(self.serve(), client).client.data, b"welcome")

    def test_default(self) -> None:
        """The certificate in a file called C{default} is the default."""
        self.issue("a.pem", "a.example")
        default = self.issue("default.pem", "z.example")
        self.assertEqual(self.shown(self.serve(), "unknown.example"), default)

    def test_newest(self) -> None:
        """Of several certificates for a name, the one that is valid and was issued last
        is shown."""
        now = datetime.now(UTC)
        certificates = []
        for number, (since, until) in enumerate(((-9, 9), (-5, 1), (-3, -1))):
            pem, key = self.authority.issue(
                ["a.example"],
                now + timedelta(days=until),
                notBefore=now + timedelta(days=since),
            )
            self.write(f"live/{number}.pem", pem, key)
            certificates.append(certificateOf(pem))
        with self.problems() as lines:
            server = self.serve()
        self.assertEqual(self.shown(server, "a.example"), certificates[1])
        self.assertEqual(len(lines), 1)
        self.assertIn("2.pem expired on", lines[0])

    def test_superset(self) -> None:
        """What Twisted's own endpoint finds in a directory is found here, too."""
        self.certbot("a.example", "a.example")
        self.issue("b.pem", "b.example", "*.c.example")
        self.issue("deep/er/d.pem", "d.example")
        theirs = PEMObjects.fromDirectory(FilePath(str(self.live)))
        self.assertEqual(set(self.serve().names), set(theirs.inferDomainMapping()))

    def test_renewal(self) -> None:
        """A renewed certificate of a known name is shown a second later."""
        old = self.certbot("a.example", "a.example")
        server = self.serve()
        self.assertEqual(self.shown(server, "a.example"), old)
        new = self.certbot("a.example", "a.example")
        self.assertEqual(self.shown(server, "a.example"), old)
        self.clock.advance(1)
        with self.problems() as lines:
            self.assertEqual(self.shown(server, "a.example"), new)
        self.assertEqual(lines, [])

    def test_renewedByExpired(self) -> None:
        """A good certificate is not given up for an expired one; the log says so
        once."""
        old = self.issue("a.pem", "a.example")
        server = self.serve()
        past = datetime.now(UTC) - timedelta(days=1)
        expired = b"".join(self.authority.issue(["a.example"], past))
        replace(self.live / "a.pem", expired)
        with self.problems() as lines:
            for _ in range(3):
                self.clock.advance(1)
                self.assertEqual(self.shown(server, "a.example"), old)
        (line,) = lines
        self.assertIn("a.pem expired on", line)
        new = self.issue("a.pem", "a.example")
        self.clock.advance(1)
        self.assertEqual(self.shown(server, "a.example"), new)

    def test_newAndOldNames(self) -> None:
        """Names come and go with their files."""
        a = self.issue("a.pem", "a.example")
        server = self.serve()
        b = self.issue("sub/b.pem", "b.example")
        self.clock.advance(1)
        self.assertEqual(self.shown(server, "b.example"), b)
        (self.live / "sub" / "b.pem").unlink()
        self.clock.advance(1)
        self.assertEqual(self.shown(server, "b.example"), a)
        self.assertEqual(server.names, ("a.example",))

    def test_droppedName(self) -> None:
        """A name that the renewed certificate does not have is dropped."""
        self.issue("a.pem", "a.example", "old.example")
        server = self.serve()
        self.issue("a.pem", "a.example")
        self.clock.advance(1)
        self.shown(server, "a.example")
        self.assertEqual(server.names, ("a.example",))

    def test_brokenRenewal(self) -> None:
        """A broken file leaves its old certificate in force, is logged once, and
        disturbs no other."""
        a = self.issue("a.pem", "a.example")
        b = self.issue("b.pem", "b.example")
        server = self.serve()
        for broken in (
            (self.live / "a.pem").read_bytes().replace(b"M", b"", 1),
            b"words",
            b"",
        ):
            replace(self.live / "a.pem", broken)
            with self.problems() as lines:
                for _ in range(3):
                    self.clock.advance(1)
                    self.assertEqual(self.shown(server, "a.example"), a)
                    self.assertEqual(self.shown(server, "b.example"), b)
            self.assertEqual(len(lines), 1, lines)
            self.assertIn("a.pem", lines[0])
        new = self.issue("a.pem", "a.example")
        self.clock.advance(1)
        self.assertEqual(self.shown(server, "a.example"), new)

    def test_halfRenewal(self) -> None:
        """Between the new certificate and its new key the old pair stays."""
        old, oldKey = self.authority.issue(["a.example"])
        new, newKey = self.authority.issue(["a.example"])
        self.write("live/fullchain.pem", old)
        self.write("live/privkey.pem", oldKey)
        server = self.serve()
        self.write("live/fullchain.pem", new)
        self.clock.advance(1)
        with self.problems() as lines:
            self.assertEqual(self.shown(server, "a.example"), certificateOf(old))
        self.assertTrue(any("do not match any longer" in line for line in lines))
        self.write("live/privkey.pem", newKey)
        self.clock.advance(1)
        with self.problems() as lines:
            self.assertEqual(self.shown(server, "a.example"), certificateOf(new))
        self.assertEqual(lines, [])

    def test_vanished(self) -> None:
        """A directory that is gone leaves its certificates in force, is logged once,
        and may come back."""
        old = self.issue("a.pem", "a.example")
        server = self.serve()
        shutil.rmtree(self.live)
        with self.problems() as lines:
            for _ in range(3):
                self.clock.advance(1)
                self.assertEqual(self.shown(server, "a.example"), old)
        self.assertEqual(len(lines), 1)
        new = self.issue("a.pem", "a.example")
        self.clock.advance(1)
        self.assertEqual(self.shown(server, "a.example"), new)

    def test_nothing(self) -> None:
        """A directory without a certificate and its key is an error, which names a file
        that is to blame."""
        with self.refused(str(self.live), "No such file"):
            self.serve()
        self.live.mkdir()
        with self.refused(str(self.live), "no certificate with its private key"):
            self.serve()
        self.write("live/b.pem", self.authority.issue(["b.example"])[1])
        with self.refused("b.pem", "fits no certificate"):
            self.serve()

    def test_brokenAtStart(self) -> None:
        """A broken file beside a good one is logged."""
        a = self.issue("a.pem", "a.example")
        self.write(
            "live/b.pem", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"
        )
        with self.problems() as lines:
            server = self.serve()
        self.assertEqual(len(lines), 1)
        self.assertIn("b.pem", lines[0])
        self.assertEqual(self.shown(server, "b.example"), a)

    def test_circularLinks(self) -> None:
        """Links that lead back do no harm."""
        a = self.issue("a.pem", "a.example")
        (self.live / "again").symlink_to(self.live)
        (self.live / "dangling.pem").symlink_to(self.live / "none")
        with self.problems() as lines:
            server = self.serve()
        self.assertEqual(len(lines), 1)
        self.assertEqual(self.shown(server, "a.example"), a)

    def test_clientCertificates(self) -> None:
        """Clients may be required to show a certificate, whatever name they ask for,
        and the authorities are followed."""
        self.issue("a.pem", "a.example")
        self.issue("b.pem", "b.example")
        authority = makeAuthority("clients")
        ca = authority.write(self.directory / "clients.pem")
        server = self.serve(ca)
        mine = self.write("me.pem", *authority.issue(["me"], client=True))
        for name in ("a.example", "b.example", "unknown.example"):
            meeting = Meeting(
                server, ServerVerification(name, insecure=True, certificate=mine)
            )
            self.assertEqual(meeting.server.data, b"credentials")
            self.assertEqual(meeting.client.data, b"welcome")
            meeting = Meeting(server, ServerVerification(name, insecure=True))
            self.assertEqual(meeting.server.data, b"")
        makeAuthority("others").write(ca)
        self.clock.advance(1)
        for name in ("a.example", "b.example"):
            meeting = Meeting(
                server, ServerVerification(name, insecure=True, certificate=mine)
            )
            self.assertEqual(meeting.server.data, b"")

    @given(st.text())
    def test_anyName(self, name: str) -> None:
        """Whatever a client asks for, there is a certificate."""
        if not self.live.exists():
            self.issue("a.pem", "a.example", "*.a.example")
            self.server = self.serve()
        self.assertIs(self.server._lookup(name), self.server._entries[0])
