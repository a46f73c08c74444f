"""The answers that an authority gets, and that nobody else can put there."""

from __future__ import annotations

import os
import time

from cryptography import x509

from tests.tls.files import FileTestCase
from tristunnel.acme.challenges import Answers
from tristunnel.errors import TunnelError
from tristunnel.names.public import CHALLENGES
from tristunnel.tls.pem import loadOwnCertificate


class AnswersTests(FileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.answers = Answers(self.directory / "challenges")

    def test_http(self) -> None:
        """What was put there is answered, until it is removed."""
        self.answers.put("token-1_A", b"token-1_A.thumb")
        self.assertEqual(
            self.answers.get(CHALLENGES + b"token-1_A"), b"token-1_A.thumb"
        )
        self.answers.remove("token-1_A")
        self.answers.remove("token-1_A")
        self.assertIsNone(self.answers.get(CHALLENGES + b"token-1_A"))

    def test_noPath(self) -> None:
        """A visitor reads no other file by any path."""
        secret = self.directory / "secret"
        secret.write_bytes(b"secret")
        self.answers.put("token", b"answer")
        self.answers.putCertificate("a.example", b"\x04\x00")
        for path in (
            *("../secret", "%2e%2e/secret", "..", ".", "", "/", "a.example.pem"),
            *("token/", "token?x", "tok\x00en", "x" * 129, str(secret), "t\xf6ken"),
        ):
            self.assertIsNone(self.answers.get(CHALLENGES + path.encode("latin-1")))
        self.assertIsNone(self.answers.get(b"/token"))

    def test_noToken(self) -> None:
        """An authority cannot have a file written elsewhere."""
        for token in ("../secret", "a/b", "", "x" * 129, "a.pem", "t\n"):
            with self.assertRaises(TunnelError):
                self.answers.put(token, b"answer")

    def test_certificate(self) -> None:
        """The certificate has the digest, critical, and is for that name alone."""
        self.answers.putCertificate("a.example", b"\x04\x02ab")
        self.assertIsNotNone(self.answers.contextFor("A.example"))
        for name in ("b.example", "../challenges/a.example", "", "192.0.2.1"):
            self.assertIsNone(self.answers.contextFor(name))
        path = self.directory / "challenges" / "a.example.pem"
        certificate = loadOwnCertificate(path, path).certificate
        found = certificate.extensions.get_extension_for_oid(
            x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
        )
        self.assertTrue(found.critical)
        assert isinstance(found.value, x509.UnrecognizedExtension)
        self.assertEqual(found.value.value, b"\x04\x02ab")
        self.answers.removeCertificate("a.example")
        self.assertIsNone(self.answers.contextFor("a.example"))

    def test_leftBehind(self) -> None:
        """What an ended process has left is removed once it is old."""
        self.answers.clean()
        self.answers.put("old", b"")
        self.answers.put("new", b"")
        path = self.directory / "challenges" / "old"
        os.utime(path, (time.time() - 7200,) * 2)
        self.answers.clean()
        self.assertIsNone(self.answers.get(CHALLENGES + b"old"))
        self.assertIsNotNone(self.answers.get(CHALLENGES + b"new"))
