"""Tests for L{tristunnel.tls.server_context}, L{tristunnel.util.watch} and
L{tristunnel.tls.contexts}."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import CertificateBuilder, random_serial_number
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.tls.authority import certificateOf, makeAuthority
from tests.tls.files import FileTestCase, replace
from tests.tls.handshake import Meeting
from tristunnel.tls.certificates import fingerprint, selfSigned
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.contexts import opensslReasons, serverContext
from tristunnel.tls.pem import OwnCertificate
from tristunnel.tls.server_context import ReloadingCertificate


class ReloadingCertificateTests(FileTestCase):
    """Tests for L{ReloadingCertificate}."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = makeAuthority()
        self.clock = Clock()
        self.old, self.oldKey = self.authority.issue(["example.com"])
        self.new, self.newKey = self.authority.issue(["example.com"])
        self.certificate = self.write("cert.pem", self.old)
        self.key = self.write("key.pem", self.oldKey)

    def serve(self) -> ReloadingCertificate:
        """Serve the files. @return: The server's TLS."""
        return ReloadingCertificate(
            self.certificate, self.key, seconds=self.clock.seconds
        )

    def shown(self, server: ReloadingCertificate) -> bytes:
        meeting = Meeting(server, ServerVerification("any", insecure=True))
        self.assertEqual(meeting.client.data, b"welcome")
        names = {certificateOf(self.old): b"old", certificateOf(self.new): b"new"}
        assert meeting.seen is not None
        return names[meeting.seen]

    def test_interface(self) -> None:
        """It is what Twisted's TLS wants for a server."""
        verifyObject(IOpenSSLServerConnectionCreator, self.serve())

    def test_fingerprint(self) -> None:
        """It knows what clients have to pin."""
        server = self.serve()
        self.assertEqual(server.certificate, certificateOf(self.old))
        self.assertEqual(server.fingerprint, fingerprint(certificateOf(self.old)))

    def test_renewal(self) -> None:
        """New files are used from the next connection on, a second later."""
        server = self.serve()
        self.assertEqual(self.shown(server), b"old")
        replace(self.certificate, self.new)
        replace(self.key, self.newKey)
        self.assertEqual(self.shown(server), b"old")
        self.clock.advance(1)
        self.assertEqual(self.shown(server), b"new")

    def test_renewalBehindLinks(self) -> None:
        """Links that are pointed elsewhere count as changes."""
        archive = self.write("archive1.pem", self.old)
        self.certificate.unlink()
        self.certificate.symlink_to(archive)
        server = self.serve()
        other = self.write("archive2.pem", self.new)
        replace(self.key, self.newKey)
        self.certificate.unlink()
        self.certificate.symlink_to(other)
        self.clock.advance(1)
        self.assertEqual(self.shown(server), b"new")

    def test_oneLookPerSecond(self) -> None:
        """The disk is not asked again within a second, however many connect."""
        server = self.serve()
        looks: list[str] = []
        stat = os.stat

        def counted(path: str) -> os.stat_result:
            looks.append(path)
            return stat(path)

        self.patch(os, "stat", counted)
        for _ in range(10):
            self.shown(server)
        self.assertEqual(looks, [])
        self.clock.advance(1)
        for _ in range(10):
            self.shown(server)
        self.assertEqual(looks, [str(self.certificate), str(self.key)])

    def test_brokenRenewal(self) -> None:
        """A broken file leaves the old certificate in force and is logged once; the
        next good one is used."""
        server = self.serve()
        replace(self.certificate, b"broken")
        with self.problems() as lines:
            for _ in range(3):
                self.clock.advance(1)
                self.assertEqual(self.shown(server), b"old")
        self.assertEqual(len(lines), 1)
        self.assertIn(str(self.certificate), lines[0])
        self.assertIn("not PEM", lines[0])
        replace(self.certificate, self.new)
        with self.problems() as lines:
            self.clock.advance(1)
            self.assertEqual(self.shown(server), b"old")
        self.assertEqual(len(lines), 1)
        self.assertIn("does not match", lines[0])
        replace(self.key, self.newKey)
        with self.problems() as lines:
            self.clock.advance(1)
            self.assertEqual(self.shown(server), b"new")
        self.assertEqual(lines, [])

    def test_vanished(self) -> None:
        """Files that are gone leave the old certificate in force."""
        server = self.serve()
        self.key.unlink()
        self.clock.advance(1)
        with self.problems() as lines:
            self.assertEqual(self.shown(server), b"old")
        self.assertEqual(len(lines), 1)
        self.assertIn("does not exist", lines[0])

    def test_permissions(self) -> None:
        """A change of permissions is a change, so that a file that became readable is
        read."""
        server = self.serve()
        before = server._loaded.get()
        self.key.chmod(0o640)
        self.clock.advance(1)
        self.assertIsNot(server._loaded.get(), before)

    def test_chain(self) -> None:
        """The certificates after the first are sent along."""
        pem, key = self.authority.intermediate().issue(["example.com"])
        replace(self.certificate, pem)
        replace(self.key, key)
        trusted = self.authority.write(self.directory / "ca.pem")
        client = ServerVerification("example.com", trustRoots=trusted)
        meeting = Meeting(self.serve(), client)
        self.assertEqual(meeting.client.data, b"welcome")
        self.assertEqual(meeting.chainLength, 2)

    def test_wrongFiles(self) -> None:
        """What cannot be used at the start is an error."""
        with self.refused("key.pem", "does not match"):
            replace(self.key, self.newKey)
            self.serve()
        with self.refused("cert.pem", "no private key"):
            ReloadingCertificate(self.certificate)

    def test_expired(self) -> None:
        """An expired certificate is served, because pins go on working, with a
        warning."""
        past = datetime.now(UTC) - timedelta(days=1)
        self.old, key = self.authority.issue(["example.com"], past)
        replace(self.certificate, self.old)
        replace(self.key, key)
        with self.problems() as lines:
            server = self.serve()
        self.assertEqual(len(lines), 1)
        self.assertIn("cert.pem expired on", lines[0])
        self.assertEqual(self.shown(server), b"old")

    def test_renewedByExpired(self) -> None:
        """A good certificate is not given up for an expired one; the log says so
        once."""
        server = self.serve()
        past = datetime.now(UTC) - timedelta(days=1)
        wrong, key = self.authority.issue(["example.com"], past)
        replace(self.certificate, wrong)
        replace(self.key, key)
        with self.problems() as lines:
            for _ in range(3):
                self.clock.advance(1)
                self.assertEqual(self.shown(server), b"old")
        (line,) = lines
        self.assertIn("cert.pem expired on", line)
        replace(self.certificate, self.new)
        replace(self.key, self.newKey)
        self.clock.advance(1)
        self.assertEqual(self.shown(server), b"new")

    def test_weakKey(self) -> None:
        """A key that OpenSSL finds too weak is an error that says so."""
        key = generate_private_key(65537, 1024)
        subject = self.authority.certificate.subject
        now = datetime.now(UTC)
        certificate = (
            CertificateBuilder(subject, subject, key.public_key())
            .serial_number(random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
            .sign(key, SHA256())
        )
        with self.refused("weak.pem", "too small", "P-256"):
            serverContext(OwnCertificate(certificate, key), "weak.pem")


class ClientCertificateTests(FileTestCase):
    """Tests for servers that want certificates of their clients."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.authority = makeAuthority("one")
        self.other = makeAuthority("two")
        self.clientCA = self.authority.write(self.directory / "clients.pem")
        self.server = ReloadingCertificate(
            selfSigned(self.directory, ["localhost"]),
            clientCA=self.clientCA,
            seconds=self.clock.seconds,
        )

    def meet(self, *pems: bytes) -> Meeting:
        certificate = self.write("client.pem", *pems) if pems else None
        return Meeting(
            self.server,
            ServerVerification("any", insecure=True, certificate=certificate),
        )

    def test_accepted(self) -> None:
        """A certificate of the authority lets the client in."""
        meeting = self.meet(*self.authority.issue(["me"], client=True))
        self.assertEqual(meeting.server.data, b"credentials")
        self.assertEqual(meeting.client.data, b"welcome")

    def test_refused(self) -> None:
        """No certificate, a stranger's, an expired one and one for servers do not let
        it in."""
        past = datetime.now(UTC) - timedelta(days=1)
        for pems in (
            (),
            self.other.issue(["me"], client=True),
            self.authority.issue(["me"], past, client=True),
            self.authority.issue(["me"]),
        ):
            meeting = self.meet(*pems)
            self.assertEqual(meeting.server.data, b"")
            self.assertEqual(meeting.client.data, b"")
            self.assertIsNotNone(meeting.server.lost)

    def test_newAuthority(self) -> None:
        """The authorities are looked at again, too."""
        pems = self.other.issue(["me"], client=True)
        self.assertEqual(self.meet(*pems).client.data, b"")
        self.other.write(self.clientCA)
        self.clock.advance(1)
        self.assertEqual(self.meet(*pems).client.data, b"welcome")

    def test_directory(self) -> None:
        """The authorities may be a directory, whose files are watched."""
        path = self.write("clients/a.pem", self.authority.pem)
        self.server = ReloadingCertificate(
            self.directory / "server.pem",
            clientCA=path.parent,
            seconds=self.clock.seconds,
        )
        pems = self.other.issue(["me"], client=True)
        self.assertEqual(self.meet(*pems).client.data, b"")
        path.write_bytes(self.other.pem)
        self.clock.advance(1)
        self.assertEqual(self.meet(*pems).client.data, b"welcome")

    def test_wrongFile(self) -> None:
        """A file without authorities is an error, not an open door."""
        with self.refused("empty.pem", "is empty"):
            ReloadingCertificate(
                self.directory / "server.pem", clientCA=self.write("empty.pem")
            )


class PolicyTests(FileTestCase):
    """Tests for what both ends agree upon."""

    def setUp(self) -> None:
        super().setUp()
        self.server = ReloadingCertificate(selfSigned(self.directory, ["localhost"]))

    def agree(self, version: int, ciphers: bytes = b"ALL:@SECLEVEL=0") -> str:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(version)
        context.set_cipher_list(ciphers)
        client = SSL.Connection(context)
        client.set_connect_state()
        server = self.server.serverConnectionForTLS(None)  # type: ignore[arg-type] # it is not asked
        server.set_accept_state()
        ends = [client, server]
        pending = {client, server}
        while pending:
            for end, peer in (ends, ends[::-1]):
                with contextlib.suppress(SSL.WantReadError):
                    end.do_handshake()
                    pending.discard(end)
                with contextlib.suppress(SSL.WantReadError):
                    peer.bio_write(end.bio_read(65536))
        return f"{client.get_protocol_version_name()} {client.get_cipher_name()}"

    def test_versions(self) -> None:
        """TLS 1.3 and 1.2 are spoken, older versions are not."""
        self.assertIn("TLSv1.3 ", self.agree(SSL.TLS1_3_VERSION))
        self.assertRegex(
            self.agree(SSL.TLS1_2_VERSION), "^TLSv1.2 ECDHE-ECDSA-.*(GCM|POLY1305)"
        )
        with self.assertRaises(SSL.Error):
            self.agree(SSL.TLS1_1_VERSION)

    def test_ciphers(self) -> None:
        """Suites without a certificate or without authenticated encryption are
        refused."""
        for ciphers in (b"aNULL:@SECLEVEL=0", b"ECDHE-ECDSA-AES128-SHA"):
            with self.assertRaises(SSL.Error):
                self.agree(SSL.TLS1_2_VERSION, ciphers)


class OpenSSLReasonsTests(SynchronousTestCase):
    """Tests for L{opensslReasons}."""

    def test_reasons(self) -> None:
        """Errors of all shapes give text."""
        self.assertEqual(opensslReasons(SSL.Error()), "")
        self.assertEqual(opensslReasons(SSL.Error([])), "")
        self.assertEqual(opensslReasons(SSL.SysCallError(-1, "Unexpected EOF")), "")
        self.assertEqual(
            opensslReasons(SSL.Error([("a", "b", "c"), ("d", "e", "f")])), "c; f"
        )
