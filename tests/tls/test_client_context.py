"""Tests for L{tristunnel.tls.client_context} and L{tristunnel.tls.explanation}."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.tls.authority import Authority, certificateOf, makeAuthority
from tests.tls.files import FileTestCase, replace
from tests.tls.handshake import Meeting
from tristunnel.tls.certificates import fingerprint, parseFingerprint, selfSigned
from tristunnel.tls.client_context import CertificateRefused, ServerVerification
from tristunnel.tls.explanation import explainTLSFailure
from tristunnel.tls.server_context import ReloadingCertificate
from tristunnel.wire.invitation import PIN_BYTES


class ClientTestCase(FileTestCase):
    """A test of clients."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = makeAuthority()
        self.trusted = self.authority.write(self.directory / "ca.pem")

    def server(self, *names: str, **options: Any) -> ReloadingCertificate:
        return self.serverOf(self.authority, *names, **options)

    def serverOf(
        self,
        authority: Authority,
        *names: str,
        common: str = "nobody",
        **options: datetime,
    ) -> ReloadingCertificate:
        pem, key = authority.issue(
            names,
            notAfter=options.get("notAfter"),
            notBefore=options.get("notBefore"),
            common=common,
        )
        return ReloadingCertificate(self.write("server.pem", pem, key))

    def accepts(self, server: ReloadingCertificate, client: ServerVerification) -> None:
        meeting = Meeting(server, client)
        self.assertIsNone(meeting.client.lost)
        self.assertEqual(meeting.client.data, b"welcome")
        self.assertEqual(meeting.server.data, b"credentials")
        self.assertEqual(client.seen, server.fingerprint)
        self.assertIsNone(client.refusal)

    def refuses(
        self, server: ReloadingCertificate, client: ServerVerification, *words: str
    ) -> CertificateRefused:
        """Expect that a client refuses a server, before it tells it anything."""
        meeting = Meeting(server, client)
        self.assertFalse(meeting.client.agreed)
        self.assertEqual(meeting.server.data, b"")
        assert meeting.client.lost is not None
        refusal = meeting.client.lost.value
        assert isinstance(refusal, CertificateRefused)
        self.assertIs(client.refusal, refusal)
        self.assertEqual(client.seen, server.fingerprint)
        self.assertEqual(refusal.fingerprint, server.fingerprint)
        explanation = explainTLSFailure(meeting.client.lost, client.hostname, client)
        assert explanation is not None
        self.assertEqual(explanation, str(refusal))
        self.assertEqual(len(explanation.splitlines()), 1)
        for word in words:
            self.assertIn(word, explanation)
        return refusal


class TrustTests(ClientTestCase):
    """Tests for clients that verify chain and name."""

    def test_interface(self) -> None:
        """It is what Twisted's TLS wants for a client."""
        verifyObject(IOpenSSLClientConnectionCreator, ServerVerification("localhost"))

    def test_accepted(self) -> None:
        """A name, a wildcard's name and addresses of the certificate are accepted."""
        server = self.server("a.example", "*.b.example", "192.0.2.1", "2001:db8::1")
        for name in (
            "a.example",
            "A.example.",
            "x.b.example",
            "192.0.2.1",
            "2001:db8::1",
            "[2001:DB8::1]",
        ):
            self.accepts(server, ServerVerification(name, trustRoots=self.trusted))

    def test_international(self) -> None:
        """A name in any script is accepted."""
        server = self.server("xn--bcher-kva.example")
        self.accepts(
            server, ServerVerification("bücher.example", trustRoots=self.trusted)
        )

    def test_wrongName(self) -> None:
        """Other names and addresses are refused, and the certificate's are told."""
        server = self.server("a.example", "*.b.example", "192.0.2.1")
        for name in ("c.example", "x.y.b.example", "192.0.2.2", "::1"):
            refusal = self.refuses(
                server,
                ServerVerification(name, trustRoots=self.trusted),
                "a.example, *.b.example, 192.0.2.1",
                f"not for {name}",
                f"--pin {server.fingerprint}",
            )
            self.assertEqual(refusal.kind, "name")

    def test_manyNames(self) -> None:
        """A certificate for very many names does not fill the log, and one without any
        is refused as well."""
        server = self.server(*(f"n{number}.example" for number in range(50)))
        self.refuses(
            server,
            ServerVerification("a.example", trustRoots=self.trusted),
            "n9.example, 40 more",
        )
        self.refuses(
            self.server(),
            ServerVerification("a.example", trustRoots=self.trusted),
            "only in its common name (nobody)",
        )

    def test_commonName(self) -> None:
        """A certificate whose only name is its common name is refused, for that reason
        and not for another name."""
        for name, kind in (("localhost", "DNS"), ("127.0.0.1", "IP"), ("::1", "IP")):
            explanation = self.refuses(
                self.serverOf(self.authority, common=name),
                ServerVerification(name, trustRoots=self.trusted),
                f"only in its common name ({name})",
                f"subjectAltName={kind}:{name}",
            ).message
            self.assertNotIn("not for", explanation)

    def test_unknownAuthority(self) -> None:
        """A certificate that a stranger signed is refused, with its fingerprint and the
        ways out, whether the stranger's own is sent along or not."""
        stranger = makeAuthority("stranger")
        full = Authority(stranger.certificate, stranger.key, stranger.pem)
        for authority in (stranger, full, stranger.intermediate()):
            for trustRoots, words in (
                (None, "this machine trusts"),
                (self.trusted, str(self.trusted)),
            ):
                server = self.serverOf(authority, "a.example")
                refusal = self.refuses(
                    server,
                    ServerVerification("a.example", trustRoots=trustRoots),
                    words,
                    server.fingerprint,
                    f"--pin {server.fingerprint}",
                    "--ca FILE",
                )
                self.assertEqual(refusal.kind, "issuer")

    def test_selfSigned(self) -> None:
        """A self-signed certificate is refused, unless it is trusted itself; then its
        names count."""
        path = selfSigned(self.directory, ["localhost", "127.0.0.1"])
        server = ReloadingCertificate(path)
        self.refuses(server, ServerVerification("localhost"), "self-signed", "--pin")
        for name in ("localhost", "127.0.0.1"):
            self.accepts(server, ServerVerification(name, trustRoots=path))
        self.refuses(
            server, ServerVerification("a.example", trustRoots=path), "localhost"
        )

    def test_intermediateTrusted(self) -> None:
        """Who trusts only an authority below the root gets just that."""
        intermediate = self.authority.intermediate()
        path = intermediate.write(self.directory / "intermediate.pem")
        client = ServerVerification("a.example", trustRoots=path)
        self.accepts(self.serverOf(intermediate, "a.example"), client)
        client = ServerVerification("a.example", trustRoots=path)
        self.refuses(self.server("a.example"), client, "intermediate.pem")

    def test_time(self) -> None:
        """Certificates are refused after and before their time."""
        now = datetime.now(UTC)
        past, future = now - timedelta(days=2), now + timedelta(days=2)
        client = ServerVerification("a.example", trustRoots=self.trusted)
        refusal = self.refuses(
            self.server("a.example", notAfter=past),
            client,
            "expired on",
            past.strftime("%Y-%m-%d %H:%M"),
            "renew",
        )
        self.assertEqual(refusal.kind, "expired")
        refusal = self.refuses(
            self.server(
                "a.example", notBefore=future, notAfter=future + timedelta(days=1)
            ),
            client,
            "not valid before",
            future.strftime("%Y-%m-%d %H:%M"),
            "clock",
        )
        self.assertEqual(refusal.kind, "not-yet-valid")

    def test_purpose(self) -> None:
        """A certificate for clients is no server's."""
        pem, key = self.authority.issue(["a.example"], client=True)
        server = ReloadingCertificate(self.write("server.pem", pem, key))
        refusal = self.refuses(
            server,
            ServerVerification("a.example", trustRoots=self.trusted),
            "not acceptable",
            "purpose",
        )
        self.assertEqual(refusal.kind, "other")

    def test_incomprehensible(self) -> None:
        """A fault while judging refuses the certificate."""
        server = self.server("a.example")
        client = ServerVerification("a.example", trustRoots=self.trusted)

        def fault(certificate: object) -> None:
            raise ValueError("what is that?")

        self.patch(client, "_checkName", fault)
        self.refuses(server, client, "cannot be read")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_newAuthorities(self) -> None:
        """A new file of authorities counts for later connections."""
        clock = Clock()
        client = ServerVerification(
            "a.example", trustRoots=self.trusted, seconds=clock.seconds
        )
        stranger = makeAuthority("stranger")
        server = self.serverOf(stranger, "a.example")
        self.refuses(server, client)
        replace(self.trusted, stranger.pem)
        clock.advance(1)
        self.accepts(server, client)


class PinTests(ClientTestCase):
    """Tests for clients that know the server's certificate."""

    def test_match(self) -> None:
        """The pinned certificate is accepted whoever signed it, whatever its name, its
        age and the other pins."""
        past = datetime.now(UTC) - timedelta(days=2)
        for server in (
            self.server("b.example"),
            self.server("a.example", notAfter=past),
            self.serverOf(makeAuthority().intermediate(), "b.example"),
            ReloadingCertificate(selfSigned(self.directory / "own", ["localhost"])),
        ):
            pins = [bytes(32), parseFingerprint(server.fingerprint)]
            for name in ("a.example", "192.0.2.1"):
                self.accepts(server, ServerVerification(name, pins=pins))

    def test_invitation(self) -> None:
        """An invitation has the beginning of a fingerprint, which is compared whole; a
        pin of any other length is refused."""
        server = self.server("a.example")
        own = self.serverOf(makeAuthority(), "b.example")
        whole = parseFingerprint(server.fingerprint)
        pin = whole[:PIN_BYTES]
        self.accepts(server, ServerVerification("x.example", pins=[pin]))
        # A program may make errors of them.
        self.assertEqual(self.flushWarnings(), [])
        self.refuses(own, ServerVerification("x.example", pins=[pin]))
        for at in (0, PIN_BYTES - 1):
            wrong = bytearray(pin)
            wrong[at] ^= 1
            self.refuses(server, ServerVerification("a.example", pins=[bytes(wrong)]))
        for size in (0, 1, 16, 18, 20, 31, 33):
            with self.refused("32 bytes"):
                ServerVerification("a.example", pins=[(whole * 2)[:size]])

    def test_mismatch(self) -> None:
        """Any other certificate is refused, even one that is trusted and named right,
        and all fingerprints are told in full."""
        server = self.server("a.example")
        one, two = b"\x01" * 32, b"\x02" * 32
        refusal = self.refuses(
            server,
            ServerVerification("a.example", pins=[one, two], trustRoots=self.trusted),
            one.hex(),
            two.hex(),
            server.fingerprint,
            "--pin",
        )
        self.assertEqual(refusal.kind, "pin")

    def test_onlyTheServersOwn(self) -> None:
        """The pin of an authority does not do for what it signed."""
        authority = Authority(
            self.authority.certificate, self.authority.key, self.authority.pem
        )
        server = self.serverOf(authority, "a.example")
        pin = parseFingerprint(fingerprint(self.authority.certificate))
        self.refuses(server, ServerVerification("a.example", pins=[pin]))

    def test_renewed(self) -> None:
        """A connection that is refused does not spoil the next one."""
        server = self.server("a.example")
        pins = [parseFingerprint(server.fingerprint)]
        client = ServerVerification("a.example", pins=pins)
        self.refuses(self.server("a.example"), client)
        self.accepts(server, client)


class OptionTests(ClientTestCase):
    """Tests for the other options."""

    def test_insecure(self) -> None:
        """A client that verifies nothing accepts anything, and knows what it saw."""
        past = datetime.now(UTC) - timedelta(days=2)
        for server in (
            self.server("b.example", notAfter=past),
            self.serverOf(makeAuthority().intermediate(), "b.example"),
        ):
            self.accepts(server, ServerVerification("a.example", insecure=True))

    def test_contradictions(self) -> None:
        """Options that contradict each other, and wrong values, are refused."""
        with self.refused("insecure", "--pin"):
            ServerVerification("a.example", insecure=True, pins=[bytes(32)])
        with self.refused("insecure", "--ca"):
            ServerVerification("a", insecure=True, trustRoots=self.trusted)
        with self.refused("32 bytes"):
            ServerVerification("a.example", pins=[bytes(20)])
        with self.refused("'a b'"):
            ServerVerification("a b")
        with self.refused("key.pem", "without a certificate"):
            ServerVerification("a.example", privateKey="key.pem")
        with self.refused("none.pem", "does not exist"):
            ServerVerification("a.example", trustRoots="none.pem")
        with self.refused("none.pem", "does not exist"):
            ServerVerification("a.example", certificate="none.pem")


class ExplainTLSFailureTests(ClientTestCase):
    """Tests for L{explainTLSFailure} when the server is the one who refuses, or speaks
    no TLS."""

    def explain(
        self, server: ReloadingCertificate | None, client: ServerVerification
    ) -> str:
        meeting = Meeting(server, client)
        self.assertNotEqual(meeting.client.data, b"welcome")
        assert meeting.client.lost is not None
        explanation = explainTLSFailure(meeting.client.lost, "a.example", client)
        assert explanation is not None
        self.assertEqual(len(explanation.splitlines()), 1)
        return explanation

    def test_noTLS(self) -> None:
        """A server that answers in clear text."""
        client = ServerVerification("a.example")
        self.assertIn("tcp:a.example:PORT", self.explain(None, client))

    def test_clientCertificate(self) -> None:
        """A server that wants a certificate and gets none, or a wrong one."""
        path = selfSigned(self.directory, ["a.example"])
        server = ReloadingCertificate(path, clientCA=self.trusted)
        client = ServerVerification("a.example", trustRoots=path)
        self.assertIn("--certificate FILE", self.explain(server, client))
        past = datetime.now(UTC) - timedelta(days=2)
        for pems in (
            makeAuthority("stranger").issue(["me"], client=True),
            self.authority.issue(["me"], past, client=True),
            self.authority.issue(["me"]),
        ):
            client = ServerVerification(
                "a.example", trustRoots=path, certificate=self.write("me.pem", *pems)
            )
            self.assertIn("does not accept", self.explain(server, client))
        pem, key = self.authority.issue(["me"], client=True)
        client = ServerVerification(
            "a.example",
            trustRoots=path,
            certificate=self.write("me.pem", pem),
            privateKey=self.write("key.pem", key),
        )
        self.accepts(server, client)

    def test_reasons(self) -> None:
        """What OpenSSL says in its many ways has an explanation."""
        client = ServerVerification("a.example")
        own = self.write("me.pem", *self.authority.issue(["me"], client=True))
        showing = ServerVerification("a.example", certificate=own)
        for reason, creator, word in (
            ("wrong version number", client, "tcp:a.example:PORT"),
            ("record layer failure", client, "tcp:a.example:PORT"),
            ("http request", None, "tcp:a.example:PORT"),
            ("tlsv1 alert protocol version", client, "TLS 1.2"),
            ("unsupported protocol", client, "TLS 1.2"),
            ("sslv3 alert handshake failure", client, "probably requires"),
            ("ssl/tls alert handshake failure", showing, "does not accept"),
            ("tlsv13 alert certificate required", client, "--certificate FILE"),
            ("sslv3 alert bad certificate", showing, "does not accept"),
            ("tlsv1 unrecognized name", client, "unrecognized name"),
            ("tlsv1 alert unrecognized name", client, "no certificate for that"),
            ("something new", client, "failed: something new."),
        ):
            failure = Failure(SSL.Error([("SSL routines", "", reason)]))
            explanation = explainTLSFailure(failure, "a.example", creator)
            self.assertIn(word, str(explanation), reason)

    def test_silent(self) -> None:
        """A server that hangs up before it showed a certificate perhaps speaks no TLS;
        one that showed one before is not suspected."""
        client = ServerVerification("a.example", trustRoots=self.trusted)
        lost = Failure(ConnectionLost())
        self.assertIsNone(explainTLSFailure(lost, "a.example", client))
        Meeting(None, client)
        self.assertIn(
            "tcp:a.example:PORT", str(explainTLSFailure(lost, "a.example", client))
        )
        self.accepts(self.server("a.example"), client)
        self.assertIsNone(explainTLSFailure(lost, "a.example", client))

    def test_rememberedRefusal(self) -> None:
        """The creator knows why it refused, when the failure does not."""
        client = ServerVerification("a.example")
        Meeting(self.server("a.example"), client)
        failure = Failure(SSL.Error([("", "", "certificate verify failed")]))
        self.assertIn("--pin", str(explainTLSFailure(failure, "a.example", client)))

    def test_otherFailures(self) -> None:
        """Nothing is said about failures that are not of TLS."""
        client = ServerVerification("a.example")
        for value in (
            ConnectionRefusedError(),
            ValueError("x"),
            SSL.SysCallError(-1, "Unexpected EOF"),
        ):
            self.assertIsNone(explainTLSFailure(Failure(value), "a.example", client))

    def test_issuedName(self) -> None:
        """Control characters in a certificate's name do not reach the log."""
        pem, key = self.authority.issue(["a.example\n\x1b[31mb"])
        self.assertIn("\n", str(certificateOf(pem).subject.rfc4514_string()))
        server = ReloadingCertificate(self.write("server.pem", pem, key))
        meeting = Meeting(
            server, ServerVerification("b.example", trustRoots=self.trusted)
        )
        assert meeting.client.lost is not None
        text = str(meeting.client.lost.value)
        self.assertTrue(text.isprintable(), repr(text))
