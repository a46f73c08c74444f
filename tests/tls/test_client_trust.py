"""Tests for L{tristunnel.tls.contexts}: clients' certificates, and lists of those
that were revoked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock

from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase, replace
from tests.tls.handshake import Meeting
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.contexts import loadRevocations
from tristunnel.tls.directory import CertificateDirectory
from tristunnel.tls.explanation import explainTLSFailure, whyNoTLS
from tristunnel.tls.server_context import ReloadingCertificate

Maker = Callable[[Path, Path | None], IOpenSSLServerConnectionCreator]


class RevocationTests(FileTestCase):
    """Both kinds of servers' certificates with C{--client-crl}."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.authority = makeAuthority("one")
        self.other = makeAuthority("two")
        self.good = self.authority.issue(["good"], client=True)
        self.bad = self.authority.issue(["bad"], client=True)
        self.ca = self.write("ca.pem", self.authority.pem)
        self.crl = self.write("crl.pem", self.authority.revoke(self.bad[0]))
        self.write("live/own.pem", *makeAuthority().issue(["localhost"]))
        self.makers: list[Maker] = [self.single, self.fromDirectory]

    def single(self, ca: Path, crl: Path | None) -> ReloadingCertificate:
        own = self.directory / "live" / "own.pem"
        return ReloadingCertificate(own, None, ca, crl, seconds=self.clock.seconds)

    def fromDirectory(self, ca: Path, crl: Path | None) -> CertificateDirectory:
        live = self.directory / "live"
        return CertificateDirectory(live, ca, crl, seconds=self.clock.seconds)

    def meet(
        self, server: IOpenSSLServerConnectionCreator, pems: tuple[bytes, bytes]
    ) -> str:
        client = ServerVerification(
            "localhost", insecure=True, certificate=self.write("client.pem", *pems)
        )
        meeting = Meeting(server, client)
        if meeting.server.data == b"credentials":
            self.assertEqual(meeting.client.data, b"welcome")
            return ""
        assert meeting.server.lost is not None and meeting.client.lost is not None
        self.assertEqual(meeting.client.data, b"")
        self.told = explainTLSFailure(meeting.client.lost, "localhost", client)
        why = whyNoTLS(meeting.server.lost)
        assert why is not None
        return why.message

    def test_revoked(self) -> None:
        """Who is on the list is not let in, and everybody is told why."""
        for make in self.makers:
            server = make(self.ca, self.crl)
            self.assertEqual(self.meet(server, self.good), "")
            self.assertIn("was revoked", self.meet(server, self.bad))
            self.assertIn("certificate", self.told or "")

    def test_without(self) -> None:
        """Without a list nobody is looked up."""
        for make in self.makers:
            self.assertEqual(self.meet(make(self.ca, None), self.bad), "")

    def test_reloaded(self) -> None:
        """A new list is in force a second later."""
        for make in self.makers:
            replace(self.crl, self.authority.revoke())
            server = make(self.ca, self.crl)
            self.assertEqual(self.meet(server, self.good), "")
            replace(self.crl, self.authority.revoke(self.good[0]))
            self.clock.advance(1)
            self.assertIn("was revoked", self.meet(server, self.good))

    def test_damaged(self) -> None:
        """A list that cannot be read leaves the one before in force."""
        for make in self.makers:
            replace(self.crl, self.authority.revoke(self.bad[0]))
            server = make(self.ca, self.crl)
            replace(self.crl, b"-----BEGIN X509 CRL-----\n!\n-----END X509 CRL-----\n")
            self.clock.advance(1)
            with self.problems() as lines:
                self.assertIn("was revoked", self.meet(server, self.bad))
                self.assertEqual(self.meet(server, self.good), "")
            self.assertIn("damaged list", lines[0])

    def test_closed(self) -> None:
        """A list that is out of date, another issuer's or a forgery lets nobody in."""
        past = datetime.now(UTC) - timedelta(hours=2)
        forger = makeAuthority("one")
        for pem, why in (
            (self.authority.revoke(until=past), "out of date"),
            (self.other.revoke(), "no list for the issuer"),
            (forger.revoke(), "signature"),
        ):
            with self.problems():
                server = self.single(self.ca, self.write("wrong.pem", pem))
            self.assertIn(why, self.meet(server, self.good))

    def test_stranger(self) -> None:
        """Whose certificate is of no authority is not let in, list or no list."""
        pems = self.other.issue(["stranger"], client=True)
        for crl in (None, self.crl):
            self.assertIn("--client-c", self.meet(self.single(self.ca, crl), pems))

    def test_outOfDate(self) -> None:
        """Of a list that is out of date the operator is told."""
        past = datetime.now(UTC) - timedelta(hours=2)
        with self.problems() as lines:
            loadRevocations(self.write("old.pem", self.authority.revoke(until=past)))
        self.assertIn("out of date", lines[0])

    def test_files(self) -> None:
        """Lists may be several in a file or a directory; none is an error."""
        one, two = self.authority.revoke(), self.other.revoke()
        self.assertEqual(len(loadRevocations(self.write("both.pem", one, two))), 2)
        self.write("lists/a.crl", one)
        self.write("lists/b.pem", two)
        self.write("lists/notes.txt", b"nothing")
        self.assertEqual(len(loadRevocations(self.directory / "lists")), 2)
        for empty in (self.ca, self.directory / "live"):
            with self.refused("no list of revoked certificates"):
                loadRevocations(empty)
        with self.refused("missing.pem"):
            loadRevocations(self.directory / "missing.pem")
